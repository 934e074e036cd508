"""An API on a database that fails: what it reads, what it is asked, and a server that is tortured meanwhile."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import psycopg2

from tests.support.api import CLUSTER, OTHER_CLUSTER, QUESTIONS, ApiUnderTest
from tests.support.api_process import Api
from tests.support.databases import migrate_database
from tests.support.load import Question
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Processes
from tests.support.waiting import eventually

ROLE = "api_under_faults"
PASSWORD = "s3cr3t-of-the-api"
THREADS = 3
SLOTS, RESERVED = 30, 3
"""How many connections the server takes, and how many of them from superusers alone."""
SERVERS = {"waitress": 1, "granian": 2}
"""Each HTTP server, and with how many worker processes it is tried here."""
SHORT = {
    "DATABASE__READ_TIMEOUT": "1",
    "DATABASE__CONNECT_TIMEOUT": "1",
    "API__THREADS": str(THREADS),
    # what is stored is not of today
    "API__ORG_OVERVIEW_LIMIT_HOURS": "1000000",
}
FROZEN_AT_LEAST = 3
"""So many times every client is answered while the database says nothing: longer than any time limit of it."""
ASKED: list[Question] = [
    (method, path, json.dumps({"clusters": [CLUSTER]} if path.endswith("clusters/reports") else [CLUSTER]))
    if method == "POST"
    else (method, path, "")
    for method, path in QUESTIONS
]


class Scene:
    """A PostgreSQL server with results in it, and a role that reads them, with a password."""

    def __init__(self, server: PostgresqlServer) -> None:
        self.server = server
        self.url = migrate_database(server.create_database())
        fill(self.url)
        server.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        self.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ROLE}")
        server.require_password(ROLE)

    @property
    def reading_url(self) -> str:
        return self.reading_url_at(self.server.port)

    def reading_url_at(self, port: int) -> str:
        """Return the URL of the same database behind another port."""
        database = self.url.rpartition("/")[2]
        return f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{port}/{database}"

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        return query(self.url, statement)

    def end_connections(self) -> int:
        """End all connections of the API and return how many there were."""
        return len(self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"))

    def count_connections(self) -> int:
        return int(self.run(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{ROLE}'")[0][0])

    @contextlib.contextmanager
    def all_slots_taken(self) -> Iterator[None]:
        """Take every connection that anybody but a superuser can have, those of the API included."""
        with contextlib.ExitStack() as at_end:
            at_end.callback(self._insist, "DROP ROLE IF EXISTS greedy")
            at_end.callback(self._insist, f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
            self.server.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
            self.end_connections()
            eventually(lambda: self.count_connections() == 0, 10, "an end of the API's connections")
            self.server.execute("CREATE ROLE greedy LOGIN")
            held: list[Any] = []

            def take_one_more() -> bool:
                # others that have just ended leave their slots a moment later
                with contextlib.suppress(psycopg2.OperationalError):
                    held.append(psycopg2.connect(self.url.replace("postgres@", "greedy@")))
                    at_end.callback(held[-1].close)
                return len(held) == SLOTS - RESERVED

            eventually(take_one_more, 10, "connections in all slots", interval=0.01)
            self._insist(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
            yield

    def _insist(self, statement: str) -> None:
        """Run a statement of a superuser as soon as it gets in: whoever logs in has a slot until it is refused."""

        def run() -> bool:
            try:
                self.server.execute(statement)
            except psycopg2.OperationalError as error:
                raise AssertionError(str(error)) from error
            return True

        eventually(run, 30, statement)


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement outside of a transaction and return its rows, none if it has no rows."""
    connection = psycopg2.connect(url, connect_timeout=10)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def fill(url: str) -> None:
    """Store results, so that most questions have an answer."""
    writer = ApiUnderTest(url)
    for cluster in (CLUSTER, OTHER_CLUSTER):
        writer.insert("report", cluster=cluster, report=json.dumps({"reports": ["x" * 3000]}))
        writer.insert("report_info", cluster_id=cluster)
        writer.insert("rule_hit", cluster_id=cluster, rule_fqdn="a.report")
        writer.insert("recommendation", cluster_id=cluster, rule_fqdn="a.b", created_at="2026-05-04 08:00:00")
        writer.insert("cluster_rule_toggle", cluster_id=cluster)
        writer.insert("cluster_rule_user_feedback", cluster_id=cluster)
    for table in ("rule_disable", "advisor_ratings", "cluster_user_rule_disable_feedback"):
        writer.insert(table)
    writer.close()


def start(processes: Processes, url: str, server: str = "waitress", **settings: str) -> Api:
    """Start an API that is impatient with the database at `url`."""
    return Api(processes, url, **{**SHORT, "API__SERVER": server, "API__WORKERS": str(SERVERS[server]), **settings})


def start_on(processes: Processes, scene: Scene) -> Api:
    """Start one that reads what a scene has, and wait until it listens."""
    return start(processes, scene.reading_url).wait_until_it_listens()
