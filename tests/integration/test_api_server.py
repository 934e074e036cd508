"""The API as a process: how it starts, what it answers on the wire, how it lives through outages and how it stops."""

import base64
import contextlib
import http.client
import json
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import psycopg2
import pytest

from examples.demo.ports import free_port
from libaggregator.storage.schema import migrate
from tests.support.databases import open_database
from tests.support.deployment import PREFIX, Answer, fetch
from tests.support.postgresql import PostgresqlServer, with_select_only
from tests.support.processes import Process, Processes
from tests.support.waiting import eventually

CLUSTER = "a9d4b240-49e2-56d0-a495-f2798c5e3b2f"
IDENTITY = base64.b64encode(b'{"identity": {"org_id": "1"}}').decode()
API = [sys.executable, "-m", "api_service.cli"]


class Api:
    """A process `aggregator-api serve`, its port and its admin port."""

    def __init__(self, processes: Processes, database_url: str, **settings: str) -> None:
        self.port = free_port()
        self.admin_port = free_port()
        environment = {
            "AGGREGATOR_DATABASE__URL": database_url,
            "AGGREGATOR_API__PORT": str(self.port),
            "AGGREGATOR_API__ADMIN_PORT": str(self.admin_port),
        }
        environment |= {f"AGGREGATOR_{name}": value for name, value in settings.items()}
        self.process: Process = processes.start("api", [*API, "serve"], environment)

    def wait_until_it_listens(self) -> "Api":
        """Wait until requests are answered."""
        self.process.wait_for_log("API started")
        return self

    def get(self, path: str) -> Answer:
        """Ask for a path relative to the prefix."""
        return fetch(self.port, PREFIX + path)

    def readiness(self) -> Answer:
        """Ask the admin port whether it is ready."""
        return fetch(self.admin_port, "/readyz")

    def send(self, request: bytes) -> http.client.HTTPResponse:
        """Send bytes as they are and return the answer, read to its end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            # an answer to HEAD has a length and no body
            response = http.client.HTTPResponse(connection, method=request.split()[0].decode())
            response.begin()
            response.body = response.read()  # type: ignore[attr-defined]
            return response

    def begin(self, path: str) -> http.client.HTTPConnection:
        """Send a request and return without waiting for the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", PREFIX + path)
        return connection

    def refuses_connections(self) -> bool:
        """Whether nobody listens on its port."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except ConnectionRefusedError:
            return True
        return False


StartApi = Callable[..., Api]
SERVERS = ["waitress", "granian"]


@pytest.fixture
def start_api(processes: Processes) -> StartApi:
    """Return a starter of API processes."""

    def start(database_url: str, **settings: str) -> Api:
        return Api(processes, database_url, **settings)

    return start


def _fill(url: str, *statements: str) -> str:
    """Make the schema in an empty database, run statements in it, and return its URL for a role that can only read."""
    database = open_database(url)
    migrate(database)
    for statement in statements:
        database.execute_sql(statement)
    database.close()
    return with_select_only(url)


REPORT = (
    "INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at)"
    f" VALUES (1, '{CLUSTER}', '{{}}', '2026-05-04 08:00:00', '2026-05-04 08:00:00.5')"
)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """Return the name of each HTTP server in turn, for tests of what depends on it."""
    return str(request.param)


@pytest.fixture(scope="module", params=SERVERS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Yield a running API for tests that leave it as it was, on each server, with identities and one report."""
    folder = tmp_path_factory.mktemp("api")
    url = _fill(f"sqlite:///{folder}/aggregator.db", REPORT)
    processes = Processes(folder)
    settings = {"API__SERVER": request.param, "API__AUTH": "xrh", "LOGGING__FORMAT": "json"}
    settings |= {"API__MAX_BODY_BYTES": "1500000", "API__IDLE_TIMEOUT": "20"}
    yield Api(processes, url, **settings).wait_until_it_listens()
    processes.kill_all()


def _request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _asked(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    return _request(method, PREFIX + path, f"X-Rh-Identity: {IDENTITY}", *headers, body=body)


def _body(response: http.client.HTTPResponse) -> Any:
    return json.loads(response.body)  # type: ignore[attr-defined]


# what goes over the wire


@pytest.mark.parametrize(
    "chunks", [[b'{"clusters": ["%b"]}' % CLUSTER.encode()], [b'{"clust', b'ers": ["', CLUSTER.encode(), b'"]}']]
)
def test_a_chunked_body_counts_like_any_other(api: Api, chunks: list[bytes]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    answer = api.send(_asked("POST", "organizations/1/clusters/reports", "Transfer-Encoding: chunked", body=body))
    assert (answer.status, _body(answer)["clusters"]) == (200, [CLUSTER])


def test_a_body_in_chunks_counts_with_get_too(api: Api) -> None:
    path = "rules/a.b|K/organizations/1/users/u/clusters_detail"
    answer = api.send(_asked("GET", path, "Transfer-Encoding: chunked", body=b"2\r\n[]\r\n0\r\n\r\n"))
    assert (answer.status, _body(answer)) == (400, {"status": "bad type in json data"})


@pytest.mark.parametrize(
    ("header", "body"), [("Transfer-Encoding: chunked", b"0\r\n\r\n"), ("Content-Length: 0", b""), ("X-No: body", b"")]
)
def test_a_body_without_content_is_absent(api: Api, header: str, body: bytes) -> None:
    answer = api.send(_asked("POST", "organizations/1/clusters/reports", header, body=body))
    assert (answer.status, _body(answer)) == (400, {"status": "client didn't provide request body"})


@pytest.mark.parametrize(
    "target",
    [
        f"/{PREFIX}info",
        f"//x{PREFIX}info",
        f"/%2f{PREFIX}info",
        f"http://x/{PREFIX}info",
        f"{PREFIX}info//",
        f"{PREFIX}/info",
        f"{PREFIX}organizations//clusters",
        f"{PREFIX}organizations/%2Fclusters",
        PREFIX.replace("/v1", "//v1") + "info",
    ],
)
def test_an_empty_segment_makes_a_path_unknown_wherever_it_is(api: Api, target: str) -> None:
    answer = api.send(_request("GET", target, f"X-Rh-Identity: {IDENTITY}"))
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")


def test_a_target_that_does_not_begin_with_a_slash_is_not_answered(api: Api) -> None:
    assert api.send(_request("GET", f"%2F{PREFIX}info", f"X-Rh-Identity: {IDENTITY}")).status in {400, 404}


@pytest.mark.parametrize(
    "target", [f"{PREFIX}info", f"{PREFIX}info?x=//", f"http://x{PREFIX}info", f"http://x{PREFIX}info?y=http://z//"]
)
def test_slashes_elsewhere_do_no_harm(api: Api, target: str) -> None:
    assert api.send(_request("GET", target, f"X-Rh-Identity: {IDENTITY}")).status == 200


@pytest.mark.parametrize("method", ["FOO", "WEBSOCKET", "QUERY", "PROPFIND", "TRACE", "CONNECT", "HEAD", "GETX"])
def test_a_method_that_nobody_knows_is_not_offered(api: Api, method: str) -> None:
    answer = api.send(_asked(method, "info"))
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, OPTIONS")
    answer = api.send(_asked(method, "clusters/x"))
    assert (answer.status, answer.headers["Allow"]) == (405, "OPTIONS")
    answer = api.send(_asked(method, "unknown"))
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([f"X_Rh_Identity: {IDENTITY}"], "Missing auth token"),
        ([f"x_rh_identity: {IDENTITY}", "X-Rh-Identity:"], "Missing auth token"),
        ([f"X-Rh-Identity: {IDENTITY}"] * 2, "Malformed authentication token"),
        ([f"X-Rh-Identity: {IDENTITY}", "X-Rh-Identity: "], "Malformed authentication token"),
        (["X-Rh-Identity: nonsense", f"x_rh_identity: {IDENTITY}"], "Malformed authentication token"),
    ],
)
def test_another_spelling_or_a_second_header_is_no_identity(api: Api, headers: list[str], text: str) -> None:
    answer = api.send(_request("GET", f"{PREFIX}organizations", *headers))
    assert (answer.status, _body(answer)) == (401, {"status": text})


def test_the_name_of_the_identity_header_is_not_case_sensitive_and_another_spelling_changes_nothing(api: Api) -> None:
    other = base64.b64encode(b'{"identity": {"org_id": "2"}}').decode()
    for headers in (
        [f"x_rh_identity: {other}", f"X-RH-IDENTITY: {IDENTITY}"],
        [f"x-rh-identity: {IDENTITY}", f"X_RH_Identity: {other}"],
    ):
        answer = api.send(_request("GET", f"{PREFIX}organizations", *headers))
        assert _body(answer) == {"organizations": [1], "status": "ok"}


@pytest.mark.parametrize(
    ("raw", "decoded"),
    [("%00", "\0"), ("%0A", "\n"), ("%FF%C5", "\ufffd\ufffd"), ("%zz%", "%zz%"), ("a|b", "a|b"), ("%C5%BE", "ž")],
)
def test_a_path_is_decoded_as_the_contract_says(api: Api, raw: str, decoded: str) -> None:
    answer = api.send(_asked("GET", f"organizations/{raw}/clusters"))
    text = f"Error during parsing param 'organization' with value '{decoded}'. Error: 'unsigned integer expected'"
    assert (answer.status, _body(answer)) == (400, {"status": text})


def test_a_request_line_of_32_kib_works(api: Api) -> None:
    ids = ",".join([CLUSTER] * 880)
    answer = api.send(_asked("GET", f"organizations/1/clusters/{ids}/reports"))
    assert (answer.status, len(_body(answer)["clusters"])) == (200, 880)


def test_a_body_of_1_mib_works_and_one_above_the_limit_does_not(api: Api) -> None:
    ids = json.dumps({"clusters": [CLUSTER] * 26_300}).encode()
    assert len(ids) > 1_048_576
    path, length = "organizations/1/clusters/reports", "Content-Length: {}".format
    answer = api.send(_asked("POST", path, length(len(ids)), body=ids))
    assert (answer.status, len(_body(answer)["clusters"])) == (200, 26_300)
    most = ids.ljust(1_500_000)
    assert api.send(_asked("POST", path, length(len(most)), body=most)).status == 200
    assert api.send(_asked("POST", path, length(len(most) + 1))).status == 413


def test_a_chunked_body_above_the_limit_is_refused(api: Api) -> None:
    body = b"%x\r\n%b\r\n" % (1_500_001, b" " * 1_500_001) + b"0\r\n\r\n"
    answer = api.send(_asked("POST", "organizations/1/clusters/reports", "Transfer-Encoding: chunked", body=body))
    assert answer.status == 413


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Transfer-Encoding: chunked", b"zz\r\n"),
        ("Transfer-Encoding: chunked", b'd\r\n{"clusters": \r\nzz\r\n'),
        ("Transfer-Encoding: gzip, chunked", b"2\r\n{}\r\n0\r\n\r\n"),
        ("Content-Length: 500", b""),
        ("Content-Length: 500", b'{"clusters": []}'),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "rules/a.b%7CK/organizations/1/users/u/clusters_detail"), ("POST", "organizations/1/clusters/reports")],
)
def test_a_body_that_is_broken_is_never_taken_for_a_whole_one(
    api: Api, method: str, path: str, header: str, body: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(_asked(method, path, header, body=body))
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(65536)
    # nobody waits for the answer to a request that breaks off
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501", b"HTTP/1.0 400"))


def test_headers_above_the_limit_are_refused_by_the_server(api: Api) -> None:
    answer = api.send(_asked("GET", "info", f"X-Long: {'x' * 1_000_000}"))
    assert answer.status == 431
    assert b"Traceback" not in answer.body  # type: ignore[attr-defined]


def test_clients_that_never_finish_their_request_hold_no_thread(api: Api) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=10))
            client.sendall(_asked("GET", "info")[:40])
        assert api.send(_asked("GET", "info")).status == 200


def test_clients_that_send_their_body_slowly_hold_no_thread(api: Api) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=10))
            client.sendall(
                _asked("POST", "organizations/1/clusters/reports", "Content-Length: 100", body=b'{"clusters"')
            )
        assert api.send(_asked("GET", "info")).status == 200


def test_a_connection_serves_several_requests(api: Api) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    for path in ("organizations", "unknown", "organizations/1/clusters", "organizations"):
        connection.request("GET", PREFIX + path, headers={"X-Rh-Identity": IDENTITY})
        assert connection.getresponse().read()
    connection.close()


def test_an_answer_that_a_client_has_already_is_not_sent_again(api: Api) -> None:
    answer = api.send(_asked("GET", "organizations/1/clusters"))
    tag = answer.headers["ETag"]
    assert answer.headers["Cache-Control"] == "private, no-cache"
    known = api.send(_asked("GET", "organizations/1/clusters", f"If-None-Match: {tag}"))
    assert (known.status, known.headers["ETag"], known.body) == (304, tag, b"")  # type: ignore[attr-defined]
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    for _ in range(3):
        headers = {"X-Rh-Identity": IDENTITY, "If-None-Match": tag}
        connection.request("GET", f"{PREFIX}organizations/1/clusters", headers=headers)
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.headers["Connection"]) == (304, b"", None)
    connection.close()
    assert api.send(_asked("GET", "organizations/1/clusters", 'If-None-Match: "other"')).status == 200


def test_a_page_tells_where_the_next_one_is(start_api: StartApi, sqlite_url: str, server: str) -> None:
    second = REPORT.replace(CLUSTER, "b9d4b240-49e2-56d0-a495-f2798c5e3b2f")
    settings = {"API__SERVER": server, "API__ORG_OVERVIEW_LIMIT_HOURS": "1000000"}
    api = start_api(_fill(sqlite_url, REPORT, second), **settings).wait_until_it_listens()
    first = api.get("organizations/1/clusters?limit=1")
    assert first.json["clusters"] == [CLUSTER]
    target = first.headers["Link"].removeprefix("<").removesuffix('>; rel="next"')
    following = fetch(api.port, target)
    assert following.json["clusters"] == ["b9d4b240-49e2-56d0-a495-f2798c5e3b2f"]
    assert "Link" not in following.headers


def test_every_line_of_the_log_of_a_request_has_its_id(api: Api) -> None:
    answer = api.send(_asked("GET", "organizations/1/clusters", "X-Request-Id: test-4711"))
    assert answer.headers["X-Request-Id"] == "test-4711"
    line = json.loads(api.process.wait_for_log("test-4711"))
    milliseconds = line.pop("milliseconds")
    assert 0 <= milliseconds < 10_000
    expected = {
        "event": "request",
        "level": "info",
        "method": "GET",
        "route": "/organizations/{organization}/clusters",
        "status": 200,
        "org_id": 1,
        "request_id": "test-4711",
    }
    assert expected.items() <= line.items()


def test_metrics_are_the_same_under_the_prefix_and_on_the_admin_port(api: Api) -> None:
    api.send(_asked("GET", "organizations/1/clusters"))
    sample = 'aggregator_api_requests_total{method="GET",route="/organizations/{organization}/clusters",status="200"}'
    assert sample in api.get("metrics").text
    assert sample in fetch(api.admin_port, "/metrics").text


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
        api = start_api(_fill(sqlite_url), **{setting: str(port)})
        assert _refusal(api) == f"error: {name}: can't listen on 127.0.0.1:{port}: Address already in use"


def test_of_two_that_waited_for_their_database_on_one_port_only_one_serves(
    start_api: StartApi, own_postgresql: PostgresqlServer, server: str
) -> None:
    url = _fill(own_postgresql.create_database())
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
        (["DROP TABLE migration_info"], "not a known database"),
        (
            ["DROP TABLE rule_hit", "ALTER TABLE report DROP COLUMN gathered_at"],
            "missing: column report.gathered_at, table rule_hit",
        ),
    ],
)
def test_a_database_with_another_schema_ends_the_start_with_what_was_found(
    start_api: StartApi, database_url: str, statements: list[str], says: str
) -> None:
    assert says in _refusal(start_api(_fill(database_url, *statements)))


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
    _fill(postgresql_url, f"CREATE ROLE {role} LOGIN")
    try:
        api = start_api(postgresql_url.replace("postgres@", f"{role}@"))
        assert "permission denied for table migration_info" in _refusal(api)
    finally:
        _execute(postgresql_url, f"DROP ROLE {role}")


def test_a_role_that_may_only_read_is_enough(start_api: StartApi, postgresql_url: str) -> None:
    role = f"reader_{free_port()}"
    _fill(postgresql_url, REPORT, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        api = start_api(postgresql_url.replace("postgres@", f"{role}@")).wait_until_it_listens()
        assert api.get("organizations").json == {"organizations": [1], "status": "ok"}
        assert api.process.stop() == 0
    finally:
        _execute(postgresql_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_database_without_our_steps_is_served_with_one_warning(start_api: StartApi, database_url: str) -> None:
    api = start_api(_fill(database_url, REPORT, "DELETE FROM aggregator_migration")).wait_until_it_listens()
    warnings = [line for line in api.process.output.splitlines() if "aggregator-consumer migrate" in line]
    assert len(warnings) == 1
    assert "warning" in warnings[0]
    assert api.get("organizations").status == 200


def test_a_database_that_is_away_at_the_start_is_waited_for(
    start_api: StartApi, own_postgresql: PostgresqlServer
) -> None:
    url = _fill(own_postgresql.create_database(), REPORT)
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
    api = start_api(_fill(own_postgresql.create_database(), REPORT)).wait_until_it_listens()
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
    url = _fill(own_postgresql.create_database(), REPORT)
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


@contextlib.contextmanager
def _slow_requests(url: str) -> Iterator[Callable[[int], None]]:
    """Make every question about reports wait until the block ends; yield a wait for so many that do, or more."""
    holder, watcher = psycopg2.connect(url), psycopg2.connect(url)
    watcher.autocommit = True

    def waiting() -> int:
        with watcher.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return int(cursor.fetchone()[0])

    def wait_for(count: int) -> None:
        eventually(lambda: waiting() >= count, 10, f"{count} requests that wait")

    try:
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE report IN ACCESS EXCLUSIVE MODE")
        yield wait_for
    finally:
        holder.close()
        watcher.close()


def _execute(url: str, *statements: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_that_were_accepted_are_answered_before_the_end(
    start_api: StartApi, server: str, postgresql_url: str, number: int
) -> None:
    api = start_api(_fill(postgresql_url, REPORT), API__SERVER=server, API__THREADS="2").wait_until_it_listens()
    with _slow_requests(postgresql_url) as wait_for:
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
    api = start_api(_fill(sqlite_url, REPORT), API__SERVER=server, API__SHUTDOWN_DELAY="60").wait_until_it_listens()
    api.process.signal(signal.SIGTERM)
    eventually(lambda: api.readiness().status == 503, 10, "an end of readiness")
    answer = api.get("organizations")
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    api.process.signal(signal.SIGTERM)
    assert api.process.wait_exit() == -signal.SIGTERM


def test_a_short_delay_ends_by_itself(start_api: StartApi, server: str, sqlite_url: str) -> None:
    api = start_api(_fill(sqlite_url), API__SERVER=server, API__SHUTDOWN_DELAY="0.2").wait_until_it_listens()
    assert api.process.stop(timeout=10) == 0


def test_a_request_that_takes_too_long_does_not_hold_up_the_end(
    start_api: StartApi, server: str, postgresql_url: str
) -> None:
    api = start_api(_fill(postgresql_url), API__SERVER=server, API__SHUTDOWN_TIMEOUT="0.2").wait_until_it_listens()
    with _slow_requests(postgresql_url) as wait_for:
        slow = api.begin("organizations")
        wait_for(1)
        assert api.process.stop(timeout=10) == 0
        slow.close()
    assert "requests were cut off" in api.process.output


def test_a_second_signal_ends_at_once(start_api: StartApi, server: str, postgresql_url: str) -> None:
    api = start_api(_fill(postgresql_url), API__SERVER=server).wait_until_it_listens()
    with _slow_requests(postgresql_url) as wait_for:
        slow = api.begin("organizations")
        wait_for(1)
        api.process.signal(signal.SIGTERM)
        eventually(api.refuses_connections, 10, "a closed port")
        api.process.signal(signal.SIGTERM)
        assert api.process.wait_exit(5) == -signal.SIGTERM
        slow.close()


def test_idle_connections_do_not_hold_up_the_end(start_api: StartApi, server: str, sqlite_url: str) -> None:
    api = start_api(_fill(sqlite_url), API__SERVER=server).wait_until_it_listens()
    kept = [api.begin("organizations") for _ in range(3)]
    assert [connection.getresponse().read() for connection in kept] == [b'{"organizations":[],"status":"ok"}'] * 3
    silent = socket.create_connection(("127.0.0.1", api.port), timeout=5)
    assert api.process.stop(timeout=5) == 0
    assert silent.recv(1) == b""
    silent.close()
    for connection in kept:
        connection.close()


def test_more_requests_than_threads_wait_and_are_served(start_api: StartApi, server: str, postgresql_url: str) -> None:
    api = start_api(_fill(postgresql_url, REPORT), API__SERVER=server, API__THREADS="2").wait_until_it_listens()
    with _slow_requests(postgresql_url) as wait_for:
        slow = [api.begin("organizations") for _ in range(30)]
        wait_for(2)
    assert [connection.getresponse().status for connection in slow] == [200] * 30
    for connection in slow:
        connection.close()


# clients that are silent, slow or too many


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /x HTTP/1.1\r\nHost",
        _request("GET", "/x").replace(b"Connection: close\r\n", b""),
        _asked("POST", "organizations/1/clusters/reports", "Content-Length: 100", body=b"["),
    ],
    ids=["nothing", "half a head", "one request", "half a body"],
)
def test_a_connection_that_is_silent_is_closed(start_api: StartApi, sqlite_url: str, server: str, sent: bytes) -> None:
    api = start_api(_fill(sqlite_url), API__SERVER=server, API__IDLE_TIMEOUT="1").wait_until_it_listens()
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as client:
        client.sendall(sent)
        while client.recv(65536):
            pass


def test_silent_connections_keep_nobody_out(start_api: StartApi, sqlite_url: str, server: str) -> None:
    api = start_api(_fill(sqlite_url), API__SERVER=server).wait_until_it_listens()
    with contextlib.ExitStack() as clients:
        for _ in range(600):
            clients.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=10))
        assert api.get("organizations").status == 200


def test_a_client_that_does_not_read_its_answer_holds_no_thread(
    start_api: StartApi, sqlite_url: str, server: str
) -> None:
    huge = REPORT.replace("'{}'", "json_quote(hex(zeroblob(12000000)))")
    api = start_api(_fill(sqlite_url, huge), API__SERVER=server, API__THREADS="1").wait_until_it_listens()
    request = _request("GET", f"{PREFIX}organizations/1/clusters/{CLUSTER}/reports")
    with contextlib.ExitStack() as clients:
        for _ in range(3):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=30))
            client.sendall(request)
            assert client.recv(1) == b"H"
        assert api.get("organizations").status == 200


def test_large_answers_that_nobody_reads_cost_no_more_than_one_a_connection(
    start_api: StartApi, sqlite_url: str, server: str
) -> None:
    large = REPORT.replace("'{}'", "json_quote(hex(zeroblob(1000000)))")
    api = start_api(_fill(sqlite_url, large), API__SERVER=server).wait_until_it_listens()
    request = f"GET {PREFIX}organizations/1/clusters/{CLUSTER}/reports HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    process = psutil.Process(api.process.pid)
    with contextlib.ExitStack() as clients:
        for _ in range(10):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=30))
            client.sendall(request * 40)
            assert client.recv(1) == b"H"
        assert api.get("organizations").status == 200
        assert process.num_fds() < 100
        assert process.memory_info().rss < 400_000_000


def test_requests_that_are_sent_at_once_are_answered_in_their_order(api: Api) -> None:
    request = f"GET {PREFIX}%s HTTP/1.1\r\nHost: x\r\nX-Rh-Identity: {IDENTITY}\r\n\r\n"
    requests = "".join(request % path for path in ["openapi.json", "nothing", "organizations"] * 5).encode()
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(requests + _asked("GET", "info"))
        with client.makefile("rb") as answers:
            assert re.findall(rb"HTTP/1.1 (\d+)", answers.read()) == [b"200", b"404", b"200"] * 5 + [b"200"]


def test_when_there_is_no_room_connections_with_work_are_kept(start_api: StartApi, sqlite_url: str) -> None:
    large = REPORT.replace("'{}'", "json_quote(hex(zeroblob(5000000)))")
    api = start_api(_fill(sqlite_url, large)).wait_until_it_listens()
    reader = api.begin(f"organizations/1/clusters/{CLUSTER}/reports")
    uploader = socket.create_connection(("127.0.0.1", api.port), timeout=30)
    head, body = _asked("POST", "organizations/1/clusters/reports", "Content-Length: 16"), b'{"clusters": []}'
    uploader.sendall(head + body[:5])
    with contextlib.ExitStack() as clients:
        for _ in range(600):
            clients.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=10))
        assert api.get("organizations").status == 200
        uploader.sendall(body[5:])
        assert uploader.recv(12) == b"HTTP/1.1 200"
        assert len(reader.getresponse().read()) > 10_000_000
    uploader.close()
    reader.close()


def test_waiting_requests_and_busy_connections_are_shown(start_api: StartApi, postgresql_url: str, server: str) -> None:
    api = start_api(_fill(postgresql_url, REPORT), API__SERVER=server, API__THREADS="2").wait_until_it_listens()

    def shown() -> dict[str, float]:
        lines = fetch(api.admin_port, "/metrics").text.splitlines()
        samples = dict(line.rsplit(" ", 1) for line in lines if line.startswith("aggregator_api_"))
        names = ("queued_requests", "database_connections", "database_connections_in_use")
        return {name: float(samples[f"aggregator_api_{name}"]) for name in names}

    assert shown() == {"queued_requests": 0, "database_connections": 0, "database_connections_in_use": 0}
    with _slow_requests(postgresql_url) as wait_for:
        slow = [api.begin("organizations") for _ in range(5)]
        wait_for(2)
        busy = {"queued_requests": 3, "database_connections": 2, "database_connections_in_use": 2}
        eventually(lambda: shown() == busy, 10, "three requests that wait")
    assert [connection.getresponse().status for connection in slow] == [200] * 5
    idle = {"queued_requests": 0, "database_connections": 2, "database_connections_in_use": 0}
    eventually(lambda: shown() == idle, 10, "an end of work")
    for connection in slow:
        connection.close()


# the other commands


def _run(processes: Processes, *arguments: str, **settings: str) -> Process:
    environment = {f"AGGREGATOR_{name}": value for name, value in settings.items()}
    process = processes.start("command", [*API, *arguments], environment)
    process.wait_exit()
    return process


def test_health_asks_the_admin_port(
    processes: Processes, start_api: StartApi, own_postgresql: PostgresqlServer
) -> None:
    api = start_api(_fill(own_postgresql.create_database())).wait_until_it_listens()
    port = str(api.admin_port)
    eventually(lambda: api.readiness().status == 200, 10, "readiness")
    ready = _run(processes, "health", API__ADMIN_PORT=port)
    assert (ready.exit_code, json.loads(ready.output)["status"]) == (0, "ok")
    own_postgresql.stop()
    eventually(lambda: api.readiness().status == 503, 10, "an end of readiness")
    assert _run(processes, "health", API__ADMIN_PORT=port).exit_code == 1
    assert _run(processes, "health", "--live", API__ADMIN_PORT=port).exit_code == 0
    assert _run(processes, "health", API__ADMIN_PORT=str(free_port())).exit_code == 1


def test_config_shows_what_is_in_force_without_secrets(processes: Processes) -> None:
    shown = _run(processes, "config", DATABASE__URL="postgresql://me:secret@host/db", API__THREADS="7")
    assert shown.exit_code == 0
    assert "threads = 7" in shown.output
    assert "environment AGGREGATOR_API__THREADS" in shown.output
    assert "postgresql://me:***@host/db" in shown.output
    assert "secret" not in shown.output


def test_an_unknown_setting_is_named(processes: Processes) -> None:
    refused = _run(processes, "config", API__PROT="1")
    assert refused.exit_code == 2
    assert refused.output.startswith("error: api.prot: unknown setting")
