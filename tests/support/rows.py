"""Rows of any table, of which a test says no more than it is about."""

from datetime import datetime
from typing import Any

from peewee import Database

from tests.support.messages import CLUSTERS

CLUSTER = CLUSTERS[0]
OLD = datetime(2026, 4, 1, 12, 0, 0, 123456)
"""When rows were made, if a test does not say."""
OF_CLUSTERS = ("report", "rule_hit", "recommendation", "report_info")
"""The tables of what the consumer keeps of a cluster."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "report": {"org_id": 1, "cluster": CLUSTER, "report": "{}", "reported_at": OLD, "last_checked_at": OLD},
    "rule_hit": {
        "org_id": 1,
        "cluster_id": CLUSTER,
        "rule_fqdn": "a.report",
        "error_key": "K",
        "template_data": "1",
        "created_at": OLD,
    },
    "recommendation": {
        "org_id": 1,
        "cluster_id": CLUSTER,
        "rule_fqdn": "a",
        "error_key": "K",
        "rule_id": "a|K",
        "created_at": OLD,
        "impacted_since": OLD,
    },
    "report_info": {"org_id": 1, "cluster_id": CLUSTER, "version_info": "4.16.3"},
    "consumer_error": {
        "topic": "results",
        "partition": 0,
        "topic_offset": 0,
        "produced_at": OLD,
        "consumed_at": OLD,
        "message": "bad",
        "error": "not_json: bad",
    },
    "cluster_rule_toggle": {"cluster_id": CLUSTER, "rule_id": "a.report", "disabled": 1, "updated_at": OLD},
    "cluster_user_rule_disable_feedback": {
        "cluster_id": CLUSTER,
        "user_id": "u",
        "rule_id": "a.report",
        "message": "why",
        "added_at": OLD,
        "updated_at": OLD,
    },
    "cluster_rule_user_feedback": {
        "cluster_id": CLUSTER,
        "rule_id": "a.report",
        "user_id": "u",
        "message": "",
        "user_vote": 1,
        "added_at": OLD,
        "updated_at": OLD,
    },
    "rule_disable": {"org_id": "1", "rule_id": "a.report", "error_key": "K", "created_at": OLD},
    "advisor_ratings": {"org_id": "1", "rule_fqdn": "a", "error_key": "K", "rating": 1},
}


def add(database: Database, table: str, **values: Any) -> None:
    """Insert a row; what is not given is as short as it can be."""
    row = {**_DEFAULTS[table], **values}
    marks = ", ".join([database.param] * len(row))
    database.execute_sql(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))


def add_cluster(database: Database, cluster: str = CLUSTER, seen: datetime | None = OLD, **values: Any) -> None:
    """Insert all that the consumer keeps of a cluster."""
    add(database, "report", cluster=cluster, **{"reported_at": seen, "last_checked_at": seen, **values})
    for table in OF_CLUSTERS[1:]:
        add(database, table, cluster_id=cluster)
