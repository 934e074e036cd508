"""The tables, the way to a database, and the steps that make the schema (`docs/schema.md`)."""
