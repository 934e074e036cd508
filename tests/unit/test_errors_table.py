"""How a rejected record is written as values of a row (`docs/schema.md`, section 7)."""

import base64
from datetime import datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer_service.errors_table import as_bytes, as_text, error_row, record_of
from consumer_service.pipeline import Rejected
from consumer_service.sources import Record
from libaggregator.messages import Reason

NOW = datetime(2026, 6, 1, 12, 0, 0, 123456)
EPOCH = datetime(1970, 1, 1)
FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999


def rejected(record: Record, reason: Reason = Reason.NOT_JSON, detail: str = "expected a JSON object") -> Rejected:
    return Rejected(record, reason, detail)


def test_the_values_are_in_the_order_of_the_columns() -> None:
    record = Record("topic", 3, 7, b"key", b"value", (("header", b"x"),), 1500)
    row = error_row(rejected(record, Reason.BAD_REPORT, "Report: expected an object"), NOW)
    expected = (
        "topic",
        3,
        7,
        "key",
        EPOCH + timedelta(seconds=1.5),
        NOW,
        "value",
        "bad_report: Report: expected an object",
    )
    assert row == expected


@pytest.mark.parametrize("reason", list(Reason))
def test_the_error_begins_with_the_name_of_the_reason(reason: Reason) -> None:
    row = error_row(rejected(Record("t", 0, 0, None, None, (), None), reason, "why"), NOW)
    assert row[7] == f"{reason.value}: why"


def test_null_stays_null_and_empty_stays_empty() -> None:
    assert as_text(None) is None
    assert as_text(b"") == ""


def read_back(text: str) -> bytes:
    """Return the bytes of a text as a reader of the table finds them."""
    marked = text.removeprefix("base64:")
    return text.encode() if marked == text else base64.b64decode(marked, validate=True)


@given(
    st.binary()
    | st.text(st.characters(codec="utf-8")).map(str.encode)
    | st.binary().map(lambda content: b"base64:" + content)
)
@example(b"base64:")
@example(b"base64:base64:")
@example(b"base64")
@example(b"\0")
@example(b"\xff")
@example(b"\x1f\x8b")
def test_any_bytes_become_a_text_that_can_be_stored_and_read_back(content: bytes) -> None:
    text = as_text(content)
    assert text is not None
    assert "\0" not in text
    text.encode()
    assert read_back(text) == content


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0")).filter(lambda text: not text.startswith("base64:"))
)
def test_text_is_kept_as_it_is(text: str) -> None:
    assert as_text(text.encode()) == text


@given(st.integers(FIRST, LAST))
def test_the_time_of_the_record_is_kept_to_the_millisecond(timestamp: int) -> None:
    row = error_row(rejected(Record("t", 0, 0, None, None, (), timestamp)), NOW)
    assert row[4] == EPOCH + timedelta(milliseconds=timestamp)


@given(st.none() | st.integers(max_value=FIRST - 1) | st.integers(min_value=LAST + 1))
@example(FIRST - 1)
@example(LAST + 1)
@example(10**400)
def test_a_record_without_a_time_or_with_one_that_no_column_takes_was_produced_now(timestamp: int | None) -> None:
    row = error_row(rejected(Record("t", 0, 0, None, None, (), timestamp)), NOW)
    assert row[4] == row[5] == NOW


contents = st.none() | st.binary() | st.text(st.characters(codec="utf-8")).map(str.encode)


@given(contents, contents, st.none() | st.integers(FIRST, LAST), st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1))
@example(b"base64:", b"base64:YQ==", 0, 0, 0)
def test_a_record_comes_back_from_its_row(
    key: bytes | None, value: bytes | None, timestamp: int | None, partition: int, offset: int
) -> None:
    record = Record("topic", partition, offset, key, value, (), timestamp)
    row = error_row(rejected(record), NOW)
    assert record_of(row) == record
    assert error_row(rejected(record_of(row)), NOW) == row


@given(st.none() | st.integers())
def test_a_row_comes_back_from_its_record_whatever_its_time(timestamp: int | None) -> None:
    row = error_row(rejected(Record("topic", 0, 0, None, None, (), timestamp)), NOW)
    assert error_row(rejected(record_of(row)), NOW) == row


def test_times_may_be_texts_with_any_number_of_digits() -> None:
    for text in ("1970-01-01 00:00:01.5", "1970-01-01 00:00:01.500", "1970-01-01 00:00:01.500000"):
        assert record_of(("t", 0, 0, None, text, "2026-06-01 12:00:00", None, "not_json: x")).timestamp == 1500


@pytest.mark.parametrize("text", ["base64:?", "base64:YQ", "base64:é", "base64: YQ=="])
def test_what_only_begins_like_base64_of_ours_is_plain_text(text: str) -> None:
    assert as_bytes(text) == text.encode()
