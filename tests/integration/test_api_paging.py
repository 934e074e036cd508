"""Pages of a list are the whole list, whatever ids a database holds and however it orders texts."""

import http.client
import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import psycopg2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peewee import Database, SqliteDatabase

from api_service import database, queries
from api_service.database import Statement
from api_service.paging import Page
from api_service.parameters import GivenCluster
from libaggregator.identifiers import parse_cluster_id
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.connections import open_reader
from tests.support.api import ApiUnderTest
from tests.support.api_process import StartApi
from tests.support.databases import migrate_database
from tests.support.deployment import PREFIX
from tests.support.postgresql import ExternalPostgresql
from tests.support.tables import empty_tables

pytestmark = pytest.mark.usefixtures("plain_logs")

CLUSTERS = "organizations/1/clusters"
DETAIL = "rules/a.b%7CK/organizations/1/users/u/clusters_detail"
NEXT = re.compile(r'<(/[^>]*)>; rel="next"')
ENGLISH_LOCALES = (
    "LOCALE_PROVIDER icu ICU_LOCALE 'en'",
    "LOCALE_PROVIDER libc LOCALE 'en_US.UTF-8'",
    "LOCALE_PROVIDER libc LOCALE 'en_US.utf8'",
)
FIRST, LAST = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
STORED = datetime(2026, 5, 4, 11)
STORED_LONG_AGO = datetime(2026, 5, 1)
CANONICAL = [f"{digits}0a0b-49e2-56d0-a495-f2798c5e3b2f" for digits in ("0a9f", "a000", "a00b", "aafe", "aaff", "f0b1")]
# existing deployments stored an id as it came, in any form that they took
WRITTEN = [
    written
    for canonical in CANONICAL
    for written in (
        canonical,
        canonical.upper(),
        canonical.upper().replace("E3B2F", "e3b2f"),
        canonical.replace("0a0b", "0A0b"),
        canonical.replace("-", ""),
        f"{{{canonical.upper()}}}",
        f"urn:uuid:{canonical}",
        f"URN:UUID:{canonical}",
    )
]


class PagedApi(ApiUnderTest):
    """The application on a database that is filled with clusters."""

    def fill(self, clusters: Sequence[str], old: Sequence[str] = (), others: Sequence[str] = (FIRST, LAST)) -> None:
        """Leave nothing but these clusters, all hit by one rule, and those of another organization.

        `old` are those whose reports were stored long ago.
        """
        empty_tables(self.database)
        with self.database.atomic():
            for org_id, cluster in [*((1, cluster) for cluster in clusters), *((2, cluster) for cluster in others)]:
                stored_at = STORED_LONG_AGO if cluster in old else STORED
                self.insert("report", org_id=org_id, cluster=cluster, reported_at=stored_at)
                self.insert("report_info", org_id=org_id, cluster_id=cluster, version_info=f"of {cluster}")
                for key in ("K", "L"):
                    rule = {"error_key": key, "rule_id": f"a.b|{key}"}
                    self.insert("recommendation", org_id=org_id, cluster_id=cluster, **rule)

    def rest(self, path: str, body: str = "") -> list[Any]:
        """Return a list that is not limited."""
        clusters, following = self._get(PREFIX + path, body)
        assert following is None
        return clusters

    def pages(self, path: str, limit: int, body: str = "") -> list[list[Any]]:
        """Return the pages of a list, one after another as the headers `Link` say."""
        pages = []
        target: str | None = f"{PREFIX}{path}?limit={limit}"
        while target:
            clusters, target = self._get(target, body)
            pages.append(clusters)
            assert len(pages) <= len(WRITTEN), "the walk has no end"
        return pages

    def plan(self, statement: Statement) -> str:
        """Return how a statement that was asked is run, where a table is never read as a whole."""
        opened = self.opened[0]
        values = {"org_id": 1, "since": STORED, "rule_selector": "a.b|K", "after": "", "after_canonical": "", "rows": 2}
        given = {name: values[name] for name in statement.parameters}
        if isinstance(opened, SqliteDatabase):
            rows = opened.execute_sql(f"EXPLAIN QUERY PLAN {statement.for_sqlite}", given).fetchall()
            return "\n".join(row[3] for row in rows)
        opened.execute_sql("SET enable_seqscan = off")
        opened.execute_sql("SET enable_bitmapscan = off")
        rows = opened.execute_sql(f"EXPLAIN {statement.execution}", given).fetchall()
        return "\n".join(line for (line,) in rows)

    def _get(self, target: str, body: str) -> tuple[list[Any], str | None]:
        """Return the clusters of an answer, none if it is 404, and the target of its header `Link`."""
        path, _, query = target.partition("?")
        answer = self.get(path.removeprefix(PREFIX), query_string=query, body=body)
        assert answer.status_code in (200, 404)
        return answer.json.get("clusters", []), _next(answer.headers.get("Link"))


def _next(link: str | None) -> str | None:
    found = NEXT.fullmatch(link or "")
    return found[1] if found else None


def _ids(found: list[Any]) -> list[str]:
    return [cluster if isinstance(cluster, str) else cluster["cluster"] for cluster in found]


def _english_database(server: ExternalPostgresql) -> str:
    """Make a database that orders texts as a dictionary does, and return its URL; skip where none can be made."""
    problems = []
    for locale in ENGLISH_LOCALES:
        try:
            return server.create_database(f"{locale} TEMPLATE template0")
        except psycopg2.Error as problem:
            problems.append(str(problem).strip())
    pytest.skip(f"the server has no English locale: {'; '.join(problems)}")


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "postgresql, collation named", "postgresql in English"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagedApi]:
    """Yield an API on each engine in turn, and on databases of PostgreSQL with another order of texts."""
    if request.param == "sqlite":
        api = PagedApi(tmp_path_factory.mktemp("paging"))
        yield api
        api.close()
        return
    server: ExternalPostgresql = request.getfixturevalue("postgresql")
    url = _english_database(server) if "English" in request.param else server.create_database()
    with pytest.MonkeyPatch.context() as patch:
        if "named" in request.param:
            patch.setattr(database, "_DATABASE_IS_BYTEWISE", "SELECT false")
        api = PagedApi(migrate_database(url))
        yield api
        api.close()
    server.drop_database(url)


@settings(deadline=None)
@given(st.data())
def test_all_pages_together_are_the_whole_list(api: PagedApi, data: st.DataObject) -> None:
    clusters = data.draw(st.lists(st.sampled_from(WRITTEN), unique=True, max_size=12), "clusters")
    old = data.draw(st.sets(st.sampled_from(clusters)) if clusters else st.just(set()), "old")
    limit = data.draw(st.integers(1, len(clusters) + 1), "limit")
    api.fill(clusters, sorted(old))
    for path, body in ((CLUSTERS, ""), (DETAIL, ""), (DETAIL, json.dumps({"clusters": CANONICAL[:4]}))):
        whole = api.rest(path, body)
        pages = api.pages(path, limit, body)
        assert [cluster for page in pages for cluster in page] == whole
        assert len(pages) == max(1, math.ceil(len(whole) / limit))
    assert api.rest(CLUSTERS) == sorted(set(clusters) - old)
    assert _ids(api.rest(DETAIL)) == sorted(clusters)


@settings(deadline=None)
@given(st.data())
def test_after_alone_is_the_rest_of_the_list(api: PagedApi, data: st.DataObject) -> None:
    clusters = data.draw(st.lists(st.sampled_from(WRITTEN), unique=True, min_size=1, max_size=12), "clusters")
    after = data.draw(st.sampled_from(clusters), "after")
    api.fill(clusters)
    for path in (CLUSTERS, DETAIL):
        assert _ids(api.rest(f"{path}?after={after}")) == [cluster for cluster in sorted(clusters) if cluster > after]


@pytest.mark.parametrize("written", [*CANONICAL, *(written for written in WRITTEN[:8] if written not in CANONICAL)])
def test_an_id_that_the_organization_does_not_have_as_it_is_written_counts_in_its_canonical_form(
    api: PagedApi, written: str
) -> None:
    clusters = [FIRST, *CANONICAL[1:], LAST]
    canonical = parse_cluster_id(written)
    api.fill(clusters, others=[written] if written != canonical else [])
    for path in (CLUSTERS, DETAIL):
        found = _ids(api.rest(f"{path}?after={written}"))
        assert found == [cluster for cluster in clusters if cluster > canonical]


def test_a_page_reads_no_rows_beyond_its_limit_but_one(api: PagedApi) -> None:
    api.fill(CANONICAL)
    page = Page(2, GivenCluster(CANONICAL[0], CANONICAL[0]))
    assert queries.clusters(api.reader, 1, STORED, page) == CANONICAL[1:4]
    assert len(queries.clusters_detail(api.reader, 1, "a.b|K", [], page)) == 3


def test_where_texts_are_ordered_by_their_bytes_a_page_is_a_piece_of_the_primary_key(
    sqlite_url: str, postgresql_url: str
) -> None:
    for url in (sqlite_url, postgresql_url):
        api = PagedApi(migrate_database(url))
        api.fill(CANONICAL)
        assert len(api.rest(f"{CLUSTERS}?after={CANONICAL[0]}")) == len(CANONICAL) - 1
        plan = api.plan(queries.CLUSTERS_PAGE)
        api.close()
        assert re.search(r"report_pkey on report\b|SEARCH report USING INDEX sqlite_autoindex_report_1", plan), plan
        assert re.search(r"Index Cond:.*cluster\)::text >|\(org_id=\? AND cluster>\?\)", plan), plan
        assert not re.search(r"Sort|ORDER BY", plan), plan


def test_without_statistics_a_page_of_what_a_rule_hits_does_not_walk_through_the_organization(sqlite_url: str) -> None:
    api = PagedApi(migrate_database(sqlite_url))
    api.fill(CANONICAL)
    assert len(api.rest(f"{DETAIL}?after={CANONICAL[0]}")) == len(CANONICAL) - 1
    plan = api.plan(queries.CLUSTERS_DETAIL_PAGE)
    assert "SEARCH recommendation USING INDEX recommendation_org_id_rule_id_idx (org_id=? AND rule_id=?)" in plan
    api.close()


def test_the_order_of_texts_is_asked_for_anew_on_a_new_connection(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = PagedApi(migrate_database(postgresql_url))
    api.fill(CANONICAL[:2])
    statements: list[str] = []
    execute = Database.execute_sql

    def note(self: Database, sql: str, *parameters: Any) -> Any:
        statements.append(sql)
        return execute(self, sql, *parameters)

    monkeypatch.setattr(Database, "execute_sql", note)
    for _ in range(2):
        assert api.rest(f"{CLUSTERS}?after={CANONICAL[0]}") == CANONICAL[1:2]
    asked = [sql for sql in statements if "pg_database" in sql]
    assert len(asked) == 1
    with pytest.raises(Exception, match=r"terminating connection|closed"):
        api.opened[0].execute_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    assert api.rest(f"{CLUSTERS}?after={CANONICAL[0]}") == CANONICAL[1:2]
    assert len([sql for sql in statements if "pg_database" in sql]) == 2
    api.close()


@pytest.mark.parametrize(
    ("options", "is_bytewise"),
    [
        ("LOCALE 'C'", True),
        ("LOCALE 'POSIX'", True),
        ("LOCALE 'C' LC_CTYPE 'C.UTF-8'", True),
        ("LOCALE 'C.UTF-8'", True),
        ("LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'", True),
        ("LOCALE_PROVIDER icu ICU_LOCALE 'en' LC_COLLATE 'C'", False),
        ("LOCALE 'en_US.UTF-8'", False),
    ],
)
def test_a_database_tells_whether_it_orders_texts_by_their_bytes(
    postgresql: ExternalPostgresql, options: str, is_bytewise: bool
) -> None:
    try:
        url = postgresql.create_database(f"{options} TEMPLATE template0")
    except psycopg2.Error as problem:
        pytest.skip(f"not on this server: {problem}")
    opened = open_reader(DatabaseSettings(url=Secret(url)), "tests")
    ((found,),) = opened.execute_sql(database._DATABASE_IS_BYTEWISE).fetchall()
    opened.close()
    postgresql.drop_database(url)
    assert found is is_bytewise


def test_a_walk_and_an_answer_that_is_known_go_over_the_wire(start_api: StartApi, sqlite_url: str) -> None:
    filled = PagedApi(migrate_database(sqlite_url))
    filled.fill(CANONICAL)
    filled.close()
    port = start_api(sqlite_url).wait_until_it_listens().port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def get(target: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection.request("GET", target, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response, response.read()

    found: list[str] = []
    target: str | None = f"{PREFIX}{DETAIL}?limit=4"
    while target:
        first, body = get(target)
        found += [hit["cluster"] for hit in json.loads(body)["clusters"]]
        again, nothing = get(target, If_None_Match=first.headers["ETag"])
        assert (first.status, again.status, nothing) == (200, 304, b"")
        for name in ("ETag", "Cache-Control", "Link"):
            assert again.headers[name] == first.headers[name]
        target = _next(first.headers["Link"])
    assert found == CANONICAL
    connection.close()
