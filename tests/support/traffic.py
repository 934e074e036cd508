"""Messages as a topic of many clusters has them, made by a seed: newer, repeated, stale, moved, empty and bad ones."""

import base64
import gzip
import json
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from tests.support.messages import HitSpec, payload, report
from tests.support.topics import Sent

_BAD_MESSAGES = Path(__file__).parents[1] / "contract" / "dataset" / "bad_messages.jsonl"
_BEGIN = datetime(2026, 5, 1, 8)
_RULES = [HitSpec(f"rules.rule_{n}{'.report' if n % 3 else ''}", f"KEY_{n % 4}") for n in range(12)]
_VERSIONS = (None, "4.14.31", "4.16.3", "4.17.2")


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of messages, of all of them; the rest is newer and changed."""

    bad: float = 0.05
    empty: float = 0.02
    stale: float = 0.08
    repeated: float = 0.3
    moved: float = 0.08


@dataclass
class _Cluster:
    name: str
    partition: int
    org_id: int
    hits: tuple[HitSpec, ...] = ()
    version: str | None = None
    last: str | None = None
    sent: list[bytes] = field(default_factory=list)


class Traffic:
    """An endless stream of records for a topic with `partitions` partitions; a cluster stays in one of them.

    `scattered` sends each message to any partition instead. Then nobody knows the order, so that a stale message is one
    that was sent before, and each names a version.
    """

    def __init__(
        self, seed: int, partitions: int = 4, clusters: int = 80, mix: Mix = Mix(), scattered: bool = False
    ) -> None:
        self._random = random.Random(seed)
        self._partitions = partitions
        self._mix = mix
        self._scattered = scattered
        self._seconds = 0
        self.clusters = [
            _Cluster(str(uuid.UUID(int=self._random.getrandbits(128), version=4)), n % partitions, 1 + n % 5)
            for n in range(clusters)
        ]
        self._bad = [
            base64.b64decode(case["payload_b64"])
            for case in map(json.loads, _BAD_MESSAGES.read_text(encoding="utf-8").splitlines())
            if case["expect"] == "rejected"
        ]

    def __iter__(self) -> Iterator[Sent]:
        """Yield records without end."""
        while True:
            yield self.next()

    def take(self, count: int) -> list[Sent]:
        """Return the next `count` records."""
        return [self.next() for _ in range(count)]

    def next(self) -> Sent:
        """Return the next record."""
        if self._random.random() < self._mix.bad:
            return self.bad()
        cluster = self._random.choice(self.clusters)
        value = self._message(cluster)
        if self._random.random() < 0.1:
            value = gzip.compress(value, mtime=0)
        partition = self._random.randrange(self._partitions) if self._scattered else cluster.partition
        return Sent(value, cluster.name.encode(), [("origin", b"\x00\xff")], partition)

    def bad(self) -> Sent:
        """Return a record that is unusable for ever."""
        number = self._random.randrange(len(self._bad))
        key = self._random.choice([None, b"", b"key", b"\xff\x00"])
        headers = [("origin", b"elsewhere"), ("aggregator-reason", b"of an earlier round")]
        return Sent(self._bad[number], key, headers, self._random.randrange(self._partitions))

    def first(self, cluster: _Cluster) -> bytes:
        """Return a message with which a cluster begins."""
        self._seconds += 1
        cluster.version = cluster.version or "4.15.0"
        return self._newer(cluster)

    def begin(self, clusters: Sequence[_Cluster]) -> list[Sent]:
        """Return a first record for each of some clusters."""
        return [Sent(self.first(cluster), cluster.name.encode(), (), cluster.partition) for cluster in clusters]

    def _message(self, cluster: _Cluster) -> bytes:
        kind = self._random.random()
        mix = self._mix
        self._seconds += 1
        if kind < mix.empty:
            return payload(cluster.name, self._at(self._seconds), org_id=cluster.org_id, Report={})
        kind -= mix.empty
        if kind < mix.stale and self._scattered:
            return cluster.sent[self._random.randrange(len(cluster.sent))] if cluster.sent else self.first(cluster)
        if kind < mix.stale:
            earlier = self._random.randrange(self._seconds)
            return payload(cluster.name, cluster.last or self._at(earlier), [_RULES[0]], org_id=77, version="9.9.9")
        kind -= mix.stale
        if kind >= mix.repeated:
            if kind < mix.repeated + mix.moved:
                cluster.org_id = self._random.randrange(1, 6)
            count = self._random.randrange(6)
            cluster.hits = tuple(self._with_details(hit) for hit in self._random.sample(_RULES, count))
            cluster.version = self._random.choice(_VERSIONS[1:] if self._scattered else _VERSIONS)
        cluster.version = cluster.version or ("4.15.0" if self._scattered else None)
        return self._newer(cluster)

    def _newer(self, cluster: _Cluster) -> bytes:
        cluster.last = self._at(self._seconds)
        gathered = self._at(self._seconds - 60) if self._random.random() < 0.8 else None
        value = payload(
            cluster.name,
            cluster.last,
            org_id=cluster.org_id,
            gathered=gathered,
            Report=report(cluster.hits, cluster.version),
        )
        cluster.sent.append(value)
        return value

    def _with_details(self, hit: HitSpec) -> HitSpec:
        length = self._random.choice([0, 10, 200, 2000])
        return HitSpec(hit.component, hit.key, {"text": "x" * length, "number": self._random.randrange(3)})

    @staticmethod
    def _at(seconds: int) -> str:
        return f"{(_BEGIN + timedelta(seconds=seconds)).isoformat()}Z"
