"""What several messages of one cluster make of its rows (`docs/messages.md`, sections 6.1 to 6.6).

The fold applies one message after another to what is stored, in memory, and tells what is different in the end.
One message is folded just like many, so that any cut into batches leaves the same tables.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import TypeVar

import msgspec

from libaggregator.messages import Hit, Message

T = TypeVar("T")

RuleKey = tuple[str, str]
"""What tells the rows of one cluster and organization apart: component or rule FQDN, and error key."""

StoredHit = tuple[datetime | None, str | None]
"""`created_at` and details of a row; details of None are not known, and those of a message count as others."""

HitRow = tuple[Hit, datetime]
"""A row of `rule_hit` as it has to be, with `created_at`."""

RecommendationRow = tuple[RuleKey, datetime]
"""A row of `recommendation` as it has to be, with `impacted_since`."""

OwnedKey = tuple[int, RuleKey]
"""A row's organization and its key."""


Measure = tuple[int, int, int, int, int]
"""Of the rows of a cluster in a table: least and largest organization, how many there are, how many have their time,
and the bytes of their texts. None stands for no rows."""


class ClusterRows(msgspec.Struct):
    """What is stored of one cluster; hits and recommendations by organization."""

    org_id: int | None = None
    """Of the report; None if the cluster has none."""
    last_checked_at: datetime | None = None
    text: str | None = None
    """Of the report; None if it is not known, then no message repeats it."""
    version: tuple[int, str] | None = None
    """Organization and version in `report_info`."""
    hits: dict[int, dict[RuleKey, StoredHit]] = {}
    recommendations: dict[int, dict[RuleKey, datetime | None]] = {}
    """With `impacted_since`."""


class ClusterChange(msgspec.Struct, frozen=True):
    """The difference between what is stored of one cluster and what has to be, under the message's organization."""

    message: Message
    """The last one that counted."""
    is_new: bool = False
    """There is no report of the cluster yet."""
    has_moved: bool = False
    is_repeated: bool = False
    """The report keeps its text, and the other rows stay."""
    new_version: str | None = None
    """To be inserted into `report_info`."""
    changed_version: str | None = None
    """To be put into the row that is there."""
    new_hits: Sequence[HitRow] = ()
    changed_hits: Sequence[HitRow] = ()
    gone_hits: Sequence[OwnedKey] = ()
    new_recommendations: Sequence[RecommendationRow] = ()
    changed_recommendations: Sequence[RecommendationRow] = ()
    """Rows that are there, but whose hit was gone in between, or which have no time."""
    gone_recommendations: Sequence[OwnedKey] = ()


def counts(message: Message, last_checked_at: datetime | None) -> bool:
    """Whether a message is newer than what is stored (section 6.1)."""
    return last_checked_at is None or last_checked_at < message.last_checked_at


def repeats(rows: ClusterRows, messages: Iterable[Message]) -> bool:
    """Whether messages that count say what the stored report says, for the same organization."""
    return rows.text is not None and all(
        message.org_id == rows.org_id and message.report == rows.text for message in messages
    )


def measure_of_hits(message: Message) -> Measure | None:
    """Return what the rows of `rule_hit` measure that have to be there after a message."""
    keys = [(hit.component, hit.error_key) for hit in message.hits]
    return _measure(message.org_id, keys, sum([len(hit.details_json) for hit in message.hits]))


def measure_of_recommendations(message: Message) -> Measure | None:
    """Return what the rows of `recommendation` measure that have to be there after a message."""
    return _measure(message.org_id, {(hit.rule_fqdn, hit.error_key) for hit in message.hits}, 0)


def _measure(org_id: int, keys: Collection[RuleKey], other_bytes: int) -> Measure | None:
    rows, key_bytes = len(keys), len("".join(chain.from_iterable(keys)).encode())
    return (org_id, org_id, rows, rows, key_bytes + other_bytes) if rows else None


def fold_repeated(rows: ClusterRows, messages: Sequence[Message]) -> ClusterChange:
    """Do what `fold` does where the messages repeat the stored report and its other rows are there."""
    told = next((message.cluster_version for message in reversed(messages) if message.cluster_version), None)
    version = _version_to_store(rows, messages[-1], told, has_moved=False)
    return ClusterChange(
        message=messages[-1],
        is_repeated=True,
        new_version=None if rows.version else version,
        changed_version=version if rows.version else None,
    )


def fold(rows: ClusterRows, messages: Sequence[Message], now: datetime) -> ClusterChange:
    """Return what the messages, at least one and each newer than the one before, change in a cluster's rows.

    `rows` is what is stored and `messages` those that count, in the order of the source; `now` is the time of the
    batch in UTC.
    """
    org_id, has_moved, version = rows.org_id, False, None
    hits: dict[int, Mapping[RuleKey, StoredHit | None]] = {**rows.hits}
    recommendations: dict[int, Mapping[RuleKey, datetime | None]] = {**rows.recommendations}
    for message in messages:
        has_moved = has_moved or org_id not in (None, message.org_id)
        version = message.cluster_version or version
        _replace(hits, org_id, message.org_id, [(hit.component, hit.error_key) for hit in message.hits])
        _replace(recommendations, org_id, message.org_id, [(hit.rule_fqdn, hit.error_key) for hit in message.hits])
        org_id = message.org_id
    last, this_second = messages[-1], now.replace(microsecond=0)
    new_hits, changed_hits = _hit_rows(rows, last, hits[last.org_id], this_second)
    new_recommendations, changed_recommendations = _recommendation_rows(
        rows, last, recommendations[last.org_id], this_second
    )
    version = _version_to_store(rows, last, version, has_moved)
    return ClusterChange(
        message=last,
        is_new=rows.org_id is None,
        has_moved=has_moved,
        new_version=None if rows.version else version,
        changed_version=version if rows.version else None,
        new_hits=new_hits,
        changed_hits=changed_hits,
        gone_hits=_gone(rows.hits, hits),
        new_recommendations=new_recommendations,
        changed_recommendations=changed_recommendations,
        gone_recommendations=_gone(rows.recommendations, recommendations),
    )


def _replace(
    rows: dict[int, Mapping[RuleKey, T | None]], old_org: int | None, org_id: int, keys: Sequence[RuleKey]
) -> None:
    """Put the rows of a message in the place of those of its organization and of the one before (section 6.4).

    A row that stays keeps what it had, one that begins has nothing.
    """
    stayed = rows.pop(org_id, None) or {}
    if old_org is not None and old_org != org_id:
        stayed = {**stayed, **rows.pop(old_org, {})}
    rows[org_id] = {key: stayed.get(key) for key in keys} if stayed else dict.fromkeys(keys)


def _hit_rows(
    rows: ClusterRows, last: Message, wanted: Mapping[RuleKey, StoredHit | None], this_second: datetime
) -> tuple[list[HitRow], list[HitRow]]:
    """Return the rows that are not there yet, and those that are there with another content."""
    stored = rows.hits.get(last.org_id, {})
    new, changed = [], []
    for hit, (key, kept) in zip(last.hits, wanted.items(), strict=True):
        created_at = (kept and kept[0]) or this_second
        if key not in stored:
            new.append((hit, created_at))
        elif stored[key] != (created_at, hit.details):
            changed.append((hit, created_at))
    return new, changed


def _recommendation_rows(
    rows: ClusterRows, last: Message, wanted: Mapping[RuleKey, datetime | None], this_second: datetime
) -> tuple[list[RecommendationRow], list[RecommendationRow]]:
    """Return the rows that are not there yet, and those that are there with another time."""
    stored = rows.recommendations.get(last.org_id, {})
    new, changed = [], []
    for key, kept in wanted.items():
        impacted_since = kept or this_second
        if key not in stored:
            new.append((key, impacted_since))
        elif stored[key] != impacted_since:
            changed.append((key, impacted_since))
    return new, changed


def _gone(before: Mapping[int, Iterable[RuleKey]], after: Mapping[int, Container[RuleKey]]) -> list[OwnedKey]:
    return [(org_id, key) for org_id, keys in before.items() for key in keys if key not in after.get(org_id, ())]


def _version_to_store(rows: ClusterRows, last: Message, told: str | None, has_moved: bool) -> str | None:
    """Return the version if its row has to be made or changed; one that nobody told moves with its cluster."""
    version = told or (rows.version[1] if rows.version and has_moved else None)
    return None if version is None or rows.version == (last.org_id, version) else version
