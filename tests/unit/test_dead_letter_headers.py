"""The headers of a dead letter, as `docs/messages.md` has them in section 8."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_service.sources import DeadLetter, Record
from consumer_service.sources.letters import NotADeadLetter, dead_letter_headers, read_dead_letter


def letter(
    headers: tuple[tuple[str, bytes], ...] = (),
    timestamp: int | None = 1_700_000_000_123,
    detail: str = "position 1: expected a value",
) -> DeadLetter:
    record = Record("ccx.ocp.results", 3, 4711, b"key", b"value", headers, timestamp)
    return DeadLetter(record, "not_json", detail)


def test_says_where_the_record_came_from_and_what_is_wrong() -> None:
    assert dead_letter_headers(letter()) == [
        ("aggregator-reason", b"not_json"),
        ("aggregator-detail", b"position 1: expected a value"),
        ("aggregator-topic", b"ccx.ocp.results"),
        ("aggregator-partition", b"3"),
        ("aggregator-offset", b"4711"),
        ("aggregator-timestamp", b"1700000000123"),
    ]


def test_keeps_the_original_headers_first_in_their_order_and_with_repetitions() -> None:
    original = (("z", b"\xff\x00"), ("a", b""), ("z", b"2"))

    assert tuple(dead_letter_headers(letter(original))[:-6]) == original


def test_drops_the_headers_of_an_earlier_round() -> None:
    original = (("aggregator-reason", b"bad_report"), ("aggregator-of-another", b"x"), ("aggregated", b"y"))

    headers = dead_letter_headers(letter(original))

    assert headers[0] == ("aggregated", b"y")
    assert [name for name, _ in headers].count("aggregator-reason") == 1
    assert len(headers) == 7


def test_has_an_empty_timestamp_if_the_record_had_none() -> None:
    assert dead_letter_headers(letter(timestamp=None))[-1] == ("aggregator-timestamp", b"")


def test_cuts_the_detail_by_characters() -> None:
    headers = dict(dead_letter_headers(letter(detail="ä" * 1001)))

    assert headers["aggregator-detail"] == ("ä" * 1000).encode()


def test_replaces_what_is_not_a_character() -> None:
    assert dict(dead_letter_headers(letter(detail="a\ud800b")))["aggregator-detail"] == b"a?b"


names = st.text(st.characters(codec="utf-8")).filter(lambda name: not name.startswith("aggregator-"))


@given(
    record=st.builds(
        Record,
        topic=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
        partition=st.integers(0, 2**31 - 1),
        offset=st.integers(0, 2**63 - 1),
        key=st.none() | st.binary(),
        value=st.none() | st.binary(),
        headers=st.lists(st.tuples(names, st.binary())).map(tuple),
        timestamp=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    ),
    reason=st.sampled_from(["not_json", "not_storable", "a reason of a later version"]),
)
def test_a_letter_comes_back_from_the_record_that_was_sent(record: Record, reason: str) -> None:
    sent = DeadLetter(record, reason, "why")

    assert read_dead_letter(record.key, record.value, dead_letter_headers(sent)) == sent


@pytest.mark.parametrize("name", ["reason", "detail", "topic", "partition", "offset", "timestamp"])
@pytest.mark.parametrize("value", [None, b"\xff"])
def test_without_one_of_our_headers_it_is_no_letter_and_the_header_is_named(name: str, value: bytes | None) -> None:
    headers = {**dict(dead_letter_headers(letter())), f"aggregator-{name}": value}

    with pytest.raises(NotADeadLetter, match=f"aggregator-{name}: "):
        read_dead_letter(None, None, [(other, found) for other, found in headers.items() if found is not None])
