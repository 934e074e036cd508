"""From a URL to a database: one writer a process, or as many readers as it has threads."""

import re
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg2.extensions
from peewee import Database, PostgresqlDatabase, SqliteDatabase

from libaggregator.settings import DatabaseSettings, SettingsError, mask_password

_SQLITE_URL = re.compile(r"sqlite:///(?P<file>.+)")

_CACHE_KIB = 4096
_LOG_PAGES = 16_000

_POSTGRESQL_DEFAULTS = {
    # a peer that vanished without a word is noticed within half a minute
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def open_writer(settings: DatabaseSettings, application: str) -> Database:
    """Return the database of `database.url` for reading and writing; nothing is connected yet.

    `application` is the name that PostgreSQL shows for the session. Raises SettingsError if the URL is not of
    a known form.
    """
    return _open(settings.url.reveal(), "database.url", settings, application, read_only=False)


def open_reader(settings: DatabaseSettings, application: str) -> Database:
    """Return the database of `database.read_url`, else of `database.url`, in read-only sessions.

    Each thread has a connection of its own. Nothing is connected yet, and a missing SQLite file is not made.
    """
    name = "database.read_url" if settings.read_url.reveal() else "database.url"
    url = settings.read_url.reveal() or settings.url.reveal()
    return _open(url, name, settings, application, read_only=True)


def missing_file(database: Database) -> Path | None:
    """Return the file of an SQLite database that does not exist, None if it does or the engine is another one."""
    if not isinstance(database, SqliteDatabase):
        return None
    file = _path_of(database.database)
    return None if file.is_file() else file


def is_of_lost_file(database: Database) -> bool:
    """Whether the open connection of this thread is to an SQLite file that was moved, removed or replaced since.

    SQLite would go on with it for ever.
    """
    if not isinstance(database, SqliteDatabase) or database.is_closed():
        return False
    read: _FileConnection = database.connection()
    return read.identity != _identity(database.database)


def _open(url: str, name: str, settings: DatabaseSettings, application: str, read_only: bool) -> Database:
    if match := _SQLITE_URL.fullmatch(url):
        return _open_sqlite(Path(match["file"]), settings, read_only)
    if url.startswith(("postgresql://", "postgres://")):
        return _open_postgresql(url, name, settings, application, read_only)
    shown = mask_password(url)
    raise SettingsError([f"{name}: expected sqlite:///FILE or postgresql://HOST/NAME, got {shown!r}"])


def _open_sqlite(file: Path, settings: DatabaseSettings, read_only: bool) -> Database:
    # A reader that opened the file with mode=rw would take part in writing the log back.
    uri = f"file:{quote(str(file.absolute()))}?mode={'ro' if read_only else 'rwc'}"
    pragmas: list[tuple[str, object]] = [("foreign_keys", 1)]
    if read_only:
        pragmas.append(("query_only", 1))
    else:
        # offsets are committed to the broker on the strength of it
        pragmas.append(("synchronous", "full"))
        # a batch changes thousands of pages, of which many are changed again by the next one
        pragmas += [("cache_size", -_CACHE_KIB), ("wal_autocheckpoint", _LOG_PAGES)]
    return SqliteDatabase(uri, uri=True, pragmas=pragmas, timeout=settings.connect_timeout, factory=_FileConnection)


class _FileConnection(sqlite3.Connection):
    """A connection that knows which file it was opened on."""

    def __init__(self, database: str, **options: Any) -> None:
        # before it is opened: of a file that is replaced meanwhile too little is believed, not too much
        self.identity = _identity(database)
        super().__init__(database, **options)


def _identity(uri: str) -> tuple[int, int] | None:
    """Return what tells the file of a URI from any other that has or had its name, None if there is none."""
    try:
        status = _path_of(uri).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _path_of(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _open_postgresql(url: str, name: str, settings: DatabaseSettings, application: str, read_only: bool) -> Database:
    try:
        given = psycopg2.extensions.parse_dsn(url)
    except psycopg2.ProgrammingError:
        shown = mask_password(url)
        raise SettingsError([f"{name}: not a URL that libpq understands: {shown!r}"]) from None
    if "@" in given.get("host", "") + given.get("dbname", "") or not all(
        port.isdigit() for port in given.get("port", "5432").split(",")
    ):
        # the rest of the text may be a part of the password
        raise SettingsError([f"{name}: no such host or port; in user and password @, / and : are %40, %2F and %3A"])
    timeout = round((settings.read_timeout if read_only else settings.statement_timeout) * 1000)
    session = {
        "statement_timeout": timeout,
        # a process that was stopped between two statements of a transaction must not hold its locks for ever
        "idle_in_transaction_session_timeout": timeout,
        "timezone": "UTC",
        "search_path": "public",
        "default_transaction_read_only": "on" if read_only else "off",
    }
    options = " ".join(f"-c {key}={value}" for key, value in session.items())
    parameters = {
        **_POSTGRESQL_DEFAULTS,
        "connect_timeout": str(max(1, round(settings.connect_timeout))),
        "application_name": application,
        **given,
        "client_encoding": "UTF8",
        "options": f"{options} {given.get('options', '')}".strip(),
    }
    database = parameters.pop("dbname", None) or parameters.get("user", "postgres")
    return (PostgresqlDatabase if read_only else _WritablePostgresql)(database, **parameters)


class _WritablePostgresql(PostgresqlDatabase):
    """A database in whose sessions long texts are compressed the quick way, where the server can and nobody chose."""

    def _initialize_connection(self, conn: Any) -> None:
        with conn.cursor() as cursor:
            cursor.execute(
                "SELECT set_config(name, 'lz4', false) FROM pg_settings"
                " WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals) AND source = 'default'"
            )
