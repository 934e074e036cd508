"""Real processes: started with an environment, watched through their output, always ended."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.waiting import eventually

REPOSITORY = Path(__file__).parents[2]


class Process:
    """One running program; `output` is everything it printed, both streams in one.

    `command` is run in `folder` (default: the repository), with the environment of the tests without any
    `AGGREGATOR_` variable, plus `environment`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path = REPOSITORY,
    ) -> None:
        self.name = name
        self.command = list(command)
        self._log = log
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AGGREGATOR_")}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self.command,
                env={**inherited, "PYTHONUNBUFFERED": "1", **(environment or {})},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # a group of its own, so that ending it ends its children too
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._process.poll()

    def wait_for_log(self, text: str, timeout: float = 20.0, times: int = 1) -> str:
        """Wait until `times` printed lines contain `text` and return the last of those lines.

        Raises AssertionError at once if the process ends without them, or after `timeout` seconds.
        """

        def found() -> list[str]:
            ended = self.exit_code is not None
            lines = [line for line in self.output.splitlines() if text in line]
            if len(lines) < times and ended:
                raise ProcessLookupError(self._describe(f"ended with exit code {self.exit_code}"))
            return lines if len(lines) >= times else []

        try:
            return eventually(found, timeout, f"{text!r} in the output of {self.name}")[-1]
        except ProcessLookupError as error:
            raise AssertionError(f"no {text!r}: {error}") from None
        except AssertionError as error:
            raise AssertionError(self._describe(str(error))) from None

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        self._process.send_signal(number)

    def wait_exit(self, timeout: float = 20.0) -> int:
        """Wait until it has ended and return its exit code; AssertionError after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._describe(f"still running after {timeout:g} s")) from None

    def stop(self, timeout: float = 20.0) -> int:
        """Send SIGTERM, wait for the end and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(timeout)

    def kill(self) -> None:
        """End it and its children at once (SIGKILL); does nothing if it has ended."""
        if self.exit_code is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def _describe(self, what: str) -> str:
        return f"{self.name}: {what}; output:\n{self.output}"


class Processes:
    """Starts processes and ends all that still run when the test is over."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.started: list[Process] = []

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
        """Start `command`, for example `[sys.executable, "-m", "consumer_service.cli", "run"]`."""
        log = self._folder / f"{len(self.started)}-{name}.log"
        process = Process(name, command, log, environment)
        self.started.append(process)
        return process

    def kill_all(self) -> None:
        """End everything that still runs, the newest first."""
        for process in reversed(self.started):
            process.kill()
