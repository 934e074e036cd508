"""What answers, one module a noun of the paths (`docs/rest.md`, sections 4 and 5)."""
