"""Several processes that answer requests on one port, and the part that starts, watches and ends them.

Workers are started anew (`spawn`), not forked: none inherits a thread, a lock or a connection. Their metrics are
files in a folder, from which each can tell those of all (https://prometheus.github.io/client_python/multiprocess/).
"""

import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from threading import Thread

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from api_service.metrics import LISTENING_WORKERS, WORKER_RESTARTS
from api_service.servers import Server
from api_service.settings import ApiSettings
from libaggregator.admin import Check, Heartbeat
from libaggregator.settings import SettingsError

_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_TURN_SECONDS = 0.1
# between two starts of a worker that ends by itself, twice as long after each that never listened
_RESTART_SECONDS = 1.0
_MAX_DOUBLINGS = 5
# for a worker to end after it has cut off what was not done in time
_LAST_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Pulse:
    """What a worker shows to the process that watches it, in memory that both share, and what that tells it."""

    def __init__(self, context: SpawnContext) -> None:
        self._told, self._tell = context.Pipe(duplex=False)
        self._last = context.Value("d", time.monotonic())
        self._listening = context.Value("b", 0)

    def beat(self) -> None:
        """Tell that the worker's loop came round; the clock is the same for all processes."""
        self._last.value = time.monotonic()

    def listens(self) -> None:
        """Tell that the worker takes connections."""
        self._listening.value = 1

    def tell_to_stop(self) -> None:
        """Tell the worker to finish what it has and to end."""
        self._tell.close()

    def wait_until_told(self) -> None:
        """Return in the worker when it is told to stop, or nobody is there any more who could."""
        # by nobody: only then does it notice that the other end is closed
        self._tell.close()
        connection.wait([self._told])

    @property
    def is_listening(self) -> bool:
        """Whether the worker takes connections."""
        return bool(self._listening.value)

    @property
    def silence(self) -> float:
        """Seconds since the worker's loop came round."""
        return time.monotonic() - float(self._last.value)


Work = Callable[[socket.socket, Pulse], None]
"""What a worker does, until its pulse tells it to stop; can be pickled."""


@dataclass
class _Worker:
    """A worker process, when it was started, and how many before it ended without ever listening."""

    process: SpawnProcess
    pulse: Pulse
    started: float
    failures: int

    @property
    def may_be_replaced(self) -> bool:
        """Whether it has ended, and the pause before the next start is over."""
        pause = _RESTART_SECONDS * 2 ** min(self.failures, _MAX_DOUBLINGS)
        return self.process.exitcode is not None and time.monotonic() > self.started + pause


class Workers:
    """Runs `api.workers` processes of `work` on one port, and is to its process what a server is."""

    def __init__(self, work: Work, settings: ApiSettings, bound: socket.socket, heartbeat: Heartbeat) -> None:
        """Take the parts; raises SettingsError if there is no folder for the metrics."""
        self._work = work
        self._settings = settings
        self._socket = bound
        self._heartbeat = heartbeat
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, _Worker] = {}
        self._restarts = WORKER_RESTARTS.counter(None)
        try:
            self._metrics_folder = tempfile.TemporaryDirectory(prefix="aggregator-api-")
        except OSError as error:
            raise SettingsError([f"api.workers: no folder for their metrics: {error}; see TMPDIR"]) from None
        self.stop_requested = False

    @property
    def is_listening(self) -> bool:
        """Whether a worker that lives takes connections."""
        return self._listening() > 0

    def register_metrics(self, registry: CollectorRegistry) -> None:
        """Show in `registry` the metrics of all workers, how many of them listen, and how often one was replaced."""
        MultiProcessCollector(registry, self._metrics_folder.name)
        LISTENING_WORKERS.gauge(registry).set_function(self._listening)
        registry.register(self._restarts)

    def checks(self, patience: float) -> Mapping[str, Check]:
        """Return a check for each worker, which fails if its loop has not come round for `patience` seconds."""
        return {f"worker {number}": self._check(number, patience) for number in range(1, self._settings.workers + 1)}

    def request_stop(self) -> None:
        """Make `run` end, or not begin; may be called from a signal handler."""
        self.stop_requested = True

    def run(self, when_listening: Callable[[], None]) -> None:
        """Have requests answered; after `request_stop` let the workers end, who wait `shutdown_delay` each."""
        with self._metrics_folder:
            for number in range(1, self._settings.workers + 1):
                self._start(number, failures=0)
            self._watch_until(lambda: self.stop_requested or self._all_listen())
            if not self.stop_requested:
                when_listening()
            self._watch_until(lambda: self.stop_requested)
            self._end()

    def _listening(self) -> int:
        """Return how many workers live and take connections."""
        workers = list(self._workers.values())
        return sum(worker.pulse.is_listening and worker.process.is_alive() for worker in workers)

    def _check(self, number: int, patience: float) -> Check:
        def check() -> str | None:
            worker = self._workers.get(number)
            silence = worker.pulse.silence if worker else 0.0
            return f"the loop has not come round for {silence:.0f} s" if silence > patience else None

        return check

    def _all_listen(self) -> bool:
        return all(worker.pulse.is_listening for worker in self._workers.values())

    def _start(self, number: int, failures: int) -> None:
        # whoever cleans folders for temporary files may have removed it
        Path(self._metrics_folder.name).mkdir(exist_ok=True)
        pulse = Pulse(self._context)
        arguments = (self._socket, pulse)
        # a process that ends in any way but `_end` takes its workers along
        process = self._context.Process(target=self._work, args=arguments, name=f"worker {number}", daemon=True)
        with _environment(_METRICS_VARIABLE, self._metrics_folder.name):
            # the library looks there when the worker imports it
            process.start()
        self._workers[number] = _Worker(process, pulse, time.monotonic(), failures)

    def _watch_until(self, done: Callable[[], bool]) -> None:
        """Start workers again that end by themselves."""
        while not done():
            self._heartbeat.beat()
            time.sleep(_TURN_SECONDS)
            for number, worker in list(self._workers.items()):
                if worker.may_be_replaced and not self.stop_requested:
                    log.error("a worker ended by itself", worker=number, exit_code=worker.process.exitcode)
                    self._restarts.inc()
                    mark_process_dead(worker.process.pid, self._metrics_folder.name)
                    self._start(number, failures=0 if worker.pulse.is_listening else worker.failures + 1)

    def _end(self) -> None:
        # where workers share it, connections would still be taken after the last of them has closed it
        self._socket.close()
        processes = [worker.process for worker in self._workers.values()]
        for worker in self._workers.values():
            worker.pulse.tell_to_stop()
        # they wait themselves, since their answers have to say meanwhile that connections are to be closed
        patience = self._settings.shutdown_delay + self._settings.shutdown_timeout + _LAST_SECONDS
        deadline = time.monotonic() + patience
        while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
            self._heartbeat.beat()
            time.sleep(_TURN_SECONDS)
        for process in processes:
            process.kill()
            process.join()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Let processes that are started in the block have an environment variable."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def all_metrics() -> CollectorRegistry:
    """Return a registry that shows the metrics of all workers, for one of them."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry


def stop_when_told(server: Server, pulse: Pulse) -> None:
    """Tell the server of a worker to stop when the process that started it says so, or is gone.

    A signal to all processes of a group is for that process alone: it has the port closed and requests answered in
    order. If it is gone while the worker stops, by a second signal, the worker ends at once.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("not a worker")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        pulse.wait_until_told()
        is_alone = bool(connection.wait([parent.sentinel], timeout=0))
        server.request_stop()
        if not is_alone:
            connection.wait([parent.sentinel])
            os._exit(1)

    Thread(target=watch, name="parent-watch", daemon=True).start()
