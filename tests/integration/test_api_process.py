"""The API as a process: how it starts, how it lives through outages of its database, and how it stops."""

import http.client
import signal
import socket
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from examples.demo.ports import free_port
from tests.support.api_process import CLUSTER, REPORT, Api, StartApi, fill, http_request, slow_requests
from tests.support.deployment import PREFIX, fetch
from tests.support.postgresql import PostgresqlServer
from tests.support.waiting import eventually

# how it starts


def _refusal(api: Api) -> str:
    """Return the one line with which a start ends."""
    assert api.process.wait_exit() == 2
    lines = [line for line in api.process.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in api.process.output
    return lines[0]


@pytest.mark.parametrize(("setting", "name"), [("API__PORT", "api.port"), ("API__ADMIN_PORT", "api.admin_port")])
def test_a_port_that_is_taken_ends_the_start_with_its_name(
    start_api: StartApi, sqlite_url: str, setting: str, name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        api = start_api(fill(sqlite_url), **{setting: str(port)})
        assert _refusal(api) == f"error: {name}: can't listen on 127.0.0.1:{port}: Address already in use"


@pytest.mark.long
def test_of_two_that_waited_for_their_database_on_one_port_only_one_serves(
    start_api: StartApi, own_postgresql: PostgresqlServer, server: str
) -> None:
    url = fill(own_postgresql.create_database())
    own_postgresql.stop()
    first = start_api(url, API__SERVER=server)
    first.process.wait_for_log("database unavailable")
    second = start_api(url, API__SERVER=server, API__PORT=str(first.port))
    second.process.wait_for_log("database unavailable")
    own_postgresql.start()
    eventually(lambda: _ended(first, second), 30, "an end of one of them")
    ended = first if second.process.exit_code is None else second
    assert f"api.port: can't listen on 127.0.0.1:{first.port}: Address already in use" in _refusal(ended)


def _ended(*apis: Api) -> bool:
    return any(api.process.exit_code is not None for api in apis)


def test_a_bad_setting_ends_the_start_with_its_name(start_api: StartApi, sqlite_url: str) -> None:
    assert "api.prefix: expected a path like" in _refusal(start_api(sqlite_url, API__PREFIX="api"))
    assert "database.url: expected sqlite:///FILE" in _refusal(start_api("mysql://x"))


def test_a_missing_file_is_named_and_not_made(start_api: StartApi, tmp_path: Any) -> None:
    file = tmp_path / "missing.db"
    assert _refusal(start_api(f"sqlite:///{file}")) == (
        f"error: there is no database file {file}; run `aggregator-consumer migrate` first"
    )
    assert not file.exists()


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["UPDATE migration_info SET version = 31"], "found schema version 31, needs 32; bring the database to 32"),
        (["UPDATE migration_info SET version = 33"], "found schema version 33, newer than this program knows (32)"),
        (["DELETE FROM migration_info"], "table migration_info has no row"),
        (["DROP TABLE migration_info"], "neither empty nor a known database"),
        (
            ["DROP TABLE rule_hit", "ALTER TABLE report DROP COLUMN gathered_at"],
            "missing: column report.gathered_at (timestamp without time zone); missing: table rule_hit",
        ),
    ],
)
def test_a_database_with_another_schema_ends_the_start_with_what_was_found(
    start_api: StartApi, database_url: str, statements: list[str], says: str
) -> None:
    assert says in _refusal(start_api(fill(database_url, *statements)))


def test_an_empty_database_ends_the_start_with_what_to_do(start_api: StartApi, postgresql_url: str) -> None:
    assert _refusal(start_api(postgresql_url)).endswith("run `aggregator-consumer migrate` first")


@pytest.mark.parametrize(
    ("old", "new", "says"), [("/test_", "/gone_", "does not exist"), ("postgres@", "nobody@", "does not exist")]
)
def test_a_database_or_a_role_that_does_not_exist_ends_the_start(
    start_api: StartApi, postgresql_url: str, old: str, new: str, says: str
) -> None:
    assert says in _refusal(start_api(postgresql_url.replace(old, new)))


def test_a_role_that_may_not_read_the_tables_ends_the_start(start_api: StartApi, postgresql_url: str) -> None:
    role = f"reader_{free_port()}"
    fill(postgresql_url, f"CREATE ROLE {role} LOGIN")
    try:
        api = start_api(postgresql_url.replace("postgres@", f"{role}@"))
        assert "permission denied for table migration_info" in _refusal(api)
    finally:
        _execute(postgresql_url, f"DROP ROLE {role}")


def test_a_role_that_may_only_read_is_enough(start_api: StartApi, postgresql_url: str) -> None:
    role = f"reader_{free_port()}"
    fill(postgresql_url, REPORT, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        api = start_api(postgresql_url.replace("postgres@", f"{role}@")).wait_until_it_listens()
        assert api.get("organizations").json == {"organizations": [1], "status": "ok"}
        assert api.process.stop() == 0
    finally:
        _execute(postgresql_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_database_without_our_steps_is_served_with_one_warning(start_api: StartApi, database_url: str) -> None:
    api = start_api(fill(database_url, REPORT, "DELETE FROM aggregator_migration")).wait_until_it_listens()
    warnings = [line for line in api.process.output.splitlines() if "aggregator-consumer migrate" in line]
    assert len(warnings) == 1
    assert "warning" in warnings[0]
    assert api.get("organizations").status == 200


@pytest.mark.long
def test_a_database_that_is_away_at_the_start_is_waited_for(
    start_api: StartApi, own_postgresql: PostgresqlServer
) -> None:
    url = fill(own_postgresql.create_database(), REPORT)
    own_postgresql.stop()
    api = start_api(url)
    api.process.wait_for_log("database unavailable")
    assert fetch(api.admin_port, "/livez").status == 200
    readiness = api.readiness()
    assert readiness.status == 503
    assert "refused" in readiness.json["checks"]["database"]
    assert readiness.json["checks"]["listening"] == "the API does not listen"
    assert api.refuses_connections()
    own_postgresql.start()
    eventually(lambda: api.readiness().status == 200, 10, "readiness")
    assert api.get("organizations").json == {"organizations": [1], "status": "ok"}
    assert api.process.output.count("database unavailable") == 1


def test_a_process_that_waits_for_its_database_can_be_stopped(start_api: StartApi) -> None:
    api = start_api(f"postgresql://postgres@127.0.0.1:{free_port()}/x")
    api.process.wait_for_log("database unavailable")
    assert api.process.stop() == 0


# outages


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_outage_is_answered_with_503_and_ends_without_a_restart(
    start_api: StartApi, own_postgresql: PostgresqlServer, how: str
) -> None:
    api = start_api(fill(own_postgresql.create_database(), REPORT)).wait_until_it_listens()
    assert api.get("organizations").status == 200
    getattr(own_postgresql, how)()
    # the children of a server that was killed live on for a moment
    eventually(lambda: api.get("organizations").status == 503, 10, "the outage")
    for path in ("organizations", "organizations/1/clusters", f"organizations/1/clusters/{CLUSTER}/reports"):
        answer = api.get(path)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert not any(word in answer.text for word in ("SELECT", "127.0.0.1", "postgres"))
    eventually(lambda: api.readiness().status == 503, 10, "an end of readiness")
    assert api.readiness().json["checks"]["listening"] == "ok"
    assert fetch(api.admin_port, "/readyz?exclude=database").status == 200
    assert fetch(api.admin_port, "/livez").status == 200
    assert api.get("info").status == 200
    own_postgresql.start()
    eventually(lambda: api.readiness().status == 200, 10, "readiness")
    assert api.get("organizations").json == {"organizations": [1], "status": "ok"}
    api.process.wait_for_log("database available again")
    assert api.process.output.count("database unavailable") == 1


def test_a_frozen_database_is_answered_with_503_in_time_and_holds_no_thread_for_ever(
    start_api: StartApi, own_postgresql: PostgresqlServer
) -> None:
    url = fill(own_postgresql.create_database(), REPORT)
    api = start_api(url, DATABASE__READ_TIMEOUT="1", DATABASE__CONNECT_TIMEOUT="1").wait_until_it_listens()
    assert api.get("organizations").status == 200
    with own_postgresql.frozen(), ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(api.get, ["organizations"] * 8))
        assert [(answer.status, answer.headers.get("Retry-After")) for answer in answers] == [(503, "5")] * 8
        assert api.get("unknown").status == 404
        eventually(lambda: api.readiness().status == 503, 15, "an end of readiness")
        assert fetch(api.admin_port, "/livez").status == 200
    eventually(lambda: api.get("organizations").status == 200, 15, "an answer")


# how it stops


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_that_were_accepted_are_answered_before_the_end(
    start_api: StartApi, server: str, postgresql_url: str, number: int
) -> None:
    api = start_api(fill(postgresql_url, REPORT), API__SERVER=server, API__THREADS="2").wait_until_it_listens()
    with slow_requests(postgresql_url) as wait_for:
        slow = [api.begin("organizations") for _ in range(5)]
        wait_for(2)
        api.process.signal(number)
        eventually(api.refuses_connections, 10, "a closed port")
        readiness = api.readiness()
        assert readiness.status == 503
        assert readiness.json["checks"]["stopping"] == "the process was told to stop"
        assert fetch(api.admin_port, "/livez").status == 200
        assert api.process.exit_code is None
    answers = [connection.getresponse() for connection in slow]
    assert [answer.status for answer in answers] == [200] * 5
    assert {answer.headers["Connection"] for answer in answers} == {"close"}
    assert api.process.wait_exit() == 0
    assert "cut off" not in api.process.output


def test_before_the_port_is_closed_requests_are_answered_for_a_while(
    start_api: StartApi, server: str, sqlite_url: str
) -> None:
    api = start_api(fill(sqlite_url, REPORT), API__SERVER=server, API__SHUTDOWN_DELAY="60").wait_until_it_listens()
    api.process.signal(signal.SIGTERM)
    eventually(lambda: api.readiness().status == 503, 10, "an end of readiness")
    answer = api.get("organizations")
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    api.process.signal(signal.SIGTERM)
    assert api.process.wait_exit() == -signal.SIGTERM


def test_a_short_delay_ends_by_itself(start_api: StartApi, server: str, sqlite_url: str) -> None:
    api = start_api(fill(sqlite_url), API__SERVER=server, API__SHUTDOWN_DELAY="0.2").wait_until_it_listens()
    assert api.process.stop(timeout=10) == 0


def test_a_request_that_takes_too_long_does_not_hold_up_the_end(
    start_api: StartApi, server: str, postgresql_url: str
) -> None:
    api = start_api(fill(postgresql_url), API__SERVER=server, API__SHUTDOWN_TIMEOUT="0.2").wait_until_it_listens()
    with slow_requests(postgresql_url) as wait_for:
        slow = api.begin("organizations")
        wait_for(1)
        assert api.process.stop(timeout=10) == 0
        slow.close()
    assert "requests were cut off" in api.process.output


def test_a_second_signal_ends_at_once(start_api: StartApi, server: str, postgresql_url: str) -> None:
    api = start_api(fill(postgresql_url), API__SERVER=server).wait_until_it_listens()
    with slow_requests(postgresql_url) as wait_for:
        slow = api.begin("organizations")
        wait_for(1)
        api.process.signal(signal.SIGTERM)
        eventually(api.refuses_connections, 10, "a closed port")
        api.process.signal(signal.SIGTERM)
        assert api.process.wait_exit(5) == -signal.SIGTERM
        slow.close()


@pytest.mark.parametrize("timeout", ["30", "1"])
def test_idle_connections_do_not_hold_up_the_end(
    start_api: StartApi, server: str, sqlite_url: str, timeout: str
) -> None:
    settings = {"API__SERVER": server, "API__SHUTDOWN_TIMEOUT": timeout}
    api = start_api(fill(sqlite_url), **settings).wait_until_it_listens()
    kept = [api.begin("organizations") for _ in range(3)]
    assert [connection.getresponse().read() for connection in kept] == [b'{"organizations":[],"status":"ok"}'] * 3
    silent = socket.create_connection(("127.0.0.1", api.port), timeout=5)
    assert api.process.stop(timeout=5) == 0
    assert "cut off" not in api.process.output
    assert silent.recv(1) == b""
    silent.close()
    for connection in kept:
        connection.close()


@pytest.fixture(
    params=[pytest.param("1", id="one process"), pytest.param("2", id="two workers", marks=pytest.mark.long)]
)
def workers(request: pytest.FixtureRequest) -> str:
    """Return how many processes answer."""
    return str(request.param)


def _answering_processes(api: Api) -> list[psutil.Process]:
    process = psutil.Process(api.process.pid)
    workers = [child for child in process.children() if "resource_tracker" not in " ".join(child.cmdline())]
    return workers or [process]


def _is_suspended(process: psutil.Process) -> bool:
    """Say whether no thread of a process runs any more."""
    states = [
        Path(f"/proc/{process.pid}/task/{thread.id}/stat").read_text(encoding="ascii") for thread in process.threads()
    ]
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc; elsewhere a port can't be closed so gently")
def test_requests_that_only_the_kernel_has_accepted_are_answered_before_the_end(
    start_api: StartApi, server: str, sqlite_url: str, workers: str
) -> None:
    settings = {"API__SERVER": server, "API__WORKERS": workers}
    api = start_api(fill(sqlite_url, REPORT), **settings).wait_until_it_listens()
    answering = _answering_processes(api)
    for process in answering:
        process.suspend()
    eventually(lambda: all(_is_suspended(process) for process in answering), 10, "processes that stand still")
    waiting = [api.begin("organizations") for _ in range(60)]
    api.process.signal(signal.SIGTERM)
    if answering[0].pid != api.process.pid:
        eventually(lambda: api.readiness().status == 503, 10, "the process was told to stop")
    for process in answering:
        process.resume()
    assert [connection.getresponse().status for connection in waiting] == [200] * 60
    assert api.process.wait_exit() == 0
    for connection in waiting:
        connection.close()


def test_a_connection_that_was_open_before_the_end_may_still_send_its_first_request(
    start_api: StartApi, server: str, sqlite_url: str
) -> None:
    api = start_api(fill(sqlite_url, REPORT), API__SERVER=server).wait_until_it_listens()
    opened = [socket.create_connection(("127.0.0.1", api.port), timeout=20) for _ in range(5)]
    kept = api.begin("organizations")
    assert kept.getresponse().read()
    api.process.signal(signal.SIGTERM)
    eventually(lambda: api.readiness().status == 503, 10, "an end of readiness")
    for connection in opened:
        connection.sendall(http_request("GET", f"{PREFIX}organizations"))
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.close()
    kept.request("GET", f"{PREFIX}organizations")
    assert kept.getresponse().status == 200
    kept.close()
    assert api.process.wait_exit() == 0


def test_under_load_no_request_is_lost_when_it_stops(
    start_api: StartApi, server: str, sqlite_url: str, workers: str
) -> None:
    settings = {"API__SERVER": server, "API__WORKERS": workers}
    api = start_api(fill(sqlite_url, REPORT), **settings).wait_until_it_listens()
    outcomes: Counter[str] = Counter()
    with ThreadPoolExecutor(8) as clients:
        load = [clients.submit(_ask_until_refused, api, keeps, outcomes) for keeps in (True, False) * 4]
        eventually(lambda: outcomes["answered"] > 200, 20, "answers")
        api.process.signal(signal.SIGTERM)
        for client in load:
            client.result()
    assert set(outcomes) == {"answered", "refused"}
    assert outcomes["refused"] == len(load)
    assert api.process.wait_exit() == 0
    assert "cut off" not in api.process.output


def _ask_until_refused(api: Api, keeps: bool, outcomes: Counter[str]) -> None:
    """Ask, on one connection as long as it is kept or each time on another, until there is nobody to connect to."""
    connection: http.client.HTTPConnection | None = None
    while True:
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=20)
            try:
                connection.connect()
            except ConnectionRefusedError:
                outcomes["refused"] += 1
                return
        try:
            connection.request("GET", f"{PREFIX}organizations")
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            outcomes[repr(error)] += 1
            is_kept = False
        else:
            outcomes["answered" if answer.status == 200 else str(answer.status)] += 1
            is_kept = keeps and not answer.will_close
        if not is_kept:
            connection.close()
            connection = None


def test_more_requests_than_threads_wait_and_are_served(start_api: StartApi, server: str, postgresql_url: str) -> None:
    api = start_api(fill(postgresql_url, REPORT), API__SERVER=server, API__THREADS="2").wait_until_it_listens()
    with slow_requests(postgresql_url) as wait_for:
        slow = [api.begin("organizations") for _ in range(30)]
        wait_for(2)
    assert [connection.getresponse().status for connection in slow] == [200] * 30
    for connection in slow:
        connection.close()


def _execute(url: str, *statements: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


# what it holds


def test_a_large_answer_is_not_held_once_it_is_sent(start_api: StartApi, sqlite_url: str, server: str) -> None:
    hits = (
        "WITH RECURSIVE number (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM number WHERE value < 1000)"
        " INSERT INTO rule_hit (org_id, cluster_id, rule_fqdn, error_key, template_data)"
        f" SELECT 1, '{CLUSTER}', 'rule' || value, 'KEY', json_quote(hex(zeroblob(4000))) FROM number"
    )
    api = start_api(fill(sqlite_url, REPORT, hits), API__SERVER=server).wait_until_it_listens()
    process = psutil.Process(api.process.pid)
    before = process.memory_info().rss

    for _ in range(20):
        assert len(api.get(f"organizations/1/clusters/{CLUSTER}/users/1/report").text) > 8_000_000

    # each of the threads that answer could have one, and the HTTP server a copy of it
    assert process.memory_info().rss - before < 40_000_000
