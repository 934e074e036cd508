"""The tables, one model each. Rules and meaning of every column: `docs/schema.md`.

Names and types are fixed by existing deployments. `org_id` is an integer where the consumer writes and text
where users' choices live.
"""

from peewee import (
    SQL,
    BigIntegerField,
    CompositeKey,
    IntegerField,
    Model,
    SmallIntegerField,
    TextField,
)
from peewee import DateTimeField as TimeField

from libaggregator.clock import utc_now

SCHEMA_VERSION = 32


class VarcharField(TextField):
    """Text without a limit of length, under the name that the existing tables have."""

    field_type = "VARCHAR"


class Report(Model):
    """Newest report of each cluster. Written by the consumer."""

    org_id = BigIntegerField()
    cluster = VarcharField()
    report = VarcharField()
    reported_at = TimeField(null=True)
    last_checked_at = TimeField(null=True)
    kafka_offset = BigIntegerField(constraints=[SQL("DEFAULT 0")])
    gathered_at = TimeField(null=True)

    class Meta:
        table_name = "report"
        primary_key = CompositeKey("org_id", "cluster")
        indexes = ((("cluster",), True),)


class RuleHit(Model):
    """Hits of the newest report; `rule_fqdn` is the component as it came. Written by the consumer."""

    org_id = BigIntegerField()
    cluster_id = VarcharField()
    rule_fqdn = VarcharField()
    error_key = VarcharField()
    template_data = VarcharField()
    created_at = TimeField(null=True)

    class Meta:
        table_name = "rule_hit"
        primary_key = CompositeKey("cluster_id", "org_id", "rule_fqdn", "error_key")


class Recommendation(Model):
    """Which rule hits which cluster; `rule_fqdn` is without `.report`. Written by the consumer."""

    org_id = BigIntegerField()
    cluster_id = VarcharField()
    rule_fqdn = TextField()
    error_key = VarcharField()
    rule_id = VarcharField(constraints=[SQL("DEFAULT '.'")])
    created_at = TimeField(null=True)
    impacted_since = TimeField(null=True)

    class Meta:
        table_name = "recommendation"
        primary_key = CompositeKey("org_id", "cluster_id", "rule_fqdn", "error_key")
        indexes = ((("org_id", "rule_id"), False),)


class ReportInfo(Model):
    """Version of each cluster. Written by the consumer."""

    org_id = BigIntegerField()
    cluster_id = VarcharField()
    version_info = VarcharField()

    class Meta:
        table_name = "report_info"
        primary_key = CompositeKey("org_id", "cluster_id")
        indexes = ((("cluster_id",), True),)


class ConsumerError(Model):
    """Messages that could not be used. Written by the consumer."""

    topic = VarcharField()
    partition = IntegerField()
    topic_offset = BigIntegerField()
    key = VarcharField(null=True)
    produced_at = TimeField()
    consumed_at = TimeField()
    message = VarcharField(null=True)
    error = VarcharField()

    class Meta:
        table_name = "consumer_error"
        primary_key = CompositeKey("topic", "partition", "topic_offset")


class ClusterRuleToggle(Model):
    """A rule switched off for one cluster. Written by other components."""

    cluster_id = VarcharField()
    rule_id = VarcharField()
    disabled = SmallIntegerField()
    disabled_at = TimeField(null=True)
    enabled_at = TimeField(null=True)
    updated_at = TimeField()
    disabled_check = SmallIntegerField(null=True)
    error_key = VarcharField(constraints=[SQL("DEFAULT ''")])
    org_id = VarcharField(constraints=[SQL("DEFAULT '0'")])

    class Meta:
        table_name = "cluster_rule_toggle"
        primary_key = CompositeKey("cluster_id", "rule_id", "error_key")
        indexes = ((("org_id", "rule_id", "error_key"), False),)


class ClusterUserRuleDisableFeedback(Model):
    """A user's reason for switching a rule off. Written by other components."""

    cluster_id = VarcharField()
    user_id = VarcharField()
    rule_id = VarcharField()
    message = VarcharField()
    added_at = TimeField()
    updated_at = TimeField()
    error_key = VarcharField(constraints=[SQL("DEFAULT ''")])
    org_id = VarcharField(constraints=[SQL("DEFAULT '0'")])

    class Meta:
        table_name = "cluster_user_rule_disable_feedback"
        primary_key = CompositeKey("cluster_id", "user_id", "rule_id", "error_key")
        indexes = ((("user_id",), False),)


class ClusterRuleUserFeedback(Model):
    """A user's vote on a rule for one cluster. Written by other components."""

    cluster_id = VarcharField()
    rule_id = VarcharField()
    user_id = VarcharField()
    message = VarcharField()
    user_vote = SmallIntegerField()
    added_at = TimeField()
    updated_at = TimeField()
    error_key = VarcharField(constraints=[SQL("DEFAULT ''")])
    org_id = VarcharField(constraints=[SQL("DEFAULT '0'")])

    class Meta:
        table_name = "cluster_rule_user_feedback"
        primary_key = CompositeKey("cluster_id", "rule_id", "user_id", "error_key")


class RuleDisable(Model):
    """A rule acknowledged for an organization. Written by other components."""

    org_id = VarcharField()
    rule_id = VarcharField()
    error_key = VarcharField()
    justification = VarcharField(null=True)
    created_at = TimeField()
    updated_at = TimeField(null=True)

    class Meta:
        table_name = "rule_disable"
        primary_key = CompositeKey("org_id", "rule_id", "error_key")


class AdvisorRating(Model):
    """An organization's rating of a rule. Written by other components."""

    org_id = VarcharField()
    rule_fqdn = VarcharField()
    error_key = VarcharField()
    rated_at = TimeField(null=True)
    last_updated_at = TimeField(null=True)
    rating = SmallIntegerField(null=True)
    rule_id = VarcharField(constraints=[SQL("DEFAULT '.'")])

    class Meta:
        table_name = "advisor_ratings"
        primary_key = CompositeKey("org_id", "rule_fqdn", "error_key")


class MigrationInfo(Model):
    """Version of the schema, exactly one row, as existing deployments count it."""

    version = IntegerField()

    class Meta:
        table_name = "migration_info"
        primary_key = False


class AggregatorMigration(Model):
    """Steps of `aggregator-consumer migrate` that are done."""

    name = VarcharField(primary_key=True)
    applied = TimeField(column_name="applied_at", default=utc_now)

    class Meta:
        table_name = "aggregator_migration"


TABLES: tuple[type[Model], ...] = (
    Report,
    RuleHit,
    Recommendation,
    ReportInfo,
    ConsumerError,
    ClusterRuleToggle,
    ClusterUserRuleDisableFeedback,
    ClusterRuleUserFeedback,
    RuleDisable,
    AdvisorRating,
    MigrationInfo,
)
"""The tables of `docs/schema.md`, section 2."""

WIDENED = {
    "report": "org_id",
    "rule_hit": "org_id",
    "recommendation": "org_id",
    "report_info": "org_id",
    "consumer_error": "topic_offset",
}
"""Columns, by table, that are `integer` in databases of existing deployments until `0002_bigint` widens them."""

FILLFACTORS = {"recommendation": 50, "report": 70}
"""How full PostgreSQL makes the pages of tables that every report changes, in percent (`0004_room_for_updates`)."""
