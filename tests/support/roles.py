"""The roles of `deploy/postgresql/roles.sql`, as a deployment has them."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2

from tests.support.postgresql import ExternalPostgresql

FILE = Path(__file__).parents[2] / "deploy" / "postgresql" / "roles.sql"
OWNER, WRITER, READER = "aggregator_owner", "aggregator_writer", "aggregator_reader"
PRUNER = "aggregator_pruner"


@dataclass(frozen=True)
class RoleUrls:
    """The URLs of one database for whoever may do everything, and for each of the roles."""

    superuser: str

    @property
    def owner(self) -> str:
        """For `migrate`."""
        return as_role(self.superuser, OWNER)

    @property
    def writer(self) -> str:
        """For the consumer."""
        return as_role(self.superuser, WRITER)

    @property
    def pruner(self) -> str:
        """For `prune`."""
        return as_role(self.superuser, PRUNER)

    @property
    def reader(self) -> str:
        """For the API."""
        return as_role(self.superuser, READER)


def database_with_roles(server: ExternalPostgresql) -> RoleUrls:
    """Make an empty database with the roles; the server has to trust them, as `PostgresqlServer` does."""
    urls = RoleUrls(server.create_database())
    make_roles(urls.superuser)
    return urls


def make_roles(url: str) -> None:
    """Run the file in a database."""
    execute(url, FILE.read_text(encoding="utf-8"))


def as_role(url: str, role: str) -> str:
    """Return the URL of a database for another role, without a password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))


def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements in a session of their own, each by itself; return the rows of the last one, if it has any."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()
