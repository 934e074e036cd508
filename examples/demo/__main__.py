"""The demo: broker, database, consumer and API on this machine, messages in, answers out.

`python -m examples.demo [--once]`. Everything it makes is in the folder `.demo`, which the next run replaces.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import click
from kafka import KafkaProducer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from examples.demo.broker import EmbeddedBroker
from examples.demo.generator import Fleet
from examples.demo.ports import free_port

FOLDER = Path(".demo")
TOPIC = "ccx.ocp.results"
ORGANIZATIONS = 5
CLUSTERS = 300
PATIENCE_SECONDS = 60.0
TRICKLE_SECONDS = 2.0
MOST_LINES = 24

# the API is on this machine, whatever proxy the environment names for others
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """The demo can't go on; the text says why."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the parts listen, all on 127.0.0.1."""

    broker: int
    api: int
    consumer_admin: int
    api_admin: int

    @property
    def base_url(self) -> str:
        """Address of the API with its prefix."""
        return f"http://127.0.0.1:{self.api}/api/insights-results-aggregator/v1/"


@click.command()
@click.option("--once", is_flag=True, help="End after the answers, without the trickle of messages.")
def main(once: bool) -> None:
    """Show the whole way of a message, from a topic to an answer, on embedded parts."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    try:
        with ExitStack() as parts:
            _show_everything(parts, stop, once)
    except DemoError as error:
        console.print(f"[red]The demo stopped:[/] {error}")
        sys.exit(1)
    console.print("Everything is stopped.")


def _show_everything(parts: ExitStack, stop: Event, once: bool) -> None:
    parts.enter_context(_empty_folder())
    ports = _choose_ports()
    _start_parts(parts, ports)
    fleet = Fleet(seed=int(time.time()), organizations=ORGANIZATIONS, clusters=CLUSTERS)
    producer = parts.enter_context(_producer(ports))
    with Progress(TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), console=console) as progress:
        produced = progress.add_task("Messages into the topic", total=CLUSTERS)
        for payload in fleet.messages(CLUSTERS, _now() - timedelta(seconds=CLUSTERS)):
            producer.send(TOPIC, payload)
            progress.advance(produced)
        producer.flush(PATIENCE_SECONDS)
        readable = progress.add_task("Results that the API answers with", total=CLUSTERS)
        _wait_until(
            stop,
            "all results can be read",
            lambda: _show_count(progress, readable, _count_clusters(ports)) == CLUSTERS,
        )
    if stop.is_set():
        return
    _show_answers(ports, fleet)
    _say_where(ports)
    if not once:
        _trickle(stop, producer, fleet)


@contextmanager
def _empty_folder() -> Iterator[None]:
    """Make the folder of the demo and remove what an earlier one left; it is ours until the end of the block."""
    FOLDER.mkdir(exist_ok=True)
    handle = os.open(FOLDER, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoError(f"another demo is running in {FOLDER.absolute()}") from None
        for path in FOLDER.iterdir():
            path.unlink()
        yield
    finally:
        os.close(handle)


def _choose_ports() -> Ports:
    wanted = {"broker": 9092, "api": 8080, "consumer_admin": 8081, "api_admin": 8082}
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        chosen[name] = port if _is_free(port) else free_port()
        if chosen[name] != port:
            console.print(f"Port {port} is taken, {name.replace('_', ' ')} gets {chosen[name]}.")
    return Ports(**chosen)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _start_parts(parts: ExitStack, ports: Ports) -> None:
    console.print("Starting broker, consumer and API ...")
    parts.enter_context(EmbeddedBroker(ports.broker, log=FOLDER / "broker.log"))
    settings = {
        "AGGREGATOR_DATABASE__URL": f"sqlite:///{FOLDER / 'aggregator.db'}",
        "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{ports.broker}",
        "AGGREGATOR_KAFKA__TOPIC": TOPIC,
        # the embedded broker waits for half of it before a group begins
        "AGGREGATOR_KAFKA__SESSION_TIMEOUT": "2",
        "AGGREGATOR_CONSUMER__ADMIN_PORT": str(ports.consumer_admin),
        "AGGREGATOR_API__PORT": str(ports.api),
        "AGGREGATOR_API__ADMIN_PORT": str(ports.api_admin),
    }
    _run_once("consumer_service.cli", "migrate", settings)
    parts.enter_context(_process("consumer", "consumer_service.cli", "run", settings))
    parts.enter_context(_process("api", "api_service.cli", "serve", settings))


def _environment(settings: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGGREGATOR_")}
    return {**inherited, **settings}


def _run_once(module: str, command: str, settings: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", module, command], env=_environment(settings), capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise DemoError(result.stderr.strip())


@contextmanager
def _process(name: str, module: str, command: str, settings: dict[str, str]) -> Iterator[None]:
    """Run a process until the end of the block; its output goes to a file in the folder of the demo."""
    log = FOLDER / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, command],
            env=_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches the demo alone, which then stops its parts in order
            start_new_session=True,
        )
    try:
        yield
        if process.poll() is not None:
            raise DemoError(f"the {name} ended by itself, see {log}")
    finally:
        process.terminate()
        try:
            code = process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code:
            console.print(f"[yellow]The {name} ended with exit code {code}, see {log}[/]")


@contextmanager
def _producer(ports: Ports) -> Iterator[KafkaProducer]:
    # The embedded broker counts end offsets wrong for batches of several records.
    producer = KafkaProducer(bootstrap_servers=f"127.0.0.1:{ports.broker}", batch_size=0, acks="all")
    try:
        yield producer
    finally:
        producer.close(timeout=5)


def _wait_until(stop: Event, what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not stop.is_set() and not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"not within {PATIENCE_SECONDS:.0f} s: {what}; see the logs in {FOLDER}")
        stop.wait(0.1)


def _show_count(progress: Progress, task: TaskID, count: int) -> int:
    progress.update(task, completed=count)
    return count


def _count_clusters(ports: Ports) -> int:
    organizations = (_get(ports, f"organizations/{number}/clusters") for number in range(1, ORGANIZATIONS + 1))
    return sum(len(answer["clusters"]) if answer else 0 for answer in organizations)


def _get(ports: Ports, path: str) -> dict[str, list[str]] | None:
    """Return the answer to a request, None while the API is not there yet."""
    try:
        with DIRECTLY.open(ports.base_url + path, timeout=5) as response:
            answer: dict[str, list[str]] = json.load(response)
            return answer
    except (OSError, urllib.error.URLError):
        return None


def _show_answers(ports: Ports, fleet: Fleet) -> None:
    shown = next(cluster for cluster in fleet.clusters if len(cluster.rules) == 1)
    paths = (
        "organizations",
        f"organizations/{shown.org_id}/clusters/{shown.cluster_id}/users/demo/report/info",
        f"organizations/{shown.org_id}/clusters/{shown.cluster_id}/users/demo/report",
    )
    for path in paths:
        console.print(f"\n[bold]$ curl {ports.base_url}{path}[/]")
        lines = json.dumps(_get(ports, path), indent=2).splitlines()
        console.print("\n".join(lines[:MOST_LINES]), markup=False)
        if len(lines) > MOST_LINES:
            console.print(f"... {len(lines) - MOST_LINES} more lines")


def _say_where(ports: Ports) -> None:
    console.print(
        f"""
API       {ports.base_url}
          to look at and to try: {ports.base_url}docs
          health and metrics at http://127.0.0.1:{ports.api_admin}/readyz and /metrics
consumer  health and metrics at http://127.0.0.1:{ports.consumer_admin}/readyz and /metrics
broker    127.0.0.1:{ports.broker}, topic {TOPIC}
database  {FOLDER / "aggregator.db"} (SQLite); logs of the processes are beside it
"""
    )


def _trickle(stop: Event, producer: KafkaProducer, fleet: Fleet) -> None:
    console.print(f"A message every {TRICKLE_SECONDS:.0f} s from now on. Ctrl-C stops everything.")
    number = 0
    while not stop.wait(TRICKLE_SECONDS):
        cluster = fleet.clusters[number % len(fleet.clusters)]
        producer.send(TOPIC, fleet.message(cluster, _now()))
        console.print(f"{datetime.now():%H:%M:%S}  newer result for {cluster.cluster_id} of org {cluster.org_id}")
        number += 1


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


if __name__ == "__main__":
    main()
