"""Databases of an existing deployment, made from a dump, and what tells whether they are still the same."""

from pathlib import Path

from tests.support.roles import execute

DUMP = Path(__file__).with_name("schema_32.sql")

# hits of a cluster are on rules that follow from its number; texts can be compressed about as well as real ones
_FILL = """
    INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at, gathered_at)
        SELECT 10 + n % {organizations}, md5(n::text)::uuid::text, repeat(text, 4), at, at, at
        FROM generate_series(1, {clusters}) AS n,
            LATERAL (SELECT timestamp '2026-01-01' + n * interval '1 s' AS at) AS t,
            LATERAL (
                SELECT string_agg(md5(n::text || i), '') AS text FROM generate_series(1, {report_bytes} / 128) AS i
            ) AS r;
    INSERT INTO rule_hit (org_id, cluster_id, rule_fqdn, error_key, template_data, created_at)
        SELECT 10 + n % {organizations}, md5(n::text)::uuid::text, 'ccx_rules_ocp.external.rules.r' || (n + h) % 100
            || '.report', 'KEY_' || h, '{{"n": "' || repeat(md5(h::text), 3) || '"}}', timestamp '2026-01-01'
        FROM generate_series(1, {clusters}) AS n, generate_series(1, {hits}) AS h;
    INSERT INTO recommendation (org_id, cluster_id, rule_fqdn, error_key, rule_id, created_at, impacted_since)
        SELECT org_id, cluster_id, replace(rule_fqdn, '.report', ''), error_key,
            replace(rule_fqdn, '.report', '') || '|' || error_key, created_at, created_at
        FROM rule_hit WHERE org_id >= 10;
    INSERT INTO report_info SELECT org_id, cluster, '4.16.' || org_id % 30 FROM report WHERE org_id >= 10;
    INSERT INTO consumer_error
        SELECT 'results', n % 3, n, NULL, now(), now(), repeat('x', 500), 'free text ' || n
        FROM generate_series(1, {clusters} / 10) AS n;
    INSERT INTO cluster_rule_toggle (cluster_id, rule_id, disabled, updated_at, error_key, org_id)
        SELECT cluster, 'ccx_rules_ocp.external.rules.r1', 1, now(), 'KEY_1', org_id::text
        FROM report WHERE org_id >= 10 AND org_id % 10 = 0;
    INSERT INTO cluster_user_rule_disable_feedback (cluster_id, user_id, rule_id, message, added_at, updated_at)
        SELECT cluster, org_id::text, 'ccx_rules_ocp.external.rules.r1', 'known', now(), now()
        FROM report WHERE org_id >= 10 AND org_id % 10 = 0
"""
_TABLES = """
    SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
    WHERE schemaname IN ('public', 'dvo') AND tablename <> 'aggregator_migration' ORDER BY 1
"""
_DIGEST = "SELECT '{table}', count(*), md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))) FROM {table} AS t"

# the form in which the old service writes: it names its columns
INSERTS_OF_OLD_SERVICE = (
    "INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at, kafka_offset, gathered_at)"
    " VALUES ({org_id}, '{cluster}', '{{}}', now(), now(), 0, now())"
    " ON CONFLICT (cluster) DO UPDATE SET org_id = excluded.org_id, report = excluded.report",
    "INSERT INTO rule_hit (org_id, cluster_id, rule_fqdn, error_key, template_data, created_at)"
    " VALUES ({org_id}, '{cluster}', 'r.report', 'K', '{{}}', now())",
    "INSERT INTO recommendation (org_id, cluster_id, rule_fqdn, error_key, rule_id, created_at, impacted_since)"
    " VALUES ({org_id}, '{cluster}', 'r', 'K', 'r|K', now(), now())",
    "INSERT INTO report_info (org_id, cluster_id, version_info) VALUES ({org_id}, '{cluster}', '4.16.3')"
    " ON CONFLICT (cluster_id) DO UPDATE SET version_info = excluded.version_info",
    "INSERT INTO consumer_error (topic, partition, topic_offset, key, produced_at, consumed_at, message, error)"
    " VALUES ('t', 0, {org_id}, '', now(), now(), 'x', 'an error') ON CONFLICT DO NOTHING",
    "INSERT INTO cluster_rule_toggle (cluster_id, rule_id, error_key, org_id, disabled, disabled_at, updated_at)"
    " VALUES ('{cluster}', 'r', 'K', '{org_id}', 1, now(), now())",
)


def load_existing(
    url: str, clusters: int = 0, *, hits: int = 5, organizations: int = 1000, report_bytes: int = 512
) -> str:
    """Load the dump into an empty database on PostgreSQL, with so many clusters more; return its URL.

    The server makes their rows, before there are indexes.
    """
    tables, marker, keys = DUMP.read_text(encoding="utf-8").partition("-- keys, constraints, indexes")
    sizes = {"clusters": clusters, "hits": hits, "organizations": organizations, "report_bytes": report_bytes}
    execute(url, tables, _FILL.format(**sizes), marker + keys)
    return url


def digests(url: str) -> dict[str, list[object]]:
    """Return number and digest of the rows of each table but that of our steps, whoever made it."""
    statements = [_DIGEST.format(table=table) for (table,) in execute(url, _TABLES)]
    return {str(table): found for table, *found in map(list, execute(url, " UNION ALL ".join(statements)))}
