"""A database as a large deployment has it: 100,000 clusters with five hits each, in organizations of every size."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import md5

from peewee import Database, PostgresqlDatabase
from psycopg2.extras import execute_values

CLUSTERS = 100_000
HITS, RULES = 5, 97
"""How many rules hit a cluster, and of how many."""
EARLY, LATE = datetime(2026, 5, 4, 8), datetime(2026, 5, 4, 12)
"""When the reports of clusters with an odd and with an even number were stored."""


@dataclass(frozen=True)
class Organization:
    """An organization of the landscape: its clusters, by number, and one of them about which users said everything."""

    name: str
    org_id: int
    clusters: range
    sample: int

    @property
    def user(self) -> str:
        """A user who gave a reason and a vote for the sample."""
        return f"user_{self.org_id}_{(self.sample + 1) % 100}"

    @property
    def rule(self) -> str:
        """A rule that hits the sample, and was switched off for it, acknowledged and rated."""
        return f"ccx.rule_{(self.sample * 7 + 13) % RULES}"


BIG = Organization("big", 1, range(1, 50_001), 30_000)
MEDIUM = Organization("medium", 101, range(59_901, 60_001), 59_940)
SMALL = Organization("small", 96_000, range(96_000, 96_001), 96_000)
ORGANIZATIONS = (BIG, MEDIUM, SMALL)


def cluster_id(number: int) -> str:
    """Return the id of a cluster; ids are in no order."""
    return str(uuid.UUID(md5(str(number).encode()).hexdigest()))


def fill(database: Database) -> None:
    """Write the landscape into a migrated database without rows; statistics are not made."""
    # a cursor of the driver: peewee would take % for a parameter
    cursor = database.connection().cursor()
    on_postgresql = isinstance(database, PostgresqlDatabase)
    with database.atomic():
        cursor.execute("CREATE TEMPORARY TABLE landscape (n INTEGER, org_id BIGINT, id VARCHAR, stored_at TIMESTAMP)")
        cursor.execute("CREATE TEMPORARY TABLE hit (h INTEGER)")
        cursor.execute("CREATE TEMPORARY TABLE rule (r INTEGER)")
        cursor.execute(f"INSERT INTO hit VALUES {', '.join(f'({number})' for number in range(1, HITS + 1))}")
        cursor.execute(f"INSERT INTO rule VALUES {', '.join(f'({number})' for number in range(RULES))}")
        if on_postgresql:
            execute_values(cursor, "INSERT INTO landscape VALUES %s", _clusters(), page_size=5000)
        else:
            cursor.executemany("INSERT INTO landscape VALUES (?, ?, ?, ?)", _clusters())
        for statement in _STATEMENTS:
            cursor.execute(statement)
    cursor.close()


def _clusters() -> Iterator[tuple[int, int, str, str]]:
    for number in range(1, CLUSTERS + 1):
        stored_at = LATE if number % 2 == 0 else EARLY
        yield number, _organization(number), cluster_id(number), stored_at.isoformat(" ")


def _organization(number: int) -> int:
    """Half of all clusters are in one organization, 40,000 in organizations of a hundred, each other one is alone."""
    if number <= 50_000:
        return 1
    return 2 + (number - 50_001) // 100 if number <= 90_000 else number


_TIME = "'2026-05-01 00:00:00'"
_RULE = f"'ccx.rule_' || ((n * 7 + h * 13) % {RULES})"
_USER = "'user_' || org_id || '_' || ((n + h) % 100)"
_EVERY_RULE_IN_LARGER_ORGANIZATIONS = (
    "FROM rule CROSS JOIN (SELECT DISTINCT org_id FROM landscape WHERE n <= 90000) AS o"
)
_FIRST_RULE_IN_THE_OTHERS = "FROM landscape CROSS JOIN hit WHERE n > 90000 AND h = 1"

_STATEMENTS = (
    "INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at)"
    " SELECT org_id, id, '{}', stored_at, stored_at FROM landscape",
    "INSERT INTO report_info (org_id, cluster_id, version_info) SELECT org_id, id, '4.16.3' FROM landscape",
    "INSERT INTO rule_hit (org_id, cluster_id, rule_fqdn, error_key, template_data, created_at)"
    f" SELECT org_id, id, {_RULE} || '.report', 'K', '{{}}', stored_at FROM landscape CROSS JOIN hit",
    "INSERT INTO recommendation (org_id, cluster_id, rule_fqdn, error_key, rule_id, created_at, impacted_since)"
    f" SELECT org_id, id, {_RULE}, 'K', {_RULE} || '|K', stored_at, stored_at FROM landscape CROSS JOIN hit",
    "INSERT INTO cluster_rule_toggle (cluster_id, rule_id, error_key, org_id, disabled, disabled_at, updated_at)"
    f" SELECT id, {_RULE} || '.report', 'K', CAST(org_id AS VARCHAR), CASE WHEN n % 10 = 4 THEN 0 ELSE 1 END,"
    f" {_TIME}, {_TIME} FROM landscape CROSS JOIN hit WHERE n % 2 = 0 AND h = 1",
    # of two users each
    "INSERT INTO cluster_user_rule_disable_feedback"
    " (cluster_id, user_id, rule_id, error_key, org_id, message, added_at, updated_at)"
    f" SELECT id, {_USER}, 'ccx.rule_' || ((n * 7 + 13) % {RULES}) || '.report', 'K', CAST(org_id AS VARCHAR), 'why',"
    f" {_TIME}, {_TIME} FROM landscape CROSS JOIN hit WHERE n % 4 = 0 AND h <= 2",
    "INSERT INTO cluster_rule_user_feedback"
    " (cluster_id, rule_id, user_id, error_key, org_id, message, user_vote, added_at, updated_at)"
    f" SELECT id, {_RULE} || '.report', {_USER}, 'K', CAST(org_id AS VARCHAR), '', 1, {_TIME}, {_TIME}"
    " FROM landscape CROSS JOIN hit WHERE n % 3 = 0 AND h = 1",
    "INSERT INTO rule_disable (org_id, rule_id, error_key, created_at)"
    f" SELECT CAST(org_id AS VARCHAR), 'ccx.rule_' || r || '.report', 'K', {_TIME}"
    f" {_EVERY_RULE_IN_LARGER_ORGANIZATIONS}",
    "INSERT INTO rule_disable (org_id, rule_id, error_key, created_at)"
    f" SELECT CAST(org_id AS VARCHAR), {_RULE} || '.report', 'K', {_TIME} {_FIRST_RULE_IN_THE_OTHERS}",
    "INSERT INTO advisor_ratings (org_id, rule_fqdn, error_key, rating, rule_id)"
    " SELECT CAST(org_id AS VARCHAR), 'ccx.rule_' || r, 'K', 1, 'ccx.rule_' || r || '|K'"
    f" {_EVERY_RULE_IN_LARGER_ORGANIZATIONS}",
    "INSERT INTO advisor_ratings (org_id, rule_fqdn, error_key, rating, rule_id)"
    f" SELECT CAST(org_id AS VARCHAR), {_RULE}, 'K', 1, {_RULE} || '|K' {_FIRST_RULE_IN_THE_OTHERS}",
)
