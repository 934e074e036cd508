"""The SQL of pruning, the same for every engine; names in braces are those of `consumer_service/statements.py`.

Tables are gone through by their keys, in pages: no index has a time in it, and none may (`docs/schema.md`, section 5).
"""

from dataclasses import dataclass

from consumer_service.statements import Query

COUNT_REPORTS = "SELECT count(*) FROM report"

FIND_REPORTS = """
SELECT cluster, org_id, coalesce(reported_at, last_checked_at) < %s
FROM report
WHERE cluster > %s
ORDER BY cluster
LIMIT %s
"""
"""The next clusters after one, and whether they were seen before an instant: NULL if nobody knows."""

LOCK_OLD_REPORTS = Query(
    """
WITH wanted (cluster) AS ({wanted})
SELECT report.cluster, report.org_id
FROM wanted JOIN report ON report.cluster = wanted.cluster
WHERE coalesce(report.reported_at, report.last_checked_at) < %s
ORDER BY report.cluster
{unless_locked}
"""
)
"""Clusters that still were not seen since, and are in nobody's hands; their rows stay locked, votes can't come."""

FIND_VOTED = Query(
    """
WITH wanted (cluster_id) AS ({wanted})
SELECT DISTINCT wanted.cluster_id
FROM wanted JOIN cluster_rule_user_feedback ON cluster_rule_user_feedback.cluster_id = wanted.cluster_id
"""
)
"""Clusters with votes. To be asked after locking: a vote that came in between is seen by a later statement alone."""

_COUNT = "SELECT count(*) FROM {table} WHERE {condition}"
_DELETE = "DELETE FROM {table} WHERE {condition}"
_WITHOUT_REPORT = "NOT EXISTS (SELECT 1 FROM report WHERE report.cluster = {table}.cluster_id)"


@dataclass(frozen=True, slots=True)
class Doomed:
    """Rows of a table that go, as a condition with `{wanted}`."""

    table: str
    condition: str

    @property
    def count(self) -> Query:
        """How many there are; in parts, where an engine takes its parameters in parts."""
        return Query(_COUNT.format(table=self.table, condition=self.condition))

    @property
    def delete(self) -> str:
        """What deletes them."""
        return _DELETE.format(table=self.table, condition=self.condition)


REPORTS = Doomed("report", "cluster IN ({wanted})")
HITS = Doomed("rule_hit", "cluster_id IN ({wanted})")
VERSIONS = Doomed("report_info", "cluster_id IN ({wanted})")
OF_CLUSTERS = (REPORTS, HITS, VERSIONS)
"""What a cluster has, of whatever organization; `report` first, as writers do it."""

RECOMMENDATIONS = Doomed("recommendation", "(org_id, cluster_id) IN ({wanted})")
"""The same; no index finds them without the organization, so that those of another one are found as left-over rows."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Rows of a table whose cluster has no row in `report`."""

    table: str
    first: tuple[object, ...]
    """Comes before every key."""
    find: str
    """The clusters of the next rows after a key."""
    without_report: Query
    """Those of some keys whose cluster has no report."""
    old: Doomed
    """Rows of some keys that were stored before an instant, if the table has a time."""
    has_time: bool
    would_be: Query | None = None
    """As `without_report`, once the reports from before an instant are gone; None: what they leave is nothing."""

    @property
    def delete(self) -> str:
        """Delete the old ones of some keys, if there still is no report."""
        return f"{self.old.delete} AND {_WITHOUT_REPORT.format(table=self.table)}"


_BY_CLUSTER = """
SELECT DISTINCT cluster_id
FROM (SELECT cluster_id FROM {table} WHERE cluster_id > %s ORDER BY cluster_id LIMIT %s) AS page
ORDER BY cluster_id
"""

_BY_OWNER = """
SELECT DISTINCT org_id, cluster_id
FROM (
    SELECT org_id, cluster_id FROM {table} WHERE (org_id, cluster_id) > (%s, %s) ORDER BY org_id, cluster_id LIMIT %s
) AS page
ORDER BY org_id, cluster_id
"""

_CLUSTERS_WITHOUT_REPORT = Query(
    """
WITH wanted (cluster_id) AS ({wanted})
SELECT wanted.cluster_id
FROM wanted LEFT JOIN report ON report.cluster = wanted.cluster_id
WHERE report.cluster IS NULL
"""
)

_OWNERS_WITHOUT_REPORT = Query(
    """
WITH wanted (org_id, cluster_id) AS ({wanted})
SELECT wanted.org_id, wanted.cluster_id
FROM wanted LEFT JOIN report ON report.cluster = wanted.cluster_id
WHERE report.cluster IS NULL
"""
)

_OWNERS_THAT_WOULD_BE = Query(
    """
WITH wanted (org_id, cluster_id) AS ({wanted})
SELECT wanted.org_id, wanted.cluster_id
FROM wanted LEFT JOIN report ON report.cluster = wanted.cluster_id
WHERE report.cluster IS NULL
    OR (
        report.org_id <> wanted.org_id
        AND coalesce(report.reported_at, report.last_checked_at) < %s
        AND NOT EXISTS (
            SELECT 1 FROM cluster_rule_user_feedback WHERE cluster_rule_user_feedback.cluster_id = report.cluster
        )
    )
"""
)

_STORED_BEFORE = "(created_at IS NULL OR created_at < %s)"

LEFT_HITS = Leftover(
    "rule_hit",
    ("",),
    _BY_CLUSTER.format(table="rule_hit"),
    _CLUSTERS_WITHOUT_REPORT,
    Doomed("rule_hit", f"{HITS.condition} AND {_STORED_BEFORE}"),
    has_time=True,
)
LEFT_RECOMMENDATIONS = Leftover(
    "recommendation",
    (-1, ""),
    _BY_OWNER.format(table="recommendation"),
    _OWNERS_WITHOUT_REPORT,
    Doomed("recommendation", f"{RECOMMENDATIONS.condition} AND {_STORED_BEFORE}"),
    has_time=True,
    would_be=_OWNERS_THAT_WOULD_BE,
)
LEFT_VERSIONS = Leftover(
    "report_info",
    ("",),
    _BY_CLUSTER.format(table="report_info"),
    _CLUSTERS_WITHOUT_REPORT,
    VERSIONS,
    has_time=False,
)
LEFTOVERS = (LEFT_HITS, LEFT_RECOMMENDATIONS, LEFT_VERSIONS)

COUNT_ERRORS = "SELECT count(*) FROM consumer_error"

FIND_ERRORS = """
SELECT topic, partition, topic_offset, consumed_at < %s
FROM consumer_error
WHERE (topic, partition, topic_offset) > (%s, %s, %s)
ORDER BY topic, partition, topic_offset
LIMIT %s
"""
"""The next rows after a place, and whether they are older than an instant."""

DELETE_ERRORS = """
DELETE FROM consumer_error
WHERE (topic, partition, topic_offset) > (%s, %s, %s) AND (topic, partition, topic_offset) <= (%s, %s, %s)
    AND consumed_at < %s
"""
"""Old rows between two places; one that a consumer replaces meanwhile is new."""
