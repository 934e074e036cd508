"""A MariaDB server for tests, where Debian's `mariadb-server` is installed; it has data and socket of its own."""

import contextlib
import getpass
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import eventually

PROGRAMS = ("mariadbd", "mariadb")
START_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0
PREPARATION = (
    # what brings it nearest to standard SQL: "quoted" names, || for texts
    "SET sql_mode = 'ANSI,STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES'",
    "DROP DATABASE IF EXISTS trial",
    "CREATE DATABASE trial CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
    "USE trial",
)


@dataclass(frozen=True)
class Mariadb:
    """A server that runs, and is reached by its socket alone."""

    socket: Path

    def errors_of(self, statements: Mapping[str, str]) -> dict[str, int]:
        """Return the numbers of MariaDB's errors, by the names of the statements that have one.

        They run one after another, on one connection to an empty database, in which texts are compared by their bytes.
        """
        names = [*map(str, range(len(PREPARATION))), *statements]
        texts = [*PREPARATION, *statements.values()]
        result = self._run("".join(f"{' '.join(text.split())};\n" for text in texts), "--force")
        errors = re.findall(r"^ERROR (\d+) \(\w+\) at line (\d+)", result.stderr, re.MULTILINE)
        return {names[int(line) - 1]: int(number) for number, line in errors}

    def answers(self) -> bool:
        """Whether it takes statements."""
        return self._run("SELECT 1").returncode == 0

    def _run(self, text: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root", *options]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)


def missing_programs() -> list[str]:
    """Return which of its programs are not installed."""
    # the server is not on everybody's path
    return [
        name for name in PROGRAMS if not shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    ]


@contextlib.contextmanager
def running_mariadb() -> Iterator[Mariadb]:
    """Yield a server that everybody may use, and end it afterwards."""
    # the path of a socket has a limit that temporary folders of pytest exceed
    folder = Path(tempfile.mkdtemp(prefix="aggregator-mariadb-"))
    (folder / "data").mkdir()
    server = Mariadb(folder / "socket")
    program = shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    command = [str(program), "--no-defaults", f"--datadir={folder / 'data'}", f"--socket={server.socket}"]
    command += [
        "--skip-networking",
        "--skip-grant-tables",
        f"--user={getpass.getuser()}",
        f"--pid-file={folder / 'pid'}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        eventually(server.answers, START_TIMEOUT, "MariaDB answers")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
