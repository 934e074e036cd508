"""The messages that ingest is measured with: one fleet of clusters, reported on in three rounds."""

import statistics
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from examples.demo.generator import Fleet

CLUSTERS_OF_AN_ORGANIZATION = 100

_FIRST = datetime(2026, 5, 1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Rounds:
    """One message of each cluster in each round, in the same order of clusters."""

    first: list[bytes]
    changed: list[bytes]
    """Newer, another text of Report, the same hits with the same details."""
    same: list[bytes]
    """Newer again, the same Report as in `changed`, byte for byte."""


class _Message(msgspec.Struct):
    report: msgspec.Raw = msgspec.field(name="Report")


class _Report(msgspec.Struct):
    reports: list[msgspec.Raw]


def make_rounds(clusters: int, seed: int = 1) -> Rounds:
    """Return the three rounds of a fleet of so many clusters."""
    fleet = Fleet(seed, max(1, clusters // CLUSTERS_OF_AN_ORGANIZATION), clusters)
    first = list(fleet.messages(clusters, _FIRST))
    changed = [_moved(message, b"", number, 0) for number, message in enumerate(first)]
    same = [_moved(message, b'"LastChecked": "', number, 1) for number, message in enumerate(changed)]
    return Rounds(first, changed, same)


def shape_of(messages: list[bytes]) -> dict[str, float]:
    """Return what the messages are like on average: bytes, hits, and how many times smaller zlib makes them."""
    texts = [bytes(msgspec.json.decode(message, type=_Message).report) for message in messages]
    hits = [len(msgspec.json.decode(text, type=_Report).reports) for text in texts]
    compressed = sum(len(zlib.compress(text)) for text in texts)
    return {
        "bytes": round(statistics.mean(map(len, messages))),
        "hits": round(statistics.mean(hits), 2),
        "compression": round(sum(map(len, texts)) / compressed, 2),
    }


def _moved(message: bytes, before: bytes, number: int, day: int) -> bytes:
    """Return the message with the time of its check a day later, wherever `before` stands in front of it."""
    checked_at = _FIRST + timedelta(seconds=number) + day * _DAY
    later = checked_at + _DAY
    return message.replace(before + checked_at.isoformat().encode(), before + later.isoformat().encode())
