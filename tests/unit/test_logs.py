"""Logs of the whole process: one event a line, the libraries' own included, on standard error."""

import json
import logging
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
import structlog

from libaggregator.logs import configure
from libaggregator.settings import LoggingSettings

Level = Literal["debug", "info", "warning", "error"]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(capsys)]


def in_json(level: Level = "info") -> None:
    configure(LoggingSettings(level=level, format="json"))


def test_an_event_is_one_json_object_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    in_json()
    structlog.get_logger("the.module").warning("message rejected", topic="t", partition=3, offset=7, detail='a "b"\nc')
    (event,) = events(capsys)
    timestamp = datetime.fromisoformat(event.pop("timestamp"))
    assert timestamp.utcoffset() == timedelta(0)
    assert event == {
        "event": "message rejected",
        "level": "warning",
        "logger": "the.module",
        "topic": "t",
        "partition": 3,
        "offset": 7,
        "detail": 'a "b"\nc',
    }


def test_events_of_libraries_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    in_json()
    logging.getLogger("some.library").warning("%d of %s", 5, "them")
    (event,) = events(capsys)
    assert event.pop("timestamp")
    assert event == {"event": "5 of them", "level": "warning", "logger": "some.library"}


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_is_less_severe_than_the_level_is_left_out(
    capsys: pytest.CaptureFixture[str], level: Level, shown: list[str]
) -> None:
    in_json(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger("ours"), name)("event")
        getattr(logging.getLogger("theirs"), name)("event")
    found = [(event["logger"], event["level"]) for event in events(capsys)]
    assert found == [(logger, name) for name in shown for logger in ("ours", "theirs")]


@pytest.mark.parametrize("level", ["info", "warning", "error"])
@pytest.mark.parametrize("name", ["kafka", "kafka.conn", "waitress.queue"])
def test_libraries_that_repeat_themselves_are_silent(
    capsys: pytest.CaptureFixture[str], level: Level, name: str
) -> None:
    in_json(level)
    logging.getLogger(name).error("again and again")
    logging.getLogger("another").error("once")
    assert [event["event"] for event in events(capsys)] == ["once"]


def test_with_level_debug_they_are_heard(capsys: pytest.CaptureFixture[str]) -> None:
    in_json("debug")
    logging.getLogger("kafka.conn").info("details")
    assert [event["event"] for event in events(capsys)] == ["details"]


def test_no_library_is_heard_below_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    in_json("error")
    logging.getLogger("peewee.migrations").info("up: 0001")
    assert events(capsys) == []


@pytest.mark.parametrize("name", ["kafka.protocol.parser", "peewee"])
def test_what_libraries_send_and_receive_is_never_logged(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Kafka's client would log the password with which it logs in."""
    in_json("debug")
    logging.getLogger(name).debug("SaslAuthenticateRequest(auth_bytes=b's3cr3t')")
    assert events(capsys) == []


def test_bound_fields_of_a_context_are_in_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    in_json()
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("ours").info("event")
        logging.getLogger("theirs").info("event")
    assert [event["request_id"] for event in events(capsys)] == ["r1", "r1"]


def test_configuring_twice_does_not_log_twice(capsys: pytest.CaptureFixture[str]) -> None:
    in_json()
    in_json()
    structlog.get_logger("ours").info("event")
    assert len(events(capsys)) == 1


def test_values_that_json_does_not_have_are_shown_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    in_json()
    structlog.get_logger("ours").info("event", value=object, text="\ud800 ž \u2028", time=datetime(2026, 5, 1))
    (event,) = events(capsys)
    assert event["text"] == "\ud800 ž \u2028"
    assert "2026" in event["time"]


def fail() -> None:
    payload_in_hand = "s3cr3t payload"
    raise ValueError(f"failed with {len(payload_in_hand)} characters")


def log_a_failure(logger: Any) -> None:
    try:
        fail()
    except ValueError:
        logger.exception("it failed")


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_an_exception_is_in_the_line_of_its_event(capsys: pytest.CaptureFixture[str], name: str) -> None:
    in_json()
    log_a_failure(structlog.get_logger(name) if name == "ours" else logging.getLogger(name))
    (event,) = events(capsys)
    assert event["event"] == "it failed"
    shown = json.dumps(event["exception"])
    assert "ValueError" in shown
    assert "failed with 14 characters" in shown


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_does_not_show_what_the_program_had_in_hand(
    capsys: pytest.CaptureFixture[str], form: Literal["json", "console"]
) -> None:
    """Payloads, and the parts of a URL with its password, are local variables somewhere."""
    configure(LoggingSettings(format=form))
    log_a_failure(structlog.get_logger("ours"))
    printed = "\n".join(lines(capsys))
    assert "failed with 14 characters" in printed
    # lines of the source may be shown, which have it in double quotes
    assert "s3cr3t payload" not in printed.replace('"s3cr3t payload"', "")


def test_for_people_an_event_is_one_line_without_colours_where_nobody_sees_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LoggingSettings(format="console"))
    structlog.get_logger("the.module").warning("message rejected", topic="t", detail="two words")
    logging.getLogger("some.library").error("theirs")
    ours, theirs = lines(capsys)
    assert all(part in ours for part in ("warning", "message rejected", "topic=t", "detail='two words'", "the.module"))
    assert all(part in theirs for part in ("error", "theirs", "some.library"))
    assert "\x1b" not in ours + theirs
