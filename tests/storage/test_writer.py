"""What storing a message does to each table (`docs/messages.md`, section 6), on both engines."""

import gzip
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from peewee import Database, Model, SqliteDatabase

from consumer_service.pipeline import SkipReason
from consumer_service.writer import Written
from libaggregator.storage.models import (
    AdvisorRating,
    ClusterRuleToggle,
    ClusterRuleUserFeedback,
    ClusterUserRuleDisableFeedback,
    ConsumerError,
    Recommendation,
    Report,
    ReportInfo,
    RuleDisable,
    RuleHit,
)
from libaggregator.storage.schema import migrate
from tests.storage.conftest import NOON, Store
from tests.support.databases import open_database
from tests.support.messages import CLUSTERS, HitSpec, payload, record
from tests.support.tables import read_tables

CLUSTER, OTHER_CLUSTER = CLUSTERS[:2]
A = HitSpec("a.rules.report", "KEY_A", {"n": 1})
B = HitSpec("b.rules.report", "KEY_B", {"n": 2})
USERS_TABLES = (ClusterRuleToggle, ClusterUserRuleDisableFeedback, ClusterRuleUserFeedback)


def second(instant: datetime) -> datetime:
    """Return the instant cut to whole seconds."""
    return instant.replace(microsecond=0)


def write(store: Store, *payloads: bytes) -> Written:
    """Store one batch of messages."""
    return store.write([record(value, offset) for offset, value in enumerate(payloads)])


def rows(store: Store, model: type[Model]) -> list[dict[str, Any]]:
    """Return all rows of a table, sorted, as dictionaries by the name of the column."""
    columns = [field.column_name for field in model._meta.sorted_fields]
    found = read_tables(store.database)[model._meta.table_name]
    return [dict(zip(columns, row, strict=True)) for row in found]


def only_row(store: Store, model: type[Model]) -> dict[str, Any]:
    (row,) = rows(store, model)
    return row


def hits(store: Store) -> dict[str, datetime]:
    """Return since when each component is in `rule_hit`."""
    return {row["rule_fqdn"]: row["created_at"] for row in rows(store, RuleHit)}


def impacted(store: Store) -> dict[str, datetime]:
    """Return since when each rule is in `recommendation`."""
    return {row["rule_fqdn"]: row["impacted_since"] for row in rows(store, Recommendation)}


def execute(store: Store, statement: str) -> None:
    store.database.execute_sql(statement)


def choose(store: Store, cluster: str, org_id: str) -> None:
    """Fill the tables of users for a cluster, which needs a row in `report`."""
    time = "2026-05-20 10:00:00"
    for statement in (
        "INSERT INTO cluster_rule_toggle (cluster_id, rule_id, disabled, disabled_at, updated_at, error_key, org_id)"
        f" VALUES ('{cluster}', 'a.rules.report', 1, '{time}', '{time}', 'KEY_A', '{org_id}')",
        "INSERT INTO cluster_user_rule_disable_feedback"
        " (cluster_id, user_id, rule_id, message, added_at, updated_at, error_key, org_id)"
        f" VALUES ('{cluster}', 'jane', 'a.rules.report', 'known', '{time}', '{time}', 'KEY_A', '{org_id}')",
        "INSERT INTO cluster_rule_user_feedback"
        " (cluster_id, rule_id, user_id, message, user_vote, added_at, updated_at, error_key, org_id)"
        f" VALUES ('{cluster}', 'a.rules.report', 'jane', '', -1, '{time}', '{time}', 'KEY_A', '{org_id}')",
    ):
        execute(store, statement)


def choose_for_organization(store: Store, org_id: str) -> None:
    time = "2026-05-20 10:00:00"
    execute(
        store,
        "INSERT INTO rule_disable (org_id, rule_id, error_key, justification, created_at)"
        f" VALUES ('{org_id}', 'a.rules', 'KEY_A', 'known', '{time}')",
    )
    execute(
        store,
        "INSERT INTO advisor_ratings (org_id, rule_fqdn, error_key, rated_at, rating, rule_id)"
        f" VALUES ('{org_id}', 'a.rules', 'KEY_A', '{time}', 1, 'a.rules|KEY_A')",
    )


class TestFreshness:
    @pytest.mark.parametrize(
        "checked",
        [
            pytest.param("2026-05-01T08:00:00Z", id="equal"),
            pytest.param("2026-05-01T10:00:00+02:00", id="equal in another zone"),
            pytest.param("2026-05-01T08:00:00.0000004Z", id="equal after rounding"),
            pytest.param("2026-05-01T07:59:59.999999Z", id="a microsecond older"),
            pytest.param("2025-05-01T08:00:00Z", id="a year older"),
            pytest.param("2026-05-01T09:59:59+02:00", id="older in another zone"),
        ],
    )
    def test_an_equal_or_older_message_is_stale_and_changes_nothing_in_any_table(
        self, store: Store, checked: str
    ) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A], version="4.16.3"))
        choose(store, CLUSTER, "1")
        choose_for_organization(store, "1")
        before = read_tables(store.database)
        store.later()
        stale = payload(checked=checked, hits=[B], org_id=2, version="4.17.0", gathered="2026-05-01T07:00:00Z")
        written = write(store, stale)
        assert read_tables(store.database) == before
        assert [skip.reason for skip in written.stale] == [SkipReason.STALE]
        assert not written.stored
        assert not written.rejected

    def test_a_message_that_is_a_microsecond_newer_counts(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00.123456Z", org_id=1))
        written = write(store, payload(checked="2026-05-01T08:00:00.123457Z", org_id=2))
        assert len(written.stored) == 1
        assert only_row(store, Report)["org_id"] == 2

    def test_a_stored_report_without_last_checked_at_is_older_than_any_message(self, store: Store) -> None:
        write(store, payload(hits=[A]))
        execute(store, "UPDATE report SET last_checked_at = NULL")
        written = write(store, payload(checked="0001-01-01T00:00:00Z", hits=[B]))
        assert len(written.stored) == 1
        assert only_row(store, Report)["last_checked_at"] == datetime.min
        assert list(hits(store)) == ["b.rules.report"]

    def test_another_cluster_is_not_compared_with(self, store: Store) -> None:
        write(store, payload(cluster=CLUSTER, checked="2026-05-01T08:00:00Z"))
        write(store, payload(cluster=OTHER_CLUSTER, checked="2026-05-01T07:00:00Z"))
        assert {row["cluster"] for row in rows(store, Report)} == {CLUSTER, OTHER_CLUSTER}


class TestReport:
    def test_every_column_has_its_value(self, store: Store) -> None:
        value = payload(
            cluster="{ABCDEF12-3456-4789-ABCD-EF1234567890}",
            checked="2026-05-01T10:00:00.123456789+02:00",
            org_id=4_294_967_295,
            gathered="2026-05-01T07:59:00.5Z",
        )
        store.write([record(value, offset=77)])
        assert only_row(store, Report) == {
            "org_id": 4_294_967_295,
            "cluster": "abcdef12-3456-4789-abcd-ef1234567890",
            "report": json.dumps(json.loads(value)["Report"]),
            "reported_at": NOON,
            "last_checked_at": datetime(2026, 5, 1, 8, 0, 0, 123457),
            "kafka_offset": 0,
            "gathered_at": datetime(2026, 5, 1, 7, 59, 0, 500000),
        }

    def test_the_row_is_updated_in_every_column(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", gathered="2026-05-01T07:00:00Z", org_id=1))
        execute(store, "UPDATE report SET kafka_offset = 5")
        store.later(90)
        newer = payload(checked="2026-05-01T09:00:00Z", gathered="2026-05-01T08:30:00Z", org_id=2, hits=[A])
        write(store, newer)
        assert only_row(store, Report) == {
            "org_id": 2,
            "cluster": CLUSTER,
            "report": json.dumps(json.loads(newer)["Report"]),
            "reported_at": NOON + timedelta(seconds=90),
            "last_checked_at": datetime(2026, 5, 1, 9),
            "kafka_offset": 0,
            "gathered_at": datetime(2026, 5, 1, 8, 30),
        }

    @pytest.mark.parametrize(
        "metadata", [None, {}, {"gathering_time": "0001-01-01T00:00:00Z"}, {"gathering_time": "yesterday"}, []]
    )
    def test_gathered_at_is_null_again_after_a_message_without_it(self, store: Store, metadata: object) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", gathered="2026-05-01T07:00:00Z"))
        write(store, payload(checked="2026-05-01T09:00:00Z", Metadata=metadata))
        assert only_row(store, Report)["gathered_at"] is None

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param('{"system":{},"fingerprints":[],"reports":[]}', id="compact"),
            pytest.param('{ "system" :\t{ },\r\n "fingerprints": [ ] , "reports": [\n]\n}', id="white space"),
            pytest.param('{"system":{"h":"žluťoučký 🦄 \u2028"},"fingerprints":[],"reports":[]}', id="not ASCII"),
            pytest.param(r'{"system":{"h":"\u017e\/\"\\\u0000\b"},"fingerprints":[],"reports":[]}', id="escapes"),
            pytest.param(
                r'{"system":{"h":"\ud800 \udc00\ud83e\udd84"},"fingerprints":[],"reports":[]}', id="surrogates"
            ),
            pytest.param('{"system":{"h":1e400,"i":-0.0,"i":1.10},"fingerprints":[],"reports":[]}', id="numbers"),
            pytest.param(f'{{"system":{"9" * 5000},"fingerprints":[],"reports":[]}}', id="long integer"),
            pytest.param('{"zzz":"%s %% \' ; --","system":{},"fingerprints":null,"reports":[]}', id="marks of SQL"),
        ],
    )
    def test_the_text_of_the_report_is_stored_byte_for_byte(self, store: Store, text: str) -> None:
        template = payload(Report="REPORT").decode()
        value = template.replace('"REPORT"', text).encode()
        write(store, value)
        assert only_row(store, Report)["report"] == text

    def test_the_text_of_a_compressed_report_is_stored_inflated(self, store: Store) -> None:
        value = payload(hits=[A])
        write(store, gzip.compress(value))
        assert only_row(store, Report)["report"] == json.dumps(json.loads(value)["Report"])

    def test_no_row_of_the_table_is_ever_deleted_so_that_votes_survive(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A]))
        choose(store, CLUSTER, "1")
        before = {model: rows(store, model) for model in USERS_TABLES}
        write(store, payload(checked="2026-05-01T09:00:00Z"), payload(checked="2026-05-01T10:00:00Z", hits=[A]))
        assert {model: rows(store, model) for model in USERS_TABLES} == before
        assert all(before.values())


class TestHits:
    def test_every_column_has_its_value(self, store: Store) -> None:
        write(store, payload(org_id=4_294_967_295, hits=[A]))
        assert only_row(store, RuleHit) == {
            "org_id": 4_294_967_295,
            "cluster_id": CLUSTER,
            "rule_fqdn": "a.rules.report",
            "error_key": "KEY_A",
            "template_data": '{"n": 1}',
            "created_at": second(NOON),
        }

    @pytest.mark.parametrize("entry", [{"component": "a", "key": "K"}, {"component": "a", "key": "K", "details": None}])
    def test_a_hit_without_details_has_the_text_null(self, store: Store, entry: dict[str, object]) -> None:
        write(store, payload(Report={"system": {}, "fingerprints": [], "reports": [entry]}))
        assert only_row(store, RuleHit)["template_data"] == "null"

    def test_after_a_message_there_are_exactly_its_hits(self, store: Store) -> None:
        same_component = HitSpec("a.rules.report", "KEY_B")
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A, B, same_component]))
        write(store, payload(cluster=OTHER_CLUSTER, hits=[A, B]))
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[same_component, HitSpec("c", "KEY_C")]))
        found = {(row["cluster_id"], row["rule_fqdn"], row["error_key"]) for row in rows(store, RuleHit)}
        assert found == {
            (CLUSTER, "a.rules.report", "KEY_B"),
            (CLUSTER, "c", "KEY_C"),
            (OTHER_CLUSTER, "a.rules.report", "KEY_A"),
            (OTHER_CLUSTER, "b.rules.report", "KEY_B"),
        }
        selectors = {(row["cluster_id"], row["rule_id"]) for row in rows(store, Recommendation)}
        assert selectors == {
            (CLUSTER, "a.rules|KEY_B"),
            (CLUSTER, "c|KEY_C"),
            (OTHER_CLUSTER, "a.rules|KEY_A"),
            (OTHER_CLUSTER, "b.rules|KEY_B"),
        }

    def test_a_report_without_hits_leaves_none(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A, B]))
        write(store, payload(checked="2026-05-01T09:00:00Z"))
        assert not rows(store, RuleHit)
        assert not rows(store, Recommendation)
        assert len(rows(store, Report)) == 1

    def test_a_hit_that_stays_keeps_its_time_and_gets_its_new_details(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[HitSpec("a", "K", {"n": 1})]))
        store.later()
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[HitSpec("a", "K", {"n": 2})]))
        row = only_row(store, RuleHit)
        assert row["created_at"] == second(NOON)
        assert row["template_data"] == '{"n": 2}'

    def test_a_hit_that_went_and_came_back_starts_again(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A]))
        write(store, payload(checked="2026-05-01T09:00:00Z"))
        back = store.later()
        write(store, payload(checked="2026-05-01T10:00:00Z", hits=[A]))
        assert hits(store) == {"a.rules.report": second(back)}

    def test_a_hit_whose_stored_time_is_null_starts_now(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A, B]))
        execute(store, "UPDATE rule_hit SET created_at = NULL WHERE error_key = 'KEY_A'")
        now = store.later()
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[A, B]))
        assert hits(store) == {"a.rules.report": second(now), "b.rules.report": second(NOON)}

    def test_times_are_cut_to_whole_seconds_not_rounded(self, store: Store) -> None:
        store.now = datetime(2026, 6, 1, 12, 0, 0, 999_999)
        write(store, payload(hits=[A]))
        expected = datetime(2026, 6, 1, 12)
        assert only_row(store, RuleHit)["created_at"] == expected
        row = only_row(store, Recommendation)
        assert (row["created_at"], row["impacted_since"]) == (expected, expected)
        assert only_row(store, Report)["reported_at"] == store.now

    def test_the_same_hit_twice_in_one_report_counts_once_and_the_last_one_wins(self, store: Store) -> None:
        write(store, payload(hits=[HitSpec("a", "K", 1), HitSpec("b", "K", 2), HitSpec("a", "K", 3)]))
        assert {row["rule_fqdn"]: row["template_data"] for row in rows(store, RuleHit)} == {"a": "3", "b": "2"}

    def test_a_component_with_and_one_without_report_are_two_hits_and_one_recommendation(self, store: Store) -> None:
        write(store, payload(hits=[HitSpec("x", "K", 1), HitSpec("x.report", "K", 2)]))
        assert {row["rule_fqdn"]: row["template_data"] for row in rows(store, RuleHit)} == {"x": "1", "x.report": "2"}
        assert only_row(store, Recommendation)["rule_id"] == "x|K"

    def test_a_component_that_gains_a_report_is_a_new_hit_of_a_rule_that_stayed(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[HitSpec("x", "K")]))
        now = store.later()
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[HitSpec("x.report", "K")]))
        assert hits(store) == {"x.report": second(now)}
        assert impacted(store) == {"x": second(NOON)}

    def test_rules_and_keys_are_compared_exactly(self, store: Store) -> None:
        specs = [HitSpec("a", "K"), HitSpec("A", "K"), HitSpec("a", "k"), HitSpec("a ", "K"), HitSpec("a.REPORT", "K")]
        specs += [HitSpec("ž", "K"), HitSpec("z\u030c", "K"), HitSpec("a|K", "K"), HitSpec("a.report.report", "K")]
        write(store, payload(hits=specs))
        assert {(row["rule_fqdn"], row["error_key"]) for row in rows(store, RuleHit)} == {
            (spec.component, spec.key) for spec in specs
        }
        assert {row["rule_id"] for row in rows(store, Recommendation)} == {
            f"{spec.component.removesuffix('.report')}|{spec.key}" for spec in specs
        }


class TestRecommendations:
    def test_every_column_has_its_value(self, store: Store) -> None:
        write(store, payload(org_id=4_294_967_295, hits=[A]))
        assert only_row(store, Recommendation) == {
            "org_id": 4_294_967_295,
            "cluster_id": CLUSTER,
            "rule_fqdn": "a.rules",
            "error_key": "KEY_A",
            "rule_id": "a.rules|KEY_A",
            "created_at": second(NOON),
            "impacted_since": second(NOON),
        }

    def test_created_at_moves_with_every_report_and_impacted_since_stays(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A, B]))
        now = store.later(3600)
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[A, B]))
        assert [row["created_at"] for row in rows(store, Recommendation)] == [second(now), second(now)]
        assert impacted(store) == {"a.rules": second(NOON), "b.rules": second(NOON)}

    def test_impacted_since_that_is_null_becomes_now(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A, B]))
        execute(store, "UPDATE recommendation SET impacted_since = NULL WHERE error_key = 'KEY_A'")
        now = store.later()
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[A, B]))
        assert impacted(store) == {"a.rules": second(now), "b.rules": second(NOON)}

    def test_a_rule_id_that_other_components_left_at_its_default_is_filled(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A]))
        execute(store, "UPDATE recommendation SET rule_id = '.'")
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[A]))
        assert only_row(store, Recommendation)["rule_id"] == "a.rules|KEY_A"

    def test_impacted_since_step_by_step(self, store: Store) -> None:
        t1 = store.now
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A, B]))
        assert impacted(store) == {"a.rules": second(t1), "b.rules": second(t1)}

        store.later(600)
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[A]))
        assert impacted(store) == {"a.rules": second(t1)}

        t3 = store.later(600)
        write(store, payload(checked="2026-05-01T10:00:00Z", hits=[A, B]))
        assert impacted(store) == {"a.rules": second(t1), "b.rules": second(t3)}

        store.later(600)
        write(store, payload(checked="2026-05-01T11:00:00Z", hits=[A], org_id=2))
        assert impacted(store) == {"a.rules": second(t1)}
        assert only_row(store, Recommendation)["org_id"] == 2

        store.later(600)
        before = read_tables(store.database)
        write(store, payload(checked="2026-05-01T10:30:00Z", hits=[B]))
        write(store, payload(checked="2026-05-01T11:00:00Z", hits=[A, B]))
        assert read_tables(store.database) == before


class TestVersion:
    def test_a_message_with_a_version_sets_it(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", version="4.16.3", org_id=4_294_967_295))
        expected = {"org_id": 4_294_967_295, "cluster_id": CLUSTER, "version_info": "4.16.3"}
        assert only_row(store, ReportInfo) == expected
        write(store, payload(checked="2026-05-01T09:00:00Z", version="4.17.0", org_id=4_294_967_295))
        assert only_row(store, ReportInfo) == {**expected, "version_info": "4.17.0"}

    def test_a_message_without_a_version_makes_no_row(self, store: Store) -> None:
        write(store, payload())
        assert not rows(store, ReportInfo)

    def test_a_message_without_a_version_keeps_the_one_that_is_stored(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", version="4.16.3"))
        write(store, payload(checked="2026-05-01T09:00:00Z"))
        assert only_row(store, ReportInfo)["version_info"] == "4.16.3"

    @pytest.mark.parametrize("version", [None, "4.17.0"])
    def test_the_row_moves_with_the_cluster_whether_or_not_the_message_has_a_version(
        self, store: Store, version: str | None
    ) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", version="4.16.3", org_id=1))
        write(store, payload(cluster=OTHER_CLUSTER, version="4.15.0", org_id=1))
        write(store, payload(checked="2026-05-01T09:00:00Z", version=version, org_id=2))
        assert rows(store, ReportInfo) == [
            {"org_id": 1, "cluster_id": OTHER_CLUSTER, "version_info": "4.15.0"},
            {"org_id": 2, "cluster_id": CLUSTER, "version_info": version or "4.16.3"},
        ]

    def test_of_several_messages_in_a_batch_the_last_version_that_was_told_counts(self, store: Store) -> None:
        write(
            store,
            payload(checked="2026-05-01T08:01:00Z", version="4.16.1"),
            payload(checked="2026-05-01T08:02:00Z", version="4.16.2"),
            payload(checked="2026-05-01T08:03:00Z"),
            payload(checked="2026-05-01T08:00:00Z", version="4.16.9"),
        )
        assert only_row(store, ReportInfo)["version_info"] == "4.16.2"


class TestMove:
    def test_a_cluster_moves_with_everything_it_has(self, store: Store) -> None:
        for cluster in (CLUSTER, OTHER_CLUSTER):
            write(store, payload(cluster=cluster, checked="2026-05-01T08:00:00Z", hits=[A, B], version="4.16.3"))
            choose(store, cluster, "1")
        choose_for_organization(store, "1")
        before = {model: rows(store, model) for model in (*USERS_TABLES, RuleDisable, AdvisorRating)}
        now = store.later()
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[B, HitSpec("c", "KEY_C")], org_id=2))

        assert [(row["org_id"], row["cluster"]) for row in rows(store, Report)] == [(1, OTHER_CLUSTER), (2, CLUSTER)]
        moved_hits = [
            (row["org_id"], row["rule_fqdn"], row["created_at"])
            for row in rows(store, RuleHit)
            if row["cluster_id"] == CLUSTER
        ]
        assert moved_hits == [(2, "b.rules.report", second(NOON)), (2, "c", second(now))]
        moved_recommendations = [
            (row["org_id"], row["rule_fqdn"], row["created_at"], row["impacted_since"])
            for row in rows(store, Recommendation)
            if row["cluster_id"] == CLUSTER
        ]
        assert moved_recommendations == [(2, "b.rules", second(now), second(NOON)), (2, "c", second(now), second(now))]
        for model in USERS_TABLES:
            expected = [{**row, "org_id": "2"} if row["cluster_id"] == CLUSTER else row for row in before[model]]
            assert rows(store, model) == expected
        for model in (RuleDisable, AdvisorRating):
            assert rows(store, model) == before[model]

    def test_after_it_no_row_of_the_cluster_has_the_old_organization(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A, B], version="4.16.3", org_id=1))
        choose(store, CLUSTER, "1")
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[A], org_id=2))
        models = (Report, RuleHit, Recommendation, ReportInfo, *USERS_TABLES)
        assert [{str(row["org_id"]) for row in rows(store, model)} for model in models] == [{"2"}] * len(models)

    def test_a_cluster_that_moved_and_came_back_in_one_batch_takes_the_choices_of_users_along(
        self, store: Store
    ) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A], version="4.16.3", org_id=1))
        # of a third organization, so that it shows whether the rows followed the cluster on its way
        choose(store, CLUSTER, "3")
        write(
            store,
            payload(checked="2026-05-01T09:00:00Z", hits=[A], org_id=2),
            payload(checked="2026-05-01T10:00:00Z", hits=[A], org_id=1),
        )
        assert [only_row(store, model)["org_id"] for model in USERS_TABLES] == ["1", "1", "1"]
        assert hits(store) == {"a.rules.report": second(NOON)}
        assert impacted(store) == {"a.rules": second(NOON)}
        assert only_row(store, ReportInfo)["org_id"] == 1

    def test_a_new_cluster_that_moves_in_its_first_batch_takes_the_choices_of_users_along(self, store: Store) -> None:
        write(store, payload(hits=[A], org_id=1))
        choose(store, CLUSTER, "1")
        # votes go with the row, the other choices stay
        execute(store, "DELETE FROM report")
        execute(store, "DELETE FROM rule_hit")
        execute(store, "DELETE FROM recommendation")
        write(
            store,
            payload(checked="2026-05-01T09:00:00Z", hits=[A], org_id=1, version="4.16.3"),
            payload(checked="2026-05-01T10:00:00Z", hits=[A, B], org_id=2),
        )
        assert only_row(store, ClusterRuleToggle)["org_id"] == "2"
        assert only_row(store, ClusterUserRuleDisableFeedback)["org_id"] == "2"
        assert only_row(store, Report)["org_id"] == 2
        assert only_row(store, ReportInfo) == {"org_id": 2, "cluster_id": CLUSTER, "version_info": "4.16.3"}
        assert {row["org_id"] for row in rows(store, RuleHit)} == {2}
        assert {row["org_id"] for row in rows(store, Recommendation)} == {2}

    def test_choices_of_users_are_not_touched_while_a_cluster_stays(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A], org_id=1))
        choose(store, CLUSTER, "3")
        write(store, payload(checked="2026-05-01T09:00:00Z", hits=[A], org_id=1))
        assert [only_row(store, model)["org_id"] for model in USERS_TABLES] == ["3", "3", "3"]

    def test_a_stale_message_in_between_moves_nothing(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:00:00Z", org_id=1))
        choose(store, CLUSTER, "3")
        write(
            store,
            payload(checked="2026-05-01T09:00:00Z", org_id=1),
            payload(checked="2026-05-01T08:30:00Z", org_id=2),
            payload(checked="2026-05-01T10:00:00Z", org_id=1),
        )
        assert [only_row(store, model)["org_id"] for model in USERS_TABLES] == ["3", "3", "3"]


class TestRowsWithoutAReport:
    """Somebody deleted the row of `report` by hand and left the others."""

    @pytest.fixture
    def orphans(self, store: Store) -> Store:
        write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A, B], org_id=1, version="4.16.3"))
        execute(store, "DELETE FROM report")
        store.later()
        return store

    def test_rows_of_the_messages_own_organization_are_replaced_and_keep_their_times(self, orphans: Store) -> None:
        write(orphans, payload(checked="2026-05-01T07:00:00Z", hits=[A], org_id=1))
        assert hits(orphans) == {"a.rules.report": second(NOON)}
        assert impacted(orphans) == {"a.rules": second(NOON)}

    def test_they_go_if_the_message_has_no_hits(self, orphans: Store) -> None:
        write(orphans, payload(org_id=1))
        assert not rows(orphans, RuleHit)
        assert not rows(orphans, Recommendation)

    def test_they_are_replaced_also_if_the_cluster_was_elsewhere_on_the_way(self, orphans: Store) -> None:
        write(
            orphans,
            payload(checked="2026-05-01T09:00:00Z", org_id=2),
            payload(checked="2026-05-01T10:00:00Z", hits=[A], org_id=1),
        )
        assert [(row["org_id"], row["rule_fqdn"]) for row in rows(orphans, RuleHit)] == [(1, "a.rules.report")]
        assert [(row["org_id"], row["rule_id"]) for row in rows(orphans, Recommendation)] == [(1, "a.rules|KEY_A")]

    def test_a_version_that_was_left_follows_the_cluster(self, orphans: Store) -> None:
        write(orphans, payload(org_id=2, version="4.17.0"))
        assert only_row(orphans, ReportInfo) == {"org_id": 2, "cluster_id": CLUSTER, "version_info": "4.17.0"}


class TestSeveralMessagesInOneBatch:
    def test_stale_ones_do_not_end_a_hit_that_the_stored_report_has(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:04:00Z", hits=[A]))
        store.later()
        written = write(
            store,
            payload(checked="2026-05-01T08:01:00Z", hits=[A]),
            payload(checked="2026-05-01T08:03:00Z", hits=[]),
            payload(checked="2026-05-01T08:05:00Z", hits=[A]),
        )
        assert hits(store) == {"a.rules.report": second(NOON)}
        assert impacted(store) == {"a.rules": second(NOON)}
        assert [skip.record.offset for skip in written.stale] == [0, 1]
        assert [entry.record.offset for entry in written.stored] == [2]

    @pytest.mark.parametrize("is_stored", [True, False])
    def test_a_hit_starts_again_if_one_message_that_counted_lacks_it(self, store: Store, is_stored: bool) -> None:
        if is_stored:
            write(store, payload(checked="2026-05-01T08:04:00Z", hits=[A]))
        now = store.later()
        write(
            store,
            payload(checked="2026-05-01T08:05:00Z", hits=[A]),
            payload(checked="2026-05-01T08:06:00Z", hits=[]),
            payload(checked="2026-05-01T08:07:00Z", hits=[A]),
        )
        assert hits(store) == {"a.rules.report": second(now)}
        assert impacted(store) == {"a.rules": second(now)}

    def test_a_rule_stays_while_its_component_gains_and_loses_report(self, store: Store) -> None:
        write(store, payload(checked="2026-05-01T08:04:00Z", hits=[HitSpec("x", "K")]))
        now = store.later()
        write(
            store,
            payload(checked="2026-05-01T08:05:00Z", hits=[HitSpec("x.report", "K")]),
            payload(checked="2026-05-01T08:06:00Z", hits=[HitSpec("x", "K")]),
        )
        assert hits(store) == {"x": second(now)}
        assert impacted(store) == {"x": second(NOON)}

    def test_report_details_and_gathered_at_are_those_of_the_last_that_counted(self, store: Store) -> None:
        last = payload(checked="2026-05-01T08:06:00Z", hits=[HitSpec("a", "K", "new")], org_id=2)
        write(
            store,
            payload(
                checked="2026-05-01T08:05:00Z",
                hits=[HitSpec("a", "K", "old")],
                org_id=1,
                gathered="2026-05-01T08:00:00Z",
            ),
            last,
            payload(checked="2026-05-01T08:05:30Z", hits=[B], org_id=3, gathered="2026-05-01T08:00:00Z"),
        )
        row = only_row(store, Report)
        assert row["report"] == json.dumps(json.loads(last)["Report"])
        assert (row["org_id"], row["gathered_at"], row["last_checked_at"]) == (2, None, datetime(2026, 5, 1, 8, 6))
        assert only_row(store, RuleHit)["template_data"] == '"new"'

    def test_they_are_taken_in_the_order_in_which_they_came_not_by_offset(self, store: Store) -> None:
        older = payload(checked="2026-05-01T08:00:00Z", org_id=1)
        newer = payload(checked="2026-05-01T09:00:00Z", org_id=2)
        written = store.write([record(newer, offset=9), record(older, offset=3)])
        assert [entry.record.offset for entry in written.stored] == [9]
        assert [skip.record.offset for skip in written.stale] == [3]

    def test_rejected_and_skipped_ones_do_not_touch_their_neighbours(self, store: Store) -> None:
        written = write(
            store,
            payload(cluster=CLUSTER, checked="2026-05-01T08:00:00Z", hits=[A]),
            b"not a message",
            payload(cluster=CLUSTER, checked="2026-05-01T08:30:00Z", hits=[HitSpec("", "K")]),
            payload(cluster=CLUSTER, checked="2026-05-01T08:40:00Z", Report={}),
            payload(cluster=OTHER_CLUSTER, hits=[B]),
            b"",
            payload(cluster=CLUSTER, checked="2026-05-01T09:00:00Z", hits=[A, B]),
        )
        assert len(written.stored) == 3
        assert [entry.record.offset for entry in written.rejected] == [1, 2, 5]
        assert [row["topic_offset"] for row in rows(store, ConsumerError)] == [1, 2, 5]
        found = {(row["cluster_id"], row["rule_fqdn"]) for row in rows(store, RuleHit)}
        assert found == {
            (CLUSTER, "a.rules.report"),
            (CLUSTER, "b.rules.report"),
            (OTHER_CLUSTER, "b.rules.report"),
        }

    def test_all_rows_of_a_batch_have_one_instant(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        ticking = iter(NOON + timedelta(hours=hours) for hours in range(100))
        monkeypatch.setattr(store._writer, "_clock", lambda: next(ticking))
        write(store, payload(cluster=CLUSTER, hits=[A]), payload(cluster=OTHER_CLUSTER, hits=[A, B]), b"bad")
        assert len({row["reported_at"] for row in rows(store, Report)}) == 1
        assert len({row["created_at"] for row in rows(store, RuleHit)}) == 1
        assert only_row(store, ConsumerError)["consumed_at"] == rows(store, Report)[0]["reported_at"]

    def test_a_batch_of_more_rows_than_one_statement_takes_is_stored_whole(self, store: Store) -> None:
        clusters = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(1_201)]
        first = [payload(cluster=cluster, checked="2026-05-01T08:00:00Z", hits=[A, B]) for cluster in clusters]
        assert len(write(store, *first).stored) == len(clusters)
        assert len(rows(store, RuleHit)) == 2 * len(clusters)
        second_batch = [payload(cluster=cluster, checked="2026-05-01T09:00:00Z", org_id=2) for cluster in clusters]
        second_batch += [b"bad"] * len(clusters)
        written = write(store, *second_batch)
        assert len(written.stored) == len(written.rejected) == len(clusters)
        assert {row["org_id"] for row in rows(store, Report)} == {2}
        assert not rows(store, RuleHit)
        assert not rows(store, Recommendation)
        assert len(rows(store, ConsumerError)) == len(clusters)

    def test_an_empty_batch_changes_nothing(self, store: Store) -> None:
        write(store, payload(hits=[A]))
        before = read_tables(store.database)
        assert store.write([]) == Written()
        assert read_tables(store.database) == before


@st.composite
def json_texts(draw: st.DrawFn) -> str:
    """Draw any JSON value in any of the ways in which it can be written."""
    # lone surrogates included, which can only be written as escapes
    texts = st.text(st.characters(), max_size=5)
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=8,
    )
    text = json.dumps(
        draw(values),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 2, "\t"])),
        separators=draw(st.sampled_from([(",", ":"), (" , ", " :\r\n"), (", ", ": ")])),
    )
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))
    return text


@given(details=json_texts())
@example(details=r'"\ud800"')
@example(details=r'{"a":"\u0000 \udfff\/","a":1E+2}')
@example(details='"%s %(x)s \' ? \\\\"')
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_details_are_stored_byte_for_byte(store: Store, details: str) -> None:
    execute(store, "UPDATE report SET last_checked_at = NULL")
    entry = {"component": "a", "key": "K", "details": "DETAILS"}
    template = payload(Report={"system": {}, "fingerprints": [], "reports": [entry]}).decode()
    written = write(store, template.replace('"DETAILS"', details).encode())
    assert len(written.stored) == 1
    assert only_row(store, RuleHit)["template_data"] == details
    assert details in only_row(store, Report)["report"]


def raw_times(database: Database, statement: str) -> Sequence[object]:
    row: Sequence[object] = database.execute_sql(statement).fetchone()
    return row


def test_sqlite_holds_times_as_text_whose_order_is_that_of_time(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    assert isinstance(database, SqliteDatabase)
    migrate(database)
    store = Store(database)
    write(store, payload(checked="0001-01-01T00:00:00Z", gathered="2026-05-01T07:00:00.5Z", hits=[A]))
    select = "SELECT reported_at, last_checked_at, gathered_at FROM report"
    assert raw_times(database, select) == (
        "2026-06-01 12:00:00.123456",
        "0001-01-01 00:00:00",
        "2026-05-01 07:00:00.500000",
    )
    assert raw_times(database, "SELECT created_at FROM rule_hit") == ("2026-06-01 12:00:00",)
    assert raw_times(database, "SELECT created_at, impacted_since FROM recommendation") == (
        "2026-06-01 12:00:00",
        "2026-06-01 12:00:00",
    )
    database.close()


@pytest.mark.parametrize("fraction", [".1", ".123", ".123456", ""])
def test_times_that_others_wrote_with_another_number_of_digits_are_read(sqlite_url: str, fraction: str) -> None:
    database = open_database(sqlite_url)
    migrate(database)
    store = Store(database)
    write(store, payload(hits=[A]))
    execute(store, f"UPDATE report SET last_checked_at = '2026-05-01 08:00:00{fraction}'")
    execute(store, f"UPDATE rule_hit SET created_at = '2026-05-01 08:00:00{fraction}'")
    equal = payload(checked=f"2026-05-01T08:00:00{fraction}Z", hits=[B])
    assert len(write(store, equal).stale) == 1
    assert len(write(store, payload(checked="2026-05-01T08:00:01Z", hits=[A])).stored) == 1
    stored_since = hits(store)["a.rules.report"]
    assert stored_since == datetime.fromisoformat(f"2026-05-01 08:00:00{fraction}")
    database.close()


def test_a_hit_that_stays_as_it_was_is_not_written_again(postgresql_url: str) -> None:
    database = open_database(postgresql_url)
    migrate(database)
    store = Store(database)
    write(store, payload(checked="2026-05-01T08:00:00Z", hits=[A, B]))
    select = "SELECT rule_fqdn, ctid, xmin FROM rule_hit ORDER BY rule_fqdn"
    before = database.execute_sql(select).fetchall()
    store.later()
    changed = HitSpec(B.component, B.key, {"n": 3})
    write(store, payload(checked="2026-05-01T09:00:00Z", hits=[A, changed]))
    after = database.execute_sql(select).fetchall()
    assert after[0] == before[0]
    assert after[1] != before[1]
    database.close()
