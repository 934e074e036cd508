"""Rows that nobody needs any more go: `aggregator-consumer prune` (`docs/chores.md`)."""
