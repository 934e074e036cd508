"""Whether this process is traced (`docs/tracing.md`). OpenTelemetry is imported only if it is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from libaggregator.settings import SettingsError

if TYPE_CHECKING:
    from libaggregator.spans import Spans

_EXPORTER_VARIABLE = "OTEL_TRACES_EXPORTER"
_EXPORTERS = ("otlp", "console")
_DISABLED_VARIABLE = "OTEL_SDK_DISABLED"
_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def exporters(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the names of what spans are sent with; none if the process is not traced.

    OpenTelemetry's own variables decide, but nothing is traced unless one of them says so: `OTEL_SDK_DISABLED=true`
    wins, then `OTEL_TRACES_EXPORTER`; without that, an endpoint means `otlp`.
    """
    if environment.get(_DISABLED_VARIABLE, "").strip().lower() == "true":
        return []
    given = [name.strip() for name in environment.get(_EXPORTER_VARIABLE, "").split(",") if name.strip()]
    if not given and any(environment.get(variable) for variable in _ENDPOINT_VARIABLES):
        given = ["otlp"]
    return [name for name in given if name != "none"]


def log_processors(environment: Mapping[str, str]) -> Sequence[structlog.typing.Processor]:
    """Return what adds the ids of the current span to lines of the log, nothing if the process is not traced.

    Raises ModuleNotFoundError if it is to be traced and the extra `tracing` is not installed.
    """
    if not exporters(environment):
        return ()
    from libaggregator.spans import add_span_ids  # noqa: PLC0415

    return (add_span_ids,)


@contextmanager
def opened(service: str, environment: Mapping[str, str]) -> Iterator["Spans | None"]:
    """Yield what makes spans of this process until the end of the block, None if it is not traced.

    `service` is what it is called where nothing else is set. At the end, what was not exported yet is, for up to some
    seconds. Raises SettingsError if one of OpenTelemetry's variables has a value that can't be used.
    """
    names = exporters(environment)
    if not names:
        yield None
        return
    for name in names:
        if name not in _EXPORTERS:
            raise SettingsError([f"{_EXPORTER_VARIABLE}: expected otlp, console or none, got {name!r}"])
    from libaggregator.spans import open_spans  # noqa: PLC0415

    spans = open_spans(service, names, environment)
    try:
        yield spans
    finally:
        spans.close()
