"""The SQL that stores results, each statement with what it is for. Form: `consumer_service/engines.py`."""

LOCK_REPORTS = """
WITH wanted (cluster) AS (VALUES {rows})
SELECT report.cluster, report.org_id, report.last_checked_at
FROM wanted JOIN report ON report.cluster = wanted.cluster
ORDER BY report.cluster
{for_update}
"""
"""Newest stored result of each cluster; its row stays locked until the end of the transaction."""

READ_HITS = """
WITH wanted (cluster_id) AS (VALUES {rows})
SELECT rule_hit.cluster_id, rule_hit.org_id, rule_hit.rule_fqdn, rule_hit.error_key, rule_hit.created_at
FROM wanted JOIN rule_hit ON rule_hit.cluster_id = wanted.cluster_id
"""
"""Stored hits of each cluster, of whatever organization."""

READ_RECOMMENDATIONS = """
WITH wanted (org_id, cluster_id) AS (VALUES {rows})
SELECT recommendation.cluster_id, recommendation.org_id, recommendation.rule_fqdn, recommendation.error_key,
    recommendation.impacted_since
FROM wanted JOIN recommendation
    ON recommendation.org_id = wanted.org_id AND recommendation.cluster_id = wanted.cluster_id
"""
"""Stored recommendations of each cluster; no index finds them without the organization."""

STORE_REPORTS = """
INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at, gathered_at, kafka_offset)
VALUES {rows}
ON CONFLICT (cluster) DO UPDATE SET
    org_id = excluded.org_id,
    report = excluded.report,
    reported_at = excluded.reported_at,
    last_checked_at = excluded.last_checked_at,
    gathered_at = excluded.gathered_at,
    kafka_offset = excluded.kafka_offset
WHERE report.last_checked_at IS NULL OR report.last_checked_at < excluded.last_checked_at
"""
"""The row is never deleted: votes hang on it. The condition holds even if the fold read something else."""

DELETE_HITS = """
DELETE FROM rule_hit WHERE org_id = %s AND cluster_id = %s AND rule_fqdn = %s AND error_key = %s
"""

STORE_HITS = """
INSERT INTO rule_hit (org_id, cluster_id, rule_fqdn, error_key, template_data, created_at)
VALUES {rows}
ON CONFLICT (cluster_id, org_id, rule_fqdn, error_key) DO UPDATE SET
    template_data = excluded.template_data,
    created_at = excluded.created_at
WHERE rule_hit.template_data <> excluded.template_data
    OR rule_hit.created_at IS NULL
    OR rule_hit.created_at <> excluded.created_at
"""
"""A hit that stayed as it was is not written again."""

DELETE_RECOMMENDATIONS = """
DELETE FROM recommendation WHERE org_id = %s AND cluster_id = %s AND rule_fqdn = %s AND error_key = %s
"""

STORE_RECOMMENDATIONS = """
INSERT INTO recommendation (org_id, cluster_id, rule_fqdn, error_key, rule_id, created_at, impacted_since)
VALUES {rows}
ON CONFLICT (org_id, cluster_id, rule_fqdn, error_key) DO UPDATE SET
    rule_id = excluded.rule_id,
    created_at = excluded.created_at,
    impacted_since = excluded.impacted_since
"""
"""Every row is written, since `created_at` moves with every report."""

STORE_VERSIONS = """
INSERT INTO report_info (org_id, cluster_id, version_info)
VALUES {rows}
ON CONFLICT (cluster_id) DO UPDATE SET
    org_id = excluded.org_id,
    version_info = excluded.version_info
WHERE report_info.org_id <> excluded.org_id OR report_info.version_info <> excluded.version_info
"""

MOVE_VERSION = "UPDATE report_info SET org_id = %s WHERE cluster_id = %s"
"""A cluster that moves without telling its version keeps the one that is stored."""

MOVE_CHOICES = (
    "UPDATE cluster_rule_toggle SET org_id = %s WHERE cluster_id = %s",
    "UPDATE cluster_user_rule_disable_feedback SET org_id = %s WHERE cluster_id = %s",
    "UPDATE cluster_rule_user_feedback SET org_id = %s WHERE cluster_id = %s",
)
"""What users chose for a cluster moves with it; the organization is text in these tables."""

STORE_ERRORS = """
INSERT INTO consumer_error (topic, partition, topic_offset, key, produced_at, consumed_at, message, error)
VALUES {rows}
ON CONFLICT (topic, partition, topic_offset) DO UPDATE SET
    key = excluded.key,
    produced_at = excluded.produced_at,
    consumed_at = excluded.consumed_at,
    message = excluded.message,
    error = excluded.error
"""
"""The newest rejection wins: a topic that was made anew uses its offsets again."""
