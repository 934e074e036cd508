"""The rows that rejected records leave in `consumer_error` (`docs/schema.md`, section 7), on both engines."""

import base64
import gzip
from datetime import datetime, timedelta
from typing import Any

import pytest
from peewee import Database

from consumer_service.sources import Record
from libaggregator.storage.faults import DATABASE_ERRORS
from tests.storage.conftest import NOON, Store
from tests.support.messages import CLUSTERS, HitSpec, payload, record
from tests.support.tables import read_tables

COLUMNS = ("topic", "partition", "topic_offset", "key", "produced_at", "consumed_at", "message", "error")
BAD = b"not a message"
GZIP_OF_BAD = gzip.compress(BAD, mtime=0)


def errors(database: Database) -> list[dict[str, Any]]:
    """Return all rows, sorted by topic, partition and offset, as dictionaries by the name of the column."""
    return [dict(zip(COLUMNS, row, strict=True)) for row in read_tables(database)["consumer_error"]]


def only_error(database: Database) -> dict[str, Any]:
    (row,) = errors(database)
    return row


def in_base64(content: bytes) -> str:
    return f"base64:{base64.b64encode(content).decode()}"


def test_a_rejected_record_leaves_a_row_with_every_column(store: Store) -> None:
    timestamp = 1_777_622_400_123
    store.write([Record("results", 3, 5_000_000_000, b"key", BAD, (("h", b"v"),), timestamp)])
    row = only_error(store.database)
    assert row == {
        "topic": "results",
        "partition": 3,
        "topic_offset": 5_000_000_000,
        "key": "key",
        "produced_at": datetime(2026, 5, 1, 8, 0, 0, 123_000),
        "consumed_at": NOON,
        "message": "not a message",
        "error": row["error"],
    }


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"", "not_json: "),
        (b'{"OrgID": 1}', "missing_attribute: ClusterName"),
        (payload(org_id=0), "bad_attribute: OrgID: expected an integer from 1 to 4294967295"),
        (payload(checked="9999-01-01T00:00:00Z"), "from_the_future: LastChecked"),
        (payload(Report={"x": 1}), "bad_report: Report"),
        (GZIP_OF_BAD[:-1], "bad_compression: "),
        (b" " * 10_485_761, "too_large: "),
    ],
)
def test_the_error_is_the_reason_and_the_detail(store: Store, value: bytes, error: str) -> None:
    written = store.write([record(value)])
    (rejected,) = written.rejected
    assert only_error(store.database)["error"] == f"{rejected.reason}: {rejected.detail}"
    assert only_error(store.database)["error"].startswith(error)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(None, None, id="null"),
        pytest.param(b"", "", id="empty"),
        pytest.param(b"plain", "plain", id="ASCII"),
        pytest.param("žluťoučký 🦄\n\t\\'%s".encode(), "žluťoučký 🦄\n\t\\'%s", id="UTF-8"),
        pytest.param(b'{"a": "\\u0000\\ud800"', '{"a": "\\u0000\\ud800"', id="escapes are only text"),
        pytest.param(b"caf\xe9", in_base64(b"caf\xe9"), id="not UTF-8"),
        pytest.param(b"\xed\xa0\x80", in_base64(b"\xed\xa0\x80"), id="a surrogate in UTF-8"),
        pytest.param(b"a\x00b", in_base64(b"a\x00b"), id="NUL"),
        pytest.param(b"base64:aGVsbG8=", in_base64(b"base64:aGVsbG8="), id="text that looks like base64 of ours"),
        pytest.param(b"base64:", in_base64(b"base64:"), id="the prefix alone"),
        pytest.param(b"BASE64:x", "BASE64:x", id="another case of the prefix"),
        pytest.param(b" base64:x", " base64:x", id="the prefix further on"),
        pytest.param(GZIP_OF_BAD, in_base64(GZIP_OF_BAD), id="gzip stays gzip"),
        pytest.param(b"\xef\xbb\xbf{}", "\ufeff{}", id="byte order mark"),
    ],
)
def test_key_and_message_are_text_where_they_can_be_and_marked_base64_elsewhere(
    store: Store, content: bytes | None, text: str | None
) -> None:
    store.write([record(content, key=content)])
    row = only_error(store.database)
    assert (row["key"], row["message"]) == (text, text)


def test_a_payload_is_stored_whole_however_large(store: Store) -> None:
    value = b"x" * 3_000_000
    store.write([record(value)])
    assert only_error(store.database)["message"] == value.decode()


@pytest.mark.parametrize(
    ("timestamp", "produced_at"),
    [
        pytest.param(0, datetime(1970, 1, 1), id="zero is a time"),
        pytest.param(1_777_622_400_999, datetime(2026, 5, 1, 8, 0, 0, 999_000), id="milliseconds"),
        pytest.param(-1_500, datetime(1969, 12, 31, 23, 59, 58, 500_000), id="before 1970"),
        pytest.param(-62_135_596_800_000, datetime(1, 1, 1), id="first instant of year 1"),
        pytest.param(-62_135_596_800_001, NOON, id="before year 1"),
        pytest.param(253_402_300_799_999, datetime(9999, 12, 31, 23, 59, 59, 999_000), id="end of year 9999"),
        pytest.param(253_402_300_800_000, NOON, id="after year 9999"),
        pytest.param(2**63 - 1, NOON, id="largest"),
        pytest.param(-(2**63), NOON, id="smallest"),
        pytest.param(None, NOON, id="none"),
    ],
)
def test_produced_at_is_the_time_of_the_record_or_else_consumed_at(
    store: Store, timestamp: int | None, produced_at: datetime
) -> None:
    store.write([record(BAD, timestamp=timestamp)])
    row = only_error(store.database)
    assert (row["produced_at"], row["consumed_at"]) == (produced_at, NOON)


def test_a_record_at_the_same_place_replaces_the_row(store: Store) -> None:
    store.write([record(BAD, offset=1, key=b"old", timestamp=0), record(BAD, offset=2)])
    now = store.later()
    store.write([record(b"", offset=1, key=None, timestamp=1000)])
    replaced, other = errors(store.database)
    assert (replaced["topic_offset"], replaced["key"], replaced["message"]) == (1, None, "")
    assert (replaced["produced_at"], replaced["consumed_at"]) == (datetime(1970, 1, 1, 0, 0, 1), now)
    assert replaced["error"].startswith("not_json: ")
    assert (other["topic_offset"], other["consumed_at"]) == (2, NOON)


def test_topic_partition_and_offset_together_are_the_place(store: Store) -> None:
    places = [("results", 0, 1), ("results", 1, 1), ("results", 0, 2), ("others", 0, 1)]
    store.write([Record(topic, partition, offset, None, BAD, (), 0) for topic, partition, offset in places])
    found = [(row["topic"], row["partition"], row["topic_offset"]) for row in errors(store.database)]
    assert found == sorted(places)


def test_of_a_record_that_is_in_a_batch_twice_the_last_one_is_stored(store: Store) -> None:
    written = store.write([record(b"first", offset=1), record(b"second", offset=1)])
    assert only_error(store.database)["message"] == "second"
    assert len(written.rejected) == 2


def test_a_replay_leaves_the_same_rows_but_for_consumed_at(store: Store) -> None:
    batch = [record(BAD, offset=1, key=b"k"), record(GZIP_OF_BAD, offset=2, timestamp=None)]
    store.write(batch)
    before = errors(store.database)
    now = store.later()
    store.write(batch)
    without_time = {**before[1], "consumed_at": now, "produced_at": now}
    assert errors(store.database) == [{**before[0], "consumed_at": now}, without_time]


def test_skipped_messages_leave_no_row(store: Store) -> None:
    store.write([record(payload(checked="2026-05-01T09:00:00Z"), offset=0)])
    store.write([record(payload(Report={}), offset=1), record(payload(checked="2026-05-01T08:00:00Z"), offset=2)])
    assert not errors(store.database)


def test_good_and_rejected_records_of_a_batch_are_in_one_transaction(store: Store) -> None:
    good, bad = record(payload(hits=[HitSpec("a", "K")]), offset=1), record(BAD, offset=2)
    # the last and the first table that are written, so that each time something else would be left behind
    for missing, others in (("consumer_error", "report, rule_hit"), ("recommendation", "report, consumer_error")):
        store.database.execute_sql(f"ALTER TABLE {missing} RENAME TO gone")
        with pytest.raises(DATABASE_ERRORS):
            store.write([good, bad])
        for table in others.split(", "):
            assert store.database.execute_sql(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        store.database.execute_sql(f"ALTER TABLE gone RENAME TO {missing}")
    written = store.write([good, bad])
    assert (len(written.stored), len(written.rejected)) == (1, 1)
    assert len(errors(store.database)) == 1


def test_the_time_of_the_row_is_that_of_the_batch_to_the_microsecond(store: Store) -> None:
    store.now = NOON.replace(microsecond=0) + timedelta(microseconds=7)
    store.write([record(payload(cluster=CLUSTERS[0])), record(BAD, offset=1, timestamp=None)])
    row = only_error(store.database)
    assert row["consumed_at"] == row["produced_at"] == store.now
    assert read_tables(store.database)["report"][0][3] == store.now
