"""When a consumer halts since too many of the last messages are unusable."""

from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from consumer_service.metrics import ConsumerMetrics
from consumer_service.pipeline import Rejected
from consumer_service.rejected_share import RejectedShare
from consumer_service.sources import Record
from libaggregator.build import BuildFacts
from libaggregator.messages import Reason


def limit(most: float, window: int) -> RejectedShare:
    return RejectedShare(most, window, ConsumerMetrics(CollectorRegistry(), BuildFacts()))


def at(offset: int, partition: int = 0) -> Record:
    return Record("results", partition, offset, None, b"", (), None)


def records(first: int, count: int, partition: int = 0) -> list[Record]:
    return [at(offset, partition) for offset in range(first, first + count)]


def rejected(of: Sequence[Record], reason: Reason = Reason.NOT_JSON) -> list[Rejected]:
    return [Rejected(record, reason, "detail") for record in of]


@pytest.mark.parametrize(
    ("most", "bad", "goes_on"),
    [(0.5, 5, True), (0.5, 6, False), (0.05, 1, False), (0.1, 1, True), (0.99, 10, False), (1, 10, True)],
)
def test_it_halts_above_the_share_and_not_at_it(most: float, bad: int, goes_on: bool) -> None:
    batch = records(0, 10)
    assert limit(most, 10).admits(batch, rejected(batch[:bad])) is goes_on


def test_without_a_share_it_never_halts() -> None:
    share = limit(0, 10)
    for start in range(0, 10_000, 1000):
        batch = records(start, 1000)
        assert share.admits(batch, rejected(batch))
    assert share.problem() is None


def test_it_does_not_halt_before_the_window_is_full() -> None:
    share = limit(0.1, 10)
    nine, tenth = records(0, 9), records(9, 1)
    assert share.admits(nine, rejected(nine))
    assert not share.admits(tenth, [])


def test_only_the_last_messages_count() -> None:
    share = limit(0.5, 10)
    for batch, bad in ((records(0, 10), 5), (records(10, 5), 5), (records(15, 5), 0)):
        assert share.admits(batch, rejected(batch[:bad]))
    # the five bad ones of the first batch have gone meanwhile, those of the second have not
    last = records(20, 1)
    assert share.admits(last, rejected(last))


def test_messages_that_come_again_count_once() -> None:
    share = limit(0.5, 10)
    batch = records(0, 6)
    for _ in range(20):
        assert share.admits(batch, rejected(batch))


def test_a_message_that_comes_again_is_one_of_the_last() -> None:
    share = limit(0.4, 10)
    bad, good, others = records(0, 5), records(5, 5), records(10, 5)
    for batch in (bad, good, bad):
        assert share.admits(batch, rejected(batch[:4] if batch is bad else []))
    assert not share.admits(others, rejected(others[:1]))


def test_a_message_that_comes_again_counts_as_what_it_is_then() -> None:
    share = limit(0.5, 10)
    batch = records(0, 9)
    share.admits(batch, rejected(batch))
    assert share.admits(records(0, 10), [])


def test_the_same_offsets_of_another_partition_are_other_messages() -> None:
    share = limit(0.5, 10)
    share.admits(records(0, 5), rejected(records(0, 5)))
    assert not share.admits(records(0, 5, partition=1), rejected(records(0, 5, partition=1)))


def test_what_the_database_refused_counts_when_the_batch_is_counted_again() -> None:
    share = limit(0.5, 10)
    batch = records(0, 10)
    assert share.admits(batch, [])
    assert share.admits(batch, rejected(batch[:5], Reason.NOT_STORABLE))
    assert not share.admits(batch, rejected(batch[:6], Reason.NOT_STORABLE))


def test_a_batch_that_is_longer_than_the_window_is_looked_at_along_its_way() -> None:
    batch = records(0, 30)
    assert not limit(0.5, 10).admits(batch, rejected(batch[5:15]))
    assert limit(0.5, 10).admits(batch, rejected([*batch[0:5], *batch[12:17]]))


def test_a_longer_batch_that_is_counted_again_is_no_mixture_of_its_ends() -> None:
    share = limit(0.5, 10)
    batch = records(0, 20)
    ends = [*batch[:5], *batch[15:]]
    assert share.admits(batch, rejected(ends[:5]))
    assert share.admits(batch, rejected(ends))


def test_it_says_what_happened_where_it_stopped_and_what_to_do() -> None:
    registry = CollectorRegistry()
    share = RejectedShare(0.5, 10, ConsumerMetrics(registry, BuildFacts()))
    batch = [*records(100, 6), *records(7, 4, partition=2)]
    with capture_logs() as logged:
        share.admits(batch, [*rejected(batch[:7]), *rejected(batch[7:9], Reason.BAD_COMPRESSION)])
    (entry,) = logged
    assert entry["log_level"] == "error"
    assert entry["event"].startswith("halted: too many messages are unusable")
    assert (entry["share"], entry["allowed"], entry["window"]) == (0.9, 0.5, 10)
    assert (entry["reason"], entry["count"]) == ("not_json", 7)
    assert entry["stopped_at"] == "results 0 at 100, results 2 at 7"
    assert "consumer.max_rejected_share" in entry["advice"]
    assert (share.problem() or "").startswith("9 of the last 10 messages are unusable, 7 of them not_json")
    assert registry.get_sample_value("aggregator_consumer_halted") == 1
