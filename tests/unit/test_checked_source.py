"""What a plug-in returns that no source may: it is named, and nothing of it reaches the consumer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from consumer_service.sources import DeadLetter, Delivery, Partition, Progress, Record, SourceFailed, SourceUnavailable
from consumer_service.sources.checked import CheckedSource

WHO = "'pigeons' of pigeon-post 1.5"
RECORD = Record("a", 0, 5, b"k", b"v", (("h", b"x"),), 1_700_000_000_000)
LETTER = DeadLetter(RECORD, "not_json", "position 1")


class Plugin:
    """Returns the same from every method; raises it if it is an exception."""

    exhausted = False

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def answer(self, *arguments: object) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    poll = keep_alive = commit = send_dead_letters = progress = problem = close = answer


def checked(answer: Any) -> CheckedSource:
    return CheckedSource(Plugin(answer), WHO)


@pytest.mark.parametrize(
    "records",
    [
        [],
        (),
        [RECORD],
        [replace(RECORD, key=None, value=None, headers=[], timestamp=None, topic="ü", offset=0)],
        [replace(RECORD, partition=2**31 - 1, offset=2**63 - 1, timestamp=-1)],
        [RECORD, replace(RECORD, partition=1), replace(RECORD, topic="b"), replace(RECORD, offset=6)],
    ],
)
def test_records_as_they_have_to_be_are_passed_on(records: Any) -> None:
    assert checked(records).poll(0, 4) is records


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        (None, "None, expected a sequence of records"),
        (iter([RECORD]), "<list_iterator object"),
        ([42], "42 among the records, expected a Record"),
        ("text", "'t' among the records, expected a Record"),
        ([RECORD] * 5, "5 records, expected at most 4"),
        ([RECORD, RECORD], "offset 5 after 5 of the same partition, expected rising offsets"),
    ],
)
def test_a_poll_that_returns_something_else_is_told_of(records: Any, fault: str) -> None:
    with pytest.raises(SourceFailed) as raised:
        checked(records).poll(0, 4)

    assert str(raised.value).startswith(f"source {WHO}: poll returned {fault}")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"topic": "a\0b"}, r"topic 'a\x00b', expected text without NUL"),
        ({"topic": "a\ud800"}, r"topic 'a\ud800', expected text without NUL"),
        ({"topic": b"a"}, "topic b'a', expected text without NUL"),
        ({"partition": -1}, "partition -1, expected an integer from 0 to 2147483647"),
        ({"partition": 2**31}, "partition 2147483648, expected an integer from 0 to 2147483647"),
        ({"offset": 2**70}, "offset 1180591620717411303424, expected an integer from 0 to 9223372036854775807"),
        ({"offset": -1}, "offset -1, expected an integer from 0 to 9223372036854775807"),
        ({"offset": 10**5000}, "offset int, expected an integer from 0 to 9223372036854775807"),
        ({"offset": None}, "offset None, expected an integer from 0 to 9223372036854775807"),
        ({"key": "s3cr3t"}, "key of type str, expected bytes or None"),
        ({"value": "s3cr3t"}, "value of type str, expected bytes or None"),
        ({"headers": None}, "headers of type NoneType, expected pairs of text and bytes"),
        ({"headers": [("h", "s3cr3t")]}, "headers of type list, expected pairs of text and bytes"),
        ({"headers": ["hx"]}, "headers of type list, expected pairs of text and bytes"),
        ({"timestamp": 1.5}, "timestamp 1.5, expected milliseconds as an integer of 64 bits, or None"),
        ({"timestamp": 2**64}, "timestamp 18446744073709551616, expected milliseconds"),
    ],
)
def test_a_record_that_can_not_be_is_told_of_without_its_content(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(SourceFailed) as raised:
        checked([RECORD, replace(RECORD, **{"offset": 6, **changes})]).poll(0, 4)

    assert str(raised.value).startswith(f"source {WHO}: poll returned a record with {fault}")


def test_an_outage_and_a_fault_of_the_plugin_are_passed_on() -> None:
    for error in (SourceUnavailable("away"), ZeroDivisionError()):
        with pytest.raises(type(error)):
            checked(error).poll(0, 4)


@pytest.mark.parametrize(
    ("call", "answer", "fault"),
    [
        (lambda source: source.send_dead_letters([LETTER]), None, "send_dead_letters returned None, expected a Deliv"),
        (lambda source: source.progress(), None, "progress returned None, expected a Progress by Partition"),
        (lambda source: source.progress(), {"a": 1}, "progress returned {'a': 1}, expected a Progress by Partition"),
    ],
)
def test_other_answers_are_looked_at_too(call: Callable[[CheckedSource], object], answer: object, fault: str) -> None:
    with pytest.raises(SourceFailed) as raised:
        call(checked(answer))

    assert str(raised.value).startswith(f"source {WHO}: {fault}")


def test_other_answers_as_they_have_to_be_are_passed_on() -> None:
    progress = {Partition("a", 0): Progress(1, 2)}
    assert checked(progress).progress() is progress
    assert checked(Delivery(1)).send_dead_letters([LETTER]) == Delivery(1)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (None, None),
        ("", None),
        (" no\nwings ", "no wings"),
        (42, f"problem of {WHO} returned 42, expected text or None"),
        (b"x", f"problem of {WHO} returned b'x', expected text or None"),
        (ValueError("s3cr3t"), f"problem of {WHO} raised ValueError"),
    ],
)
def test_there_is_a_text_for_readiness_whatever_the_plugin_says(answer: object, problem: str | None) -> None:
    assert checked(answer).problem() == problem


def test_the_end_is_asked_for_each_time() -> None:
    plugin = Plugin([])
    source = CheckedSource(plugin, WHO)
    assert not source.exhausted

    plugin.exhausted = True

    assert source.exhausted
