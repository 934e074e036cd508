"""Any cut into batches leaves the tables that one message after another leaves, and those of the model."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libaggregator.messages import Limits, decode
from tests.storage.conftest import NOON, Store
from tests.support.messages import CLUSTERS, HitSpec, payload, record
from tests.support.model import Model
from tests.support.tables import Tables, empty_tables, read_tables

HITS = (
    HitSpec("a.report", "K", {"n": 1}),
    HitSpec("a", "K", {"n": 1}),
    HitSpec("a.report", "K", {"n": 2}),
    HitSpec("b.report", "K"),
    HitSpec("b.report", "L"),
)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    if draw(st.integers(0, 9)) == 0:
        return b"not a message"
    return payload(
        cluster=draw(st.sampled_from(CLUSTERS[:2])),
        checked=f"2026-05-01T08:0{draw(st.integers(0, 7))}:00Z",
        hits=draw(st.lists(st.sampled_from(HITS), max_size=3)),
        org_id=draw(st.sampled_from([1, 2, 3])),
        version=draw(st.sampled_from([None, "4.16.3", "4.17.0"])),
        gathered=draw(st.sampled_from([None, "2026-05-01T07:59:00Z"])),
    )


sequences = st.lists(payloads(), min_size=1, max_size=9)
cuts = st.lists(st.integers(1, 4), min_size=9, max_size=9)


@given(before=st.lists(payloads(), max_size=3), sequence=sequences, cut=cuts)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cut_into_batches_leaves_the_same_tables_as_one_by_one(
    store: Store, before: list[bytes], sequence: list[bytes], cut: list[int]
) -> None:
    one_by_one = _tables_after(store, before, sequence, [1] * len(sequence))
    in_batches = _tables_after(store, before, sequence, cut)
    assert in_batches == one_by_one
    assert {table: one_by_one[table] for table in _model_after(before, sequence)} == _model_after(before, sequence)


@given(sequence=sequences, cut=cuts)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_writing_everything_again_changes_nothing(store: Store, sequence: list[bytes], cut: list[int]) -> None:
    once = _tables_after(store, [], sequence, cut)
    store.later()
    _write(store, sequence, 0, list(reversed(cut)))
    without = frozenset({"consumer_error.consumed_at"})
    again = read_tables(store.database, without)
    once["consumer_error"] = [row[:5] + row[6:] for row in once["consumer_error"]]
    assert again == once


def _tables_after(store: Store, before: Sequence[bytes], sequence: Sequence[bytes], cut: Sequence[int]) -> Tables:
    empty_tables(store.database)
    store.now = NOON
    _write(store, before, 0, [1] * len(before))
    _choose(store)
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


def _model_after(before: Sequence[bytes], sequence: Sequence[bytes]) -> dict[str, list[tuple[Any, ...]]]:
    model = Model()
    for now, values in ((NOON, before), (NOON + timedelta(seconds=60), sequence)):
        for value in values:
            if value.startswith(b"{"):
                model.apply(decode(value, Limits(), now), now)
        if values is before:
            model.choices = {cluster: str(row["org_id"]) for cluster, row in model.report.items()}
    toggles = [
        (cluster, "a.report", 1, None, None, _UPDATED, None, "", org_id) for cluster, org_id in model.choices.items()
    ]
    return {**model.tables(), "cluster_rule_toggle": sorted(toggles, key=repr)}


_UPDATED = NOON.replace(month=5, day=1, hour=0, minute=0, second=0, microsecond=0)
