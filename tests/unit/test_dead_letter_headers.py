"""The headers of a dead letter, as `docs/messages.md` has them in section 8."""

from consumer_service.dead_letters import dead_letter_headers
from consumer_service.sources import DeadLetter, Record


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
