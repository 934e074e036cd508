"""The commands `export` and `import` with small blocks, and a signal at one of their steps.

`python -m tests.support.faulty_transfer import FILE`; the environment says what happens:

- `TESTS_TRANSFER_AT`: the number of the step at which it happens, counted from 1. An export has one for each block of
  lines, an import three: before its transaction, in it after the rows were written, and after it
- `TESTS_TRANSFER_SIGNAL`: the signal that the process gets there, by its number; SIGKILL if there is none
- `TESTS_TRANSFER_PEAK`: a file that gets the most memory that the process had in use, in kB (Linux)
"""

import atexit
import os
import signal
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from consumer_service.cli import main
from consumer_service.engines import Engine, engine_for
from consumer_service.transfer import importer, line_writer
from tests.support.waiting import eventually

BLOCK_ROWS = 50


def install(environment: Mapping[str, str]) -> None:
    """Let it happen."""
    at = int(environment["TESTS_TRANSFER_AT"])
    number = int(environment.get("TESTS_TRANSFER_SIGNAL", signal.SIGKILL))
    steps = count(1)

    def step() -> None:
        if next(steps) == at:
            os.kill(os.getpid(), number)
            # the main thread hears it; from then on a second one would end the process
            eventually(lambda: signal.getsignal(number) == signal.SIG_DFL, what="the signal was heard")

    def engine_with_steps(*arguments: Any) -> Engine:
        engine = engine_for(*arguments)
        store = engine.store

        def store_and_step(*values: Any) -> int:
            written = store(*values)
            step()
            return written

        engine.store = store_and_step  # type: ignore[method-assign]
        return engine

    write_once, write_rows = importer._Importer._write_once, line_writer.LineWriter._write_rows

    def write_once_with_steps(self: Any, *arguments: Any) -> int:
        step()
        added = write_once(self, *arguments)
        step()
        return added

    def write_rows_with_step(self: Any) -> None:
        step()
        write_rows(self)

    line_writer._BLOCK_ROWS = BLOCK_ROWS
    importer.engine_for = engine_with_steps  # type: ignore[assignment]
    importer._Importer._write_once = write_once_with_steps  # type: ignore[method-assign]
    line_writer.LineWriter._write_rows = write_rows_with_step  # type: ignore[method-assign]


def _write_peak(file: Path) -> None:
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    file.write_text(peak.split()[1])


if __name__ == "__main__":
    if "TESTS_TRANSFER_PEAK" in os.environ:
        atexit.register(_write_peak, Path(os.environ["TESTS_TRANSFER_PEAK"]))
    if "TESTS_TRANSFER_AT" in os.environ:
        install(os.environ)
    main()
