"""The page that shows the API, in a real browser that reaches nothing but the API (`docs/rest.md`, section 1.9)."""

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.support.brokers import EmbeddedTestBroker
from tests.support.chromium import HOST, Browser, chromium
from tests.support.deployment import PREFIX, Deployment, fetch
from tests.support.processes import Processes
from tests.support.programs import skipped_without_programs

CLUSTER = "a9d4b240-49e2-56d0-a495-f2798c5e3b2f"
REPORT = (
    "INSERT INTO report (org_id, cluster, report, reported_at, last_checked_at)"
    f" VALUES (1, '{CLUSTER}', '{{}}', '2026-05-04 08:00:00', '2026-05-04 08:00:00')"
)
ALL_THE_TIME = str(24 * 365 * 1000)


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """Yield a browser; skip where there is none."""
    # the driver is on this machine, whatever proxy the environment names for others
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    with skipped_without_programs(), chromium(tmp_path) as found:
        yield found


@pytest.fixture
def deployment(processes: Processes, embedded_broker: EmbeddedTestBroker, sqlite_url: str) -> Deployment:
    """Return a deployment with one report, whose API is not started."""
    deployment = Deployment(processes, embedded_broker, sqlite_url)
    deployment.migrate()
    with deployment.database() as database:
        database.execute_sql(REPORT)
    return deployment


class Page:
    """The page in a browser."""

    def __init__(self, browser: Browser, port: int, path: str = f"{PREFIX}docs") -> None:
        self.browser = browser
        self.address = f"http://{HOST}:{port}"
        browser.open(self.address + path)

    def execute(self, operation: str, **parameters: str) -> tuple[str, Any]:
        """Try an operation of the document out, and return status and JSON of the answer that the page shows."""
        block = f'[id^="operations-"][id$="-{operation}"]'
        self.browser.click(f"{block} .opblock-summary-control")
        self.browser.click(f"{block} .try-out__btn")
        for name, value in parameters.items():
            self.browser.type(f'{block} [data-param-name="{name}"] input', value)
        self.browser.click(f"{block} .execute")
        live = f"{block} .live-responses-table"
        status = self.browser.text(f"{live} .response .response-col_status")
        return status, json.loads(self.browser.text(f"{live} .response-col_description .highlight-code code"))

    def identify(self, identity: str) -> None:
        """Give an identity to all requests from here on."""
        self.browser.click(".btn.authorize")
        self.browser.type(".auth-container input", identity)
        self.browser.click(".auth-btn-wrapper .authorize")
        self.browser.click(".auth-btn-wrapper .btn-done")


@pytest.mark.parametrize("path", [f"{PREFIX}docs", pytest.param(f"{PREFIX}docs/", marks=pytest.mark.long)])
def test_a_request_from_the_page_shows_the_answer_of_the_api(
    browser: Browser, deployment: Deployment, path: str
) -> None:
    deployment.start_api()
    page = Page(browser, deployment.api_port, path)
    assert page.execute("organizations") == ("200", {"organizations": [1], "status": "ok"})
    assert browser.requested() == [
        page.address + path,
        f"{page.address}{PREFIX}openapi.json",
        f"{page.address}{PREFIX}organizations",
    ]
    assert browser.complaints() == []


@pytest.mark.long
def test_the_parameters_of_a_request_are_typed_into_the_page(browser: Browser, deployment: Deployment) -> None:
    deployment.start_api(API__ORG_OVERVIEW_LIMIT_HOURS=ALL_THE_TIME)
    page = Page(browser, deployment.api_port)
    assert page.execute("clusters", organization="1") == ("200", {"clusters": [CLUSTER], "status": "ok"})


@pytest.mark.long
def test_an_error_is_shown_as_it_was_answered(browser: Browser, deployment: Deployment) -> None:
    deployment.start_api()
    page = Page(browser, deployment.api_port)
    selector = {"status": "Item with ID a.b|K was not found in the storage"}
    shown = page.execute("clusters_detail", rule_selector="a.b|K", org_id="1", user_id="u")
    # its body is optional, and browsers can't send one with a GET
    assert shown == ("404", selector)


@pytest.mark.long
def test_an_identity_can_be_given_where_requests_need_one(browser: Browser, deployment: Deployment) -> None:
    api = deployment.start_api(API__AUTH="xrh")
    page = Page(browser, deployment.api_port)
    page.identify(base64.b64encode(b'{"identity": {"org_id": "1"}}').decode())
    assert page.execute("organizations") == ("200", {"organizations": [1], "status": "ok"})
    assert browser.complaints() == []
    assert api.exit_code is None


@pytest.mark.long
@pytest.mark.parametrize("path", ["/elsewhere/docs", "/elsewhere/docs/"])
def test_the_page_works_where_a_proxy_shows_the_api_under_another_prefix(
    browser: Browser, deployment: Deployment, path: str
) -> None:
    deployment.start_api()
    with _proxy("/elsewhere/", deployment.api_port) as port:
        page = Page(browser, port, path)
        assert page.execute("organizations") == ("200", {"organizations": [1], "status": "ok"})
        assert f"{page.address}/elsewhere/organizations" in browser.requested()


def test_without_its_extra_the_page_is_an_unknown_path_and_the_start_says_which(deployment: Deployment) -> None:
    without = "import sys; sys.modules['offapi'] = None; from api_service.cli import main; main()"
    ports = {"AGGREGATOR_API__PORT": str(deployment.api_port), "AGGREGATOR_API__ADMIN_PORT": "0"}
    command = [sys.executable, "-c", without, "serve"]
    api = deployment.processes.start("api", command, {**deployment.environment, **ports})
    api.wait_for_log("API started")
    answer = deployment.get("docs")
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")
    (line,) = [line for line in api.output.splitlines() if "insights-results-aggregator[docs]" in line]
    assert "[info " in line


@contextmanager
def _proxy(prefix: str, port: int) -> Iterator[int]:
    """Show the API on `port` under another prefix, on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith(prefix)
            answer = fetch(port, PREFIX + self.path.removeprefix(prefix)) if found else None
            self.send_response(answer.status if answer else 404)
            for name in ("Content-Type", "Content-Security-Policy"):
                if answer and answer.headers.get(name):
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(answer.text.encode() if answer else b"")

        def log_message(self, *args: object) -> None:
            """Be silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
