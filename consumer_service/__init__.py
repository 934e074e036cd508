"""The consumer: reads messages from a source and stores the newest result of every cluster."""
