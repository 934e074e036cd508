"""What the fault suite compares with: it finds everything that is missing, too much or of a wrong time."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from consumer_service.sources import Record
from libaggregator.clock import utc_now
from tests.support.messages import CLUSTERS, HitSpec, payload
from tests.support.reckoning import CHOICES, Letter, Reckoning
from tests.support.tables import Tables

EPOCH = datetime(1970, 1, 1)
PRODUCED = 1_800_000_000
HIT = HitSpec("a.report", "K")
BAD = b"not JSON"
DETAIL = "expected one valid JSON object and nothing else"

Spoil = Callable[[Tables, list[Letter]], Any]


def _reckoning() -> Reckoning:
    reckoning = Reckoning()
    values = [payload(hits=[HIT], version="4.16.3"), payload(checked="2026-05-01T09:00:00Z", hits=[HIT]), BAD]
    reckoning.apply(Record("t", 0, offset, b"k", value, [], PRODUCED) for offset, value in enumerate(values))
    return reckoning


def _right() -> tuple[Tables, list[Letter]]:
    """Return what the three records leave, stored one second after another."""
    first = utc_now().replace(microsecond=0) - timedelta(seconds=10)
    second = first + timedelta(seconds=1)
    tables: Tables = dict(_reckoning().model.tables())
    ((org_id, cluster, text, _, *rest),) = tables["report"]
    tables["report"] = [(org_id, cluster, text, second + timedelta(microseconds=5), *rest)]
    tables["rule_hit"] = [(*row[:5], first) for row in tables["rule_hit"]]
    tables["recommendation"] = [(*row[:5], second, first) for row in tables["recommendation"]]
    produced_at = EPOCH + timedelta(milliseconds=PRODUCED)
    tables["consumer_error"] = [("t", 0, 2, "k", produced_at, second, "not JSON", f"not_json: {DETAIL}")]
    tables |= {table: [] for table in CHOICES}
    headers = {"reason": "not_json", "detail": DETAIL, "topic": "t", "partition": "0", "offset": "2"}
    headers["timestamp"] = str(PRODUCED)
    return tables, [Letter(b"k", BAD, tuple((f"aggregator-{name}", value.encode()) for name, value in headers.items()))]


def test_what_is_right_is_counted() -> None:
    tables, letters = _right()
    compared = _reckoning().compare(tables, [*letters, *letters])
    assert (compared.messages, compared.rows, compared.errors) == (3, 4, 1)
    assert (compared.letters, compared.repeated_letters) == (2, 1)


def test_a_run_without_a_record_fails() -> None:
    with pytest.raises(AssertionError, match="nothing was compared"):
        Reckoning().compare(*_right())


def _change(table: str, place: int, value: object) -> Spoil:
    def spoil(tables: Tables, letters: list[Letter]) -> None:
        (row,) = tables[table]
        tables[table] = [(*row[:place], value, *row[place + 1 :])]

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        *[
            lambda tables, letters, table=table: tables[table].clear()
            for table in ("report", "rule_hit", "report_info")
        ],
        lambda tables, letters: tables["report"].append((1, CLUSTERS[1], *tables["report"][0][2:])),
        lambda tables, letters: tables["consumer_error"].clear(),
        lambda tables, letters: tables["cluster_rule_toggle"].append((CLUSTERS[0], "r", 1, "1")),
        lambda tables, letters: letters.clear(),
        lambda tables, letters: letters.append(letters[0].__class__(b"k", b"other", letters[0].headers)),
        _change("report", 0, 2),
        _change("report", 3, utc_now() + timedelta(hours=1)),
        _change("rule_hit", 5, utc_now()),
        _change("recommendation", 6, datetime(2026, 5, 1)),
        _change("consumer_error", 6, "other"),
        _change("consumer_error", 7, "bad_report: x"),
    ],
)
def test_what_is_wrong_is_found(spoil: Spoil) -> None:
    tables, letters = _right()
    spoil(tables, letters)
    with pytest.raises(AssertionError):
        _reckoning().compare(tables, letters)
