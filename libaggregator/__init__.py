"""What the consumer and the API share: settings, the consumed format, the schema, logs and health."""
