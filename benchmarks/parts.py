"""The parts that a benchmark runs on: servers as durable as in production, and processes whose use is measured."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
import psycopg2
from kafka import KafkaProducer
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class with a name in lower case

from tests.support.kafka import ApacheKafka
from tests.support.postgresql import ExternalPostgresql, PostgresqlServer
from tests.support.processes import REPOSITORY

_POSTGRESQL_OPTIONS = {
    # what tests do without
    "fsync": "on",
    "full_page_writes": "on",
    # checkpoints are made between the measurements, not in them
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "256MB",
}
_BATCH_BYTES = 512 * 1024


@contextlib.contextmanager
def running_kafka() -> Iterator[ApacheKafka]:
    """Start Apache Kafka and end it afterwards; ProgramMissingError where it can't run."""
    broker = ApacheKafka()
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@contextlib.contextmanager
def running_postgresql(url: str | None) -> Iterator[ExternalPostgresql]:
    """Yield the server at `url` (of a database whose user may create others), or one that is started for it."""
    if url:
        yield ExternalPostgresql(url)
        return
    server = PostgresqlServer(_POSTGRESQL_OPTIONS)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Connect to a PostgreSQL database for a while."""
    connection = psycopg2.connect(url)
    try:
        yield connection
    finally:
        connection.close()


def settle(server: ExternalPostgresql) -> None:
    """Let the server write what it still has to, so that it does not do so in the next measurement."""
    with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
        server.execute("CHECKPOINT")


def produce(broker: ApacheKafka, topic: str, messages: Sequence[bytes], partitions: int = 1) -> None:
    """Write messages as a busy producer does, many at a time, to the partitions in turn."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", linger_ms=20, batch_size=_BATCH_BYTES)
    for number, message in enumerate(messages):
        producer.send(topic, message, partition=number % partitions)
    producer.flush(60)
    producer.close()


def run_at_once(module: str, arguments: Sequence[Sequence[str]], seconds: float) -> list[float]:
    """Run a program of this folder once for each list of arguments, all at the same time; return what they print."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", module, *own, "--seconds", str(seconds)], stdout=subprocess.PIPE, cwd=REPOSITORY
        )
        for own in arguments
    ]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise click.ClickException(f"{module} failed")
    return [float(output) for output in outputs]


@dataclass(frozen=True, slots=True)
class Use:
    """What a process has used of the machine since its start."""

    cpu_seconds: float
    peak_megabytes: float


def use_of(pid: int) -> Use:
    """Return what a running process has used (Linux)."""
    times = psutil.Process(pid).cpu_times()
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return Use(times.user + times.system, int(peak) / 1000)
