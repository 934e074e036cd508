"""The tables, keys and constraints of schema version 32 (`docs/schema.md`, sections 2 and 3).

A frozen copy on purpose: this step makes the same tables for ever, whatever the models become. The database of an
existing deployment has them already.
"""

from peewee import Database, PostgresqlDatabase

from libaggregator.storage.session import Session

TABLES = """
CREATE TABLE report (
    org_id BIGINT NOT NULL,
    cluster VARCHAR NOT NULL,
    report VARCHAR NOT NULL,
    reported_at TIMESTAMP,
    last_checked_at TIMESTAMP,
    kafka_offset BIGINT NOT NULL DEFAULT 0,
    gathered_at TIMESTAMP,
    CONSTRAINT report_pkey PRIMARY KEY (org_id, cluster),
    CONSTRAINT report_cluster_key UNIQUE (cluster)
);
CREATE TABLE rule_hit (
    org_id BIGINT NOT NULL,
    cluster_id VARCHAR NOT NULL,
    rule_fqdn VARCHAR NOT NULL,
    error_key VARCHAR NOT NULL,
    template_data VARCHAR NOT NULL,
    created_at TIMESTAMP,
    CONSTRAINT rule_hit_pkey PRIMARY KEY (cluster_id, org_id, rule_fqdn, error_key)
);
CREATE TABLE recommendation (
    org_id BIGINT NOT NULL,
    cluster_id VARCHAR NOT NULL,
    rule_fqdn TEXT NOT NULL,
    error_key VARCHAR NOT NULL,
    rule_id VARCHAR NOT NULL DEFAULT '.',
    created_at TIMESTAMP DEFAULT {now_utc},
    impacted_since TIMESTAMP,
    CONSTRAINT recommendation_pk PRIMARY KEY (org_id, cluster_id, rule_fqdn, error_key)
);
CREATE TABLE report_info (
    org_id BIGINT NOT NULL,
    cluster_id VARCHAR NOT NULL,
    version_info VARCHAR NOT NULL,
    CONSTRAINT report_info_pkey PRIMARY KEY (org_id, cluster_id),
    CONSTRAINT report_info_cluster_id_key UNIQUE (cluster_id)
);
CREATE TABLE consumer_error (
    topic VARCHAR NOT NULL,
    partition INTEGER NOT NULL,
    topic_offset BIGINT NOT NULL,
    key VARCHAR,
    produced_at TIMESTAMP NOT NULL,
    consumed_at TIMESTAMP NOT NULL,
    message VARCHAR,
    error VARCHAR NOT NULL,
    CONSTRAINT consumer_error_pkey PRIMARY KEY (topic, partition, topic_offset)
);
CREATE TABLE cluster_rule_toggle (
    cluster_id VARCHAR NOT NULL,
    rule_id VARCHAR NOT NULL,
    disabled SMALLINT NOT NULL,
    disabled_at TIMESTAMP,
    enabled_at TIMESTAMP,
    updated_at TIMESTAMP NOT NULL,
    disabled_check SMALLINT,
    error_key VARCHAR NOT NULL DEFAULT '',
    org_id VARCHAR NOT NULL DEFAULT '0',
    CONSTRAINT cluster_rule_toggle_pkey PRIMARY KEY (cluster_id, rule_id, error_key),
    CONSTRAINT cluster_rule_toggle_disabled_check CHECK (disabled >= 0 AND disabled <= 1)
);
CREATE TABLE cluster_user_rule_disable_feedback (
    cluster_id VARCHAR NOT NULL,
    user_id VARCHAR NOT NULL,
    rule_id VARCHAR NOT NULL,
    message VARCHAR NOT NULL,
    added_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    error_key VARCHAR NOT NULL DEFAULT '',
    org_id VARCHAR NOT NULL DEFAULT '0',
    CONSTRAINT cluster_user_rule_disable_feedback_pkey PRIMARY KEY (cluster_id, user_id, rule_id, error_key)
);
CREATE TABLE cluster_rule_user_feedback (
    cluster_id VARCHAR NOT NULL,
    rule_id VARCHAR NOT NULL,
    user_id VARCHAR NOT NULL,
    message VARCHAR NOT NULL,
    user_vote SMALLINT NOT NULL,
    added_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    error_key VARCHAR NOT NULL DEFAULT '',
    org_id VARCHAR NOT NULL DEFAULT '0',
    CONSTRAINT cluster_rule_user_feedback_pkey PRIMARY KEY (cluster_id, rule_id, user_id, error_key),
    CONSTRAINT cluster_rule_user_feedback_cluster_id_fkey
        FOREIGN KEY (cluster_id) REFERENCES report (cluster) ON DELETE CASCADE
);
CREATE TABLE rule_disable (
    org_id VARCHAR NOT NULL,
    rule_id VARCHAR NOT NULL,
    error_key VARCHAR NOT NULL,
    justification VARCHAR,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP,
    CONSTRAINT rule_disable_pkey PRIMARY KEY (org_id, rule_id, error_key)
);
CREATE TABLE advisor_ratings (
    org_id VARCHAR NOT NULL,
    rule_fqdn VARCHAR NOT NULL,
    error_key VARCHAR NOT NULL,
    rated_at TIMESTAMP,
    last_updated_at TIMESTAMP,
    rating SMALLINT,
    rule_id VARCHAR NOT NULL DEFAULT '.',
    CONSTRAINT advisor_ratings_pkey PRIMARY KEY (org_id, rule_fqdn, error_key)
);
CREATE TABLE IF NOT EXISTS migration_info (version INTEGER NOT NULL);
DELETE FROM migration_info;
INSERT INTO migration_info (version) VALUES (32)
"""


def create(database: Database) -> None:
    """Make the tables in a database that has none of them."""
    # PostgreSQL's CURRENT_TIMESTAMP would be turned into the session's time zone; SQLite's is UTC
    on_postgresql = isinstance(database, PostgresqlDatabase)
    now_utc = "(now() AT TIME ZONE 'utc')" if on_postgresql else "CURRENT_TIMESTAMP"
    for statement in TABLES.format(now_utc=now_utc).split(";"):
        database.execute_sql(statement)


def obstacles(database: Database) -> list[str]:
    """Return nothing: every database is looked at for its shape, whatever steps it has."""
    return []


def plan(database: Database) -> list[str]:
    """Tell that there is nothing to change."""
    return ["the tables are as they have to be, nothing to change"]


def adopt(session: Session) -> None:
    """Do nothing."""
