"""What several messages of one cluster make of its rows (`docs/messages.md`, sections 6.1 to 6.6).

The fold applies one message after another to what is stored, in memory, and tells what is different in the end.
One message is folded just like many, so that any cut into batches leaves the same tables.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from libaggregator.messages import Hit, Message


class RuleKey(NamedTuple):
    """What tells the rows of one cluster and organization apart: component or rule FQDN, and error key."""

    rule: str
    error_key: str


Since = dict[RuleKey, datetime]
"""Rows of one cluster and organization, with the time that a row keeps while its hit stays."""


@dataclass(slots=True)
class ClusterRows:
    """What is stored of one cluster, by organization; `org_id` and `last_checked_at` are those of its report."""

    org_id: int | None = None
    last_checked_at: datetime | None = None
    hits: dict[int, Since] = field(default_factory=dict)
    recommendations: dict[int, Since] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HitRow:
    """A row of `rule_hit` as it has to be."""

    hit: Hit
    created_at: datetime


class OwnedKey(NamedTuple):
    """A row's organization and its key."""

    org_id: int
    key: RuleKey


@dataclass(frozen=True, slots=True)
class ClusterChange:
    """What has to be written for one cluster; `message` is the last one that counted."""

    message: Message
    is_new: bool
    has_moved: bool
    version: str | None
    hits: Sequence[HitRow]
    recommendations: dict[RuleKey, datetime]
    gone_hits: Sequence[OwnedKey]
    gone_recommendations: Sequence[OwnedKey]


def counts(message: Message, last_checked_at: datetime | None) -> bool:
    """Whether a message is newer than what is stored (section 6.1)."""
    return last_checked_at is None or last_checked_at < message.last_checked_at


def fold(rows: ClusterRows, messages: Iterable[Message], now: datetime) -> ClusterChange | None:
    """Return what the messages, all of them newer than the one before, make of a cluster's rows.

    `rows` is what is stored and `messages` those that count, in the order of the source; `now` is the time of the
    batch in UTC. Returns None if there is no message.
    """
    this_second = now.replace(microsecond=0)
    org_id, has_moved, version, last = rows.org_id, False, None, None
    hits, recommendations = dict(rows.hits), dict(rows.recommendations)
    for message in messages:
        has_moved = has_moved or org_id not in (None, message.org_id)
        version = message.cluster_version or version
        hit_keys = (RuleKey(hit.component, hit.error_key) for hit in message.hits)
        _replace(hits, org_id, message.org_id, hit_keys, this_second)
        rule_keys = (RuleKey(hit.rule_fqdn, hit.error_key) for hit in message.hits)
        _replace(recommendations, org_id, message.org_id, rule_keys, this_second)
        org_id, last = message.org_id, message
    if last is None:
        return None
    since = hits[last.org_id]
    return ClusterChange(
        message=last,
        is_new=rows.org_id is None,
        has_moved=has_moved,
        version=version,
        hits=[HitRow(hit, since[RuleKey(hit.component, hit.error_key)]) for hit in last.hits],
        recommendations=recommendations[last.org_id],
        gone_hits=_gone(rows.hits, hits),
        gone_recommendations=_gone(rows.recommendations, recommendations),
    )


def _replace(rows: dict[int, Since], old_org: int | None, new_org: int, keys: Iterable[RuleKey], now: datetime) -> None:
    """Put the rows of a message in the place of those of its organization and of the one before (section 6.4)."""
    stayed = rows.pop(new_org, {})
    if old_org is not None and old_org != new_org:
        stayed = {**stayed, **rows.pop(old_org, {})}
    rows[new_org] = {key: stayed.get(key, now) for key in keys}


def _gone(before: dict[int, Since], after: dict[int, Since]) -> list[OwnedKey]:
    return [
        OwnedKey(org_id, key) for org_id, since in before.items() for key in since if key not in after.get(org_id, {})
    ]
