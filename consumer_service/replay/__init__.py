"""Rejected messages once more through the pipeline: `aggregator-consumer replay` (`docs/replay.md`)."""
