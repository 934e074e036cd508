"""A crowd of clusters: far more than there is time to send messages for, in a database that the server fills itself.

Some hundred of them are stored by the consumer; all others are copies of their rows, with ids and organizations of
their own.
"""

import hashlib
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a name in lower case

from benchmarks.parts import connected
from benchmarks.services import Services
from examples.demo.generator import Cluster, Fleet

BEGIN = datetime(2025, 5, 1)

_CLUSTERS_OF_AN_ORGANIZATION = 100
_TEMPLATES = 307  # a prime, so that the clusters of an organization are copies of different ones

_COPIED_COLUMNS = {
    "report": ("cluster", "report, reported_at, last_checked_at, gathered_at, kafka_offset"),
    "rule_hit": ("cluster_id", "rule_fqdn, error_key, template_data, created_at"),
    "recommendation": ("cluster_id", "rule_fqdn, error_key, rule_id, created_at, impacted_since"),
    "report_info": ("cluster_id", "version_info"),
}
_COPY_ROWS = """
    INSERT INTO {table} (org_id, {cluster}, {others})
    SELECT number % %(organizations)s + 1, md5(number::text)::uuid::text, {others}
    FROM generate_series(%(templates)s, %(clusters)s - 1) AS number
        JOIN template ON template.remainder = number % %(templates)s
        JOIN {table} ON {table}.{cluster} = template.id
"""

# one cluster in ten has a choice of each kind, and its organization has one about the same rule
_CHOICES = """
    CREATE TEMPORARY TABLE choice AS
        SELECT DISTINCT ON (cluster_id) org_id::text AS org_id, cluster_id, rule_fqdn, error_key, created_at AS at,
            (org_id % 1000)::text AS user_id
        FROM rule_hit WHERE hashtext(cluster_id) % 10 = 0
        ORDER BY cluster_id, rule_fqdn;
    INSERT INTO cluster_rule_toggle (cluster_id, rule_id, disabled, disabled_at, updated_at, error_key, org_id)
        SELECT cluster_id, rule_fqdn, 1, at, at, error_key, org_id FROM choice;
    INSERT INTO cluster_user_rule_disable_feedback
        (cluster_id, user_id, rule_id, message, added_at, updated_at, error_key, org_id)
        SELECT cluster_id, user_id, rule_fqdn, 'not of interest', at, at, error_key, org_id FROM choice;
    INSERT INTO cluster_rule_user_feedback
        (cluster_id, rule_id, user_id, message, user_vote, added_at, updated_at, error_key, org_id)
        SELECT cluster_id, rule_fqdn, user_id, '', 1, at, at, error_key, org_id FROM choice;
    INSERT INTO rule_disable (org_id, rule_id, error_key, justification, created_at)
        SELECT DISTINCT ON (org_id, rule_fqdn, error_key) org_id, rule_fqdn, error_key, 'known', at FROM choice;
    INSERT INTO advisor_ratings (org_id, rule_fqdn, error_key, rated_at, last_updated_at, rating, rule_id)
        SELECT org_id, rule_id, error_key, created_at, created_at, 1, rule_id || '|' || error_key FROM rule_disable
"""

_CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE contype IN ('p', 'u', 'f')
        AND (conrelid = ANY(%(tables)s::regclass[]) OR confrelid = ANY(%(tables)s::regclass[]))
    ORDER BY contype = 'f', conname
"""
_INDEXES = """
    SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid = ANY(%(tables)s::regclass[])
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""
# an index that got its entries one after another, in no order, is about as full
_AS_FULL_AS_GROWN = " WITH (fillfactor = 70)"


@dataclass(frozen=True, slots=True)
class _Template:
    cluster: Cluster
    checked_at: datetime
    message: bytes


class Crowd:
    """Clusters by their numbers: those below `size` are in the filled database, those from there on are new.

    What is known of each follows from its number.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.organizations = max(1, size // _CLUSTERS_OF_AN_ORGANIZATION)
        self.fleet = Fleet(1, self.organizations, min(size, _TEMPLATES))
        self._templates = []
        for number, found in enumerate(self.fleet.clusters):
            cluster = replace(found, org_id=self.organization_of(number), cluster_id=id_of(number))
            checked_at = BEGIN + timedelta(seconds=number)
            self._templates.append(_Template(cluster, checked_at, self.fleet.message(cluster, checked_at)))

    def organization_of(self, number: int) -> int:
        """Return the organization of a cluster."""
        return number % self.organizations + 1

    def cluster(self, number: int) -> Cluster:
        """Return a cluster with the rules that hit it, as stored."""
        template = self._templates[number % len(self._templates)].cluster
        return replace(template, org_id=self.organization_of(number), cluster_id=id_of(number))

    def stored_message(self, number: int) -> bytes:
        """Return the message whose rows a cluster of the filled database has."""
        template = self._templates[number % len(self._templates)]
        own, others = self.cluster(number), template.cluster
        message = template.message.replace(others.cluster_id.encode(), own.cluster_id.encode())
        return message.replace(b'"OrgID": %d,' % others.org_id, b'"OrgID": %d,' % own.org_id)

    def changed_message(self, number: int, days: int) -> bytes:
        """Return a message that is newer by so many days, with another text of Report, and the same hits."""
        return self._later(number, days, b"")

    def same_message(self, number: int, days: int) -> bytes:
        """Return a message that is newer by so many days, with the Report that is stored."""
        return self._later(number, days, b'"LastChecked": "')

    def spread(self, count: int, offset: int) -> list[int]:
        """Return `count` numbers of stored clusters that lie far from each other; another `offset` gives others."""
        step = max(1, self.size // count)
        return [(step * place + offset % step) % self.size for place in range(count)]

    def fill(self, url: str, folder: Path) -> None:
        """Store all clusters of the crowd in a migrated, empty database; messages and logs go into `folder`."""
        Services(folder).store_file(url, [template.message for template in self._templates])
        with connected(url) as connection, connection.cursor() as cursor:
            cursor.execute("SET maintenance_work_mem = '1GB'")
            constraints, indexes = _drop_indexes(cursor)
            self._copy_templates(cursor)
            for table, name, definition in constraints:
                fullness = "" if definition.startswith("FOREIGN KEY") else _AS_FULL_AS_GROWN
                cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}{fullness}")
            for _, definition in indexes:
                cursor.execute(definition + _AS_FULL_AS_GROWN)
            cursor.execute(_CHOICES)
            connection.commit()
            connection.autocommit = True
            cursor.execute("VACUUM (ANALYZE)")

    def _later(self, number: int, days: int, before: bytes) -> bytes:
        checked_at = self._templates[number % len(self._templates)].checked_at
        later = checked_at + timedelta(days=days)
        old, new = before + checked_at.isoformat().encode(), before + later.isoformat().encode()
        return self.stored_message(number).replace(old, new)

    def _copy_templates(self, cursor: Cursor) -> None:
        templates = len(self._templates)
        cursor.execute(
            "CREATE TEMPORARY TABLE template AS"
            " SELECT number AS remainder, md5(number::text)::uuid::text AS id"
            " FROM generate_series(0, %s - 1) AS number",
            (templates,),
        )
        cursor.execute("ANALYZE template")
        values = {"templates": templates, "clusters": self.size, "organizations": self.organizations}
        for table, (cluster, others) in _COPIED_COLUMNS.items():
            # the percent sign of the modulo among those of the parameters
            statement = _COPY_ROWS.replace(" % ", " %% ").format(table=table, cluster=cluster, others=others)
            cursor.execute(statement, values)


def id_of(number: int) -> str:
    """Return the cluster id that belongs to a number; ids are in no order, as real ones."""
    return str(uuid.UUID(hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()))


def _drop_indexes(cursor: Cursor) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """Drop what would make each copied row slow; return table, name and definition of constraints and indexes."""
    tables = {"tables": list(_COPIED_COLUMNS)}
    cursor.execute(_CONSTRAINTS, tables)
    constraints: list[tuple[str, str, str]] = cursor.fetchall()
    cursor.execute(_INDEXES, tables)
    indexes: list[tuple[str, str]] = cursor.fetchall()
    for table, name, _ in reversed(constraints):
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    return constraints, indexes
