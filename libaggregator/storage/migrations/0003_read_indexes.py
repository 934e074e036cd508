"""The three indexes that reads need (`docs/schema.md`, section 5)."""

from typing import Any

from peewee import Database

INDEXES = (
    "CREATE INDEX recommendation_org_id_rule_id_idx ON recommendation (org_id, rule_id)",
    "CREATE INDEX cluster_rule_toggle_org_id_rule_id_error_key_idx ON cluster_rule_toggle (org_id, rule_id, error_key)",
    "CREATE INDEX cluster_user_rule_disable_feedback_user_id_idx ON cluster_user_rule_disable_feedback (user_id)",
)


def up(migrator: Any, database: Database) -> None:
    """Make the indexes."""
    for statement in INDEXES:
        database.execute_sql(statement)
