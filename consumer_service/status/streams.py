"""What Redis tells of the stream, its group and the dead letter stream, asked from outside: no entry is taken.

It needs no more rights than the consumer has (`docs/sources.md`).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from consumer_service.redis_client import FAULTS, describe, make_client
from consumer_service.settings import RedisSettings
from consumer_service.sources import SourceUnavailable
from consumer_service.sources.redis import group_in, lag_of
from consumer_service.status.model import SourceStatus

_NO_STREAM = "no such key"


class Streams:
    """Answers questions about streams; raises SourceUnavailable if it can't."""

    def __init__(self, client: Redis, settings: RedisSettings) -> None:
        """Take a client that nobody else uses."""
        self._client: Any = client
        self._settings = settings

    def source(self, name: str) -> SourceStatus:
        """Return how far the group is; without one it has all entries before it, or none."""
        stream = self._found(self._settings.stream)
        if stream is None:
            raise SourceUnavailable(f"stream {self._settings.stream!r} does not exist")
        with self._faults_told(self._settings.stream):
            groups = self._client.xinfo_groups(self._settings.stream)
        group = group_in(groups, self._settings.group)
        if group:
            lag, pending = lag_of(stream, group), group["pending"]
        else:
            lag, pending = (stream["length"] if self._settings.start_at == "first" else 0), 0
        return SourceStatus(name, self._settings.stream, self._settings.group, lag, pending=pending)

    def held(self, stream: str) -> int:
        """Return how many entries a stream holds; Redis makes it with the first one."""
        found = self._found(stream)
        return int(found["length"]) if found else 0

    def _found(self, name: str) -> Any:
        with self._faults_told(name):
            try:
                return self._client.xinfo_stream(name)
            except ResponseError as error:
                if _NO_STREAM not in str(error):
                    raise
                return None

    @contextmanager
    def _faults_told(self, stream: str) -> Iterator[None]:
        try:
            yield
        except FAULTS as error:
            raise SourceUnavailable(describe(error, self._settings, stream, was_answered=False)) from error


@contextmanager
def connected(settings: RedisSettings) -> Iterator[Streams]:
    """Connect for a block, with the first question; the settings must have no problems."""
    client = make_client(settings)
    try:
        yield Streams(client, settings)
    finally:
        with suppress(*FAULTS):
            client.close()
