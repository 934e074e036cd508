"""How a request of granian becomes one of WSGI, and what happens around it (`api_service/servers/rsgi.py`)."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from api_service.metrics import ApiMetrics
from api_service.servers.rsgi import RsgiApplication, environ
from api_service.settings import ApiSettings
from libaggregator.build import BuildFacts


class Headers:
    """Headers as granian has them: names in lower case, values that are no ASCII left out."""

    def __init__(self, *headers: tuple[str, str]) -> None:
        self._headers = headers

    def __contains__(self, key: str) -> bool:
        return key in self.keys()

    def keys(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._headers))

    def get_all(self, key: str) -> list[str]:
        return [value for name, value in self._headers if name == key and value.isascii()]

    def get(self, key: str) -> str | None:
        return next(iter(self.get_all(key)), None)


@dataclass
class Scope:
    """A request as granian has it."""

    path: str = "/x"
    method: str = "GET"
    query_string: str = ""
    http_version: str = "1.1"
    scheme: str = "http"
    server: str = "127.0.0.1:8080"
    client: str = "[::1]:4711"
    headers: Headers = field(default_factory=Headers)


class Protocol:
    """Gives a body in chunks as granian does, with an empty one at its end, and keeps the answer."""

    def __init__(self, chunks: Iterable[bytes] = (), stalls: bool = False, breaks_off: bool = False) -> None:
        end = [] if stalls else [b"", b""] if breaks_off else [b""]
        self._chunks = iter([*chunks, *end])
        self._stalls = stalls
        self.answer: tuple[int, list[tuple[str, str]], Any] | None = None

    def __aiter__(self) -> "Protocol":
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        if self._stalls:
            await asyncio.Event().wait()
        raise StopAsyncIteration

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answer = status, headers, body

    def response_str(self, status: int, headers: list[tuple[str, str]], body: str) -> None:
        self.answer = status, headers, body


def _env(*headers: tuple[str, str], **scope: Any) -> dict[str, Any]:
    return environ(Scope(headers=Headers(*headers), **scope), b"")


def test_a_header_with_an_underscore_is_left_out_wherever_it_stands() -> None:
    for headers in ([("x_rh_identity", "bad"), ("x-rh-identity", "good")], [("x-rh-identity", "good")]):
        assert _env(*headers)["HTTP_X_RH_IDENTITY"] == "good"
        assert _env(*reversed(headers))["HTTP_X_RH_IDENTITY"] == "good"
    for name in ("x_rh_identity", "x-rh_identity", "x_rh-identity"):
        assert "HTTP_X_RH_IDENTITY" not in _env((name, "bad"))


def test_a_header_that_was_sent_twice_is_joined_by_a_comma() -> None:
    assert _env(("x-a", "1"), ("x-b", "2"), ("x-a", "3"))["HTTP_X_A"] == "1,3"


def test_a_header_whose_value_is_not_ascii_is_there_and_can_not_be_taken_for_another_one() -> None:
    assert _env(("x-rh-identity", "ž"))["HTTP_X_RH_IDENTITY"] == "\ufffd"


def test_the_path_is_in_the_form_of_wsgi() -> None:
    assert _env(path="/ž")["PATH_INFO"].encode("latin-1").decode() == "/ž"


def test_the_body_has_its_length_whatever_the_headers_say() -> None:
    env = environ(Scope(headers=Headers(("transfer-encoding", "chunked"), ("content-type", "a/b"))), b"four")
    assert (env["CONTENT_LENGTH"], env["CONTENT_TYPE"], env["wsgi.input"].read()) == ("4", "a/b", b"four")
    assert "HTTP_TRANSFER_ENCODING" not in env
    assert "HTTP_CONTENT_LENGTH" not in env


def _application(app: Any, is_stopping: bool = False, **settings: Any) -> RsgiApplication:
    metrics = ApiMetrics(CollectorRegistry(), BuildFacts())
    return RsgiApplication(app, metrics, ApiSettings(**settings), lambda: is_stopping)


def _ask(app: Any, scope: Scope, protocol: Protocol, **settings: Any) -> Any:
    application = _application(app, **settings)
    application.start_threads()
    asyncio.run(asyncio.wait_for(application.__rsgi__(scope, protocol), 20))
    return protocol.answer


def _echo(env: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("x-method", env["REQUEST_METHOD"])])
    return [b"<", env["wsgi.input"].read(), b">"]


CHUNKED = Headers(("transfer-encoding", "chunked"))


def test_the_answer_of_the_application_goes_out() -> None:
    status, headers, body = _ask(_echo, Scope(method="POST", headers=CHUNKED), Protocol([b"a", b"b"]))
    assert (status, body) == (200, b"<ab>")
    assert ("x-method", "POST") in headers


def test_a_request_without_a_body_is_not_waited_for() -> None:
    assert _ask(_echo, Scope(), Protocol(stalls=True))[2] == b"<>"


@pytest.mark.parametrize("headers", [CHUNKED, Headers(("content-length", "5"))])
def test_a_body_above_the_limit_is_refused(headers: Headers) -> None:
    assert _ask(_echo, Scope(headers=headers), Protocol([b"abc", b"de"], stalls=True), max_body_bytes=4)[0] == 413


@pytest.mark.parametrize(
    ("headers", "protocol"),
    [
        (CHUNKED, Protocol([b"abc"], breaks_off=True)),
        (CHUNKED, Protocol(breaks_off=True)),
        (Headers(("content-length", "5")), Protocol([b"abc"])),
        (Headers(("content-length", "5")), Protocol()),
    ],
)
def test_a_body_that_breaks_off_is_refused(headers: Headers, protocol: Protocol) -> None:
    assert _ask(_echo, Scope(headers=headers), protocol)[0] == 400


def test_another_transfer_encoding_is_refused() -> None:
    headers = Headers(("transfer-encoding", "gzip, chunked"))
    assert _ask(_echo, Scope(headers=headers), Protocol([b"a"]))[0] == 501


def test_before_the_end_clients_are_told_to_close_their_connections() -> None:
    application, protocol = _application(_echo, is_stopping=True), Protocol()
    application.start_threads()
    asyncio.run(asyncio.wait_for(application.__rsgi__(Scope(), protocol), 20))
    assert protocol.answer is not None
    assert ("connection", "close") in protocol.answer[1]


def test_a_body_that_does_not_come_is_given_up() -> None:
    assert _ask(_echo, Scope(headers=CHUNKED), Protocol([b"a"], stalls=True), idle_timeout=0)[0] == 408


def test_a_fault_around_the_application_costs_no_thread() -> None:
    def broken(env: dict[str, Any], start_response: Any) -> list[bytes]:
        raise ValueError

    application = _application(broken, threads=1)
    application.start_threads()
    for _ in range(3):
        protocol = Protocol()
        asyncio.run(asyncio.wait_for(application.__rsgi__(Scope(), protocol), 20))
        assert protocol.answer is None
