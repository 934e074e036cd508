"""What tests start, wait for and clean up: brokers, databases, processes."""
