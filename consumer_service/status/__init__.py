"""What an operator wants to know at a glance: `aggregator-consumer status` (`docs/chores.md`)."""
