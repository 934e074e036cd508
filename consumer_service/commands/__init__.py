"""The commands of `aggregator-consumer` beside `run`: options, messages and exit statuses, a module each."""
