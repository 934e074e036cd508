"""What is said when the loop hangs."""

from collections.abc import Iterator
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer_service.loop_watchdog import LoopWatchdog
from libaggregator.admin import Heartbeat


class Loop:
    """A thread that hangs, and the time since its last heartbeat as the test sets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = SimpleNamespace(now=1000.0)
        monkeypatch.setattr("libaggregator.admin.time", SimpleNamespace(monotonic=lambda: self.clock.now))
        self.heartbeat = Heartbeat(30)
        self.release = Event()
        entered = Event()
        self.thread = Thread(target=hang_with, args=("pa55word", entered, self.release))
        self.thread.start()
        assert entered.wait(10)
        self.watchdog = LoopWatchdog(self.heartbeat, self.thread)

    def look(self, after: float) -> list[dict[str, Any]]:
        """Let time pass and look."""
        self.clock.now += after
        with capture_logs() as logged:
            self.watchdog.look()
        return [dict(entry) for entry in logged]


def hang_with(password: str, entered: Event, release: Event) -> None:
    entered.set()
    release.wait(60)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    loop = Loop(monkeypatch)
    yield loop
    loop.release.set()
    loop.thread.join(10)


def test_nothing_while_it_comes_round(loop: Loop) -> None:
    assert loop.look(29) == []
    loop.heartbeat.beat()
    assert loop.look(29) == []


def test_one_error_that_says_where_it_is_without_any_value(loop: Loop) -> None:
    (entry,) = loop.look(31)
    assert (entry["event"], entry["log_level"]) == ("the consumer hangs", "error")
    assert entry["problem"] == "the loop has not come round for 31 s"
    assert "in hang_with\n    release.wait(60)" in entry["stack"]
    assert "pa55word" not in entry["stack"]
    assert loop.look(10) == []


def test_one_line_when_it_comes_round_again_and_an_error_for_the_next_time(loop: Loop) -> None:
    loop.look(31)
    loop.heartbeat.beat()
    assert [(entry["event"], entry["log_level"]) for entry in loop.look(1)] == [("the consumer goes on", "info")]
    assert loop.look(1) == []
    assert len(loop.look(31)) == 1


def test_a_thread_that_has_ended_has_no_stack(loop: Loop) -> None:
    loop.release.set()
    loop.thread.join(10)
    (entry,) = loop.look(31)
    assert entry["stack"] == "the thread has ended"
