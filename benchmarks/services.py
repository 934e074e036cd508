"""Our two services as processes that are measured: how they are started, and what a consumer says of its work."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from examples.demo.ports import free_port
from tests.support.deployment import DIRECTLY, PREFIX, fetch, metrics_of
from tests.support.processes import REPOSITORY, Process
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

CONSUMER = "consumer_service.cli"
API = "api_service.cli"

_PATIENCE_SECONDS = 900.0
_LOOK_SECONDS = 0.02
_ANSWER_SECONDS = 60
_NOT_FOUND = 404
_OUTCOMES = ("stored", "skipped", "rejected")


@dataclass(frozen=True, slots=True)
class Version:
    """One state of the code: the folder in which its processes are run, and a mark for its figures."""

    folder: Path
    mark: str = ""


THIS_VERSION = Version(REPOSITORY)


def versions_of(base: Path | None) -> list[Version]:
    """Return what is measured: this version, after that in the folder `base` if there is one."""
    return [THIS_VERSION] if base is None else [Version(base, " (base)"), THIS_VERSION]


@dataclass(frozen=True, slots=True)
class Consumer:
    """A running consumer, known by its log."""

    process: Process

    def times_of(self, event: str) -> list[float]:
        """Return when each line was logged that tells of an event, in seconds since 1970."""
        return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in self._lines(event)]

    def metrics(self) -> dict[str, float]:
        """Return each sample of its metrics by its name with labels."""
        return metrics_of(urlsplit(self._lines("consumer started")[0]["admin"]).port)

    @property
    def partitions(self) -> int:
        """How many partitions it has."""
        assignments = self._lines("partitions assigned")
        return len(assignments[-1]["partitions"]) if assignments else 0

    @property
    def handled(self) -> int:
        """How many messages it is done with, whatever became of them."""
        return sum(line[outcome] for line in self._lines("batch done") for outcome in _OUTCOMES)

    def wait_for_partitions(self, count: int) -> None:
        """Wait until it has so many partitions."""
        eventually(lambda: self.partitions == count, 60, "partitions", _LOOK_SECONDS)

    def _lines(self, event: str) -> list[dict[str, Any]]:
        # the last line may not be written to its end yet
        whole = [line for line in self.process.output.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in map(json.loads, whole) if line["event"] == event]


def wait_until_handled(consumers: Sequence[Consumer], messages: int) -> None:
    """Wait until consumers are done with so many messages together."""
    what = f"{messages} messages are handled"
    eventually(
        lambda: sum(consumer.handled for consumer in consumers) >= messages, _PATIENCE_SECONDS, what, _LOOK_SECONDS
    )


@dataclass(frozen=True, slots=True)
class Question:
    """A request to the API: a path behind the prefix, and a body if there is one."""

    path: str
    method: str = "GET"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def ask(port: int, question: Question) -> bytes:
    """Return the body of the API's answer; ClickException if it is neither 200 nor 404."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{PREFIX}{question.path}",
        method=question.method,
        data=question.body,
        headers=question.headers,
    )
    try:
        with DIRECTLY.open(request, timeout=_ANSWER_SECONDS) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
        if error.code != _NOT_FOUND:
            raise click.ClickException(f"{question.path}: {error.code} {body!r}") from error
    return body


class Services:
    """Starts the processes of one version with default settings; their logs go into a folder."""

    def __init__(self, folder: Path, version: Version = THIS_VERSION) -> None:
        self._folder = folder
        self._version = version

    def start(self, module: str, command: str, settings: Mapping[str, str], launcher: Sequence[str] = ()) -> Process:
        """Start a command; `settings` without their prefix, `launcher` is a module, with arguments, that runs it."""
        environment = {f"AGGREGATOR_{name}": value for name, value in {"LOGGING__FORMAT": "json", **settings}.items()}
        log = self._folder / f"{fresh_name(command)}.log"
        arguments = [sys.executable, "-m", *launcher, module, command]
        return Process(command, arguments, log, environment, self._version.folder)

    def migrate(self, url: str) -> None:
        """Make the schema of a database."""
        self._run_to_end("migrate", {"DATABASE__URL": url}, 60)

    def store_file(self, url: str, messages: Sequence[bytes]) -> None:
        """Store messages in a migrated database without a broker."""
        file = self._folder / f"{fresh_name('messages')}.jsonl"
        file.write_bytes(b"\n".join(messages))
        settings = {"CONSUMER__SOURCE": "file", "FILE__PATH": str(file), "CONSUMER__ADMIN_PORT": "0"}
        self._run_to_end("run", {"DATABASE__URL": url, **settings}, _PATIENCE_SECONDS)

    @contextmanager
    def consumers(
        self,
        url: str,
        bootstrap: str,
        topic: str,
        count: int = 1,
        settings: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> Iterator[list[Consumer]]:
        """Run consumers of a new group, and stop them at the end as an operator would."""
        all_settings = {
            "DATABASE__URL": url,
            "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
            "KAFKA__TOPIC": topic,
            "KAFKA__GROUP": fresh_name("group"),
            "CONSUMER__ADMIN_PORT": "0",
            **(settings or {}),
        }
        with ExitStack() as started:
            processes = []
            for _ in range(count):
                processes.append(self.start(CONSUMER, "run", all_settings, launcher))
                started.callback(processes[-1].kill)
            yield [Consumer(process) for process in processes]
            for process in processes:
                process.stop(60)

    @contextmanager
    def api(
        self, url: str, settings: Mapping[str, str] | None = None, launcher: Sequence[str] = ()
    ) -> Iterator[tuple[Process, int]]:
        """Run the API; yield its process and its port."""
        port = free_port()
        ports = {"DATABASE__URL": url, "API__PORT": str(port), "API__ADMIN_PORT": "0"}
        process = self.start(API, "serve", {**ports, **(settings or {})}, launcher)
        try:
            # 401 where it wants to know who asks
            eventually(lambda: fetch(port, f"{PREFIX}info").status in (200, 401), 30, "the API answers")
            yield process, port
            process.stop()
        finally:
            process.kill()

    def _run_to_end(self, command: str, settings: Mapping[str, str], seconds: float) -> None:
        process = self.start(CONSUMER, command, settings)
        if process.wait_exit(seconds):
            raise click.ClickException(process.output)
