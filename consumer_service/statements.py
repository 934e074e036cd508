"""The SQL that stores results, each statement with what it is for; the same for every engine.

`%s` marks a parameter. Names in braces stand for what an engine puts there (`consumer_service/engines`): `{wanted}`
for a query that gives the rows of parameters, `{rows}` for the rows that an INSERT takes, `{for_update}` for the lock
on the rows of `report` that are read, `{unless_locked}` for a lock on those that nobody else has locked, without the
others, `{text_of_length}` for a report's text if it has as many bytes as the one that came, else NULL, and
`{short_details}` for `template_data` where it is short, else NULL.
"""

from typing import NamedTuple

INTEGER_BYTES = {"smallint": 2, "integer": 4, "bigint": 8}
"""Types of columns that hold integers, with the bytes of each."""


class Table(NamedTuple):
    """A table as rows for it are given: its columns in their order, with their types."""

    name: str
    columns: dict[str, str]
    long_text: str | None = None
    """The column with long texts, of which hardly two are equal; they may be given as parts of a payload."""

    @property
    def column_list(self) -> str:
        """The names of the columns, as statements list them."""
        return ", ".join(self.columns)


class Query(NamedTuple):
    """A SELECT, and which of its columns is a time."""

    text: str
    time_at: int | None = None


class Upsert(NamedTuple):
    """An INSERT that changes the rows that are there already; `name` says what is done to them."""

    name: str
    table: Table
    text: str

    @property
    def incoming(self) -> Table:
        """A table for the rows on their way."""
        return self.table._replace(name=f"incoming_{self.name}")


REPORT = Table(
    "report",
    {
        "org_id": "bigint",
        "cluster": "varchar",
        "report": "varchar",
        "reported_at": "timestamp",
        "last_checked_at": "timestamp",
        "gathered_at": "timestamp",
        "kafka_offset": "bigint",
    },
    long_text="report",
)
RULE_HIT = Table(
    "rule_hit",
    {
        "org_id": "bigint",
        "cluster_id": "varchar",
        "rule_fqdn": "varchar",
        "error_key": "varchar",
        "template_data": "varchar",
        "created_at": "timestamp",
    },
    long_text="template_data",
)
RECOMMENDATION = Table(
    "recommendation",
    {
        "org_id": "bigint",
        "cluster_id": "varchar",
        "rule_fqdn": "varchar",
        "error_key": "varchar",
        "rule_id": "varchar",
        "created_at": "timestamp",
        "impacted_since": "timestamp",
    },
)
REPORT_INFO = Table("report_info", {"org_id": "bigint", "cluster_id": "varchar", "version_info": "varchar"})
CONSUMER_ERROR = Table(
    "consumer_error",
    {
        "topic": "varchar",
        "partition": "integer",
        "topic_offset": "bigint",
        "key": "varchar",
        "produced_at": "timestamp",
        "consumed_at": "timestamp",
        "message": "varchar",
        "error": "varchar",
    },
    long_text="message",
)

INSERT = "INSERT INTO {table} ({columns}) {rows}"
COPY = "COPY {table} ({columns}) FROM STDIN (FORMAT binary)"
SELECT = "SELECT {columns} FROM {table}"
LOOK_AT_COLUMNS = "SELECT {columns} FROM {table} LIMIT 0"
"""For any of the tables above."""

UNNEST = "SELECT * FROM unnest({arrays})"
"""Rows of parameters, given as an array for each column."""

BEGIN_WRITING = """
SET LOCAL lock_timeout = '5s';
SET LOCAL enable_seqscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL max_parallel_workers_per_gather = 0;
SET LOCAL jit = off
"""
"""Who waits for a lock takes no part in a rebalance, which the whole group then waits for: it tries again instead.
Each statement below finds the rows of some clusters by an index. While tables grow quickly, PostgreSQL takes them
for small ones, and would read them as a whole."""

KEEP_WRITERS_OUT = "SET LOCAL lock_timeout = '1s'; LOCK TABLE report IN EXCLUSIVE MODE"
"""Writers begin by locking rows of `report`, also those that find none. They queue behind whoever waits for this."""

LOCK_REPORTS = Query(
    """
WITH wanted (cluster, text_bytes) AS ({wanted})
SELECT report.cluster, report.org_id, report.last_checked_at, {text_of_length}
FROM wanted JOIN report ON report.cluster = wanted.cluster
ORDER BY report.cluster
{for_update}
""",
    time_at=2,
)
"""Newest stored result of each cluster; its row stays locked until the end of the transaction.

A hash instead of the text would be less to send, but takes the server longer than sending does.
"""

READ_HITS = Query(
    """
WITH wanted (cluster_id) AS ({wanted})
SELECT rule_hit.cluster_id, rule_hit.org_id, rule_hit.rule_fqdn, rule_hit.error_key, rule_hit.created_at,
    {short_details}
FROM wanted JOIN rule_hit ON rule_hit.cluster_id = wanted.cluster_id
""",
    time_at=4,
)
"""Stored hits of each cluster, of whatever organization."""

READ_RECOMMENDATIONS = Query(
    """
WITH wanted (org_id, cluster_id) AS ({wanted})
SELECT recommendation.cluster_id, recommendation.org_id, recommendation.rule_fqdn, recommendation.error_key,
    recommendation.impacted_since
FROM wanted JOIN recommendation
    ON recommendation.org_id = wanted.org_id AND recommendation.cluster_id = wanted.cluster_id
""",
    time_at=4,
)
"""Stored recommendations of each cluster; no index finds them without the organization."""

MOVE_RECOMMENDATIONS_ON = "UPDATE recommendation SET created_at = %s WHERE org_id = %s AND cluster_id = %s"
"""`created_at` moves with every report."""

FILL_RULE_IDS = """
UPDATE recommendation SET rule_id = rule_fqdn || '|' || error_key
WHERE org_id = %s AND cluster_id = %s AND rule_id <> rule_fqdn || '|' || error_key
"""
"""Where other components left it at its default. On its own, since SQLite writes the index anew for any value."""

MOVE_AND_READ_RECOMMENDATIONS = Query(
    """
WITH wanted (org_id, cluster_id) AS ({wanted})
UPDATE recommendation SET created_at = %s, rule_id = rule_fqdn || '|' || error_key
FROM wanted
WHERE recommendation.org_id = wanted.org_id AND recommendation.cluster_id = wanted.cluster_id
RETURNING recommendation.cluster_id, recommendation.org_id, recommendation.rule_fqdn, recommendation.error_key,
    recommendation.impacted_since
"""
)
"""All of the above at once, on PostgreSQL."""

MEASURE_HITS = Query(
    """
WITH wanted (cluster_id) AS ({wanted})
SELECT rule_hit.cluster_id, min(org_id), max(org_id), count(*), count(created_at),
    sum(octet_length(rule_fqdn) + octet_length(error_key) + octet_length(template_data))
FROM wanted JOIN rule_hit ON rule_hit.cluster_id = wanted.cluster_id
GROUP BY rule_hit.cluster_id
"""
)
"""Organizations, rows, times and bytes of each cluster's hits, on PostgreSQL."""

MOVE_AND_MEASURE_RECOMMENDATIONS = Query(
    """
WITH wanted (org_id, cluster_id) AS ({wanted}), moved AS (
    UPDATE recommendation SET created_at = %s, rule_id = rule_fqdn || '|' || error_key
    FROM wanted
    WHERE recommendation.org_id = wanted.org_id AND recommendation.cluster_id = wanted.cluster_id
    RETURNING recommendation.cluster_id, recommendation.org_id, recommendation.impacted_since,
        octet_length(rule_fqdn) + octet_length(error_key) AS key_bytes
)
SELECT cluster_id, min(org_id), max(org_id), count(*), count(impacted_since), sum(key_bytes)
FROM moved
GROUP BY cluster_id
"""
)
"""Moves recommendations on and tells what they measure, on PostgreSQL."""

READ_VERSIONS = Query(
    """
WITH wanted (cluster_id) AS ({wanted})
SELECT report_info.cluster_id, report_info.org_id, report_info.version_info
FROM wanted JOIN report_info ON report_info.cluster_id = wanted.cluster_id
""",
)

CHANGE_REPORTS = Upsert(
    "change_reports",
    REPORT,
    """
INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at, gathered_at, kafka_offset) {rows}
ON CONFLICT (cluster) DO UPDATE SET
    org_id = excluded.org_id,
    report = excluded.report,
    reported_at = excluded.reported_at,
    last_checked_at = excluded.last_checked_at,
    gathered_at = excluded.gathered_at,
    kafka_offset = excluded.kafka_offset
WHERE report.last_checked_at IS NULL OR report.last_checked_at < excluded.last_checked_at
""",
)
"""The row is never deleted: votes hang on it. The condition holds even if the fold read something else."""

REFRESH_REPORTS = Upsert(
    "refresh_reports",
    REPORT,
    """
INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at, gathered_at, kafka_offset) {rows}
ON CONFLICT (cluster) DO UPDATE SET
    org_id = excluded.org_id,
    reported_at = excluded.reported_at,
    last_checked_at = excluded.last_checked_at,
    gathered_at = excluded.gathered_at,
    kafka_offset = excluded.kafka_offset
WHERE report.last_checked_at IS NULL OR report.last_checked_at < excluded.last_checked_at
""",
)
"""Of rows that are there and locked: their text stays, so that it need not be sent."""

DELETE_HITS = "DELETE FROM rule_hit WHERE (org_id, cluster_id, rule_fqdn, error_key) IN ({wanted})"

CHANGE_HITS = Upsert(
    "change_hits",
    RULE_HIT,
    """
INSERT INTO rule_hit (org_id, cluster_id, rule_fqdn, error_key, template_data, created_at) {rows}
ON CONFLICT (cluster_id, org_id, rule_fqdn, error_key) DO UPDATE SET
    template_data = excluded.template_data,
    created_at = excluded.created_at
WHERE rule_hit.template_data <> excluded.template_data
    OR rule_hit.created_at IS NULL
    OR rule_hit.created_at <> excluded.created_at
""",
)
"""Long details were not read, so that they are compared only here."""

DELETE_RECOMMENDATIONS = "DELETE FROM recommendation WHERE (org_id, cluster_id, rule_fqdn, error_key) IN ({wanted})"

CHANGE_RECOMMENDATIONS = """
UPDATE recommendation SET impacted_since = %s
WHERE org_id = %s AND cluster_id = %s AND rule_fqdn = %s AND error_key = %s
"""

CHANGE_VERSIONS = Upsert(
    "change_versions",
    REPORT_INFO,
    """
INSERT INTO report_info (org_id, cluster_id, version_info) {rows}
ON CONFLICT (cluster_id) DO UPDATE SET
    org_id = excluded.org_id,
    version_info = excluded.version_info
""",
)

MOVE_CHOICES = (
    "UPDATE cluster_rule_toggle SET org_id = %s WHERE cluster_id = %s",
    "UPDATE cluster_user_rule_disable_feedback SET org_id = %s WHERE cluster_id = %s",
    "UPDATE cluster_rule_user_feedback SET org_id = %s WHERE cluster_id = %s",
)
"""What users chose for a cluster moves with it; the organization is text in these tables."""

STORE_ERRORS = Upsert(
    "store_errors",
    CONSUMER_ERROR,
    """
INSERT INTO consumer_error (topic, partition, topic_offset, key, produced_at, consumed_at, message, error) {rows}
ON CONFLICT (topic, partition, topic_offset) DO UPDATE SET
    key = excluded.key,
    produced_at = excluded.produced_at,
    consumed_at = excluded.consumed_at,
    message = excluded.message,
    error = excluded.error
""",
)
"""The newest rejection wins: a topic that was made anew uses its offsets again."""

FIND_ERRORS = """
SELECT topic, partition, topic_offset, coalesce(length(message), 0) + coalesce(length(key), 0)
FROM consumer_error
WHERE (topic, partition, topic_offset) > (%s, %s, %s){only}
ORDER BY topic, partition, topic_offset
LIMIT %s
"""
"""The next rows after a place, `{only}` those that were asked for, with the characters of key and message."""

COUNT_ERRORS = "SELECT count(*) FROM consumer_error WHERE TRUE{only}"

READ_ERRORS = Query(
    """
WITH wanted (topic, partition, topic_offset, size) AS ({wanted})
SELECT consumer_error.topic, consumer_error.partition, consumer_error.topic_offset, key, produced_at, consumed_at,
    message, error
FROM wanted CROSS JOIN consumer_error
WHERE consumer_error.topic = wanted.topic
    AND consumer_error.partition = wanted.partition
    AND consumer_error.topic_offset = wanted.topic_offset
    AND coalesce(length(message), 0) + coalesce(length(key), 0) = wanted.size
ORDER BY consumer_error.topic, consumer_error.partition, consumer_error.topic_offset
"""
)
"""Rows of some places. The size bounds what is read: the row may be another one than the one that was looked for.

CROSS JOIN has SQLite look up each place, where it would read the whole table for each page.
"""

DELETE_ERRORS = """
WITH wanted (topic, partition, topic_offset, consumed_at, error) AS ({wanted})
DELETE FROM consumer_error
WHERE (topic, partition, topic_offset, consumed_at, error) IN (
    SELECT CAST(topic AS varchar), CAST(partition AS integer), CAST(topic_offset AS bigint), consumed_at, error
    FROM wanted
)
"""
"""Rows that are still as they were read: a consumer may have written others at the same places.

SQLite finds them by the primary key only if the values have the types of its columns.
"""

RENEW_ERRORS = """
UPDATE consumer_error SET error = %s
WHERE topic = %s AND partition = %s AND topic_offset = %s AND consumed_at = %s AND error = %s
"""
"""What is wrong with a message may change with the settings; its row stays the one that it was."""
