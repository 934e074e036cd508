"""The consumer with places at which it can be made to fail: `python -m tests.support.failpoints run`.

The product knows nothing of it: the steps of its loop are wrapped here, before its command line is called. The
environment says what happens:

- `AGGREGATOR_FAILPOINT_AT`: the number of the step at which it happens, counted from 1 with the first records that
  came, or the beginning of a step's name, which is then waited for
- `AGGREGATOR_FAILPOINT_SIGNAL`: the signal that the process gets there, by its number; SIGKILL if there is none
- `AGGREGATOR_FAILPOINT_LOG`: a file that gets a line with the name of each step that was come to
"""

import functools
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class, whatever its name

from consumer_service.cli import main
from consumer_service.dead_letters import DeadLetterProducer
from consumer_service.pipeline import Pipeline
from consumer_service.sources.kafka import KafkaSource
from consumer_service.sources.redis import DeadLetterStream, RedisSource

COMMAND = "tests.support.failpoints"
_WORDS = 3  # of a statement, which tell it from others


class Failpoints:
    """Counts the steps that the consumer comes to, and lets it fail at one of them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._at = environment.get("AGGREGATOR_FAILPOINT_AT", "")
        self._signal = int(environment.get("AGGREGATOR_FAILPOINT_SIGNAL", signal.SIGKILL))
        self._log = environment.get("AGGREGATOR_FAILPOINT_LOG")
        self._steps = 0
        self.has_records = False

    def reach(self, step: str) -> None:
        """Come to a step; what happens before there are records does not count."""
        if not self.has_records:
            return
        self._steps += 1
        if self._log:
            with Path(self._log).open("a", encoding="utf-8") as file:
                file.write(f"{step}\n")
        if self._at and (str(self._steps) == self._at or step.startswith(self._at)):
            self._at = ""
            os.kill(os.getpid(), self._signal)

    def around(self, name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """Return an action with a step before it and one after it."""

        @functools.wraps(action)
        def with_steps(*arguments: Any, **options: Any) -> Any:
            self.reach(f"before {name}")
            result = action(*arguments, **options)
            self.reach(f"after {name}")
            return result

        return with_steps

    def after_poll(self, poll: Callable[..., Any]) -> Callable[..., Any]:
        """Return a poll with a step after it that counts as the first one once there are records."""

        @functools.wraps(poll)
        def with_step(*arguments: Any, **options: Any) -> Any:
            records = poll(*arguments, **options)
            self.has_records = self.has_records or bool(records)
            if records:
                self.reach("after poll")
            return records

        return with_step


def _with_steps(failpoints: Failpoints, base: type[Cursor]) -> type[Cursor]:
    class CursorWithSteps(base):  # type: ignore[valid-type, misc]
        def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's name
            failpoints.around(_name_of(query), super().execute)(query, vars)

        def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
            failpoints.around(_name_of(sql), super().copy_expert)(sql, file, size)

    return CursorWithSteps


def _name_of(statement: str | bytes) -> str:
    text = statement.decode() if isinstance(statement, bytes) else str(statement)
    return " ".join(text.split()[:_WORDS])


def install(failpoints: Failpoints) -> None:
    """Wrap the steps of the loop: poll, decode, each statement, dead letters, commit of offsets."""
    connect = psycopg2.connect

    def connect_with_steps(*arguments: Any, cursor_factory: type[Cursor] = Cursor, **options: Any) -> Any:
        return connect(*arguments, cursor_factory=_with_steps(failpoints, cursor_factory), **options)

    setattr(psycopg2, "connect", connect_with_steps)  # noqa: B010 - for type checkers
    for owner, method, name in (
        (Pipeline, "sort", "decode"),
        (DeadLetterProducer, "send", "dead letters"),
        (DeadLetterProducer, "_start", "one dead letter"),
        (KafkaSource, "commit", "offset commit"),
        (KafkaSource, "_finish_commit", "answer to offset commit"),
        (DeadLetterStream, "send", "dead letters"),
        (DeadLetterStream, "_add", "one dead letter"),
        (RedisSource, "commit", "offset commit"),
        (RedisSource, "_acknowledge", "acknowledgement"),
    ):
        setattr(owner, method, failpoints.around(name, getattr(owner, method)))
    for source in (KafkaSource, RedisSource):
        source.poll = failpoints.after_poll(source.poll)


if __name__ == "__main__":
    install(Failpoints(os.environ))
    main()
