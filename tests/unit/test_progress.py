"""Which partitions are stalled, with a clock that the test sets."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from consumer_service.metrics import ConsumerMetrics
from consumer_service.progress import ProgressWatch
from consumer_service.sources import Partition, Progress
from libaggregator.build import BuildFacts

FIRST, SECOND = Partition("results", 0), Partition("results", 1)


class Watched:
    """A watch that looks every 30 s and calls a partition stalled after 300."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.registry = CollectorRegistry()
        self.watch = ProgressWatch(300, ConsumerMetrics(self.registry, BuildFacts()), lambda: self.now)

    def look(self, found: Mapping[Partition, Progress], times: int = 1, every: float = 30) -> list[dict[str, Any]]:
        """Show the same progress some times, each after some seconds; return what was logged."""
        with capture_logs() as logged:
            for _ in range(times):
                self.now += every
                self.watch.observe(found)
        return [dict(entry) for entry in logged]

    def stalled(self) -> float | None:
        return self.registry.get_sample_value("aggregator_consumer_stalled_partitions")

    def lag(self, number: int) -> float | None:
        labels = {"topic": "results", "partition": str(number)}
        return self.registry.get_sample_value("aggregator_consumer_lag_messages", labels)


@pytest.fixture
def watched() -> Watched:
    return Watched()


class TestStalled:
    def test_it_is_when_it_stood_still_long_enough_with_records_behind_it(self, watched: Watched) -> None:
        standing = {FIRST: Progress(5, 9)}
        assert watched.look(standing, times=10) == []
        assert (watched.stalled(), watched.watch.problem()) == (0, None)
        (entry,) = watched.look(standing)
        assert entry == {
            "event": "partition stalled",
            "log_level": "warning",
            "topic": "results",
            "partition": 0,
            "position": 5,
            "end": 9,
            "seconds": 300,
        }
        assert watched.stalled() == 1
        assert watched.watch.problem() == "partition 0 of 'results' has stood at offset 5 for 300 s, its end is 9"

    def test_it_is_told_once_and_readiness_goes_on_telling(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9)}, times=11)
        assert watched.look({FIRST: Progress(5, 12)}, times=2) == []
        assert watched.watch.problem() == "partition 0 of 'results' has stood at offset 5 for 360 s, its end is 12"

    def test_its_end_is_told_when_it_moves_on(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9)}, times=11)
        (entry,) = watched.look({FIRST: Progress(6, 9)})
        assert (entry["event"], entry["log_level"]) == ("partition no longer stalled", "info")
        assert (watched.stalled(), watched.watch.problem()) == (0, None)

    def test_each_partition_is_looked_at_by_itself(self, watched: Watched) -> None:
        for offset in range(12):
            watched.look({FIRST: Progress(5, 9), SECOND: Progress(offset, 99)})
        assert watched.stalled() == 1
        assert "partition 1" not in (watched.watch.problem() or "")

    def test_all_are_named(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9), SECOND: Progress(6, 8)}, times=11)
        assert watched.stalled() == 2
        assert "partition 0" in (watched.watch.problem() or "")
        assert "partition 1" in (watched.watch.problem() or "")


class TestNotStalled:
    def test_at_the_end_of_the_partition_it_waits_for_records(self, watched: Watched) -> None:
        assert watched.look({FIRST: Progress(9, 9)}, times=100) == []
        assert watched.look({FIRST: Progress(9, 10)}, times=10) == []

    def test_beyond_an_end_that_a_broker_tells_too_low(self, watched: Watched) -> None:
        assert watched.look({FIRST: Progress(9, 7)}, times=100) == []
        assert watched.lag(0) == 0

    def test_moving_ever_so_slowly(self, watched: Watched) -> None:
        for position in range(5):
            assert watched.look({FIRST: Progress(position, 9)}, times=9) == []

    def test_moving_back(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9)}, times=8)
        assert watched.look({FIRST: Progress(0, 9)}, times=10) == []

    def test_newly_assigned_at_the_same_position(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9, assignment=1)}, times=8)
        assert watched.look({FIRST: Progress(5, 9, assignment=2)}, times=10) == []

    def test_away_in_between(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9)}, times=8)
        watched.look({})
        assert watched.look({FIRST: Progress(5, 9)}, times=10) == []

    def test_after_something_else_had_to_be_waited_for(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9)}, times=8)
        watched.watch.forget("an outage")
        assert watched.look({FIRST: Progress(5, 9)}, times=9) == []

    def test_when_nobody_looked_for_a_while(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9)}, times=8)
        assert watched.look({FIRST: Progress(5, 9)}, every=1000) == []
        assert watched.look({FIRST: Progress(5, 9)}, times=9) == []

    @pytest.mark.parametrize("reason", ["taken away", "outage"])
    def test_any_more_once_it_is_taken_away_or_an_outage_begins(self, watched: Watched, reason: str) -> None:
        watched.look({FIRST: Progress(5, 9)}, times=11)
        with capture_logs() as logged:
            if reason == "outage":
                watched.watch.forget("the source is away")
            else:
                watched.look({})
        assert watched.stalled() == 0
        assert watched.watch.problem() is None
        if reason == "outage":
            assert [(entry["event"], entry["reason"]) for entry in logged] == [
                ("partition no longer stalled", "the source is away")
            ]


class TestLag:
    def test_it_is_what_is_between_position_and_end_of_each_partition(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9), SECOND: Progress(3, 3)})
        assert (watched.lag(0), watched.lag(1)) == (4, 0)

    def test_of_a_partition_that_is_taken_away_there_is_none(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9), SECOND: Progress(3, 3)})
        watched.look({SECOND: Progress(3, 4)})
        assert (watched.lag(0), watched.lag(1)) == (None, 1)

    def test_in_an_outage_it_stays_what_it_was(self, watched: Watched) -> None:
        watched.look({FIRST: Progress(5, 9)})
        watched.watch.forget("an outage")
        assert watched.lag(0) == 4


def test_looks_are_due_four_times_in_the_time_and_at_least_every_half_minute() -> None:
    clock = SimpleNamespace(now=1000.0)
    for stalled_after, interval in ((20.0, 5.0), (300.0, 30.0), (3600.0, 30.0)):
        watch = ProgressWatch(stalled_after, ConsumerMetrics(CollectorRegistry(), BuildFacts()), lambda: clock.now)
        assert watch.is_due()
        watch.observe({})
        clock.now += interval - 0.1
        assert not watch.is_due()
        clock.now += 0.2
        assert watch.is_due()
