"""The engines that the tests run on, one entry each: a new one is one entry more (`docs/databases.md`)."""

import contextlib
import enum
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from consumer_service.engines import MANY
from examples.demo.ports import free_port
from tests.support.databases import sqlite_url_in
from tests.support.postgresql import ExternalPostgresql, waiting_for_locks


class Ability(enum.Enum):
    """What an engine may lack, and which tests are then not about it."""

    ROW_LOCKS = "two consumers write different clusters at the same time, and wait for each other at the same one"
    LIMITS = "there are values that it refuses and another engine stores"


@dataclass(frozen=True, eq=False)
class EngineUnderTest:
    """An engine, and what tests have to know to run on it.

    `new_database` takes the request of a test and a folder of its own, and gives the URL of an empty database for a
    block. `unreachable` takes the URL of a database, and gives one by which nothing answers; the database itself may be
    gone afterwards. `stores` are the ways in which the consumer writes, by the name that they have in the ids of tests:
    from how many rows on they count as many. `lacks` says of an ability why the engine has none of it.
    """

    name: str
    new_database: Callable[[pytest.FixtureRequest, Path], AbstractContextManager[str]]
    unreachable: Callable[[str], str]
    stores: Mapping[str, int]
    lacks: Mapping[Ability, str] = field(default_factory=dict)
    waiting_for_locks: Callable[[str], int] | None = None
    """How many sessions of a database wait for a lock, of an engine with row locks."""


@contextlib.contextmanager
def _new_file(_: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    yield sqlite_url_in(folder)


def _without_file(url: str) -> str:
    Path(url.removeprefix("sqlite:///")).unlink(missing_ok=True)
    return url


def _new_database(request: pytest.FixtureRequest, _: Path) -> AbstractContextManager[str]:
    server: ExternalPostgresql = request.getfixturevalue("postgresql")
    return server.database()


def _without_listener(url: str) -> str:
    return f"{urlsplit(url).scheme}://reader:secret@127.0.0.1:{free_port()}/results"


SQLITE = EngineUnderTest(
    "sqlite",
    _new_file,
    _without_file,
    stores={"sqlite": MANY},
    lacks={
        Ability.ROW_LOCKS: "whoever writes has the file alone, and the next one begins when it has committed",
        Ability.LIMITS: "texts and numbers have the size that a message can give them",
    },
)

POSTGRESQL = EngineUnderTest(
    "postgresql",
    _new_database,
    _without_listener,
    stores={"postgresql": MANY, "postgresql by COPY": 1},
    waiting_for_locks=waiting_for_locks,
)

ENGINES = [SQLITE, POSTGRESQL]


def name_of(engine: EngineUnderTest) -> str:
    """Return what an engine is called in the id of a test."""
    return engine.name


def engines_with(ability: Ability) -> list[EngineUnderTest]:
    """Return the engines that have an ability."""
    return [engine for engine in ENGINES if ability not in engine.lacks]
