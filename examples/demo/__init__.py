"""The demo: every part of the project on one machine, started by `make demo`."""
