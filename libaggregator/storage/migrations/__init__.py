"""The steps of `aggregator-consumer migrate`, applied in the order of their numbers."""
