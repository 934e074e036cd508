"""Several worker processes answer on one port: together they are one API, and none of them is missed."""

import contextlib
import http.client
import os
import signal
import socket
from collections.abc import Callable, Iterator
from threading import Thread

import psutil
import pytest

from api_service.servers import take_port
from api_service.servers.workers import Pulse, Workers
from api_service.settings import ApiSettings
from libaggregator.admin import Heartbeat
from tests.support.api_process import REPORT, Api, fill, slow_requests
from tests.support.deployment import PREFIX, fetch
from tests.support.processes import Processes
from tests.support.waiting import eventually


def _workers(api: Api) -> list[psutil.Process]:
    children = psutil.Process(api.process.pid).children()
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def _start(processes: Processes, url: str, server: str, **settings: str) -> Api:
    api = Api(processes, url, API__SERVER=server, API__WORKERS="2", **settings).wait_until_it_listens()
    assert len(_workers(api)) == 2
    return api


@contextlib.contextmanager
def _connections(api: Api, count: int) -> Iterator[list[http.client.HTTPConnection]]:
    connections = [http.client.HTTPConnection("127.0.0.1", api.port, timeout=20) for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def _ask(connections: list[http.client.HTTPConnection]) -> list[int]:
    """Ask on all connections at once and return the statuses."""
    for connection in connections:
        connection.request("GET", f"{PREFIX}organizations")
    answers = [connection.getresponse() for connection in connections]
    for answer in answers:
        answer.read()
    return [answer.status for answer in answers]


def _count(text: str) -> float:
    sample = 'aggregator_api_requests_total{method="GET",route="/organizations",status="200"} '
    return sum(float(line.removeprefix(sample)) for line in text.splitlines() if line.startswith(sample))


def test_requests_of_all_workers_are_counted_wherever_metrics_are_asked_for(
    processes: Processes, database_url: str, server: str
) -> None:
    api = _start(processes, fill(database_url, REPORT), server)
    with _connections(api, 30) as connections:
        assert _ask(connections) == [200] * 30
    assert _count(fetch(api.admin_port, "/metrics").text) == 30
    assert _count(api.get("metrics").text) == 30
    assert api.readiness().status == 200
    assert "process_resident_memory_bytes" in fetch(api.admin_port, "/metrics").text
    assert api.process.stop() == 0


def test_a_worker_that_dies_is_replaced_and_its_counts_are_kept(
    processes: Processes, sqlite_url: str, server: str
) -> None:
    api = _start(processes, fill(sqlite_url, REPORT), server)
    with _connections(api, 10) as connections:
        assert _ask(connections) == [200] * 10
    victim = _workers(api)[0]
    victim.kill()
    api.process.wait_for_log("a worker ended by itself")
    eventually(lambda: len(_workers(api)) == 2 and victim not in _workers(api), 20, "another worker")
    with _connections(api, 10) as connections:
        assert _ask(connections) == [200] * 10
    metrics = fetch(api.admin_port, "/metrics").text
    assert _count(metrics) == 20
    assert "aggregator_api_worker_restarts_total 1.0" in metrics
    eventually(lambda: "aggregator_api_listening_workers 2.0" in fetch(api.admin_port, "/metrics").text, 20, "both")
    assert fetch(api.admin_port, "/livez").status == 200
    assert api.process.stop() == 0


@pytest.mark.long
def test_without_a_worker_the_api_is_not_ready(processes: Processes, sqlite_url: str, server: str) -> None:
    api = _start(processes, fill(sqlite_url), server)
    eventually(lambda: api.readiness().status == 200, 10, "readiness")
    for worker in _workers(api):
        worker.kill()
    eventually(lambda: "listening" in str(api.readiness().text) and api.readiness().status == 503, 10, "its end")
    assert "aggregator_api_listening_workers 0.0" in fetch(api.admin_port, "/metrics").text
    eventually(lambda: api.readiness().status == 200, 20, "readiness again")


def test_workers_end_with_the_process_that_started_them(processes: Processes, sqlite_url: str, server: str) -> None:
    api = _start(processes, fill(sqlite_url, REPORT), server)
    workers = _workers(api)
    api.process.signal(signal.SIGKILL)
    api.process.wait_exit()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


@pytest.mark.parametrize(
    "send",
    [pytest.param(os.kill, id="to the process"), pytest.param(os.killpg, id="to its group", marks=pytest.mark.long)],
)
def test_requests_that_were_accepted_are_answered_before_the_workers_end(
    processes: Processes, postgresql_url: str, server: str, send: Callable[[int, int], None]
) -> None:
    api = _start(processes, fill(postgresql_url, REPORT), server, API__THREADS="2")
    workers = _workers(api)
    with _connections(api, 40) as connections:
        with slow_requests(postgresql_url) as wait_for:
            for connection in connections:
                connection.request("GET", f"{PREFIX}organizations")
            # one worker may have taken all connections
            wait_for(2)
            send(api.process.pid, signal.SIGTERM)
            eventually(api.refuses_connections, 20, "a closed port")
            assert fetch(api.admin_port, "/livez").status == 200
            assert api.readiness().json["checks"]["stopping"] == "the process was told to stop"
        assert [connection.getresponse().status for connection in connections] == [200] * 40
    assert api.process.wait_exit() == 0
    assert not any(worker.is_running() for worker in workers)


def test_workers_have_kept_connections_closed_before_the_port_is(
    processes: Processes, sqlite_url: str, server: str
) -> None:
    api = _start(processes, fill(sqlite_url, REPORT), server, API__SHUTDOWN_DELAY="60")
    with _connections(api, 8) as connections:

        def closing(connection: http.client.HTTPConnection) -> bool:
            connection.request("GET", f"{PREFIX}organizations")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            return answer.will_close

        assert not any(closing(connection) for connection in connections)
        api.process.signal(signal.SIGTERM)
        eventually(lambda: all(closing(connection) for connection in connections), 10, "answers that tell to close")
    api.process.signal(signal.SIGTERM)
    assert api.process.wait_exit() == -signal.SIGTERM


@pytest.mark.long
def test_a_second_signal_ends_the_workers_at_once(processes: Processes, postgresql_url: str, server: str) -> None:
    api = _start(processes, fill(postgresql_url, REPORT), server)
    workers = _workers(api)
    with slow_requests(postgresql_url) as wait_for:
        connection = api.begin("organizations")
        wait_for(1)
        api.process.signal(signal.SIGTERM)
        eventually(api.refuses_connections, 20, "a closed port")
        api.process.signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(workers, timeout=5)
        assert alive == []
        assert api.process.wait_exit() == -signal.SIGTERM
    connection.close()


def _hang(bound: socket.socket, pulse: Pulse) -> None:
    """Do a worker's work without ever coming round."""
    signal.pause()


@pytest.mark.long
def test_a_worker_whose_loop_does_not_come_round_is_named() -> None:
    settings = ApiSettings(workers=2, shutdown_timeout=0.0)
    with take_port(ApiSettings(port=0)) as bound:
        workers = Workers(_hang, settings, bound, Heartbeat(30))
        checks = workers.checks(patience=0.1)
        running = Thread(target=workers.run, args=(lambda: None,))
        running.start()
        eventually(lambda: all(check() for check in checks.values()), 20, "two workers that hang")
        workers.request_stop()
        running.join()
    assert list(checks) == ["worker 1", "worker 2"]
