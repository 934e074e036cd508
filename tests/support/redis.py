"""Redis for tests: a server of Debian's package, with streams in the place of topics."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from consumer_service.sources import Record
from examples.demo.ports import free_port
from tests.support.programs import ProgramMissingError
from tests.support.server_process import ServerProcess
from tests.support.topics import Sent
from tests.support.waiting import eventually

START_TIMEOUT = 20.0


class RedisServer(ServerProcess):
    """One server on 127.0.0.1 with its own data, which a test can stop, kill and start again.

    `settings` are those of redis.conf. Nothing is kept over a stop unless they say so; with `KEEPING` everything that
    was answered is. Raises ProgramMissingError without the program.
    """

    KEEPING: Mapping[str, str] = {"appendonly": "yes", "appendfsync": "always"}
    FAULTS = (RedisError,)
    keeps_order = False
    name_setting = "REDIS__CONSUMER"
    letters_setting = "REDIS__DEAD_LETTER_STREAM"
    quick_settings: Mapping[str, str] = {"REDIS__CLAIM_AFTER": "2"}

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise ProgramMissingError("REDIS", "redis-server is missing (on Debian: apt-get install redis-server)")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="aggregator-redis-"))
        self._client: Redis | None = None
        given = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": "", **(settings or {})}
        self._command = [program, *(part for name, value in given.items() for part in (f"--{name}", value))]

    @property
    def url(self) -> str:
        """Where it listens, as the setting `redis.url`."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def client(self) -> Any:
        """A client of the tests' own; its type hints are of answers that can be anything."""
        self._client = self._client or Redis(port=self.port, socket_timeout=20)
        return self._client

    def start(self) -> None:
        """Start it and return when it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        eventually(self._answers, START_TIMEOUT, "Redis answers")

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        if self._client:
            self._client.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def consumer_settings(self, topic: str, group: str) -> dict[str, str]:
        """Return the settings of a consumer, without the prefix of the variables."""
        return {
            "CONSUMER__SOURCE": "redis",
            "REDIS__URL": self.url,
            "REDIS__STREAM": topic,
            "REDIS__GROUP": group,
        }

    def create_topic(self, name: str, partitions: int = 1, config: dict[str, str] | None = None) -> str:
        """Return the name: a stream is made with its first entry."""
        return name

    def produce(self, topic: str, records: Iterable[Sent | bytes]) -> None:
        """Add entries in their order and return when the server has all of them."""
        with self.client.pipeline(transaction=False) as pipeline:
            for record in records:
                pipeline.xadd(topic, _fields(record if isinstance(record, Sent) else Sent(record)))
            pipeline.execute()

    def open_producer(self) -> "RedisProducer":
        """Return a producer that waits for a server that is away."""
        return RedisProducer(self.url)

    def records(self, topic: str) -> list[Record]:
        """Return every record that a stream has at the moment."""
        return [_record(topic, entry_id.decode(), fields) for entry_id, fields in self.client.xrange(topic)]

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Return how many entries there ever were."""
        return {0: self.client.xinfo_stream(topic)["entries-added"]}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return how many entries a group has acknowledged; nothing while there is no group."""
        if not self.client.exists(topic):
            return {}
        found = {one["name"].decode(): one for one in self.client.xinfo_groups(topic)}
        if group not in found:
            return {}
        # the server itself does not know it for a while after it was started again
        behind = self.client.xrange(topic, min="(" + found[group]["last-delivered-id"].decode())
        return {0: self.end_offsets(topic)[0] - len(behind) - found[group]["pending"]}

    def _answers(self) -> bool:
        assert self.running, (self.folder / "server.log").read_text(errors="replace")
        try:
            return bool(self.client.ping())
        except RedisError:
            return False


class RedisProducer:
    """Adds entries one by one, each until the server has it: once or, if the answer was lost, twice."""

    def __init__(self, url: str) -> None:
        self._client: Any = Redis.from_url(url, socket_timeout=5)

    def send(self, topic: str, record: Sent) -> None:
        """Add an entry; gives up after a minute."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self._client.xadd(topic, _fields(record))
            except RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def flush(self) -> None:
        """Do nothing: each was awaited."""

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


def _fields(sent: Sent) -> dict[bytes, bytes]:
    fields = {b"key": sent.key, b"value": sent.value, **{name.encode(): value for name, value in sent.headers}}
    return {name: value for name, value in fields.items() if value is not None}


def _record(topic: str, entry_id: str, fields: Mapping[bytes, bytes]) -> Record:
    """Return the record as `docs/sources.md` has it; what is there in words is done here once more."""
    milliseconds, sequence = map(int, entry_id.split("-"))
    rest = dict(fields)
    key, value = rest.pop(b"key", None), rest.pop(b"value", None)
    headers = tuple((name.decode(), found) for name, found in rest.items())
    return Record(topic, 0, milliseconds * 2**20 + sequence, key, value, headers, milliseconds)
