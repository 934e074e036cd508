"""The span of a request: in which trace it is, what it tells, and what it keeps to itself."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api_service.database import OutageError
from api_service.settings import ApiSettings
from libaggregator.spans import add_span_ids
from tests.support.api import CLUSTER, ApiUnderTest
from tests.support.collector import PRODUCER_SPAN, PRODUCER_TRACE, TRACEPARENT, SpansInMemory, ids_of, parent_of

pytestmark = pytest.mark.usefixtures("plain_logs")

PREFIX = ApiSettings().prefix


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [
        ("GET", "organizations", f"GET {PREFIX}organizations", 200),
        (
            "GET",
            f"organizations/4711/clusters/{CLUSTER}/users/somebody/report?limit=1",
            f"GET {PREFIX}organizations/{{org_id}}/clusters/{{cluster}}/users/{{user_id}}/report",
            404,
        ),
        ("GET", "organizations/x/clusters", f"GET {PREFIX}organizations/{{organization}}/clusters", 400),
        ("DELETE", "organizations", f"DELETE {PREFIX}organizations", 405),
        ("TRACE", "info", f"_OTHER {PREFIX}info", 405),
        ("GET", "somebody", "GET", 404),
        ("GET", "organizations//clusters", "GET", 404),
    ],
)
def test_a_request_is_a_span_by_its_template_never_its_path(
    tmp_path: Path, method: str, path: str, name: str, status: int
) -> None:
    memory = SpansInMemory()
    ApiUnderTest(tmp_path, spans=memory.spans).ask(method, path)
    (span,) = memory.finished
    assert span.name == name
    assert span.attributes
    assert span.attributes["http.response.status_code"] == status
    assert span.attributes["http.request.method"] == name.partition(" ")[0]
    assert span.attributes.get("http.route", "") == name.partition(" ")[2]
    assert span.status.is_unset
    for hidden in ("4711", CLUSTER, "somebody"):
        assert hidden not in span.to_json()


def test_a_fault_of_the_service_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SpansInMemory()
    api = ApiUnderTest(tmp_path, spans=memory.spans)
    for error, status in ((OutageError("away"), 503), (ZeroDivisionError(), 500)):

        def fail(*arguments: object, error: Exception = error, **values: object) -> None:
            raise error

        monkeypatch.setattr(api.reader, "read", fail)
        assert api.get("organizations").status_code == status
        span = memory.finished[-1]
        assert span.attributes
        assert (span.status.is_ok, span.attributes["error.type"]) == (False, str(status))


def test_it_is_in_the_trace_of_the_client_and_its_line_of_the_log_too(tmp_path: Path) -> None:
    memory = SpansInMemory()
    api = ApiUnderTest(tmp_path, spans=memory.spans)
    with capture_logs(processors=[add_span_ids]) as lines:
        api.get("organizations", headers={"traceparent": TRACEPARENT})
        api.get("organizations")
    with_client, alone = memory.finished
    assert (ids_of(with_client)[0], parent_of(with_client)) == (PRODUCER_TRACE, PRODUCER_SPAN)
    assert parent_of(alone) is None
    logged = [(line["trace_id"], line["span_id"]) for line in lines if line["event"] == "request"]
    assert logged == [ids_of(with_client), ids_of(alone)]
