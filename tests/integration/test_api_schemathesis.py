"""Requests made from the OpenAPI document, by schemathesis, bring no answer that the document does not describe.

Everything is real: processes, both databases, the recorded data set. Further arguments of schemathesis can be given in
`AGGREGATOR_TEST_SCHEMATHESIS`, for example `--seed 7 --max-examples 1000`; they win over those in here.
"""

import contextlib
import http.client
import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api_service.fields import EXAMPLE_COMPONENT, EXAMPLE_ERROR_KEY
from tests.contract.test_recorded_requests import CASES, loaded_deployment
from tests.support.api_process import IDENTITY, RawAnswer
from tests.support.databases import open_database, sqlite_url_in
from tests.support.openapi import Document

pytestmark = pytest.mark.long

ARGUMENTS_VARIABLE = "AGGREGATOR_TEST_SCHEMATHESIS"
SEED = "20260504"
EXAMPLES = "20"
# what schemathesis expects and the contract rules out
EXCEPTIONS = Path(__file__).with_name("schemathesis.toml")
# the only example that the data set has no row for
ACKNOWLEDGEMENT = (
    "INSERT INTO rule_disable (org_id, rule_id, error_key, justification, created_at)"
    f" VALUES ('1', '{EXAMPLE_COMPONENT}', '{EXAMPLE_ERROR_KEY}', 'not for us', '2026-05-05 10:00:00')"
)


@dataclass(frozen=True)
class Api:
    """A running API: its address, ending in a slash, and whether it asks for identities."""

    url: str
    with_identity: bool

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> RawAnswer:
        """Send a request to a path relative to the prefix."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.netloc, timeout=20)
        connection.request(method, address.path + path, body, headers or {})
        response = connection.getresponse()
        answer = RawAnswer(response.status, response.headers, response.read())
        connection.close()
        return answer

    def document(self) -> Document:
        """Return what the API says of itself."""
        return Document(json.loads(self.ask("GET", "openapi.json").body))

    def answered(self) -> set[tuple[str, str, int]]:
        """Return method, path and status of all answers so far, as the API itself counted them."""
        families = text_string_to_metric_families(self.ask("GET", "metrics").body.decode())
        return {
            (sample.labels["method"], sample.labels["route"], int(sample.labels["status"]))
            for family in families
            for sample in family.samples
            if sample.name == "aggregator_api_requests_total"
        }


@pytest.fixture(
    scope="module",
    params=[("sqlite", "none"), ("postgresql", "xrh")],
    ids="-".join,
)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Yield an API on a database that holds the data set and a row for each example.

    On each engine, on one of them without identities, on the other with them.
    """
    engine, auth = request.param
    folder = tmp_path_factory.mktemp("processes")
    with contextlib.ExitStack() as stack:
        if engine == "sqlite":
            url = sqlite_url_in(folder)
        else:
            url = stack.enter_context(request.getfixturevalue("postgresql").database())
        deployment = stack.enter_context(loaded_deployment(folder, url))
        database = open_database(url)
        database.execute_sql(ACKNOWLEDGEMENT)
        database.close()
        yield Api(deployment.start_api(auth), with_identity=auth == "xrh")


def _run_schemathesis(api: Api, document: Document, folder: Path) -> dict[str, Any]:
    """Test all of a document with all checks, print what schemathesis prints, and return its report."""
    file, report = folder / "openapi.json", folder / "report.json"
    # from its address in the API schemathesis would leave out the operation that has that address
    file.write_text(json.dumps(document.content), encoding="utf-8")
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color"]
    # with an identity 403 comes before what is excepted
    command += [] if api.with_identity else ["--config-file", str(EXCEPTIONS)]
    command += ["run", str(file), "--url", api.url, "--checks", "all", "--seed", SEED, "--max-examples", EXAMPLES]
    command += ["--header", f"x-rh-identity: {IDENTITY}"] if api.with_identity else []
    # what a run finds must not depend on the runs before
    command += ["--generation-database", "none", "--report", "json", "--report-json-path", str(report)]
    command += shlex.split(os.environ.get(ARGUMENTS_VARIABLE, ""))
    # whatever proxy the environment names
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    sys.stdout.write(result.stdout + result.stderr)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def test_requests_made_from_the_document_are_answered_as_it_says(api: Api, tmp_path: Path) -> None:
    document = api.document()
    report = _run_schemathesis(api, document, tmp_path)
    assert report["exit_code"] == 0
    assert (report["failures"], report["errors"], report["stop_reason"]) == ([], [], "completed")
    assert {kind: found for kind, found in report["warnings"].items() if found} == {}
    # a run that tested nothing would find nothing
    operations = list(document.operations())
    assert report["operations"]["tested"] == report["operations"]["total"] == len(operations)
    assert {phase["status"] for phase in report["phases"].values()} == {"success"}
    assert report["test_cases"]["generated"] > 20 * len(operations)
    answered = api.answered()
    expected = {
        (operation.method, operation.path, status)
        for operation in operations
        # what is missing, what fails, and what a client has already, is tested without a server
        for status in operation.statuses - {304, 404, 500, 503}
    }
    assert expected - answered == set()
    assert {(method, path, status) for method, path, status in answered if status >= 500} == set()


def test_recorded_requests_are_answered_as_the_document_says(api: Api) -> None:
    document = api.document()
    described: Counter[int] = Counter()
    for case in CASES:
        operation = document.operation_of(case["method"], unquote(case["path"], errors="replace"))
        if operation is None or case["auth"] is not api.with_identity:
            continue
        body = None if case["body"] is None else case["body"].encode()
        answer = api.ask(case["method"], case["path"], body, case["headers"])
        assert document.problems(operation, answer.status, answer.headers, answer.body) == [], case["id"]
        described[answer.status] += 1
    assert described[200] > 10
    assert described.total() > 40
