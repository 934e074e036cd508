"""The admin port of both processes: `/livez`, `/readyz` and `/metrics`."""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from libaggregator.admin import AdminServer, Health, Heartbeat, ask
from tests.support.waiting import eventually

HOST = "127.0.0.1"


class Checks:
    """Checks whose results the test sets."""

    def __init__(self) -> None:
        self.loop: str | None = None
        self.database: str | None = None
        self.source: str | None = None

    def health(self) -> Health:
        return Health(
            live={"loop": lambda: self.loop},
            ready={"database": lambda: self.database, "source": lambda: self.source},
        )


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def server(checks: Checks, registry: CollectorRegistry) -> Iterator[AdminServer]:
    server = AdminServer(HOST, 0, checks.health(), registry)
    server.start()
    yield server
    server.stop()


def get(server: AdminServer, path: str, method: str = "GET") -> tuple[int, str | None, str]:
    """Return status, content type and body."""
    with closing(HTTPConnection(HOST, server.port, timeout=10)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()


def get_json(server: AdminServer, path: str) -> tuple[int, Any]:
    status, content_type, body = get(server, path)
    assert content_type == "application/json"
    return status, json.loads(body)


class TestLiveness:
    def test_it_is_well_while_the_loop_comes_round(self, server: AdminServer) -> None:
        assert get_json(server, "/livez") == (200, {"status": "ok", "checks": {"loop": "ok"}})

    def test_it_fails_when_the_loop_stops(self, server: AdminServer, checks: Checks) -> None:
        checks.loop = "the loop has not come round for 99 s"
        assert get_json(server, "/livez") == (503, {"status": "failed", "checks": {"loop": checks.loop}})
        checks.loop = None
        assert get_json(server, "/livez")[0] == 200

    def test_an_outage_of_database_or_source_does_not_fail_it(self, server: AdminServer, checks: Checks) -> None:
        checks.database = checks.source = "away"
        assert get_json(server, "/livez")[0] == 200

    def test_no_check_of_it_can_be_left_out(self, server: AdminServer, checks: Checks) -> None:
        checks.loop = "stopped"
        assert get_json(server, "/livez?exclude=loop")[0] == 503


class TestReadiness:
    def test_it_names_each_check(self, server: AdminServer) -> None:
        assert get_json(server, "/readyz") == (200, {"status": "ok", "checks": {"database": "ok", "source": "ok"}})

    def test_it_says_what_is_wrong_with_which_part(self, server: AdminServer, checks: Checks) -> None:
        checks.database = 'connection refused, "über" \n all'
        status, answer = get_json(server, "/readyz")
        assert status == 503
        assert answer == {"status": "failed", "checks": {"database": checks.database, "source": "ok"}}

    @pytest.mark.parametrize(
        ("query", "status", "left"),
        [
            ("exclude=database", 200, {"source"}),
            ("exclude=source", 503, {"database"}),
            ("exclude=database&exclude=source", 200, set()),
            ("exclude=unknown", 503, {"database", "source"}),
            ("exclude=", 503, {"database", "source"}),
            ("exclude=data%62ase", 200, {"source"}),
            ("other=database", 503, {"database", "source"}),
        ],
    )
    def test_checks_can_be_left_out_by_name(
        self, server: AdminServer, checks: Checks, query: str, status: int, left: set[str]
    ) -> None:
        checks.database = "away"
        found, answer = get_json(server, f"/readyz?{query}")
        assert found == status
        assert set(answer["checks"]) == left

    def test_a_check_that_is_left_out_is_not_run(self, registry: CollectorRegistry) -> None:
        ran: list[str] = []
        health = Health(live={}, ready={"slow": lambda: ran.append("slow")})
        server = AdminServer(HOST, 0, health, registry)
        server.start()
        assert get_json(server, "/readyz?exclude=slow") == (200, {"status": "ok", "checks": {}})
        server.stop()
        assert ran == []


class TestMetrics:
    def test_they_are_those_of_the_registry_in_the_format_of_prometheus(
        self, server: AdminServer, registry: CollectorRegistry
    ) -> None:
        counter = Counter("aggregator_tests", "A test", ["label"], registry=registry)
        counter.labels("a").inc(3)
        status, content_type, body = get(server, "/metrics")
        assert status == 200
        assert content_type is not None
        assert content_type.startswith("text/plain; version=")
        assert "# HELP aggregator_tests_total A test\n# TYPE aggregator_tests_total counter\n" in body
        assert 'aggregator_tests_total{label="a"} 3.0\n' in body
        assert "python_info" not in body


@pytest.mark.parametrize("path", ["/", "/health", "/livez/", "/livez/x", "/READYZ", "/metrics/"])
def test_another_path_is_404_and_says_what_there_is(server: AdminServer, path: str) -> None:
    status, content_type, body = get(server, path)
    assert (status, content_type) == (404, "text/plain; charset=utf-8")
    assert all(name in body for name in ("/livez", "/readyz", "/metrics"))


def test_another_method_is_refused(server: AdminServer) -> None:
    assert get(server, "/livez", "POST")[0] == 501


def test_the_server_does_not_tell_its_versions(server: AdminServer) -> None:
    with closing(HTTPConnection(HOST, server.port, timeout=10)) as connection:
        connection.request("GET", "/livez")
        assert connection.getresponse().headers["Server"].strip() == "aggregator"


def test_silent_clients_do_not_keep_others_waiting(server: AdminServer) -> None:
    with ExitStack() as stack:
        for sent in (b"", b"GET /livez", b"GET /livez HTTP/1.1\r\nHost: x\r\n"):
            client = stack.enter_context(socket.create_connection((HOST, server.port), timeout=10))
            client.sendall(sent)
        well, answer = ask(HOST, server.port, "/livez", timeout=5)
        assert well, answer


def test_a_slow_check_does_not_keep_others_waiting(registry: CollectorRegistry) -> None:
    entered, release = Event(), Event()

    def slow() -> None:
        entered.set()
        release.wait(10)

    server = AdminServer(HOST, 0, Health(live={"loop": lambda: None}, ready={"slow": slow}), registry)
    server.start()
    waiting = Thread(target=ask, args=(HOST, server.port, "/readyz", 10))
    waiting.start()
    assert entered.wait(10)
    assert ask(HOST, server.port, "/livez", timeout=5)[0]
    release.set()
    waiting.join(10)
    server.stop()


def test_a_client_that_goes_away_before_its_answer_leaves_nothing_in_the_log(
    registry: CollectorRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    """A probe that has lost its patience; whoever reads the log expects one event a line."""
    entered, release = Event(), Event()

    def slow() -> None:
        entered.set()
        release.wait(10)

    server = AdminServer(HOST, 0, Health(live={}, ready={"slow": slow}), registry)
    server.start()
    before = set(enumerate_threads())
    client = socket.create_connection((HOST, server.port), timeout=10)
    client.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
    assert entered.wait(10)
    at_once = struct.pack("ii", 1, 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    client.close()
    release.set()
    eventually(lambda: set(enumerate_threads()) <= before, what="the request is over")
    server.stop()
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken_is_told_at_once(server: AdminServer, checks: Checks) -> None:
    with pytest.raises(OSError, match="in use"):
        AdminServer(HOST, server.port, checks.health(), CollectorRegistry())


def test_the_port_is_free_again_after_stop(checks: Checks, registry: CollectorRegistry) -> None:
    server = AdminServer(HOST, 0, checks.health(), registry)
    server.start()
    assert ask(HOST, server.port, "/livez", timeout=5)[0]
    port = server.port
    server.stop()
    well, answer = ask(HOST, port, "/livez", timeout=5)
    assert not well
    assert answer.startswith(f"no answer from {HOST}:{port}: ")
    again = AdminServer(HOST, port, checks.health(), registry)
    again.start()
    assert ask(HOST, port, "/livez", timeout=5)[0]
    again.stop()


class TestAsk:
    def test_it_returns_the_answer_whether_or_not_it_is_well(self, server: AdminServer, checks: Checks) -> None:
        assert ask(HOST, server.port, "/readyz?exclude=source", timeout=5) == (
            True,
            '{"status": "ok", "checks": {"database": "ok"}}',
        )
        checks.database = "away"
        well, answer = ask(HOST, server.port, "/readyz", timeout=5)
        assert not well
        assert json.loads(answer)["checks"]["database"] == "away"

    def test_another_status_is_not_well(self, server: AdminServer) -> None:
        assert not ask(HOST, server.port, "/nothing", timeout=5)[0]

    @pytest.mark.parametrize("sent", [b"", b"SSH-2.0-OpenSSH\r\n"])
    def test_somebody_else_on_the_port_is_not_well(self, sent: bytes) -> None:
        with socket.create_server((HOST, 0)) as listener:
            listener.settimeout(10)
            port = listener.getsockname()[1]

            def answer_once() -> None:
                client, _ = listener.accept()
                with client:
                    client.recv(1000)
                    client.sendall(sent)

            other = Thread(target=answer_once)
            other.start()
            well, answer = ask(HOST, port, "/livez", timeout=5)
            other.join(10)
        assert not well
        assert answer.startswith(f"no answer from {HOST}:{port}: ")

    def test_one_that_does_not_answer_is_given_up(self) -> None:
        with socket.create_server((HOST, 0)) as listener:
            well, answer = ask(HOST, listener.getsockname()[1], "/livez", timeout=0.1)
        assert not well
        assert "timed out" in answer


class TestHeartbeat:
    def test_it_fails_when_the_loop_has_not_come_round_for_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = SimpleNamespace(now=1000.0)
        monkeypatch.setattr("libaggregator.admin.time", SimpleNamespace(monotonic=lambda: clock.now))
        heartbeat = Heartbeat(30)
        assert heartbeat.check() is None
        clock.now += 30
        assert heartbeat.check() is None
        clock.now += 1
        assert heartbeat.check() == "the loop has not come round for 31 s"
        heartbeat.beat()
        assert heartbeat.check() is None
        clock.now += 31
        assert heartbeat.check() is not None
