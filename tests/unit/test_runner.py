"""The order of things in the consumer's loop, in quiet times and in outages, with parts that follow a script."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from consumer_service import pipeline
from consumer_service.engines import Conflict
from consumer_service.metrics import ConsumerMetrics
from consumer_service.pipeline import Accepted, Pipeline, Rejected, Skipped, SkipReason
from consumer_service.progress import ProgressWatch
from consumer_service.rejected_share import RejectedShare
from consumer_service.runner import BatchLimit, Outages, Runner
from consumer_service.sources import DeadLetter, Delivery, Partition, Progress, Record, SourceUnavailable
from consumer_service.writer import Written
from libaggregator.admin import Heartbeat
from libaggregator.build import BuildFacts
from libaggregator.messages import Limits, Reason
from tests.storage.conftest import NOON
from tests.support.messages import CLUSTERS, HitSpec, payload, record

GOOD = record(payload(), 0)
BAD = record(b"not a message", 1)
EMPTY = record(payload(cluster=CLUSTERS[1], Report={}), 2)

STALLED_AFTER = 20.0

Step = BaseException | None


def database_error(state: str | None = None) -> psycopg2.OperationalError:
    """Return an error as the driver raises it, which sets `pgcode` where Python can't."""
    return type("Raised", (psycopg2.OperationalError,), {"pgcode": state})("the server says no")


@dataclass
class World:
    """Everything around the loop: what each part does next, what was called, and the time."""

    polls: list[Sequence[Record] | BaseException] = field(default_factory=list)
    writes: list[BaseException] = field(default_factory=list)
    pings: list[BaseException] = field(default_factory=list)
    letters: list[BaseException] = field(default_factory=list)
    commits: list[BaseException] = field(default_factory=list)
    not_storable: set[int] = field(default_factory=set)
    stale: set[int] = field(default_factory=set)
    too_large: set[int] = field(default_factory=set)
    problem_text: str | None = None
    progress: dict[Partition, Progress] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    batches: list[tuple[list[int], list[int]]] = field(default_factory=list)
    sent: list[DeadLetter] = field(default_factory=list)
    committed: list[dict[Partition, int]] = field(default_factory=list)
    asked_for: list[int] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    progress_calls: list[float] = field(default_factory=list)
    now: float = 1000.0
    write_seconds: float = 0.0
    on_call: Callable[[str], None] = lambda name: None

    def __post_init__(self) -> None:
        self.stop = Event()
        self.registry = CollectorRegistry()
        self.metrics = ConsumerMetrics(self.registry, BuildFacts())
        self.outages = Outages(self.metrics)
        self.limit = BatchLimit(1000, 300)
        self.progress_watch = ProgressWatch(STALLED_AFTER, self.metrics, lambda: self.now)
        self.rejected_share = RejectedShare(0, 1000, self.metrics)
        self.beats = 0

    def called(self, name: str, script: list[BaseException]) -> None:
        self.calls.append(name)
        self.on_call(name)
        if script:
            raise script.pop(0)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"aggregator_consumer_{name}", labels) or 0.0

    def run(self) -> list[dict[str, Any]]:
        """Run the loop to its end and return what it logged."""
        runner = Runner(
            source=Source(self),
            pipeline=Pipeline(Limits(), None, lambda: NOON),
            writer=Writer(self),  # type: ignore[arg-type]
            limit=self.limit,
            metrics=self.metrics,
            outages=self.outages,
            progress=self.progress_watch,
            rejected_share=self.rejected_share,
            heartbeat=CountingHeartbeat(self),
            stop=self.stop,
        )
        with capture_logs() as logged:
            runner.run()
        return [dict(entry) for entry in logged]


class CountingHeartbeat(Heartbeat):
    def __init__(self, world: World) -> None:
        super().__init__(60)
        self._world = world

    def beat(self) -> None:
        self._world.beats += 1


class Source:
    """A source that is exhausted at the end of its script."""

    def __init__(self, world: World) -> None:
        self._world = world

    def poll(self, timeout: float, max_records: int) -> Sequence[Record]:
        world = self._world
        world.asked_for.append(max_records)
        world.called("poll", [])
        world.now += timeout
        found = world.polls.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    def keep_alive(self, timeout: float) -> None:
        world = self._world
        world.waited.append(timeout)
        world.called("keep_alive", [])
        world.now += timeout

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        self._world.called("commit", self._world.commits)
        self._world.committed.append(dict(offsets))

    def send_dead_letters(self, letters: Sequence[DeadLetter]) -> Delivery:
        world = self._world
        world.called("dead_letters", world.letters)
        world.sent += letters
        refused = [letter for letter in letters if letter.record.offset in world.too_large]
        return Delivery(len(letters) - len(refused), refused)

    def progress(self) -> dict[Partition, Progress]:
        self._world.progress_calls.append(self._world.now)
        return self._world.progress

    def problem(self) -> str | None:
        return self._world.problem_text

    @property
    def exhausted(self) -> bool:
        return not self._world.polls

    def close(self) -> None:
        self._world.calls.append("close")


class Writer:
    def __init__(self, world: World) -> None:
        self._world = world

    def write(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected]) -> Written:
        world = self._world
        world.batches.append(([a.record.offset for a in accepted], [r.record.offset for r in rejected]))
        world.now += world.write_seconds
        world.called("write", world.writes)
        written = Written(rejected=list(rejected))
        for entry in accepted:
            if entry.record.offset in world.not_storable:
                written.rejected.append(Rejected(entry.record, Reason.NOT_STORABLE, "the database refuses it"))
            elif entry.record.offset in world.stale:
                written.stale.append(Skipped(entry.record, SkipReason.STALE))
            else:
                written.stored.append(entry)
        return written

    def ping(self) -> None:
        self._world.called("ping", self._world.pings)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world in which time passes only where somebody waits."""
    world = World()
    monkeypatch.setattr("consumer_service.runner.time", SimpleNamespace(monotonic=lambda: world.now))
    return world


def without_waiting(calls: Sequence[str]) -> list[str]:
    return [call for call in calls if call != "keep_alive"]


def levels(logged: Sequence[Mapping[str, Any]], text: str) -> list[str]:
    return [entry["log_level"] for entry in logged if text in entry["event"]]


class TestOneBatch:
    def test_it_is_written_then_dead_letters_are_sent_then_offsets_are_committed(self, world: World) -> None:
        world.polls = [[GOOD, BAD]]
        world.run()
        assert world.calls == ["poll", "write", "dead_letters", "commit"]

    def test_without_a_rejected_message_no_dead_letter_is_sent(self, world: World) -> None:
        world.polls = [[GOOD, EMPTY]]
        world.run()
        assert world.calls == ["poll", "write", "commit"]

    def test_all_records_of_one_poll_are_written_at_once(self, world: World) -> None:
        world.polls = [[GOOD, BAD, EMPTY]]
        world.run()
        assert world.batches == [([0], [1])]

    def test_each_rejected_record_becomes_a_dead_letter_also_what_the_database_refused(self, world: World) -> None:
        refused = record(payload(cluster=CLUSTERS[2]), 7)
        world.polls, world.not_storable = [[BAD, GOOD, refused]], {7}
        world.run()
        letters = {letter.record.offset: (letter.record, letter.reason) for letter in world.sent}
        assert letters == {1: (BAD, "not_json"), 7: (refused, "not_storable")}
        assert all(letter.detail for letter in world.sent)

    def test_the_offset_after_the_last_record_of_each_partition_is_committed_whatever_became_of_it(
        self, world: World
    ) -> None:
        def at(partition: int, offset: int, value: bytes) -> Record:
            return Record("results", partition, offset, None, value, (), None)

        world.polls = [
            [
                at(0, 5, payload()),
                at(1, 7, b"bad"),
                at(0, 6, payload(Report={})),
                at(2, 9, payload(cluster=CLUSTERS[1])),
                at(1, 12, b"bad"),
            ],
            [at(0, 7, payload())],
        ]
        world.stale = {9}
        world.run()
        assert world.committed == [
            {Partition("results", 0): 7, Partition("results", 1): 13, Partition("results", 2): 10},
            {Partition("results", 0): 8},
        ]

    def test_it_is_finished_and_committed_before_the_next_one_is_polled(self, world: World) -> None:
        world.polls = [[GOOD], [BAD], [EMPTY]]
        world.run()
        assert world.calls == [
            *("poll", "write", "commit"),
            *("poll", "write", "dead_letters", "commit"),
            *("poll", "write", "commit"),
        ]

    def test_a_dead_letter_that_is_too_large_is_logged_and_counted_and_not_waited_for(self, world: World) -> None:
        world.polls, world.too_large = [[BAD, record(b"also bad", 5)]], {5}
        logged = world.run()
        assert world.calls == ["poll", "write", "dead_letters", "commit"]
        assert world.value("dead_letters_total", result="sent") == 1
        assert world.value("dead_letters_total", result="too_large") == 1
        (entry,) = [entry for entry in logged if "too large" in entry["event"]]
        assert (entry["topic"], entry["partition"], entry["offset"]) == ("results", 0, 5)

    def test_each_message_is_counted_and_each_rejected_one_is_logged_with_its_place(self, world: World) -> None:
        others = [record(payload(cluster=CLUSTERS[1]), 10), record(payload(cluster=CLUSTERS[2]), 11)]
        world.polls, world.stale, world.not_storable = [[GOOD, BAD, EMPTY, *others]], {10}, {11}
        logged = world.run()
        counted = {
            (outcome, reason): world.value("messages_total", outcome=outcome, reason=reason)
            for outcome, reason in [
                ("stored", ""),
                ("skipped", "empty_report"),
                ("skipped", "stale"),
                ("skipped", "not_allowlisted"),
                ("rejected", "not_json"),
                ("rejected", "not_storable"),
            ]
        }
        assert counted == {**dict.fromkeys(counted, 1.0), ("skipped", "not_allowlisted"): 0.0}
        assert world.value("batch_messages_sum") == 5
        rejections = [entry for entry in logged if entry["event"] == "message rejected"]
        assert [(entry["offset"], entry["reason"], entry["log_level"]) for entry in rejections] == [
            (1, "not_json", "warning"),
            (11, "not_storable", "warning"),
        ]
        (done,) = [entry for entry in logged if entry["event"] == "batch done"]
        assert (done["stored"], done["skipped"], done["rejected"]) == (1, 2, 2)

    def test_for_debugging_each_stored_message_is_logged_with_its_place_and_its_request(self, world: World) -> None:
        world.polls = [[record(payload(org_id=7, RequestId="r-1"), 5)]]
        (entry,) = [entry for entry in world.run() if entry["event"] == "message stored"]
        assert (entry["offset"], entry["org_id"], entry["cluster"], entry["request_id"]) == (5, 7, CLUSTERS[0], "r-1")
        assert entry["log_level"] == "debug"


class TestIdle:
    def test_a_poll_without_records_writes_and_commits_nothing(self, world: World) -> None:
        world.polls = [[], [], []]
        world.run()
        assert "write" not in world.calls
        assert "commit" not in world.calls

    def test_the_database_is_asked_for_a_sign_of_life_now_and_then(self, world: World) -> None:
        world.polls = [[] for _ in range(60)]
        world.run()
        # half a second each
        assert 5 <= world.calls.count("ping") <= 8

    def test_an_outage_of_the_database_is_noticed_while_there_is_nothing_to_write(self, world: World) -> None:
        world.polls, world.pings = [[], [GOOD]], [database_error(), database_error()]
        logged = world.run()
        assert without_waiting(world.calls) == ["poll", "ping", "ping", "ping", "poll", "write", "commit"]
        assert levels(logged, "database unavailable") == ["warning"]

    def test_the_loop_tells_that_it_comes_round(self, world: World) -> None:
        world.polls = [[] for _ in range(5)]
        world.run()
        assert world.beats >= 5

    def test_a_source_that_has_ended_ends_the_loop_after_its_last_batch(self, world: World) -> None:
        world.polls = [[GOOD]]
        world.run()
        assert world.committed == [{Partition("results", 0): 1}]
        assert not world.stop.is_set()


class TestOutageOfTheDatabase:
    @pytest.mark.parametrize("state", [None, "57P01", "08006", "53300", "57014", "42P01", "XX000"])
    def test_the_same_batch_is_written_again_until_it_is_stored_and_only_then_committed(
        self, world: World, state: str | None
    ) -> None:
        world.polls, world.writes = [[GOOD, BAD]], [database_error(state) for _ in range(4)]
        world.run()
        assert without_waiting(world.calls) == ["poll", *["write"] * 5, "dead_letters", "commit"]
        assert world.batches == [([0], [1])] * 5

    def test_it_is_reported_once_and_its_end_too(self, world: World) -> None:
        world.polls, world.writes = [[GOOD], [GOOD]], [database_error() for _ in range(6)]
        logged = world.run()
        assert levels(logged, "database unavailable") == ["warning"]
        assert levels(logged, "database available again") == ["info"]
        (entry,) = [entry for entry in logged if "database unavailable" in entry["event"]]
        assert entry["problem"] == "the server says no"

    def test_the_next_one_is_reported_again(self, world: World) -> None:
        world.polls, world.writes = [[GOOD], [GOOD]], [database_error()]

        def fail_the_second_batch(name: str) -> None:
            if name == "commit" and len(world.committed) == 0:
                world.writes.append(database_error())

        world.on_call = fail_the_second_batch
        logged = world.run()
        assert levels(logged, "database unavailable") == ["warning", "warning"]
        assert levels(logged, "database available again") == ["info", "info"]

    def test_readiness_and_metrics_show_it_while_it_lasts(self, world: World) -> None:
        seen: list[tuple[str | None, float]] = []

        def look(name: str) -> None:
            if name in ("keep_alive", "commit"):
                seen.append((world.outages.problem("database"), world.value("available", part="database")))

        world.polls, world.writes, world.on_call = [[GOOD]], [database_error()], look
        world.run()
        assert seen[0] == ("the server says no", 0.0)
        assert seen[-1] == (None, 1.0)
        assert world.value("retries_total", step="write") == 1
        assert world.value("conflicts_total") == 0

    def test_the_group_is_kept_alive_and_nothing_else_is_polled(self, world: World) -> None:
        world.polls, world.writes = [[GOOD], [GOOD]], [database_error() for _ in range(20)]
        world.run()
        first_commit = world.calls.index("commit")
        assert world.calls[:first_commit].count("poll") == 1
        assert world.calls.count("keep_alive") >= 20
        assert max(world.waited) <= 0.5
        assert world.beats >= world.calls.count("keep_alive")

    def test_the_pauses_grow_from_a_fraction_of_a_second_to_some_ten_seconds(self, world: World) -> None:
        attempts: list[float] = []

        def look(name: str) -> None:
            if name == "write":
                attempts.append(world.now)

        world.polls, world.writes, world.on_call = [[GOOD]], [database_error() for _ in range(14)], look
        world.run()
        pauses = [after - before for before, after in itertools.pairwise(attempts)]
        assert pauses[0] < 0.5
        assert 9 < pauses[-1] < 12
        assert max(pauses) < 12

    def test_a_message_is_counted_once_however_often_it_was_written(self, world: World) -> None:
        world.polls, world.writes = [[GOOD, BAD]], [database_error(), Conflict("x"), database_error("40001")]
        logged = world.run()
        assert world.value("messages_total", outcome="stored", reason="") == 1
        assert world.value("messages_total", outcome="rejected", reason="not_json") == 1
        assert len([entry for entry in logged if entry["event"] == "message rejected"]) == 1

    def test_an_error_of_the_program_is_neither_waited_out_nor_committed(self, world: World) -> None:
        world.polls, world.writes = [[GOOD]], [ValueError("a mistake")]
        with pytest.raises(ValueError, match="a mistake"):
            world.run()
        assert "commit" not in world.calls


class TestConflict:
    @pytest.mark.parametrize(
        "error",
        [Conflict("another consumer was faster"), *map(database_error, ("40001", "40P01", "23505"))],
        ids=["conflict", "40001", "40P01", "23505"],
    )
    def test_the_batch_is_done_again_and_it_is_no_outage(self, world: World, error: BaseException) -> None:
        seen: list[str | None] = []

        def fail_the_second_batch(name: str) -> None:
            if name == "keep_alive":
                seen.append(world.outages.problem("database"))
            if name == "poll" and world.committed:
                world.writes.append(error)

        world.polls, world.on_call = [[GOOD], [GOOD]], fail_the_second_batch
        logged = world.run()
        assert without_waiting(world.calls) == ["poll", "write", "commit", "poll", "write", "write", "commit"]
        assert set(seen) == {None}
        assert levels(logged, "unavailable") == []
        assert levels(logged, "conflict with another consumer") == ["info"]
        assert world.value("conflicts_total") == 1


class TestOutageOfTheSource:
    @pytest.mark.parametrize(
        ("script", "expected"),
        [
            ("polls", ["poll", "poll", "poll", "write", "dead_letters", "commit"]),
            ("letters", ["poll", "write", "dead_letters", "dead_letters", "dead_letters", "commit"]),
            ("commits", ["poll", "write", "dead_letters", "commit", "commit", "commit"]),
        ],
    )
    def test_the_step_is_done_again_and_the_outage_is_reported_once(
        self, world: World, script: str, expected: list[str]
    ) -> None:
        world.polls = [[GOOD, BAD]]
        errors: list[Any] = [SourceUnavailable("no broker"), SourceUnavailable("no broker")]
        setattr(world, script, [*errors, *getattr(world, script)])
        logged = world.run()
        assert without_waiting(world.calls) == expected
        assert levels(logged, "source unavailable") == ["warning"]
        assert levels(logged, "source available again") == ["info"]
        assert world.committed == [{Partition("results", 0): 2}]
        assert len(world.sent) == 1

    def test_a_problem_that_a_source_has_without_an_error_is_shown_and_reported_once(self, world: World) -> None:
        world.polls, world.problem_text = [[], [], []], "waiting for the topic"
        logged = world.run()
        assert world.outages.problem("source") == "waiting for the topic"
        assert levels(logged, "source unavailable") == ["warning"]
        assert world.value("available", part="source") == 0

    def test_each_poll_that_has_to_be_done_again_is_counted_with_an_error_or_without(self, world: World) -> None:
        problems = {2: "no connection to the broker", 3: "no connection to the broker"}

        def away_for_two_polls(name: str) -> None:
            if name == "poll":
                world.problem_text = problems.get(world.calls.count("poll"))

        world.polls, world.on_call = [[GOOD], [], [], [], SourceUnavailable("no broker"), [GOOD]], away_for_two_polls
        world.run()
        assert world.value("retries_total", step="poll") == 3

    def test_a_poll_that_brings_records_is_not_counted_though_another_broker_is_silent(self, world: World) -> None:
        world.polls, world.problem_text = [[GOOD]], "no answer from another:9092 for 12 s"
        world.run()
        assert world.value("retries_total", step="poll") == 0

    def test_each_outage_counts_once_however_often_a_step_is_done_again(self, world: World) -> None:
        away = SourceUnavailable("no broker")
        world.polls = [away, away, [GOOD], away, [GOOD]]
        world.writes = [database_error(), database_error(), database_error()]
        world.run()
        assert world.value("outages_total", part="source") == 2
        assert world.value("outages_total", part="database") == 1


class TestWhatIsMeasured:
    @pytest.mark.parametrize(
        ("polls", "expected"),
        [
            ([[GOOD, BAD], [], [EMPTY]], [(2, 0), (3, 2)]),
            ([[GOOD], [BAD], [EMPTY]], [(1, 0), (2, 0), (3, 1)]),
        ],
        ids=["after a poll without records", "after the next commit"],
    )
    def test_offsets_are_handled_before_they_are_committed_and_committed_when_the_broker_has_them(
        self, world: World, polls: list[Sequence[Record] | BaseException], expected: list[tuple[float, float]]
    ) -> None:
        partition = Partition("results", 0)
        labels = {"topic": partition.topic, "partition": str(partition.number)}
        seen: list[tuple[float, float]] = []

        def look(name: str) -> None:
            if name == "commit":
                seen.append((world.value("handled_offset", **labels), world.value("committed_offset", **labels)))

        world.polls, world.on_call, world.progress = polls, look, {partition: Progress(9, 9)}
        world.run()
        assert seen == expected

    def test_a_partition_that_is_not_read_here_any_more_has_no_offsets(self, world: World) -> None:
        world.polls = [[GOOD], [], []]
        world.run()
        labels = {"topic": "results", "partition": "0"}
        assert world.registry.get_sample_value("aggregator_consumer_handled_offset", labels) is None
        assert world.registry.get_sample_value("aggregator_consumer_committed_offset", labels) is None

    def test_a_partition_that_was_assigned_again_has_offsets_from_its_next_record_on(self, world: World) -> None:
        partition = Partition("results", 0)

        def assigned_again_at_the_second_poll(name: str) -> None:
            if name == "poll":
                world.progress = {partition: Progress(9, 9)} if world.calls.count("poll") > 1 else {}

        world.polls, world.on_call = [[GOOD], [], [BAD], []], assigned_again_at_the_second_poll
        world.run()
        assert world.value("handled_offset", topic="results", partition="0") == 2
        assert world.value("committed_offset", topic="results", partition="0") == 2

    def test_messages_share_the_time_in_which_their_batch_was_written(self, world: World) -> None:
        world.polls, world.write_seconds = [[GOOD, BAD, EMPTY]], 6.0
        world.run()
        assert world.value("message_seconds_sum", outcome="stored") == 2
        assert world.value("message_seconds_sum", outcome="rejected") == 2
        assert world.value("message_seconds_count", outcome="skipped") == 1

    def test_every_batch_is_timed(self, world: World) -> None:
        world.polls = [[GOOD], [], [BAD, EMPTY]]
        world.run()
        assert world.value("batch_seconds_count") == 2
        assert world.value("batch_messages_sum") == 3
        assert world.value("step_seconds_count", step="write") == 2


STANDING = {Partition("results", 3): Progress(position=5, end=9, assignment=1)}


class TestStalledPartitions:
    """A poll takes half a second, and a partition that stands still is stalled after twenty."""

    def run_idle(self, world: World, seconds: float) -> list[dict[str, Any]]:
        world.polls = [[] for _ in range(round(2 * seconds))]
        return world.run()

    def test_one_that_stands_still_is_told_in_log_metric_and_readiness(self, world: World) -> None:
        world.progress = STANDING
        logged = self.run_idle(world, 30)
        assert levels(logged, "partition stalled") == ["warning"]
        assert world.value("stalled_partitions") == 1
        assert "partition 3 of 'results'" in (world.progress_watch.problem() or "")

    def test_the_source_is_asked_now_and_then(self, world: World) -> None:
        self.run_idle(world, 30)
        assert 5 <= len(world.progress_calls) <= 8

    @pytest.mark.parametrize("script", ["writes", "pings", "letters", "commits", "polls"])
    def test_an_outage_that_lasts_longer_is_none(self, world: World, script: str) -> None:
        away = database_error() if script in ("writes", "pings") else SourceUnavailable("no broker")

        def begins(name: str) -> None:
            # known to stand still for a while before
            if name == "poll" and world.now >= 1015 and not began:
                began.append(True)
                if script == "polls":
                    world.polls[:0] = [away] * 12
                else:
                    getattr(world, script).extend([away] * 12)

        began: list[bool] = []
        world.progress, world.on_call = STANDING, begins
        world.polls = [*[[] for _ in range(31)], [BAD], *[[] for _ in range(30)]]
        logged = world.run()
        assert sum(world.waited) > 2 * STALLED_AFTER
        assert levels(logged, "partition stalled") == []
        assert world.value("stalled_partitions") == 0

    def test_an_outage_of_a_few_seconds_begins_the_count_anew(self, world: World) -> None:
        def fail_for_a_moment(name: str) -> None:
            if name == "ping" and 1012 < world.now < 1017:
                world.pings.append(database_error())

        world.progress, world.on_call = STANDING, fail_for_a_moment
        logged = self.run_idle(world, 24)
        assert 1 < sum(world.waited) < STALLED_AFTER / 2
        assert levels(logged, "partition stalled") == []

    def test_it_is_not_asked_about_in_an_outage(self, world: World) -> None:
        world.problem_text = "waiting for the topic"
        self.run_idle(world, 30)
        assert world.progress_calls == []

    def test_a_problem_that_a_source_tells_without_an_error_is_none(self, world: World) -> None:
        def away_for_a_moment(name: str) -> None:
            world.problem_text = "no connection" if name == "poll" and len(world.polls) == 25 else None

        world.progress, world.on_call = STANDING, away_for_a_moment
        logged = self.run_idle(world, 30)
        assert levels(logged, "partition stalled") == []

    def test_a_batch_that_takes_longer_is_none(self, world: World) -> None:
        world.progress, world.write_seconds = STANDING, 15
        world.polls = [[record(payload(), offset)] for offset in range(10)]
        assert levels(world.run(), "partition stalled") == []


class TestHalt:
    def halting(self, world: World, most: float = 0.5, window: int = 4) -> None:
        world.rejected_share = RejectedShare(most, window, world.metrics)

    def stop_when_halted(self, world: World) -> None:
        world.on_call = lambda name: world.stop.set() if name == "keep_alive" and len(world.waited) == 5 else None

    def test_the_batch_in_hand_is_neither_written_nor_sent_to_the_dead_letters_nor_committed(
        self, world: World
    ) -> None:
        self.halting(world)
        self.stop_when_halted(world)
        world.polls = [[record(payload(), 0), record(b"bad", 1)], [record(b"bad", 2), record(b"bad", 3)], [GOOD]]
        logged = world.run()
        assert without_waiting(world.calls) == ["poll", "write", "dead_letters", "commit", "poll"]
        assert world.committed == [{Partition("results", 0): 2}]
        assert levels(logged, "halted") == ["error"]
        assert world.value("halted") == 1

    def test_the_group_is_kept_and_the_loop_comes_round_until_it_is_told_to_stop(self, world: World) -> None:
        self.halting(world, window=1)
        self.stop_when_halted(world)
        world.polls = [[BAD]]
        world.run()
        assert world.calls == ["poll", *["keep_alive"] * 5]
        assert world.beats >= 5

    def test_what_only_the_database_refuses_halts_before_its_offsets_are_committed(self, world: World) -> None:
        self.halting(world)
        self.stop_when_halted(world)
        records = [record(payload(), offset) for offset in range(5)]
        world.polls, world.not_storable = [records[:4], records[4:]], {0, 1, 2, 3}
        world.run()
        assert without_waiting(world.calls) == ["poll", "write"]

    def test_batches_before_it_in_the_same_poll_are_committed(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipeline, "BATCH_BYTES", 1)
        self.halting(world, most=0, window=2)
        self.stop_when_halted(world)
        world.rejected_share = RejectedShare(0.1, 2, world.metrics)
        world.polls = [[record(payload(), 0), record(b"bad", 1), record(payload(), 2)]]
        world.run()
        assert world.committed == [{Partition("results", 0): 1}]

    def test_a_halted_consumer_has_no_stalled_partition(self, world: World) -> None:
        self.halting(world, window=1)
        self.stop_when_halted(world)
        world.progress = STANDING
        world.polls = [*[[] for _ in range(60)], [BAD]]
        logged = world.run()
        assert levels(logged, "partition stalled") == ["warning"]
        assert levels(logged, "partition no longer stalled") == ["info"]
        assert world.value("stalled_partitions") == 0

    def test_by_default_everything_is_drained(self, world: World) -> None:
        world.polls = [[record(b"bad", offset) for offset in range(1000)] for _ in range(10)]
        world.run()
        assert len(world.committed) == 10
        assert world.value("halted") == 0


class TestReadiness:
    def test_neither_part_is_ready_before_it_was_used(self, world: World) -> None:
        assert world.outages.problem("database") is not None
        assert world.outages.problem("source") is not None
        world.polls = [[]]
        world.run()
        assert world.outages.problem("database") is None
        assert world.outages.problem("source") is None


class TestStop:
    def stop_at(self, world: World, name: str) -> None:
        world.on_call = lambda called: world.stop.set() if called == name else None

    def test_before_the_start_nothing_is_polled(self, world: World) -> None:
        world.polls = [[GOOD]]
        world.stop.set()
        world.run()
        assert world.calls == []

    @pytest.mark.parametrize("name", ["poll", "write", "dead_letters", "commit"])
    def test_the_batch_in_hand_is_finished_and_committed_and_no_other_one_is_begun(
        self, world: World, name: str
    ) -> None:
        world.polls = [[GOOD, BAD], [GOOD]]
        self.stop_at(world, name)
        world.run()
        assert world.calls == ["poll", "write", "dead_letters", "commit"]
        assert len(world.committed) == 1

    @pytest.mark.parametrize(
        ("script", "error"),
        [
            ("writes", database_error()),
            ("writes", Conflict("another consumer was faster")),
            ("letters", SourceUnavailable("no broker")),
            ("commits", SourceUnavailable("no broker")),
        ],
        ids=["database", "conflict", "dead letters", "commit"],
    )
    def test_during_an_outage_the_batch_is_given_up_and_nothing_is_committed(
        self, world: World, script: str, error: BaseException
    ) -> None:
        world.polls = [[GOOD, BAD], [GOOD]]
        setattr(world, script, [error] * 1000)
        self.stop_at(world, "keep_alive")
        logged = world.run()
        assert world.committed == []
        assert world.calls.count("poll") == 1
        # what it had begun to wait for may be tried once more
        assert len(without_waiting(world.calls)) <= 5
        assert levels(logged, "nothing committed") == ["info"]

    def test_while_the_source_is_away_it_ends(self, world: World) -> None:
        world.polls = [SourceUnavailable("no broker")] * 1000
        self.stop_at(world, "keep_alive")
        world.run()
        assert without_waiting(world.calls) in (["poll"], ["poll", "poll"])

    def test_while_the_database_is_away_and_nothing_is_to_do_it_ends(self, world: World) -> None:
        world.polls, world.pings = [[], [GOOD]], [database_error()] * 1000
        self.stop_at(world, "keep_alive")
        world.run()
        assert without_waiting(world.calls) in (["poll", "ping"], ["poll", "ping", "ping"])
        assert world.committed == []


class TestBatchLimit:
    def test_it_begins_with_the_most_that_is_allowed(self) -> None:
        assert BatchLimit(700, 300).records == 700

    def test_a_slow_write_halves_it_down_to_one(self) -> None:
        limit = BatchLimit(1000, 300)
        found = []
        for _ in range(12):
            limit.observe(limit.records, 101)
            found.append(limit.records)
        assert found == [500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1, 1]

    def test_a_slow_write_of_few_records_brings_it_below_these(self) -> None:
        limit = BatchLimit(1000, 300)
        limit.observe(40, 101)
        assert limit.records == 20

    def test_fast_writes_let_it_grow_again_up_to_the_most(self) -> None:
        limit = BatchLimit(1000, 300)
        limit.observe(8, 101)
        found = []
        for _ in range(9):
            limit.observe(1, 1)
            found.append(limit.records)
        assert found == [8, 16, 32, 64, 128, 256, 512, 1000, 1000]

    def test_writes_in_between_leave_it(self) -> None:
        limit = BatchLimit(1000, 300)
        limit.observe(100, 101)
        for seconds in (26, 60, 99):
            limit.observe(50, seconds)
            assert limit.records == 50

    def test_the_loop_asks_the_source_for_no_more(self, world: World) -> None:
        world.polls = [[GOOD, BAD, EMPTY, record(payload(cluster=CLUSTERS[2]), 3)], [GOOD], [GOOD], []]

        def fast_after_the_first(name: str) -> None:
            if name == "commit":
                world.write_seconds = 0

        world.write_seconds, world.on_call = 150, fast_after_the_first
        world.run()
        assert world.asked_for == [1000, 2, 4, 8]


def test_records_of_a_poll_that_hold_too_much_are_handled_in_several_batches(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [payload(cluster, hits=[HitSpec("x", "K", "y" * 700)]) for cluster in CLUSTERS[:3]]
    monkeypatch.setattr(pipeline, "BATCH_BYTES", int(2.2 * len(texts[0])))
    world.polls = [[record(texts[0], 0), BAD, record(texts[1], 2), record(texts[2], 3)], []]

    world.run()

    assert world.batches == [([0, 2], [1]), ([3], [])]
    assert [list(offsets.values()) for offsets in world.committed] == [[3], [4]]
    assert world.value("messages_total", outcome="stored", reason="") == 3
    # the loop asks for fewer then, twice as many after each quick batch
    assert world.asked_for == [1000, 2 * 3 * 2]


def test_a_report_larger_than_a_batch_may_be_is_a_batch_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BATCH_BYTES", 1)
    world.polls = [[record(payload(cluster), offset) for offset, cluster in enumerate(CLUSTERS[:3])]]
    world.run()
    assert [stored for stored, _ in world.batches] == [[0], [1], [2]]
