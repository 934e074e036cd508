"""What goes over the wire: requests in every form that HTTP has for them, and their answers."""

import base64
import contextlib
import http.client
import json
import socket

import pytest

from tests.support.api_process import CLUSTER, IDENTITY, REPORT, Api, StartApi, api_request, fill, http_request
from tests.support.deployment import PREFIX, fetch


@pytest.mark.parametrize(
    "chunks", [[b'{"clusters": ["%b"]}' % CLUSTER.encode()], [b'{"clust', b'ers": ["', CLUSTER.encode(), b'"]}']]
)
def test_a_chunked_body_counts_like_any_other(api: Api, chunks: list[bytes]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    answer = api.send(api_request("POST", "organizations/1/clusters/reports", "Transfer-Encoding: chunked", body=body))
    assert (answer.status, answer.json["clusters"]) == (200, [CLUSTER])


def test_a_body_in_chunks_counts_with_get_too(api: Api) -> None:
    path = "rules/a.b|K/organizations/1/users/u/clusters_detail"
    answer = api.send(api_request("GET", path, "Transfer-Encoding: chunked", body=b"2\r\n[]\r\n0\r\n\r\n"))
    assert (answer.status, answer.json) == (400, {"status": "bad type in json data"})


@pytest.mark.parametrize(
    ("header", "body"), [("Transfer-Encoding: chunked", b"0\r\n\r\n"), ("Content-Length: 0", b""), ("X-No: body", b"")]
)
def test_a_body_without_content_is_absent(api: Api, header: str, body: bytes) -> None:
    answer = api.send(api_request("POST", "organizations/1/clusters/reports", header, body=body))
    assert (answer.status, answer.json) == (400, {"status": "client didn't provide request body"})


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
    answer = api.send(http_request("GET", target, f"X-Rh-Identity: {IDENTITY}"))
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")


def test_a_target_that_does_not_begin_with_a_slash_is_not_answered(api: Api) -> None:
    assert api.send(http_request("GET", f"%2F{PREFIX}info", f"X-Rh-Identity: {IDENTITY}")).status in {400, 404}


@pytest.mark.parametrize(
    "target", [f"{PREFIX}info", f"{PREFIX}info?x=//", f"http://x{PREFIX}info", f"http://x{PREFIX}info?y=http://z//"]
)
def test_slashes_elsewhere_do_no_harm(api: Api, target: str) -> None:
    assert api.send(http_request("GET", target, f"X-Rh-Identity: {IDENTITY}")).status == 200


@pytest.mark.parametrize("method", ["FOO", "WEBSOCKET", "QUERY", "PROPFIND", "TRACE", "CONNECT", "HEAD", "GETX"])
def test_a_method_that_nobody_knows_is_not_offered(api: Api, method: str) -> None:
    answer = api.send(api_request(method, "info"))
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, OPTIONS")
    answer = api.send(api_request(method, "clusters/x"))
    assert (answer.status, answer.headers["Allow"]) == (405, "OPTIONS")
    answer = api.send(api_request(method, "unknown"))
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
    answer = api.send(http_request("GET", f"{PREFIX}organizations", *headers))
    assert (answer.status, answer.json) == (401, {"status": text})


def test_the_name_of_the_identity_header_is_not_case_sensitive_and_another_spelling_changes_nothing(api: Api) -> None:
    other = base64.b64encode(b'{"identity": {"org_id": "2"}}').decode()
    for headers in (
        [f"x_rh_identity: {other}", f"X-RH-IDENTITY: {IDENTITY}"],
        [f"x-rh-identity: {IDENTITY}", f"X_RH_Identity: {other}"],
    ):
        answer = api.send(http_request("GET", f"{PREFIX}organizations", *headers))
        assert answer.json == {"organizations": [1], "status": "ok"}


@pytest.mark.parametrize(
    ("raw", "decoded"),
    [("%00", "\0"), ("%0A", "\n"), ("%FF%C5", "\ufffd\ufffd"), ("%zz%", "%zz%"), ("a|b", "a|b"), ("%C5%BE", "ž")],
)
def test_a_path_is_decoded_as_the_contract_says(api: Api, raw: str, decoded: str) -> None:
    answer = api.send(api_request("GET", f"organizations/{raw}/clusters"))
    text = f"Error during parsing param 'organization' with value '{decoded}'. Error: 'unsigned integer expected'"
    assert (answer.status, answer.json) == (400, {"status": text})


def test_a_request_line_of_32_kib_works(api: Api) -> None:
    ids = ",".join([CLUSTER] * 880)
    answer = api.send(api_request("GET", f"organizations/1/clusters/{ids}/reports"))
    assert (answer.status, len(answer.json["clusters"])) == (200, 880)


def test_a_body_of_1_mib_works_and_one_above_the_limit_does_not(api: Api) -> None:
    ids = json.dumps({"clusters": [CLUSTER] * 26_300}).encode()
    assert len(ids) > 1_048_576
    path, length = "organizations/1/clusters/reports", "Content-Length: {}".format
    answer = api.send(api_request("POST", path, length(len(ids)), body=ids))
    assert (answer.status, len(answer.json["clusters"])) == (200, 26_300)
    most = ids.ljust(1_500_000)
    assert api.send(api_request("POST", path, length(len(most)), body=most)).status == 200
    assert api.send(api_request("POST", path, length(len(most) + 1))).status == 413


def test_a_chunked_body_above_the_limit_is_refused(api: Api) -> None:
    body = b"%x\r\n%b\r\n" % (1_500_001, b" " * 1_500_001) + b"0\r\n\r\n"
    answer = api.send(api_request("POST", "organizations/1/clusters/reports", "Transfer-Encoding: chunked", body=body))
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
        client.sendall(api_request(method, path, header, body=body))
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(65536)
    # nobody waits for the answer to a request that breaks off
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501", b"HTTP/1.0 400"))


def test_headers_above_the_limit_are_refused_by_the_server(api: Api) -> None:
    answer = api.send(api_request("GET", "info", f"X-Long: {'x' * 1_000_000}"))
    assert answer.status == 431
    assert b"Traceback" not in answer.body


def test_clients_that_never_finish_their_request_hold_no_thread(api: Api) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=10))
            client.sendall(api_request("GET", "info")[:40])
        assert api.send(api_request("GET", "info")).status == 200


def test_clients_that_send_their_body_slowly_hold_no_thread(api: Api) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=10))
            client.sendall(
                api_request("POST", "organizations/1/clusters/reports", "Content-Length: 100", body=b'{"clusters"')
            )
        assert api.send(api_request("GET", "info")).status == 200


def test_a_connection_serves_several_requests(api: Api) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    for path in ("organizations", "unknown", "organizations/1/clusters", "organizations"):
        connection.request("GET", PREFIX + path, headers={"X-Rh-Identity": IDENTITY})
        assert connection.getresponse().read()
    connection.close()


def test_an_answer_that_a_client_has_already_is_not_sent_again(api: Api) -> None:
    answer = api.send(api_request("GET", "organizations/1/clusters"))
    tag = answer.headers["ETag"]
    assert answer.headers["Cache-Control"] == "private, no-cache"
    known = api.send(api_request("GET", "organizations/1/clusters", f"If-None-Match: {tag}"))
    assert (known.status, known.headers["ETag"], known.body) == (304, tag, b"")
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    for _ in range(3):
        headers = {"X-Rh-Identity": IDENTITY, "If-None-Match": tag}
        connection.request("GET", f"{PREFIX}organizations/1/clusters", headers=headers)
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.headers["Connection"]) == (304, b"", None)
    connection.close()
    assert api.send(api_request("GET", "organizations/1/clusters", 'If-None-Match: "other"')).status == 200


def test_a_page_tells_where_the_next_one_is(start_api: StartApi, sqlite_url: str, server: str) -> None:
    second = REPORT.replace(CLUSTER, "b9d4b240-49e2-56d0-a495-f2798c5e3b2f")
    settings = {"API__SERVER": server, "API__ORG_OVERVIEW_LIMIT_HOURS": "1000000"}
    api = start_api(fill(sqlite_url, REPORT, second), **settings).wait_until_it_listens()
    first = api.get("organizations/1/clusters?limit=1")
    assert first.json["clusters"] == [CLUSTER]
    target = first.headers["Link"].removeprefix("<").removesuffix('>; rel="next"')
    following = fetch(api.port, target)
    assert following.json["clusters"] == ["b9d4b240-49e2-56d0-a495-f2798c5e3b2f"]
    assert "Link" not in following.headers


def test_every_line_of_the_log_of_a_request_has_its_id(api: Api) -> None:
    answer = api.send(api_request("GET", "organizations/1/clusters", "X-Request-Id: test-4711"))
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
    api.send(api_request("GET", "organizations/1/clusters"))
    sample = 'aggregator_api_requests_total{method="GET",route="/organizations/{organization}/clusters",status="200"}'
    assert sample in api.get("metrics").text
    assert sample in fetch(api.admin_port, "/metrics").text
