"""Makes single messages and records by hand, each part of them chosen by the test."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Raw

from consumer_service.sources import Record
from libaggregator.messages import Hit

CLUSTERS = (
    "11111111-1111-4111-8111-111111111111",
    "22222222-2222-4222-8222-222222222222",
    "33333333-3333-4333-8333-333333333333",
)


@dataclass(frozen=True)
class HitSpec:
    """One entry of `reports`."""

    component: str
    key: str
    details: Any = None

    def as_json(self) -> dict[str, Any]:
        return {"component": self.component, "key": self.key, "details": self.details}


def make_hit(component: str, error_key: str, details: str) -> Hit:
    """Return a hit as a message has it; `details` is JSON text."""
    return Hit(component, error_key, Raw(details.encode()))


def report(hits: Sequence[HitSpec] = (), version: str | None = None) -> dict[str, Any]:
    """Return a `Report` with these hits and this version of the cluster."""
    info = [{"info_id": "version_info|CLUSTER_VERSION_INFO", "details": {"version": version}}] if version else []
    return {"system": {}, "fingerprints": [], "reports": [hit.as_json() for hit in hits], "info": info}


def payload(
    cluster: str = CLUSTERS[0],
    checked: str = "2026-05-01T08:00:00Z",
    hits: Sequence[HitSpec] = (),
    org_id: int = 1,
    version: str | None = None,
    gathered: str | None = None,
    **attributes: Any,
) -> bytes:
    """Return the payload of a valid message; `attributes` overwrite or add attributes of the message."""
    message = {
        "OrgID": org_id,
        "ClusterName": cluster,
        "Report": report(hits, version),
        "LastChecked": checked,
        "Version": 2,
        "Metadata": {"gathering_time": gathered} if gathered else None,
        **attributes,
    }
    return json.dumps(message).encode()


def record(value: bytes | None, offset: int = 0, key: bytes | None = None, timestamp: int | None = 0) -> Record:
    """Return a record of partition 0 of the topic `results`."""
    return Record("results", 0, offset, key, value, (), timestamp)
