"""What several messages of one cluster make of its rows (`docs/messages.md`, section 6), without a database."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from consumer_service.fold import (
    ClusterChange,
    ClusterRows,
    RuleKey,
    counts,
    fold,
    fold_repeated,
    measure_of_hits,
    measure_of_recommendations,
    repeats,
)
from libaggregator.messages import Hit, Message
from tests.support.messages import CLUSTERS, make_hit

NOW = datetime(2026, 6, 1, 12, 0, 0, 999_999)
SECOND = NOW.replace(microsecond=0)
BEFORE = datetime(2026, 5, 1, 8)
CHECKED = datetime(2026, 5, 31)

X, X_REPORT, Y = make_hit("x", "K", "1"), make_hit("x.report", "K", "2"), make_hit("y.report", "K", "3")
KEY_X, KEY_X_REPORT, KEY_Y_REPORT, KEY_Y = ("x", "K"), ("x.report", "K"), ("y.report", "K"), ("y", "K")
DETAILS = {KEY_X: "1", KEY_X_REPORT: "2", KEY_Y_REPORT: "3"}


def message(
    hits: Sequence[Hit] = (), org_id: int = 1, version: str | None = None, minute: int = 0, report: str = "{}"
) -> Message:
    return Message(
        org_id=org_id,
        cluster=CLUSTERS[0],
        report_json=Raw(report.encode()),
        last_checked_at=CHECKED + timedelta(minutes=minute),
        gathered_at=None,
        hits=tuple(hits),
        cluster_version=version,
        version=2,
        request_id="",
        is_empty=False,
    )


def stored(org_id: int = 1, hits: Sequence[RuleKey] = (), rules: Sequence[RuleKey] = ()) -> ClusterRows:
    return ClusterRows(
        org_id=org_id,
        last_checked_at=CHECKED - timedelta(days=1),
        hits={org_id: {key: (BEFORE, DETAILS[key]) for key in hits}},
        recommendations={org_id: dict.fromkeys(rules, BEFORE)},
    )


@dataclass
class Folded:
    """A change, and the rows that are there when it was written."""

    change: ClusterChange
    rows: ClusterRows

    @property
    def since(self) -> dict[str, datetime | None]:
        return {key[0]: row[0] for key, row in self.rows.hits.get(self.change.message.org_id, {}).items()}

    @property
    def impacted(self) -> dict[RuleKey, datetime | None]:
        return self.rows.recommendations.get(self.change.message.org_id, {})


def folded(rows: ClusterRows, *messages: Message, now: datetime = NOW) -> Folded:
    change = fold(rows, messages, now)
    return Folded(change, written(rows, change))


def written(before: ClusterRows, change: ClusterChange) -> ClusterRows:
    """Apply a change as strictly as a database does: what is new is not there, what changes or goes is."""
    rows = deepcopy(before)
    org_id = change.message.org_id
    for owner, key in change.gone_hits:
        del rows.hits[owner][key]
    for owner, key in change.gone_recommendations:
        del rows.recommendations[owner][key]
    hits, recommendations = rows.hits.setdefault(org_id, {}), rows.recommendations.setdefault(org_id, {})
    for hit, created_at in (*change.new_hits, *change.changed_hits):
        key = (hit.component, hit.error_key)
        assert (key in hits) is ((hit, created_at) in change.changed_hits)
        hits[key] = (created_at, hit.details)
    for key, since in (*change.new_recommendations, *change.changed_recommendations):
        assert (key in recommendations) is ((key, since) in change.changed_recommendations)
        recommendations[key] = since
    if change.new_version:
        assert rows.version is None
    if change.changed_version:
        assert rows.version is not None
    if version := change.new_version or change.changed_version:
        assert rows.version != (org_id, version)
        rows.version = (org_id, version)
    assert change.is_new is (rows.org_id is None)
    rows.org_id, rows.last_checked_at = org_id, change.message.last_checked_at
    rows.hits = {owner: keys for owner, keys in rows.hits.items() if keys}
    rows.recommendations = {owner: keys for owner, keys in rows.recommendations.items() if keys}
    return rows


@pytest.mark.parametrize(
    ("last_checked_at", "expected"),
    [
        (None, True),
        (CHECKED - timedelta(microseconds=1), True),
        (CHECKED, False),
        (CHECKED + timedelta(microseconds=1), False),
    ],
)
def test_a_message_counts_if_it_is_newer_than_what_is_stored(last_checked_at: datetime | None, expected: bool) -> None:
    assert counts(message(), last_checked_at) is expected


def test_a_new_cluster_has_everything_since_this_second() -> None:
    found = folded(ClusterRows(), message([X, Y], version="4.16.3"))
    assert found.change.is_new
    assert not found.change.has_moved
    assert found.since == {"x": SECOND, "y.report": SECOND}
    assert found.impacted == {KEY_X: SECOND, KEY_Y: SECOND}
    assert found.rows.version == (1, "4.16.3")


def test_what_stays_keeps_its_time_and_what_goes_is_named() -> None:
    found = folded(stored(hits=[KEY_X, KEY_Y_REPORT], rules=[KEY_X, KEY_Y]), message([Y, X_REPORT]))
    assert not found.change.is_new
    assert found.since == {"y.report": BEFORE, "x.report": SECOND}
    assert found.impacted == {KEY_Y: BEFORE, KEY_X: BEFORE}
    assert found.change.gone_hits == [(1, KEY_X)]
    assert not found.change.gone_recommendations


def test_a_hit_that_stays_with_its_details_is_not_written() -> None:
    change = fold(stored(hits=[KEY_X, KEY_Y_REPORT], rules=[KEY_X, KEY_Y]), [message([Y, X])], NOW)
    assert [change.new_hits, change.changed_hits, change.gone_hits] == [[], [], []]
    assert [change.new_recommendations, change.changed_recommendations] == [[], []]
    assert change.gone_recommendations == []


@pytest.mark.parametrize("row", [(BEFORE, "other"), (BEFORE, None), (None, "1")])
def test_a_hit_with_other_or_unknown_details_or_without_a_time_is_changed(
    row: tuple[datetime | None, str | None],
) -> None:
    rows = ClusterRows(1, BEFORE, hits={1: {KEY_X: row}})
    found = folded(rows, message([X]))
    assert found.change.changed_hits == [(X, row[0] or SECOND)]
    assert found.rows.hits == {1: {KEY_X: (row[0] or SECOND, "1")}}


def test_a_recommendation_without_a_time_gets_this_second() -> None:
    rows = ClusterRows(1, BEFORE, recommendations={1: {KEY_X: None, KEY_Y: BEFORE}})
    found = folded(rows, message([X, Y]))
    assert found.impacted == {KEY_X: SECOND, KEY_Y: BEFORE}
    assert found.change.changed_recommendations == [(KEY_X, SECOND)]


SAME_TEXT = "{}"


@pytest.mark.parametrize(
    ("rows", "repeated"),
    [
        (ClusterRows(1, BEFORE, text=SAME_TEXT), True),
        (ClusterRows(1, BEFORE, text="[]"), False),
        (ClusterRows(1, BEFORE, text=None), False),
        (ClusterRows(2, BEFORE, text=SAME_TEXT), False),
        (ClusterRows(), False),
    ],
)
def test_messages_repeat_a_report_if_text_and_organization_are_known_to_be_equal(
    rows: ClusterRows, repeated: bool
) -> None:
    assert repeats(rows, [message()]) is repeated
    assert repeats(rows, [message(minute=1), message(minute=2)]) is repeated
    assert not repeats(rows, [message(minute=1), message(minute=2, org_id=3)])
    assert not repeats(rows, [message(minute=1, report='{"a": 1}'), message(minute=2)])


def test_repeated_messages_change_times_and_the_version_if_it_is_another_one() -> None:
    rows = ClusterRows(1, BEFORE, text=SAME_TEXT, version=(1, "1"))
    messages = [message(version="2", minute=1), message(minute=2)]
    assert fold_repeated(rows, messages) == ClusterChange(messages[-1], is_repeated=True, changed_version="2")
    assert fold_repeated(rows, messages[1:]) == ClusterChange(messages[-1], is_repeated=True)
    rows.version = None
    assert fold_repeated(rows, messages) == ClusterChange(messages[-1], is_repeated=True, new_version="2")


def test_what_has_to_be_there_is_measured_in_rows_and_bytes() -> None:
    hits = [make_hit("x", "K", "1"), make_hit("x.report", "K", "22"), make_hit("ž", "KEY", '"ž"')]
    assert measure_of_hits(message(hits, org_id=7)) == (7, 7, 3, 3, 3 + 11 + 9)
    # the first two are one rule
    assert measure_of_recommendations(message(hits, org_id=7)) == (7, 7, 2, 2, 2 + 5)
    assert measure_of_hits(message()) is measure_of_recommendations(message()) is None


def test_two_components_of_one_rule_are_two_hits_and_one_recommendation() -> None:
    found = folded(stored(hits=[KEY_X], rules=[KEY_X]), message([X, X_REPORT]))
    assert found.since == {"x": BEFORE, "x.report": SECOND}
    assert found.impacted == {KEY_X: BEFORE}


def test_a_hit_keeps_its_time_only_if_every_message_has_it() -> None:
    rows = stored(hits=[KEY_X], rules=[KEY_X])
    always = folded(rows, message([X], minute=1), message([X, Y], minute=2), message([X], minute=3))
    assert (always.since, always.impacted) == ({"x": BEFORE}, {KEY_X: BEFORE})
    not_once = folded(rows, message([X], minute=1), message([Y], minute=2), message([X], minute=3))
    assert (not_once.since, not_once.impacted) == ({"x": SECOND}, {KEY_X: SECOND})
    assert not not_once.change.gone_hits


def test_a_rule_keeps_its_time_if_every_message_has_one_of_its_components() -> None:
    found = folded(stored(hits=[KEY_X], rules=[KEY_X]), message([X_REPORT], minute=1), message([X], minute=2))
    assert found.since == {"x": SECOND}
    assert found.impacted == {KEY_X: BEFORE}


def test_the_last_message_is_the_one_that_is_stored() -> None:
    last = message([make_hit("x", "K", "new")], minute=2)
    found = folded(ClusterRows(), message([X, Y], minute=1), last)
    assert found.change.message is last
    assert found.rows.hits == {1: {KEY_X: (SECOND, "new")}}


@pytest.mark.parametrize(
    ("versions", "expected"),
    [((None,), None), (("1",), "1"), (("1", None), "1"), ((None, "2"), "2"), (("1", "2", None), "2")],
)
def test_the_version_is_the_last_one_that_was_told(versions: Sequence[str | None], expected: str | None) -> None:
    messages = [message(version=version, minute=minute) for minute, version in enumerate(versions)]
    assert fold(ClusterRows(), messages, NOW).new_version == expected


@pytest.mark.parametrize(
    ("before", "organizations", "has_moved"),
    [
        (1, [1], False),
        (1, [1, 1], False),
        (1, [2], True),
        (1, [2, 1], True),
        (1, [1, 2], True),
        (None, [1], False),
        (None, [1, 1], False),
        (None, [1, 2], True),
        (None, [1, 2, 1], True),
    ],
)
def test_a_cluster_has_moved_if_any_message_changed_its_organization(
    before: int | None, organizations: Sequence[int], has_moved: bool
) -> None:
    rows = ClusterRows() if before is None else stored(before)
    messages = [message(org_id=org_id, minute=minute) for minute, org_id in enumerate(organizations)]
    found = fold(rows, messages, NOW)
    assert found.has_moved is has_moved
    assert found.is_new is (before is None)


@pytest.mark.parametrize(
    ("stored_version", "org_id", "told", "expected"),
    [
        (None, 1, None, None),
        (None, 1, "2", (1, "2")),
        ((1, "1"), 1, None, None),
        ((1, "1"), 1, "1", None),
        ((1, "1"), 1, "2", (1, "2")),
        ((1, "1"), 2, None, (2, "1")),
        ((1, "1"), 2, "2", (2, "2")),
        ((2, "1"), 2, None, None),
        # somebody left it in another organization than the report
        ((3, "1"), 1, None, None),
        ((3, "1"), 1, "1", (1, "1")),
    ],
)
def test_the_row_of_the_version_is_written_if_it_changes(
    stored_version: tuple[int, str] | None, org_id: int, told: str | None, expected: tuple[int, str] | None
) -> None:
    rows = ClusterRows(1, BEFORE, version=stored_version)
    found = folded(rows, message(org_id=org_id, version=told))
    assert found.rows.version == (expected or stored_version)
    assert bool(found.change.new_version or found.change.changed_version) is (expected is not None)


def test_a_hit_takes_its_time_along_into_another_organization() -> None:
    found = folded(stored(1, hits=[KEY_X, KEY_Y_REPORT], rules=[KEY_X, KEY_Y]), message([X], org_id=2))
    assert found.rows.hits == {2: {KEY_X: (BEFORE, "1")}}
    assert found.rows.recommendations == {2: {KEY_X: BEFORE}}
    assert sorted(found.change.gone_hits) == [(1, KEY_X), (1, KEY_Y_REPORT)]
    assert sorted(found.change.gone_recommendations) == [(1, KEY_X), (1, KEY_Y)]


def test_a_cluster_that_comes_back_in_the_same_batch_has_no_row_to_remove() -> None:
    found = folded(stored(1, hits=[KEY_X], rules=[KEY_X]), message([X], 2, minute=1), message([X], 1, minute=2))
    assert found.since == {"x": BEFORE}
    assert found.impacted == {KEY_X: BEFORE}
    assert not found.change.gone_hits
    assert not found.change.gone_recommendations


def test_rows_of_the_messages_organization_are_replaced_also_without_a_report() -> None:
    rows = ClusterRows(
        hits={1: {KEY_X: (BEFORE, "1"), KEY_Y_REPORT: (BEFORE, "3")}}, recommendations={1: {KEY_Y: BEFORE}}
    )
    found = folded(rows, message([X]))
    assert found.change.is_new
    assert found.since == {"x": BEFORE}
    assert found.change.gone_hits == [(1, KEY_Y_REPORT)]
    assert found.change.gone_recommendations == [(1, KEY_Y)]


def test_what_is_stored_is_not_changed_by_folding() -> None:
    rows, same = stored(hits=[KEY_X], rules=[KEY_X]), stored(hits=[KEY_X], rules=[KEY_X])
    fold(rows, [message([Y], 2, minute=1), message([X], 3, minute=2)], NOW)
    assert rows == same


hits = st.lists(st.sampled_from([X, X_REPORT, Y]), max_size=3, unique_by=id)
organizations = st.integers(1, 3)


@given(st.lists(st.tuples(hits, organizations, st.sampled_from([None, "1", "2"])), min_size=1, max_size=6), st.data())
def test_folding_in_parts_and_writing_each_leaves_the_rows_of_folding_at_once(
    steps: list[tuple[list[Hit], int, str | None]], data: st.DataObject
) -> None:
    messages = [message(*step, minute=minute) for minute, step in enumerate(steps)]
    before = data.draw(st.sampled_from([ClusterRows(), stored(1, hits=[KEY_X], rules=[KEY_X])]))
    at_once = folded(before, *messages)
    rows, moved, since = before, False, 0
    cuts = data.draw(st.lists(st.integers(1, len(messages)), unique=True).map(sorted))
    for cut in [*cuts, len(messages)]:
        if part := messages[since:cut]:
            found = folded(rows, *part)
            rows, moved, since = found.rows, moved or found.change.has_moved, cut
    assert rows == at_once.rows
    assert moved is at_once.change.has_moved
