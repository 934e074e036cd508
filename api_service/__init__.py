"""The API: answers questions about stored results, and writes nothing."""
