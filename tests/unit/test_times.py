"""The form of times, conversion and rounding (`docs/messages.md`, section 2)."""

import contextlib
from datetime import date, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libaggregator.times import parse_time

SECONDS_PER_DAY = 86_400
MICROSECONDS = 1_000_000
END_OF_YEAR_9999 = date.max.toordinal() * SECONDS_PER_DAY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-01T08:00:00Z", datetime(2026, 5, 1, 8)),
        ("2026-05-01T08:00:00+00:00", datetime(2026, 5, 1, 8)),
        ("2026-05-01T08:00:00-00:00", datetime(2026, 5, 1, 8)),
        ("2026-05-01T08:00:00+02:30", datetime(2026, 5, 1, 5, 30)),
        ("2026-05-01T08:00:00-02:30", datetime(2026, 5, 1, 10, 30)),
        ("2026-05-01T08:00:00.5Z", datetime(2026, 5, 1, 8, 0, 0, 500_000)),
        ("2026-05-01T08:00:00.000001+23:59", datetime(2026, 4, 30, 8, 1, 0, 1)),
        ("2024-02-29T00:00:00Z", datetime(2024, 2, 29)),
        ("2000-02-29T00:00:00Z", datetime(2000, 2, 29)),
        ("0001-01-01T00:00:00Z", datetime.min),
        ("0001-01-01T05:00:00+05:00", datetime.min),
        ("9999-12-31T23:59:59.999999Z", datetime.max),
        ("9999-12-31T23:59:59.9999994Z", datetime.max),
        ("9999-12-31T23:59:59.9999999+00:01", datetime(9999, 12, 31, 23, 59)),
    ],
)
def test_a_time_is_converted_to_naive_utc(text: str, expected: datetime) -> None:
    assert parse_time(text) == expected
    assert parse_time(text).tzinfo is None


@pytest.mark.parametrize(
    ("fraction", "microseconds"),
    [
        ("123456789", 123_457),
        ("1234564", 123_456),
        ("1234565", 123_456),
        ("1234575", 123_458),
        ("1234565000000000000", 123_456),
        ("1234565000000000001", 123_457),
        ("12345649999999999999", 123_456),
        ("0000005", 0),
        ("0000015", 2),
        ("9999995", 1_000_000),
        ("9999994", 999_999),
        ("0" * 5_000 + "1", 0),
        ("0000005" + "0" * 5_000 + "1", 1),
        ("9" * 5_000, 1_000_000),
    ],
)
def test_a_fraction_is_rounded_to_the_nearest_microsecond_ties_to_even(fraction: str, microseconds: int) -> None:
    expected = datetime(2026, 5, 1, 8) + timedelta(microseconds=microseconds)
    assert parse_time(f"2026-05-01T08:00:00.{fraction}Z") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-05-01",
        "2026-05-01T08:00:00",
        "2026-05-01 08:00:00Z",
        "2026-05-01t08:00:00Z",
        "2026-05-01T08:00:00z",
        " 2026-05-01T08:00:00Z",
        "2026-05-01T08:00:00Z ",
        "2026-05-01T08:00:00Z\n",
        "2026-05-01T08:00Z",
        "2026-05-01T08:00:00.Z",
        "2026-05-01T08:00:00,5Z",
        "2026-05-01T08:00:00+0200",
        "2026-05-01T08:00:00+02",
        "2026-05-01T08:00:00+2:00",
        "2026-05-01T08:00:00 +02:00",
        "2026-05-01T08:00:00+02:00:00",
        "2026-05-01T08:00:00\u221202:00",
        "2026-05-01T08:00:00+02:00Z",
        "20260501T080000Z",
        "2026-W18-5T08:00:00Z",
        "26-05-01T08:00:00Z",
        "12026-05-01T08:00:00Z",
        "+2026-05-01T08:00:00Z",
        "-2026-05-01T08:00:00Z",
        "2026-5-01T08:00:00Z",
        "\u0662\u0660\u0662\u0666-05-01T08:00:00Z",
        "2026-05-01T08:00:00.\u0665Z",
        "2026-05-01T08:00:00Z\x00",
        "2026-05-01T08:00:00\ud800",
    ],
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a time of the form"):
        parse_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T23:60:00Z",
        "2026-01-01T23:59:60Z",
        "2026-01-01T08:00:00+24:00",
        "2026-01-01T08:00:00+02:60",
        "2026-01-01T08:00:00-99:00",
        "0000-12-31T00:00:00Z",
        "0000-12-31T23:59:59-01:00",
    ],
)
def test_a_time_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00+05:00",
        "0001-01-01T00:00:00.9999999+00:01",
        "0001-01-01T00:59:59.9999999+01:00",
        "9999-12-31T23:59:59-00:01",
        "9999-12-31T23:59:59.9999995Z",
        "9999-12-31T22:59:59.9999999-01:00",
    ],
)
def test_a_time_outside_the_years_1_to_9999_in_utc_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="outside the years"):
        parse_time(text)


@given(
    day=st.dates(),
    second=st.integers(0, SECONDS_PER_DAY - 1),
    fraction=st.text("0123456789", max_size=40) | st.from_regex(r"[0-9]{6}(5|4|50|49|51)0*", fullmatch=True),
    offset=st.integers(-1439, 1439) | st.just(0),
)
@example(day=date.max, second=SECONDS_PER_DAY - 1, fraction="9999995", offset=0)
@example(day=date.min, second=0, fraction="9999999", offset=1)
def test_any_time_agrees_with_exact_arithmetic(day: date, second: int, fraction: str, offset: int) -> None:
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    text = f"{day.isoformat()}T{clock}{'.' + fraction if fraction else ''}{zone}"
    exact = (
        day.toordinal() * SECONDS_PER_DAY + second - 60 * offset + Fraction(int("0" + fraction), 10 ** len(fraction))
    )
    rounded = round(exact * MICROSECONDS)  # a Fraction is rounded to even
    is_representable = exact >= SECONDS_PER_DAY and rounded < (END_OF_YEAR_9999 + SECONDS_PER_DAY) * MICROSECONDS
    if is_representable:
        since_year_1 = timedelta(microseconds=rounded - SECONDS_PER_DAY * MICROSECONDS)
        assert parse_time(text) == datetime.min + since_year_1
    else:
        with pytest.raises(ValueError, match="outside the years"):
            parse_time(text)


@given(st.text() | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}(\.[0-9]*)?([Zz]|[+-][0-9:]{4,5})?"))
def test_any_text_gives_a_naive_time_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_time(text).tzinfo is None
