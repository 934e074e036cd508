"""When a process is traced, how its spans leave it, and what tells of them in the log."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from structlog.testing import capture_logs

from libaggregator import logs, spans, tracing
from libaggregator.settings import LoggingSettings, SettingsError
from tests.support.collector import PRODUCER_TRACE, TRACEPARENT, SpansInMemory, ids_of
from tests.support.processes import REPOSITORY

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "exporters"),
    [
        ({}, []),
        ({"OTEL_TRACES_EXPORTER": ""}, []),
        ({"OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp"]),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp"]),
        (ENDPOINT, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, []),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, []),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "console"}, ["console"]),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, []),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, ["otlp"]),
        ({"OTEL_SERVICE_NAME": "aggregator"}, []),
    ],
)
def test_the_variables_of_opentelemetry_decide_and_without_any_nothing_is_traced(
    environment: dict[str, str], exporters: list[str]
) -> None:
    assert list(tracing.exporters(environment)) == exporters
    assert bool(tracing.log_processors(environment)) == bool(exporters)


def test_while_it_is_off_there_is_nothing() -> None:
    with tracing.opened("aggregator-consumer", {}) as opened:
        assert opened is None


_NOTHING_IMPORTED = "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"


def _run(script: str, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"PYTHONPATH": str(REPOSITORY), **environment},
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _ingest(folder: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the consumer on a file with a message that has to be rejected, from beginning to end, then `script`."""
    messages = folder / "messages.jsonl"
    messages.write_text("{}\n")
    settings = {"AGGREGATOR_CONSUMER__SOURCE": "file", "AGGREGATOR_FILE__PATH": str(messages)}
    settings |= {"AGGREGATOR_CONSUMER__ADMIN_PORT": "0", "AGGREGATOR_DATABASE__URL": f"sqlite:///{folder}/a.db"}
    program = (
        "import sys; from consumer_service.cli import main;"
        "main(['migrate'], standalone_mode=False); main(['run'], standalone_mode=False);"
    )
    return _run(program + script, folder, **settings, **environment)


def test_a_consumer_that_is_not_traced_imports_nothing_of_it(tmp_path: Path) -> None:
    done = _ingest(tmp_path, _NOTHING_IMPORTED)
    assert done.returncode == 0, done.stderr
    assert "message rejected" in done.stderr


def test_an_api_that_is_not_traced_imports_nothing_of_it() -> None:
    script = (
        "import sys; from api_service import cli, process, servers; from api_service.settings import ApiSettings;"
        "from api_service.servers import granian, waitress; from api_service.app import create_app;"
        "from api_service.metrics import ApiMetrics; from libaggregator.build import build_facts;"
        "from prometheus_client import CollectorRegistry;"
        "create_app(ApiSettings(), None, ApiMetrics(CollectorRegistry(), build_facts()), build_facts());"
    )
    done = _run(script + _NOTHING_IMPORTED, REPOSITORY)
    assert done.returncode == 0, done.stderr


def test_the_console_shows_the_spans_of_a_real_run_and_the_log_their_trace(tmp_path: Path) -> None:
    done = _ingest(tmp_path, "", OTEL_TRACES_EXPORTER="console", AGGREGATOR_LOGGING__FORMAT="json")
    assert done.returncode == 0, done.stderr
    *_, rejected = [json.loads(line) for line in done.stderr.splitlines() if "message rejected" in line]
    assert f'"trace_id": "0x{rejected["trace_id"]}"' in done.stdout
    assert f'"name": "process {tmp_path}/messages.jsonl"' in done.stdout
    assert '"service.name": "aggregator-consumer"' in done.stdout


@pytest.mark.parametrize(
    ("variables", "name"), [({}, "aggregator-api"), ({"OTEL_SERVICE_NAME": "mine"}, "mine")], ids=["default", "given"]
)
def test_a_process_has_a_name_unless_it_is_given_one(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=stage")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    opened = spans.open_spans("aggregator-api", [], {})
    attributes = opened._provider.resource.attributes
    assert (attributes["service.name"], attributes["deployment.environment.name"]) == (name, "stage")
    opened.close()


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER: expected otlp, console or none, got 'zipkin'",
        ),
        (
            {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf, got 'grpc'",
        ),
        (
            {
                **ENDPOINT,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json",
            },
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: expected http/protobuf, got 'http/json'",
        ),
    ],
)
def test_a_variable_that_can_not_be_used_ends_the_start_with_one_line(
    environment: dict[str, str], problem: str
) -> None:
    with pytest.raises(SettingsError) as raised, tracing.opened("aggregator-consumer", environment):
        pass
    assert raised.value.problems == [problem]


def test_a_propagator_that_is_not_there_ends_the_start_with_one_line(tmp_path: Path) -> None:
    done = _ingest(tmp_path, "", OTEL_TRACES_EXPORTER="console", OTEL_PROPAGATORS="b3")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: OTEL_PROPAGATORS: Propagator b3 not found")
    assert "Traceback" not in done.stderr


def test_a_number_that_is_none_ends_the_start_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")
    with (
        pytest.raises(SettingsError, match=r"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"),
        tracing.opened("aggregator-consumer", ENDPOINT),
    ):
        pass


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ModuleNotFoundError(name='opentelemetry')\n")
    done = _ingest(tmp_path, "", OTEL_TRACES_EXPORTER="otlp")
    assert done.returncode == 2
    line = "error: opentelemetry is missing, install the extra: pip install 'insights-results-aggregator[tracing]'"
    assert done.stderr.splitlines()[-1] == line


def test_lines_of_the_log_within_a_span_have_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    memory = SpansInMemory()
    logs.configure(LoggingSettings(format="json"), tracing.log_processors(ENDPOINT))
    log = structlog.get_logger("tests")
    log.info("before")
    with memory.spans.span("work"):
        log.info("within")
    before, within = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert "trace_id" not in before
    assert (within["trace_id"], within["span_id"]) == ids_of(memory.finished[0])


def test_of_an_error_the_kind_is_noted_and_nothing_that_it_says() -> None:
    memory = SpansInMemory()
    with pytest.raises(ValueError, match="secret"), memory.spans.span("work"):
        raise ValueError("secret")
    (span,) = memory.finished
    assert not span.status.is_ok
    assert "secret" not in span.to_json()
    assert span.attributes
    assert span.attributes["error.type"] == "ValueError"


def test_headers_carry_the_context_and_what_is_none_is_passed_over() -> None:
    memory = SpansInMemory()
    for header in (TRACEPARENT, "00-garbage", "", "\ufffd"):
        with memory.spans.span("work", parent=spans.context_of({"traceparent": header})):
            pass
    parents = [span.parent for span in memory.finished]
    assert parents[0] is not None
    assert f"{parents[0].trace_id:032x}" == PRODUCER_TRACE
    assert parents[1:] == [None, None, None]


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "secret" * 100},
        {"traceparent": TRACEPARENT, "tracestate": "secret=1," * 100},
        {"baggage": "secret" * 10_000},
        {"baggage": "secret"},
    ],
    ids=["traceparent", "tracestate", "long baggage", "baggage"],
)
def test_a_header_that_can_not_be_read_is_not_logged(
    headers: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(LoggingSettings(level="debug"))
    spans.context_of(headers)
    assert capsys.readouterr().err == ""


def test_credentials_for_the_collector_are_not_logged_where_they_can_not_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "secret")
    logs.configure(LoggingSettings(level="debug"))
    with tracing.opened("aggregator-api", ENDPOINT):
        pass
    assert "secret" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("query", "summary"),
    [
        ("\n    INSERT INTO  report (org_id)\nVALUES (%s)", "INSERT INTO report"),
        (b"INSERT INTO report (org_id) VALUES ('secret')", "INSERT INTO report"),
        ("DELETE FROM rule_hit WHERE x = %s", "DELETE FROM rule_hit"),
        ("COPY rule_hit (a) FROM STDIN", "COPY rule_hit"),
        ("EXECUTE clusters (%(org_id)s)", "EXECUTE clusters"),
        ("SELECT secret FROM report", "SELECT"),
        ("WITH wanted AS (SELECT 1)", "WITH"),
        ("-- nothing", "statement"),
    ],
)
def test_a_statement_is_named_by_what_it_does_and_to_which_table(query: object, summary: str) -> None:
    assert spans._summary(query) == summary


class Scripted(SpanExporter):
    """An exporter that succeeds, fails or raises, as the script says."""

    def __init__(self, script: Sequence[SpanExportResult | Exception]) -> None:
        self._script = list(script)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._script.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def test_an_exporter_that_is_away_is_told_of_once_and_again_when_it_is_back() -> None:
    good, bad = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
    exporter = spans.TellingExporter(Scripted([good, bad, OSError("secret"), bad, good, good]))
    with capture_logs() as lines:
        for _ in range(6):
            exporter.export([])
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("warning", "traces can't be exported, they are dropped"),
        ("info", "traces are exported again"),
    ]
    assert "secret" not in str(lines)


class Hanging(SpanExporter):
    """An exporter that does not come back until it is let go."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go_on.wait()
        return SpanExportResult.SUCCESS


def test_an_exporter_that_hangs_does_not_keep_the_process_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "CLOSE_SECONDS", 0.05)
    exporter, provider = Hanging(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    opened = spans.Spans(provider)
    with opened.span("work"):
        pass
    with capture_logs() as lines:
        opened.close()
    assert not exporter.go_on.is_set()
    exporter.go_on.set()
    assert [line["event"] for line in lines] == ["traces are given up, they could not be exported before the end"]
