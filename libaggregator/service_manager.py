"""Tells systemd, or whoever speaks its protocol, that the process is ready, well, and stopping.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html. Without `NOTIFY_SOCKET` nothing happens. Only
the main process tells: workers inherit the variable and do not use it.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

from libaggregator.admin import Check, Health

_LOOK_SECONDS = 0.2


@contextmanager
def kept_informed(health: Health, is_stopping: Callable[[], bool], environment: Mapping[str, str]) -> Iterator[None]:
    """Tell the service manager during the block how the process is, and at its end, or before, that it stops.

    `READY=1` once all checks of readiness were well at the same time; then, if it wants that (`WatchdogSec=`),
    `WATCHDOG=1` while all checks of liveness are; `STATUS=` is what readiness says. From `is_stopping` on there is
    `STOPPING=1` alone.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        # a manager that does not read holds nobody up
        channel.setblocking(False)
        teller = _Teller(channel, address, health, _watchdog_seconds(environment))
        ended = Event()

        def look() -> None:
            while not (ended.is_set() or is_stopping()):
                teller.look()
                ended.wait(_LOOK_SECONDS)
            teller.tell("STOPPING=1")

        thread = Thread(target=look, name="service-manager", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _Teller:
    def __init__(self, channel: socket.socket, address: str, health: Health, watchdog_seconds: float | None) -> None:
        self._channel = channel
        # a name that begins with @ is not in the file system
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._health = health
        self._watchdog_seconds = watchdog_seconds
        self._next_sign = 0.0
        self._is_ready = False
        self._status = ""

    def look(self) -> None:
        """Tell what is different from the last look, and that the process lives if it is time for that."""
        status = _problems(self._health.ready)
        if status != self._status:
            self._status = status
            self.tell(f"STATUS={status or 'ok'}")
        if not (self._is_ready or status):
            self._is_ready = True
            self.tell("READY=1")
        if self._watchdog_seconds and time.monotonic() >= self._next_sign and not _problems(self._health.live):
            # three signs in the time in which one is wanted
            self._next_sign = time.monotonic() + self._watchdog_seconds / 3
            self.tell("WATCHDOG=1")

    def tell(self, message: str) -> None:
        # nothing depends on it, and the manager sees by itself what it was not told
        with contextlib.suppress(OSError):
            self._channel.sendto(message.encode(), self._address)


def _problems(checks: Mapping[str, Check]) -> str:
    """Return what is wrong, in one line, empty if all is well."""
    found = {name: check() for name, check in checks.items()}
    return "; ".join(f"{name}: {' '.join(problem.split())}" for name, problem in found.items() if problem)


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """Return within how many seconds the manager wants each sign of life of this process, None if it wants none."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 if meant and microseconds.isdecimal() else None
