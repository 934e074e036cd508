"""What the runner tells of its work to whoever traces it; nobody, by default."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from consumer_service.sources import Record

NoteRecords = Callable[[Sequence[Record]], None]
"""Takes the records that a batch was made of, once they are known."""


class BatchSpans(Protocol):
    """A span for each batch, and one in it for each step."""

    def batch(self) -> AbstractContextManager[NoteRecords]:
        """Let the block be the span of a batch."""

    def step(self, name: str) -> AbstractContextManager[object]:
        """Let the block be the span of a step of a batch."""


class NoSpans:
    """While nothing is traced."""

    def batch(self) -> AbstractContextManager[NoteRecords]:
        """Do nothing."""
        return nullcontext(_ignore)

    def step(self, name: str) -> AbstractContextManager[object]:
        """Do nothing."""
        return nullcontext()


def _ignore(records: Sequence[Record]) -> None:
    pass
