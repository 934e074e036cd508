"""Any cut into batches leaves the tables that one message after another leaves, and those of the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libaggregator.messages import Limits, decode
from tests.storage.conftest import NOON, Store
from tests.support.messages import CLUSTERS, HitSpec, payload, record, report
from tests.support.model import Model
from tests.support.tables import Tables, empty_tables, read_tables

HITS = (
    HitSpec("a.report", "K", {"n": 1}),
    HitSpec("a", "K", {"n": 1}),
    HitSpec("a.report", "K", {"n": 2}),
    HitSpec("b.report", "K"),
    HitSpec("b.report", "L"),
    # too long to be compared in memory
    HitSpec("c.report", "K", "x" * 2000),
    HitSpec("c.report", "K", "y" * 2000),
)


@dataclass(frozen=True)
class Damage:
    """What somebody did to stored rows by hand, or an existing deployment left in them, and the same in the model."""

    statements: tuple[str, ...]
    in_model: Callable[[Model], object]


def _set(table: str, **values: Any) -> Callable[[Model], object]:
    return lambda model: [row.update(values) for row in getattr(model, table).values()]


def _forget_rules(model: Model) -> None:
    for cluster in CLUSTERS:
        model.rule_hit.pop((cluster, "a.report", "K"), None)
        model.recommendation.pop((cluster, "b", "K"), None)


def _add_rule(model: Model) -> None:
    for cluster, row in model.report.items():
        values = {"org_id": row["org_id"], "rule_id": "z|K", "created_at": None, "impacted_since": None}
        model.recommendation[cluster, "z", "K"] = values


DAMAGES = {
    "none": Damage((), lambda model: None),
    "hits without a time": Damage(("UPDATE rule_hit SET created_at = NULL",), _set("rule_hit", created_at=None)),
    "recommendations without a time": Damage(
        ("UPDATE recommendation SET impacted_since = NULL, created_at = NULL",),
        _set("recommendation", impacted_since=None, created_at=None),
    ),
    "reports without a time": Damage(
        ("UPDATE report SET last_checked_at = NULL, reported_at = NULL, kafka_offset = 7",),
        _set("report", last_checked_at=None, reported_at=None, kafka_offset=7),
    ),
    "no details": Damage(("UPDATE rule_hit SET template_data = ''",), _set("rule_hit", template_data="")),
    "no rule id": Damage(("UPDATE recommendation SET rule_id = '.'",), _set("recommendation", rule_id=".")),
    "other text": Damage(("UPDATE report SET report = '{}'",), _set("report", report="{}")),
    "a rule is missing": Damage(
        (
            "DELETE FROM rule_hit WHERE rule_fqdn = 'a.report' AND error_key = 'K'",
            "DELETE FROM recommendation WHERE rule_fqdn = 'b' AND error_key = 'K'",
        ),
        _forget_rules,
    ),
    "a rule too many": Damage(
        (
            "INSERT INTO recommendation (org_id, cluster_id, rule_fqdn, error_key, rule_id, created_at)"
            " SELECT org_id, cluster, 'z', 'K', 'z|K', NULL FROM report",
        ),
        _add_rule,
    ),
    "version elsewhere": Damage(("UPDATE report_info SET org_id = 9",), _set("report_info", org_id=9)),
}


@dataclass(frozen=True)
class Spec:
    """What a message says; the note is a part of Report that has no meaning."""

    cluster: str
    minute: int
    org_id: int
    hits: tuple[HitSpec, ...]
    version: str | None
    gathered: str | None
    note: int

    @property
    def payload(self) -> bytes:
        return payload(
            cluster=self.cluster,
            checked=f"2026-05-01T08:{self.minute:02}:00Z",
            org_id=self.org_id,
            gathered=self.gathered,
            Report={**report(self.hits, self.version), "analysis_metadata": {"note": self.note}},
        )


minutes = st.integers(0, 9)
organizations = st.sampled_from([1, 2, 3])
hits = st.lists(st.sampled_from(HITS), max_size=3).map(tuple)
notes = st.integers(0, 2)
specs = st.builds(
    Spec,
    cluster=st.sampled_from(CLUSTERS[:2]),
    minute=minutes,
    org_id=organizations,
    hits=hits,
    version=st.sampled_from([None, "4.16.3", "4.17.0"]),
    gathered=st.sampled_from([None, "2026-05-01T07:59:00Z"]),
    note=notes,
)


@st.composite
def payloads(draw: st.DrawFn, min_size: int = 1, max_size: int = 9) -> list[bytes]:
    """Draw messages of which many say the same as one before them, or nearly the same, at another time."""
    said: list[Spec] = []
    found: list[bytes] = []
    kinds = st.sampled_from(["bad", "other", "other", "again", "again", "again"])
    for kind in draw(st.lists(kinds, min_size=min_size, max_size=max_size)):
        if kind == "bad":
            found.append(b"not a message")
            continue
        spec = draw(specs)
        if kind == "again" and said:
            spec = replace(draw(st.sampled_from(said)), minute=spec.minute)
            what = draw(st.sampled_from(["nothing", "note", "hits", "org_id"]))
            if what != "nothing":
                spec = replace(spec, **{what: draw({"note": notes, "hits": hits, "org_id": organizations}[what])})
        said.append(spec)
        found.append(spec.payload)
    return found


cuts = st.lists(st.integers(1, 4), min_size=9, max_size=9)


@given(values=payloads(min_size=2), start=st.integers(0, 4), damage=st.sampled_from(sorted(DAMAGES)), cut=cuts)
@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cut_into_batches_leaves_the_same_tables_as_one_by_one(
    store: Store, values: list[bytes], start: int, damage: str, cut: list[int]
) -> None:
    before, sequence = values[:start], values[start:]
    one_by_one = _tables_after(store, before, DAMAGES[damage], sequence, [1] * len(sequence))
    in_batches = _tables_after(store, before, DAMAGES[damage], sequence, cut)
    assert in_batches == one_by_one
    expected = _model_after(before, DAMAGES[damage], sequence)
    assert {table: one_by_one[table] for table in expected} == expected


@given(sequence=payloads(), cut=cuts)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_writing_everything_again_changes_nothing(store: Store, sequence: list[bytes], cut: list[int]) -> None:
    once = _tables_after(store, [], DAMAGES["none"], sequence, cut)
    store.later()
    _write(store, sequence, 0, list(reversed(cut)))
    without = frozenset({"consumer_error.consumed_at"})
    again = read_tables(store.database, without)
    once["consumer_error"] = [row[:5] + row[6:] for row in once["consumer_error"]]
    assert again == once


def _tables_after(
    store: Store, before: Sequence[bytes], damage: Damage, sequence: Sequence[bytes], cut: Sequence[int]
) -> Tables:
    empty_tables(store.database)
    store.now = NOON
    _write(store, before, 0, [1] * len(before))
    _choose(store)
    for statement in damage.statements:
        store.database.execute_sql(statement)
    store.later()
    _write(store, sequence, len(before), cut)
    return read_tables(store.database)


def _write(store: Store, sequence: Sequence[bytes], first_offset: int, cut: Sequence[int]) -> None:
    records = [record(value, first_offset + number) for number, value in enumerate(sequence)]
    sizes = iter(cut)
    while records:
        size = next(sizes)
        batch, records = records[:size], records[size:]
        store.write(batch)


def _choose(store: Store) -> None:
    """Let a user switch a rule off for each cluster, under the organization that the cluster has then."""
    for cluster in CLUSTERS[:2]:
        rows = store.database.execute_sql(f"SELECT org_id FROM report WHERE cluster = '{cluster}'").fetchall()
        if rows:
            store.database.execute_sql(
                "INSERT INTO cluster_rule_toggle (cluster_id, rule_id, disabled, updated_at, org_id)"
                f" VALUES ('{cluster}', 'a.report', 1, '2026-05-01 00:00:00', '{rows[0][0]}')"
            )


def _model_after(
    before: Sequence[bytes], damage: Damage, sequence: Sequence[bytes]
) -> dict[str, list[tuple[Any, ...]]]:
    model = Model()
    for now, values in ((NOON, before), (NOON + timedelta(seconds=60), sequence)):
        for value in values:
            if value.startswith(b"{"):
                model.apply(decode(value, Limits(), now), now)
        if values is before:
            model.choices = {cluster: str(row["org_id"]) for cluster, row in model.report.items()}
            damage.in_model(model)
    toggles = [
        (cluster, "a.report", 1, None, None, _UPDATED, None, "", org_id) for cluster, org_id in model.choices.items()
    ]
    return {**model.tables(), "cluster_rule_toggle": sorted(toggles, key=repr)}


_UPDATED = NOON.replace(month=5, day=1, hour=0, minute=0, second=0, microsecond=0)
