"""Spans of batches, linked to the traces of their messages. To be imported only if the process is traced.

Names are those of OpenTelemetry's conventions for messaging
(https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, SpanKind
from opentelemetry.util.types import AttributeValue

from consumer_service.batch_spans import NoteRecords
from consumer_service.settings import ConsumerProcessSettings
from consumer_service.sources import Record
from libaggregator.spans import Spans, context_of

_OPERATION = "process"


class TracedBatches:
    """Makes a span of each batch, which is the root of a trace: its messages can be of many traces."""

    def __init__(self, spans: Spans, settings: ConsumerProcessSettings) -> None:
        self._spans = spans
        self._attributes = {
            "messaging.system": settings.consumer.source,
            "messaging.operation.name": _OPERATION,
            "messaging.operation.type": _OPERATION,
        }
        if settings.consumer.source == "kafka":
            self._attributes["messaging.consumer.group.name"] = settings.kafka.group
        if settings.consumer.source == "redis":
            self._attributes["messaging.consumer.group.name"] = settings.redis.group

    @contextmanager
    def batch(self) -> Iterator[NoteRecords]:
        """Let the block be the span of a batch; the records that it yields a function for become its links."""
        with self._spans.span(_OPERATION, SpanKind.CONSUMER, self._attributes) as span:
            yield lambda records: _note(span, records)

    def step(self, name: str) -> AbstractContextManager[Span]:
        """Let the block be the span of a step of a batch."""
        return self._spans.span(name)


def _note(span: Span, records: Sequence[Record]) -> None:
    if not span.is_recording():
        return
    topic = records[0].topic
    span.update_name(f"{_OPERATION} {topic}")
    span.set_attributes({"messaging.destination.name": topic, "messaging.batch.message_count": len(records)})
    for record in records:
        context = _context_of(record)
        if context.is_valid:
            place: dict[str, AttributeValue] = {
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
            }
            span.add_link(context, place)


def _context_of(record: Record) -> SpanContext:
    headers = {name.lower(): value.decode("ascii", "replace") for name, value in record.headers}
    return trace.get_current_span(context_of(headers)).get_span_context()
