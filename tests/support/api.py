"""The API's application on a database, asked without a server and a network."""

import base64
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from falcon import testing
from peewee import Database, SqliteDatabase
from prometheus_client import CollectorRegistry

from api_service.app import create_app, resources_of
from api_service.database import Reader
from api_service.metrics import ApiMetrics
from api_service.settings import ApiSettings
from libaggregator.build import BuildFacts
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.spans import Spans
from libaggregator.storage.connections import open_reader
from libaggregator.storage.schema import migrate
from tests.support.databases import SQLITE_FILE, open_database, sqlite_url_in
from tests.support.postgresql import with_select_only

CLUSTER = "a9d4b240-49e2-56d0-a495-f2798c5e3b2f"
OTHER_CLUSTER = "212b88a7-109b-52d4-9d93-1cf46b54d6a2"
THIRD_CLUSTER = "eb932caa-c970-5bfe-9769-074766920717"
NOW = datetime(2026, 5, 4, 12, 0, 0)
TIME = "2026-05-04 08:00:00"

QUESTIONS = [
    ("GET", "organizations"),
    ("GET", "organizations/1/clusters"),
    ("GET", f"organizations/1/clusters/{CLUSTER}/users/u/report"),
    ("GET", f"organizations/1/clusters/{CLUSTER}/users/u/report/info"),
    ("GET", f"organizations/1/clusters/{CLUSTER}/users/u/rules/a|K"),
    ("GET", f"organizations/1/clusters/{CLUSTER}/reports"),
    ("POST", "organizations/1/clusters/reports"),
    ("POST", "recommendations/organizations/1/users/u/list"),
    ("GET", "rules/a.b|K/organizations/1/users/u/clusters_detail"),
    ("POST", "clusters/organizations/1/users/u/recommendations"),
    ("GET", "rules/organizations/1/disabled"),
    ("GET", "clusters/rules/a.b/error_key/K/organizations/1/disabled"),
    ("POST", "rules/organizations/1/disabled_for_clusters"),
    ("GET", "rules/users/u/disabled/feedback"),
    ("GET", "rules/organizations/1/disabled_system_wide"),
    ("GET", "rules/a.b/error_key/K/organizations/1/"),
    ("GET", "rules/a.b|K/organizations/1/rating"),
    ("GET", f"clusters/{CLUSTER}/rules/a.b/error_key/K/users/u/get_vote"),
]
"""One request for each endpoint that asks the database."""

# columns that must have a value, whatever the test is about
_DEFAULTS: dict[str, dict[str, Any]] = {
    "report": {"org_id": 1, "cluster": CLUSTER, "report": "{}", "reported_at": TIME, "last_checked_at": TIME},
    "rule_hit": {
        "org_id": 1,
        "cluster_id": CLUSTER,
        "rule_fqdn": "a.b.report",
        "error_key": "K",
        "template_data": "{}",
    },
    "recommendation": {"org_id": 1, "cluster_id": CLUSTER, "rule_fqdn": "a.b", "error_key": "K", "rule_id": "a.b|K"},
    "report_info": {"org_id": 1, "cluster_id": CLUSTER, "version_info": "4.16.3"},
    "cluster_rule_toggle": {
        "cluster_id": CLUSTER,
        "rule_id": "a.b.report",
        "error_key": "K",
        "org_id": "1",
        "disabled": 1,
        "updated_at": TIME,
    },
    "cluster_user_rule_disable_feedback": {
        "cluster_id": CLUSTER,
        "rule_id": "a.b.report",
        "error_key": "K",
        "org_id": "1",
        "user_id": "u",
        "message": "why",
        "added_at": TIME,
        "updated_at": TIME,
    },
    "cluster_rule_user_feedback": {
        "cluster_id": CLUSTER,
        "rule_id": "a.b.report",
        "error_key": "K",
        "org_id": "1",
        "user_id": "u",
        "message": "",
        "user_vote": 1,
        "added_at": TIME,
        "updated_at": TIME,
    },
    "rule_disable": {"org_id": "1", "rule_id": "a.b.report", "error_key": "K", "created_at": TIME},
    "advisor_ratings": {"org_id": "1", "rule_fqdn": "a.b", "error_key": "K", "rule_id": "a.b|K"},
}


class ApiUnderTest:
    """An application on a database of its own; `settings` are those of the section `api`.

    `place` is a folder, in which an SQLite file is made, or the URL of a migrated database, which is read with a role
    that can only read. The clock of the application stands at `NOW`, 2026-05-04 12:00. `reading_url` is what the
    application connects to with its first question. With `spans`, requests are traced.
    """

    def __init__(
        self,
        place: Path | str,
        clock: Callable[[], datetime] = lambda: NOW,
        *,
        spans: Spans | None = None,
        **settings: Any,
    ) -> None:
        self._spans = spans
        self.url = sqlite_url_in(place) if isinstance(place, Path) else place
        self.database = open_database(self.url)
        if isinstance(self.database, SqliteDatabase):
            # a lost file is no loss here
            self.database._pragmas = [("foreign_keys", 0), ("synchronous", 0)]
        if isinstance(place, Path):
            self.file = place / SQLITE_FILE
            migrate(self.database)
        self.settings = ApiSettings(**settings)
        self.registry = CollectorRegistry()
        build = BuildFacts(version="1.2.3")
        metrics = ApiMetrics(self.registry, build)
        self.reading_url = with_select_only(self.url)
        self.opened: list[Database] = []
        self.reader = Reader(self._open, prepare=True, metrics=metrics)
        self.app = create_app(self.settings, self.reader, metrics, build, clock, spans=spans)
        self.resources = resources_of(self.settings, self.reader, metrics, build, clock)
        self._client = testing.TestClient(self.app)

    def _open(self) -> Database:
        database = open_reader(DatabaseSettings(url=Secret(self.reading_url)), "tests")
        if self._spans:
            self._spans.watch(database)
        self.opened.append(database)
        return database

    def close(self) -> None:
        """Close the connections of this thread."""
        for database in (self.database, *self.opened):
            database.close()

    def insert(self, table: str, **row: Any) -> None:
        """Add a row; columns that are not given have values that fit together."""
        values = {**_DEFAULTS[table], **row}
        places = ", ".join([self.database.param] * len(values))
        self.database.execute_sql(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", tuple(values.values())
        )

    def ask_question(self, method: str, path: str) -> testing.Result:
        """Send one of `QUESTIONS`, about `CLUSTER` where it takes a body."""
        bodies = {"organizations/1/clusters/reports": json.dumps({"clusters": [CLUSTER]})}
        return self.ask(method, path, body=bodies.get(path, json.dumps([CLUSTER])) if method == "POST" else "")

    def get(self, path: str, **request: Any) -> testing.Result:
        """Ask for a path relative to the prefix."""
        return self.ask("GET", path, **request)

    def post(self, path: str, body: bytes | str, **request: Any) -> testing.Result:
        """Send a body to a path relative to the prefix."""
        return self.ask("POST", path, body=body, **request)

    def ask(self, method: str, path: str, **request: Any) -> testing.Result:
        """Send any request to a path relative to the prefix."""
        return self._client.simulate_request(method, self.settings.prefix + path, **request)


def identity(org_id: Any = "1") -> dict[str, str]:
    """Return the header with the identity of an organization."""
    return token({"identity": {"org_id": org_id, "user": {"user_id": "11"}, "type": "User"}})


def token(value: Any) -> dict[str, str]:
    """Return the identity header for any JSON value, or for bytes that are none."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return {"x-rh-identity": base64.b64encode(text).decode()}
