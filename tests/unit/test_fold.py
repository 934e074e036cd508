"""What several messages of one cluster make of its rows (`docs/messages.md`, section 6), without a database."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_service.fold import ClusterChange, ClusterRows, OwnedKey, RuleKey, counts, fold
from libaggregator.messages import Hit, Message
from tests.support.messages import CLUSTERS

NOW = datetime(2026, 6, 1, 12, 0, 0, 999_999)
SECOND = NOW.replace(microsecond=0)
BEFORE = datetime(2026, 5, 1, 8)
CHECKED = datetime(2026, 5, 31)

X, X_REPORT, Y = Hit("x", "K", "1"), Hit("x.report", "K", "2"), Hit("y.report", "K", "3")
KEY_X, KEY_X_REPORT, KEY_Y_REPORT, KEY_Y = (
    RuleKey("x", "K"),
    RuleKey("x.report", "K"),
    RuleKey("y.report", "K"),
    RuleKey("y", "K"),
)


def message(hits: Sequence[Hit] = (), org_id: int = 1, version: str | None = None, minute: int = 0) -> Message:
    return Message(
        org_id=org_id,
        cluster=CLUSTERS[0],
        report="{}",
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
        hits={org_id: dict.fromkeys(hits, BEFORE)},
        recommendations={org_id: dict.fromkeys(rules, BEFORE)},
    )


def change(rows: ClusterRows, *messages: Message) -> ClusterChange:
    found = fold(rows, messages, NOW)
    assert found is not None
    return found


def since(found: ClusterChange) -> dict[str, datetime]:
    return {row.hit.component: row.created_at for row in found.hits}


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


def test_no_message_makes_no_change() -> None:
    assert fold(stored(hits=[KEY_X]), [], NOW) is None


def test_a_new_cluster_has_everything_since_this_second() -> None:
    found = change(ClusterRows(), message([X, Y]))
    assert found.is_new
    assert not found.has_moved
    assert since(found) == {"x": SECOND, "y.report": SECOND}
    assert found.recommendations == {KEY_X: SECOND, KEY_Y: SECOND}
    assert not found.gone_hits
    assert not found.gone_recommendations


def test_what_stays_keeps_its_time_and_what_goes_is_named() -> None:
    found = change(stored(hits=[KEY_X, KEY_Y_REPORT], rules=[KEY_X, KEY_Y]), message([Y, X_REPORT]))
    assert not found.is_new
    assert since(found) == {"y.report": BEFORE, "x.report": SECOND}
    assert found.recommendations == {KEY_Y: BEFORE, KEY_X: BEFORE}
    assert found.gone_hits == [OwnedKey(1, KEY_X)]
    assert not found.gone_recommendations


def test_two_components_of_one_rule_are_two_hits_and_one_recommendation() -> None:
    found = change(stored(hits=[KEY_X], rules=[KEY_X]), message([X, X_REPORT]))
    assert since(found) == {"x": BEFORE, "x.report": SECOND}
    assert found.recommendations == {KEY_X: BEFORE}


def test_a_hit_keeps_its_time_only_if_every_message_has_it() -> None:
    rows = stored(hits=[KEY_X], rules=[KEY_X])
    always = change(rows, message([X], minute=1), message([X, Y], minute=2), message([X], minute=3))
    assert (since(always), always.recommendations) == ({"x": BEFORE}, {KEY_X: BEFORE})
    not_once = change(rows, message([X], minute=1), message([Y], minute=2), message([X], minute=3))
    assert (since(not_once), not_once.recommendations) == ({"x": SECOND}, {KEY_X: SECOND})
    assert not not_once.gone_hits


def test_a_rule_keeps_its_time_if_every_message_has_one_of_its_components() -> None:
    found = change(stored(hits=[KEY_X], rules=[KEY_X]), message([X_REPORT], minute=1), message([X], minute=2))
    assert since(found) == {"x": SECOND}
    assert found.recommendations == {KEY_X: BEFORE}


def test_the_last_message_is_the_one_that_is_stored() -> None:
    last = message([Hit("x", "K", "new")], minute=2)
    found = change(ClusterRows(), message([X, Y], minute=1), last)
    assert found.message is last
    assert [row.hit.details for row in found.hits] == ["new"]


@pytest.mark.parametrize(
    ("versions", "expected"),
    [((None,), None), (("1",), "1"), (("1", None), "1"), ((None, "2"), "2"), (("1", "2", None), "2")],
)
def test_the_version_is_the_last_one_that_was_told(versions: Sequence[str | None], expected: str | None) -> None:
    messages = [message(version=version, minute=minute) for minute, version in enumerate(versions)]
    assert change(ClusterRows(), *messages).version == expected


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
    found = change(rows, *messages)
    assert found.has_moved is has_moved
    assert found.is_new is (before is None)


def test_a_hit_takes_its_time_along_into_another_organization() -> None:
    found = change(stored(1, hits=[KEY_X, KEY_Y_REPORT], rules=[KEY_X, KEY_Y]), message([X], org_id=2))
    assert since(found) == {"x": BEFORE}
    assert found.recommendations == {KEY_X: BEFORE}
    assert sorted(found.gone_hits) == [OwnedKey(1, KEY_X), OwnedKey(1, KEY_Y_REPORT)]
    assert sorted(found.gone_recommendations) == [OwnedKey(1, KEY_X), OwnedKey(1, KEY_Y)]


def test_a_cluster_that_comes_back_in_the_same_batch_has_no_row_to_remove() -> None:
    found = change(stored(1, hits=[KEY_X], rules=[KEY_X]), message([X], 2, minute=1), message([X], 1, minute=2))
    assert since(found) == {"x": BEFORE}
    assert found.recommendations == {KEY_X: BEFORE}
    assert not found.gone_hits
    assert not found.gone_recommendations


def test_rows_of_the_messages_organization_are_replaced_also_without_a_report() -> None:
    rows = ClusterRows(hits={1: {KEY_X: BEFORE, KEY_Y_REPORT: BEFORE}}, recommendations={1: {KEY_Y: BEFORE}})
    found = change(rows, message([X]))
    assert found.is_new
    assert since(found) == {"x": BEFORE}
    assert found.gone_hits == [OwnedKey(1, KEY_Y_REPORT)]
    assert found.gone_recommendations == [OwnedKey(1, KEY_Y)]


def test_what_is_stored_is_not_changed_by_folding() -> None:
    rows, same = stored(hits=[KEY_X], rules=[KEY_X]), stored(hits=[KEY_X], rules=[KEY_X])
    change(rows, message([Y], 2, minute=1), message([X], 3, minute=2))
    assert rows == same


hits = st.lists(st.sampled_from([X, X_REPORT, Y]), max_size=3, unique=True)
organizations = st.integers(1, 3)


@given(st.lists(st.tuples(hits, organizations, st.sampled_from([None, "1", "2"])), min_size=1, max_size=6), st.data())
def test_folding_in_two_parts_is_folding_at_once(
    steps: list[tuple[list[Hit], int, str | None]], data: st.DataObject
) -> None:
    """Whatever was stored between two batches, had it been one."""
    messages = [message(*step, minute=minute) for minute, step in enumerate(steps)]
    rows = data.draw(st.sampled_from([ClusterRows(), stored(1, hits=[KEY_X], rules=[KEY_X])]))
    at_once = change(rows, *messages)
    for cut in range(1, len(messages)):
        between = change(rows, *messages[:cut])
        then = ClusterRows(
            org_id=between.message.org_id,
            last_checked_at=between.message.last_checked_at,
            hits={
                between.message.org_id: {RuleKey(r.hit.component, r.hit.error_key): r.created_at for r in between.hits}
            },
            recommendations={between.message.org_id: dict(between.recommendations)},
        )
        after = change(then, *messages[cut:])
        assert (after.message, after.hits, after.recommendations) == (
            at_once.message,
            at_once.hits,
            at_once.recommendations,
        )
        assert (between.has_moved or after.has_moved) is at_once.has_moved
        assert (after.version or between.version) == at_once.version
