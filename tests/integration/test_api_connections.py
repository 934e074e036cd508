"""Clients that are silent, slow or too many keep nobody else from an answer."""

import contextlib
import re
import socket

import psutil
import pytest

from tests.support.api_process import (
    CLUSTER,
    IDENTITY,
    REPORT,
    Api,
    StartApi,
    api_request,
    fill,
    http_request,
    slow_requests,
)
from tests.support.deployment import PREFIX, fetch
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /x HTTP/1.1\r\nHost",
        http_request("GET", "/x").replace(b"Connection: close\r\n", b""),
        api_request("POST", "organizations/1/clusters/reports", "Content-Length: 100", body=b"["),
    ],
    ids=["nothing", "half a head", "one request", "half a body"],
)
def test_a_connection_that_is_silent_is_closed(start_api: StartApi, sqlite_url: str, server: str, sent: bytes) -> None:
    api = start_api(fill(sqlite_url), API__SERVER=server, API__IDLE_TIMEOUT="1").wait_until_it_listens()
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as client:
        client.sendall(sent)
        while client.recv(65536):
            pass


def test_silent_connections_keep_nobody_out(start_api: StartApi, sqlite_url: str, server: str) -> None:
    api = start_api(fill(sqlite_url), API__SERVER=server).wait_until_it_listens()
    with contextlib.ExitStack() as clients:
        for _ in range(600):
            clients.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=10))
        assert api.get("organizations").status == 200


def test_a_client_that_does_not_read_its_answer_holds_no_thread(
    start_api: StartApi, sqlite_url: str, server: str
) -> None:
    huge = REPORT.replace("'{}'", "json_quote(hex(zeroblob(12000000)))")
    api = start_api(fill(sqlite_url, huge), API__SERVER=server, API__THREADS="1").wait_until_it_listens()
    request = http_request("GET", f"{PREFIX}organizations/1/clusters/{CLUSTER}/reports")
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
    api = start_api(fill(sqlite_url, large), API__SERVER=server).wait_until_it_listens()
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
        client.sendall(requests + api_request("GET", "info"))
        with client.makefile("rb") as answers:
            assert re.findall(rb"HTTP/1.1 (\d+)", answers.read()) == [b"200", b"404", b"200"] * 5 + [b"200"]


def test_when_there_is_no_room_connections_with_work_are_kept(start_api: StartApi, sqlite_url: str) -> None:
    large = REPORT.replace("'{}'", "json_quote(hex(zeroblob(5000000)))")
    api = start_api(fill(sqlite_url, large)).wait_until_it_listens()
    reader = api.begin(f"organizations/1/clusters/{CLUSTER}/reports")
    uploader = socket.create_connection(("127.0.0.1", api.port), timeout=30)
    head, body = api_request("POST", "organizations/1/clusters/reports", "Content-Length: 16"), b'{"clusters": []}'
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
    api = start_api(fill(postgresql_url, REPORT), API__SERVER=server, API__THREADS="2").wait_until_it_listens()

    def shown() -> dict[str, float]:
        lines = fetch(api.admin_port, "/metrics").text.splitlines()
        samples = dict(line.rsplit(" ", 1) for line in lines if line.startswith("aggregator_api_"))
        names = ("queued_requests", "database_connections", "database_connections_in_use")
        return {name: float(samples[f"aggregator_api_{name}"]) for name in names}

    assert shown() == {"queued_requests": 0, "database_connections": 0, "database_connections_in_use": 0}
    with slow_requests(postgresql_url) as wait_for:
        slow = [api.begin("organizations") for _ in range(5)]
        wait_for(2)
        busy = {"queued_requests": 3, "database_connections": 2, "database_connections_in_use": 2}
        eventually(lambda: shown() == busy, 10, "three requests that wait")
    assert [connection.getresponse().status for connection in slow] == [200] * 5
    idle = {"queued_requests": 0, "database_connections": 2, "database_connections_in_use": 0}
    eventually(lambda: shown() == idle, 10, "an end of work")
    for connection in slow:
        connection.close()
