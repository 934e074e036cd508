"""The API while its database fails in every way there is: each answer is right or 503, and all of it comes back."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.support.api import CLUSTER, OTHER_CLUSTER, QUESTIONS, ApiUnderTest
from tests.support.api_process import Api, slow_requests
from tests.support.databases import migrate_database, sqlite_url_in
from tests.support.load import Answers, Load, Question, answers_of
from tests.support.network import Wire
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Processes
from tests.support.replica import PostgresqlReplica
from tests.support.waiting import eventually

ROLE = "api_under_faults"
PASSWORD = "s3cr3t-of-the-api"
THREADS = 3
SLOTS, RESERVED = 30, 3
"""How many connections the server takes, and how many of them from superusers alone."""
pytestmark = [pytest.mark.faults, pytest.mark.long]

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


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Yield a server that all tests of this module torture, each after the other."""
    server = PostgresqlServer({"max_connections": str(SLOTS), "superuser_reserved_connections": str(RESERVED)})
    try:
        server.start()
        yield Scene(server)
    finally:
        server.close()


@pytest.fixture(scope="module", params=SERVERS)
def api(request: pytest.FixtureRequest, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Yield one process, on each HTTP server in turn, that is never started again."""
    processes = Processes(tmp_path_factory.mktemp("api"))
    try:
        yield start(processes, scene.reading_url, request.param).wait_until_it_listens()
        (process,) = processes.started
        assert process.exit_code is None, process.output
        assert process.stop() == 0
        assert "Traceback" not in process.output
        assert PASSWORD not in process.output
    finally:
        processes.kill_all()


@pytest.fixture
def right(api: Api) -> Answers:
    """Return the answers of the API to all questions before anything is broken."""
    answers = answers_of(api, ASKED)
    assert {status for status, _ in answers.values()} <= {200, 404}
    assert sum(status == 200 for status, _ in answers.values()) > len(ASKED) / 2
    return answers


def start(processes: Processes, url: str, server: str = "waitress", **settings: str) -> Api:
    return Api(processes, url, **{**SHORT, "API__SERVER": server, "API__WORKERS": str(SERVERS[server]), **settings})


@contextlib.contextmanager
def loaded(scene: Scene, api: Api, right: Answers) -> Iterator[Load]:
    """Yield a load; at the end of the block all must be well, without a restart and with no connection too many."""
    with Load(api, [right]) as load:
        yield load
        load.wait_until_ready()
        load.wait_for_right()
        most = THREADS * max(SERVERS.values()) + 1
        eventually(lambda: 0 < scene.count_connections() <= most, 10, "connections of the API")


# the server goes away


@pytest.mark.parametrize("how", ["shut_down_at_once", "kill", "stop"])
def test_a_server_that_goes_away_again_and_again(scene: Scene, api: Api, right: Answers, how: str) -> None:
    with loaded(scene, api, right) as load:
        for _ in range(2):
            getattr(scene.server, how)()
            load.wait_for_refused()
            load.wait_until_ready(False)
            scene.server.start()
            load.wait_for_right()


def test_connections_that_are_ended_again_and_again(scene: Scene, api: Api, right: Answers) -> None:
    with loaded(scene, api, right) as load:
        ended = 0
        for _ in range(15):
            ended += scene.end_connections()
            load.wait_for_answers(20)
        assert ended > 15


def test_a_connection_that_is_ended_while_idle_costs_no_request(scene: Scene, api: Api, right: Answers) -> None:
    for question, answer in right.items():
        scene.end_connections()
        eventually(lambda: scene.count_connections() <= 1, 10, "an end of the connections")
        assert answers_of(api, [question]) == {question: answer}


# the server says nothing


def test_a_server_that_is_frozen(scene: Scene, api: Api, right: Answers) -> None:
    with loaded(scene, api, right) as load:
        with scene.server.frozen():
            for _ in range(FROZEN_AT_LEAST):
                load.wait_for_refused()
            load.wait_until_ready(False)
        load.wait_for_right()


@pytest.mark.parametrize("server", SERVERS)
def test_a_network_that_swallows_everything_and_one_that_forgets_its_connections(
    scene: Scene, processes: Processes, server: str
) -> None:
    wire = Wire(scene.server.port)
    api = start(processes, scene.reading_url_at(wire.port), server).wait_until_it_listens()
    with contextlib.closing(wire), Load(api, [answers_of(api, ASKED)]) as load:
        with wire.silent():
            load.wait_for_refused(50)
            load.wait_until_ready(False)
        load.wait_until_ready()
        load.wait_for_right()
        wire.forget()
        load.wait_for_refused(1)
        load.wait_for_right()
        load.wait_until_ready()
    assert api.process.stop() == 0


def test_with_one_thread_many_clients_are_answered_while_the_database_is_silent(
    scene: Scene, processes: Processes
) -> None:
    """One after another they would wait for the time limit each, four times as long as they do."""
    wire = Wire(scene.server.port)
    api = start(processes, scene.reading_url_at(wire.port), API__THREADS="1").wait_until_it_listens()
    path = "organizations"
    assert api.get(path).status == 200
    # Answer.status is 0 for a client that gave up after ten seconds
    with contextlib.closing(wire), ThreadPoolExecutor(40) as clients:
        with wire.silent():
            answers = list(clients.map(api.get, [path] * 40))
        assert {(answer.status, answer.headers.get("Retry-After")) for answer in answers} == {(503, "5")}
        eventually(lambda: api.get(path).status == 200, 10, "an answer")


def test_one_request_finds_out_for_all_threads_that_the_network_forgot_their_connections(
    scene: Scene, processes: Processes
) -> None:
    wire = Wire(scene.server.port)
    api = start(processes, scene.reading_url_at(wire.port)).wait_until_it_listens()
    with contextlib.closing(wire):
        with slow_requests(scene.url) as wait_for:
            waiting = [api.begin("organizations") for _ in range(THREADS)]
            wait_for(THREADS)
        assert [connection.getresponse().status for connection in waiting] == [200] * THREADS
        wire.forget()
        assert api.get("organizations").status == 503
        assert [api.get("organizations").status for _ in range(3 * THREADS)] == [200] * 3 * THREADS
    for connection in waiting:
        connection.close()


def test_of_several_hosts_one_that_says_nothing_is_passed_over(scene: Scene, processes: Processes) -> None:
    silent = Wire(scene.server.port)
    url = scene.reading_url.replace("@", f"@127.0.0.1:{silent.port},")
    with contextlib.closing(silent), silent.silent():
        api = start(processes, url).wait_until_it_listens()
        with Load(api, [answers_of(start_on(processes, scene), ASKED)]) as load:
            load.wait_for_right()
            load.wait_until_ready()
        assert silent.accepted > 1


def start_on(processes: Processes, scene: Scene) -> Api:
    return start(processes, scene.reading_url).wait_until_it_listens()


# the server is slow, full, or lets nobody in


def test_a_table_that_somebody_has_locked(scene: Scene, api: Api, right: Answers) -> None:
    with loaded(scene, api, right) as load:
        holder = psycopg2.connect(scene.url)
        holder.cursor().execute("LOCK TABLE report IN ACCESS EXCLUSIVE MODE")
        load.wait_for_refused(10)
        assert api.readiness().status == 200
        holder.close()
        load.wait_for_right()


def test_statements_that_an_administrator_cancels(scene: Scene, api: Api, right: Answers) -> None:
    waiting = f"FROM pg_stat_activity WHERE usename = '{ROLE}' AND wait_event_type = 'Lock'"
    with loaded(scene, api, right) as load:
        holder = psycopg2.connect(scene.url)
        holder.cursor().execute("LOCK TABLE report IN ACCESS EXCLUSIVE MODE")
        before = load.counts["refused"]
        eventually(
            lambda: any(cancelled for (cancelled,) in scene.run(f"SELECT pg_cancel_backend(pid) {waiting}")),
            10,
            "a statement to cancel",
        )
        eventually(lambda: load.counts["refused"] > before, 10, "an answer of 503")
        holder.close()


def test_every_connection_of_the_server_is_taken(scene: Scene, api: Api, right: Answers) -> None:
    with loaded(scene, api, right) as load, scene.all_slots_taken():
        load.wait_for_refused()
        load.wait_until_ready(False)


def test_the_api_is_started_when_every_connection_is_taken(scene: Scene, processes: Processes) -> None:
    with scene.all_slots_taken():
        api = start(processes, scene.reading_url)
        api.process.wait_for_log("database unavailable")
        assert "connection slots" in api.readiness().json["checks"]["database"]
    api.wait_until_it_listens()
    with Load(api, [answers_of(api, ASKED)]) as load:
        load.wait_for_right()


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("NOLOGIN", "LOGIN"),
        ("PASSWORD 'another'", f"PASSWORD '{PASSWORD}'"),
        ("CONNECTION LIMIT 1", "CONNECTION LIMIT -1"),
        ("VALID UNTIL '2000-01-01'", "VALID UNTIL 'infinity'"),
    ],
)
def test_a_role_that_is_not_let_in_any_more(scene: Scene, api: Api, right: Answers, change: str, back: str) -> None:
    with loaded(scene, api, right) as load:
        scene.server.execute(f"ALTER ROLE {ROLE} {change}")
        try:
            scene.end_connections()
            load.wait_for_refused()
        finally:
            scene.server.execute(f"ALTER ROLE {ROLE} {back}")


# a replica


class Replicated:
    """A primary and a replica from which an API reads."""

    def __init__(self, scene: Scene, replica: PostgresqlServer, processes: Processes) -> None:
        self.scene = scene
        self.replica = replica
        self.url = scene.url.replace(str(scene.server.port), str(replica.port))
        # nobody listens at the port of the primary: the API must not need it
        self.settings = {"DATABASE__READ_URL": scene.reading_url_at(replica.port)}
        self.api = start(processes, "postgresql://127.0.0.1:1/none", **self.settings).wait_until_it_listens()

    def pause(self) -> None:
        query(self.url, "SELECT pg_wal_replay_pause()")
        eventually(lambda: query(self.url, "SELECT pg_get_wal_replay_pause_state()") == [("paused",)], 10, "a pause")

    def resume(self) -> None:
        query(self.url, "SELECT pg_wal_replay_resume()")


@pytest.fixture
def replicated(scene: Scene, processes: Processes) -> Iterator[Replicated]:
    """Yield a primary and a replica that follows it at once, and cancels what is in the way."""
    replica = PostgresqlReplica(scene.server, {"max_standby_streaming_delay": "0", "max_connections": str(SLOTS)})
    try:
        replica.start()
        yield Replicated(scene, replica, processes)
    finally:
        replica.close()
        scene.run("UPDATE report SET report = '{}' WHERE report <> '{}'")


def test_a_replica_that_lags_is_right_for_what_it_has_and_follows_when_it_can(
    replicated: Replicated, processes: Processes
) -> None:
    before = answers_of(replicated.api, ASKED)
    replicated.pause()
    replicated.scene.run("""
        UPDATE report SET report = '{"reports": ["new"]}', last_checked_at = last_checked_at + interval '1 hour';
        UPDATE rule_hit SET template_data = '{"new": true}';
        UPDATE recommendation SET created_at = created_at + interval '1 hour'
    """)
    after = answers_of(start_on(processes, replicated.scene), ASKED)
    changed = [question for question in ASKED if before[question] != after[question]]
    assert len(changed) > 4
    with Load(replicated.api, [before]) as load:
        load.wait_for_right()
        assert load.counts["refused"] == 0
        load.expected = [before, after]
        replicated.resume()
        eventually(lambda: answers_of(replicated.api, ASKED) == after, 10, "what is new")
        load.expected = [after]
        load.wait_for_right()


def test_a_replica_that_is_away_and_one_that_lets_nobody_in_yet_and_one_that_becomes_the_primary(
    replicated: Replicated,
) -> None:
    replica = replicated.replica
    with Load(replicated.api, [answers_of(replicated.api, ASKED)]) as load:
        replica.kill()
        load.wait_for_refused()
        load.wait_until_ready(False)
        replica.start(hot_standby="off")
        eventually(lambda: "not accepting" in replicated.api.readiness().text, 10, "another reason in /readyz")
        load.wait_for_refused()
        replica.stop()
        replica.start()
        load.wait_until_ready()
        load.wait_for_right()
        query(replicated.url, "SELECT pg_promote()")
        assert query(replicated.url, "SELECT pg_is_in_recovery()") == [(False,)]
        load.wait_for_right()


def test_a_statement_that_is_in_the_way_of_a_replica_is_asked_for_again(
    replicated: Replicated, processes: Processes
) -> None:
    """SQLSTATE 40001; a policy makes one question wait in the middle of its statement."""
    scene = replicated.scene
    scene.run(
        f"ALTER TABLE rule_disable ENABLE ROW LEVEL SECURITY; CREATE POLICY slow ON rule_disable TO {ROLE}"
        " USING (pg_sleep(30) IS NOT NULL)"
    )
    try:
        url = scene.reading_url_at(replicated.replica.port)
        api = start(processes, url, DATABASE__READ_TIMEOUT="60").wait_until_it_listens()
        asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        eventually(lambda: query(replicated.url, "SELECT 1 FROM pg_policy"), 10, "the policy on the replica")
        request = api.begin("rules/organizations/1/disabled_system_wide")
        eventually(lambda: query(replicated.url, asleep), 10, "a statement that runs")
    finally:
        scene.run("DROP POLICY slow ON rule_disable; ALTER TABLE rule_disable DISABLE ROW LEVEL SECURITY")
    answer = request.getresponse()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "conflict with recovery" in replicated.replica.log
    request.close()
    eventually(lambda: api.get("rules/organizations/1/disabled_system_wide").status == 200, 10, "an answer")


# SQLite


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return an SQLite file with results in it."""
    url = migrate_database(sqlite_url_in(tmp_path))
    fill(url)
    return Path(url.removeprefix("sqlite:///"))


@pytest.fixture
def api_on_file(file: Path, processes: Processes) -> Iterator[Api]:
    """Yield an API that reads the file, and must not fail by itself."""
    api = start(processes, f"sqlite:///{file}").wait_until_it_listens()
    yield api
    assert api.process.stop() == 0
    assert "Traceback" not in api.process.output


def test_a_file_that_somebody_has_locked(file: Path, processes: Processes) -> None:
    holder = sqlite3.connect(file, isolation_level=None)
    # with a write-ahead log, readers wait for nobody
    holder.execute("PRAGMA journal_mode = DELETE")
    api = start(processes, f"sqlite:///{file}").wait_until_it_listens()
    with Load(api, [answers_of(api, ASKED)]) as load:
        holder.execute("BEGIN EXCLUSIVE")
        load.wait_for_refused(8)
        load.wait_until_ready(False)
        holder.close()
        load.wait_until_ready()
        load.wait_for_right()


def test_a_file_that_is_gone_and_comes_back(file: Path, api_on_file: Api) -> None:
    with Load(api_on_file, [answers_of(api_on_file, ASKED)]) as load:
        hidden = file.rename(file.with_name("hidden.db"))
        load.wait_for_refused()
        load.wait_until_ready(False)
        hidden.rename(file)
        load.wait_until_ready()
        load.wait_for_right()


def test_a_file_that_is_replaced_is_read_from_then_on(file: Path, api_on_file: Api, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    before = answers_of(api_on_file, ASKED)
    migrate_database(f"sqlite:///{empty}")
    with Load(api_on_file, [before]) as load:
        load.wait_for_right()
    empty.replace(file)
    after = answers_of(api_on_file, ASKED)
    assert after[("GET", "organizations", "")] == (200, b'{"organizations":[],"status":"ok"}')
    with Load(api_on_file, [after]) as load:
        load.wait_for_right()
