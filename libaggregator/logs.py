"""Structured logs of both processes, the libraries' own included.

Field names are the same everywhere: `topic`, `partition`, `offset`, `org_id`, `cluster`, `request_id`; `trace_id` and
`span_id` where the process is traced.
"""

import logging
import sys
from collections.abc import Sequence

import structlog

from libaggregator.settings import LoggingSettings

# Clients that report every retry of an outage as an error, ten times a second; this program reports it once.
_TALKATIVE = ("kafka", "waitress.queue", "opentelemetry.exporter", "opentelemetry.sdk._shared_internal")
# Libraries whose lines for debugging hold what they send: payloads, and the password when a client logs in.
_TELLTALE = ("kafka", "peewee")
# They quote headers that they can't read: whatever a client sends, or the credentials for an exporter.
_QUOTING = ("opentelemetry.baggage", "opentelemetry.trace", "opentelemetry.util.re")


def configure(settings: LoggingSettings, processors: Sequence[structlog.typing.Processor] = ()) -> None:
    """Send the logs of the whole process to standard error, one event a line; `processors` add fields to each."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        *processors,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        # methods below the level are empty: a line a message costs nothing unless it is wanted
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(settings)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name in _TELLTALE:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    for name in _QUOTING:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if settings.level != "debug":
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _rendering(settings: LoggingSettings) -> list[structlog.typing.Processor]:
    if settings.format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # plain tracebacks: others show the variables of each frame, passwords and payloads among them
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
