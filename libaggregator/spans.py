"""Spans of this process, as OpenTelemetry has them. To be imported only if the process is traced.

The ready-made instrumentation of the libraries is of no use here (`docs/tracing.md` says why), so spans are begun
where the work is. None of them holds a value of a statement, a path, or the text of an error.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue
from peewee import Database, PostgresqlDatabase
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class, whatever its name

from libaggregator.build import DISTRIBUTION, build_facts
from libaggregator.settings import SettingsError
from libaggregator.storage.faults import sqlstate_of

CLOSE_SECONDS = 3.0
"""How long the end of a process waits for spans to be exported."""

_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_PROPAGATORS_VARIABLE = "OTEL_PROPAGATORS"
_LINKS_VARIABLE = "OTEL_SPAN_LINK_COUNT_LIMIT"
_SUMMARY = re.compile(r"\s*((?:INSERT INTO|DELETE FROM|UPDATE|COPY|PREPARE|EXECUTE)\s+\w+|\w+)")

log = structlog.get_logger(__name__)


class Spans:
    """Makes spans; each is the child of the one that is current in its thread."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(DISTRIBUTION, build_facts().version)

    @contextmanager
    def span(
        self,
        name: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, AttributeValue] | None = None,
        parent: Context | None = None,
    ) -> Iterator[Span]:
        """Let the block be a span; with `parent`, the child of that one.

        Of an error that leaves the block, only its kind is noted: texts of databases quote values.
        """
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", sqlstate_of(error) or type(error).__qualname__)
                span.set_status(StatusCode.ERROR)
                raise

    def watch(self, database: Database) -> None:
        """Make a span of each statement that belongs to another span, on a database that is not connected yet.

        Statements of SQLite have none.
        """
        if isinstance(database, PostgresqlDatabase):
            before = database.connect_params.get("cursor_factory", Cursor)
            traced = type("TracedCursor", (_TracedCursor, before), {"spans": self})
            database.connect_params["cursor_factory"] = traced

    def close(self) -> None:
        """Export what was not exported yet, for up to 3 s; tell in the log if that was not enough."""
        # an exporter that is away tries again for longer
        closing = Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        if closing.is_alive():
            log.warning("traces are given up, they could not be exported before the end", waited_seconds=CLOSE_SECONDS)


class _TracedCursor(Cursor):
    spans: Spans

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's name
        with self._span(query):
            super().execute(query, vars)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        with self._span(sql):
            super().copy_expert(sql, file, size)

    @contextmanager
    def _span(self, query: Any) -> Iterator[None]:
        if not trace.get_current_span().is_recording():
            yield
            return
        info = self.connection.info
        attributes: dict[str, AttributeValue] = {
            "db.system.name": "postgresql",
            "db.namespace": info.dbname,
            "server.address": info.host,
            "server.port": info.port,
        }
        if isinstance(query, str):
            # bytes are what psycopg2 made of a statement and its values
            attributes["db.query.text"] = query
        summary = _summary(query)
        with self.spans.span(summary, SpanKind.CLIENT, {**attributes, "db.query.summary": summary}):
            yield


def open_spans(service: str, exporters: Sequence[str], environment: Mapping[str, str]) -> Spans:
    """Return what makes the spans of this process, and exports them with `exporters` (`otlp`, `console`).

    Everything else is as OpenTelemetry's variables say, with `service` for a name if they give none. Raises
    SettingsError if one of them can't be used.
    """
    try:
        from opentelemetry import propagate  # noqa: F401, PLC0415 - it reads its variable when it is imported
    except ValueError as error:
        raise SettingsError([f"{_PROPAGATORS_VARIABLE}: {error}"]) from None
    own = {SERVICE_NAME: service, SERVICE_VERSION: build_facts().version}
    try:
        provider = TracerProvider(
            resource=Resource.create({**own, **OTELResourceDetector().detect().attributes}),
            # the end of the process is ours: it must not wait for long
            shutdown_on_exit=False,
            # a batch has a link for each message, more than the 128 that a span may have by default
            span_limits=SpanLimits(max_links=None if environment.get(_LINKS_VARIABLE) else SpanLimits.UNSET),
        )
        for name in exporters:
            provider.add_span_processor(BatchSpanProcessor(TellingExporter(_exporter(name, environment))))
    except ValueError as error:
        raise SettingsError([f"a variable of OpenTelemetry can't be used: {error}"]) from None
    return Spans(provider)


def context_of(headers: Mapping[str, str]) -> Context:
    """Return the context that headers carry, names in lower case; an empty one if they carry none."""
    from opentelemetry import propagate  # noqa: PLC0415 - `open_spans` has seen that it can be

    return propagate.extract(headers, Context())


def add_span_ids(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the ids of the current span to a line of the log (a processor of structlog)."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


class TellingExporter(SpanExporter):
    """An exporter that tells in the log when it can't, once, and when it can again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans."""
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._fails:
            log.warning("traces can't be exported, they are dropped", exporter=type(self._exporter).__name__)
        elif self._fails and not failed:
            log.info("traces are exported again")
        self._fails = failed
        return result

    def shutdown(self) -> None:
        """Give up what is being exported, and free everything."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return self._exporter.force_flush(timeout_millis)


def _exporter(name: str, environment: Mapping[str, str]) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter()
    for variable in _PROTOCOL_VARIABLES:
        if protocol := environment.get(variable):
            if protocol != _PROTOCOL:
                raise SettingsError([f"{variable}: expected {_PROTOCOL}, got {protocol!r}"])
            break
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - if used
    except ModuleNotFoundError as error:
        install = f"install the extra: pip install '{DISTRIBUTION}[tracing]'"
        raise SettingsError([f"{error.name} is missing, {install}"]) from None
    return OTLPSpanExporter()


def _summary(query: Any) -> str:
    """Return the first words of a statement: what it does, and to which table or prepared statement."""
    text = query[:100].decode("ascii", "replace") if isinstance(query, bytes) else str(query)
    found = _SUMMARY.match(text)
    return " ".join(found[1].split()) if found else "statement"
