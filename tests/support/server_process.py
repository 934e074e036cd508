"""A server that is one process, which a test can end or freeze."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


class ServerProcess:
    """The process of a server; whoever inherits this starts it in a session of its own as `_process`."""

    stop_timeout = 20.0
    """Seconds that it has for its own shutdown, before it is killed."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Shut it down as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without any warning to its clients."""
        self._end(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process from running until the end of the block: it is there and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
