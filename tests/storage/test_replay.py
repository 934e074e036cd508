"""Rejected messages that go through the pipeline again, from `consumer_error`, on both engines (`docs/replay.md`)."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from threading import Barrier, Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peewee import Database

from consumer_service import statements
from consumer_service.engines import Conflict, Engine, Row, engine_for
from consumer_service.pipeline import Pipeline
from consumer_service.replay import error_rows, replayer
from consumer_service.replay.error_rows import ErrorRows, with_rows
from consumer_service.replay.letters import Letter, Selection
from consumer_service.replay.replayer import ATTEMPTS, Replayer, Summary
from consumer_service.sources import Record
from consumer_service.statements import Query
from consumer_service.writer import Writer, Written
from libaggregator.messages import Limits, Reason, decode
from tests.storage.conftest import NOON, Store
from tests.storage.test_not_storable import LARGE_ORG, TOO_LONG
from tests.support.databases import migrate_database, open_database
from tests.support.messages import CLUSTERS, HitSpec, payload, record
from tests.support.model import Model
from tests.support.tables import Tables, empty_tables, read_tables
from tests.support.writers import Consumer, Interrupted, without

pytestmark = pytest.mark.usefixtures("plain_logs")

CLUSTER = CLUSTERS[0]
BAD = b"not a message"
A, B = HitSpec("a.report", "K", 1), HitSpec("b.report", "K", 2)
GENEROUS = Limits(max_future_skew=timedelta(days=100_000))
"""With these, a message from the future is as good as any other."""


def future(minute: int = 0, cluster: str = CLUSTER, hits: Sequence[HitSpec] = (A,), org_id: int = 1) -> bytes:
    """Return a message that is rejected with the limits of consumers, and usable with generous ones."""
    return payload(cluster, f"2126-05-01T08:{minute:02}:00Z", hits, org_id, version=f"4.16.{minute}")


def cluster(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


@dataclass
class Replay:
    """A replay of the rows of one database, one page after another."""

    store: Store
    limits: Limits = GENEROUS
    selection: Selection = field(default_factory=Selection)
    allowlist: frozenset[int] | None = None
    dry: bool = False
    page_rows: int = 1000
    wrap: Callable[[Engine], Engine] = lambda engine: engine
    renews_errors: bool = True

    def __post_init__(self) -> None:
        self.summary = Summary()
        self.engine = self.wrap(engine_for(self.store.database, rehearsal=self.dry))
        self.rows = ErrorRows(self.engine, self.selection, self.page_rows)
        pipeline = Pipeline(self.limits, self.allowlist, lambda: self.store.now)
        writer = Writer(self.engine, lambda: self.store.now, keeps_rejected=False)
        self.replayer = Replayer(pipeline, writer, self.engine, renews_errors=self.renews_errors, dry=self.dry)

    def run(self) -> Summary:
        for page in self.rows.pages():
            self.replayer.replay(page.letters, self.summary)
        return self.summary


def tables_and_errors(database: Database) -> tuple[Tables, list[tuple[Any, ...]]]:
    tables = read_tables(database)
    return tables, tables.pop("consumer_error")


def errors(database: Database) -> list[tuple[Any, ...]]:
    return read_tables(database)["consumer_error"]


def outcomes(summary: Summary) -> tuple[int, dict[str, int], dict[str, int]]:
    return summary.stored, dict(summary.skipped), dict(summary.rejected)


class TestWhatSucceeds:
    def test_a_message_whose_time_has_come_is_stored_as_a_live_one_would_be_and_its_row_goes(
        self, store: Store
    ) -> None:
        store.write([record(future(7, hits=[A, B]), 1)])
        now = store.later()
        assert outcomes(Replay(store).run()) == (1, {}, {})
        model = Model()
        model.apply(decode(future(7, hits=[A, B]), GENEROUS, now), now)
        tables, left = tables_and_errors(store.database)
        assert left == []
        assert {table: tables[table] for table in model.tables()} == model.tables()

    def test_a_message_that_was_too_large_is_stored_when_the_limit_is_raised(self, store: Store) -> None:
        value = payload(hits=[HitSpec("a.report", "K", "x" * 11_000_000)])
        store.write([record(value, 1)])
        assert outcomes(Replay(store, Limits()).run()) == (0, {}, {"too_large": 1})
        assert outcomes(Replay(store, Limits(max_bytes=20_000_000)).run()) == (1, {}, {})
        assert errors(store.database) == []

    def test_rows_of_messages_that_are_skipped_go_too(self, store: Store) -> None:
        """Their effect is there already, or not wanted."""
        store.write([record(future(1), 1), record(future(1, CLUSTERS[1], org_id=2), 2)])
        store.write([record(payload(checked="2126-05-01T08:00:00Z", Report={}), 3)])
        store.write([record(payload(checked="2126-05-01T08:00:00Z", hits=[B]), 4)])
        replay = Replay(store, allowlist=frozenset({1}))
        assert outcomes(replay.run()) == (1, {"stale": 1, "empty_report": 1, "not_allowlisted": 1}, {})
        assert errors(store.database) == []

    def test_an_older_message_undoes_nothing(self, store: Store) -> None:
        store.write([record(payload(checked="2126-05-01T08:00:00Z"), 1)])
        Replay(store).run()
        store.later()
        store.write([record(future(0, hits=[B]), 2)])
        before, _ = tables_and_errors(store.database)
        store.later()
        assert outcomes(Replay(store).run()) == (0, {"stale": 1}, {})
        assert tables_and_errors(store.database) == (before, [])

    @pytest.mark.parametrize("key", [None, b"", b"key", b"\xff\x00", b"base64:"])
    def test_bytes_that_are_no_text_come_back_as_they_were(self, store: Store, key: bytes | None) -> None:
        value = b'\x1f\x8b"\x00base64'
        store.write([Record("results", 3, 5_000_000_000, key, value, (), 1_500)])
        (page,) = Replay(store).rows.pages()
        assert [letter.record for letter in page.letters] == [
            Record("results", 3, 5_000_000_000, key, value, (), 1_500)
        ]

    def test_rows_of_one_page_go_in_one_statement(self, store: Store) -> None:
        store.write([record(future(1, cluster(number)), number) for number in range(50)])
        replay = Replay(store, wrap=Counting, page_rows=20)
        replay.run()
        assert isinstance(replay.engine, Counting)
        assert replay.engine.deletions == [20, 20, 10]
        assert errors(store.database) == []


class Counting(Interrupted):
    """An engine that notes how many rows of `consumer_error` each statement was to delete."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, lambda: None)
        self.deletions: list[int] = []

    def run(self, statement: str, rows: Sequence[Row], *values: Any) -> int:
        if statement == statements.DELETE_ERRORS:
            self.deletions.append(len(rows))
        return super().run(statement, rows, *values)


class TestWhatFailsAgain:
    def test_for_the_same_reason_its_row_stays_as_it_was(self, store: Store) -> None:
        store.write([record(BAD, 1, key=b"k"), record(b"\xff", 2, timestamp=None), record(None, 3)])
        before = read_tables(store.database)
        store.later()
        assert outcomes(Replay(store).run()) == (0, {}, {"not_json": 3})
        assert read_tables(store.database) == before

    def test_for_another_reason_its_row_says_so_and_keeps_its_place_and_times(self, store: Store) -> None:
        store.write([record(future(1, org_id=0), 1), record(future(2, hits=[HitSpec("", "K")]), 2, key=b"k")])
        other, before = errors(store.database)
        store.later()
        assert outcomes(Replay(store).run()) == (0, {}, {"bad_attribute": 1, "bad_report": 1})
        same, after = errors(store.database)
        assert same == other
        assert after[:-1] == before[:-1]
        assert before[-1].startswith("from_the_future: ")
        assert after[-1].startswith("bad_report: ")

    def test_it_does_not_keep_others_from_being_stored(self, store: Store) -> None:
        batch = [BAD if number % 3 == 0 else future(number, cluster(number)) for number in range(30)]
        store.write([record(value, number) for number, value in enumerate(batch)])
        assert outcomes(Replay(store, page_rows=7).run()) == (20, {}, {"not_json": 10})
        assert [row[2] for row in errors(store.database)] == sorted(range(0, 30, 3), key=str)

    def test_what_the_database_refuses_again_is_told_and_stays(self, shared_url: str) -> None:
        with_empty = Store(open_database(shared_url))
        clear(with_empty)
        records = [record(payload(cluster(n), hits=[TOO_LONG if n == 5 else A]), n) for n in range(10)]
        with_empty.write(records)
        with_empty.database.execute_sql("DELETE FROM report")
        before = errors(with_empty.database)
        assert len(before) == 1
        with_empty.later()
        assert outcomes(Replay(with_empty).run()) == (0, {}, {"not_storable": 1})
        assert outcomes(Replay(with_empty, dry=True).run()) == (0, {}, {"not_storable": 1})
        assert errors(with_empty.database) == before
        with_empty.database.close()

    def test_what_the_database_refused_is_stored_when_the_database_was_mended(self, postgresql_url: str) -> None:
        store = Store(open_database(migrate_database(postgresql_url)))
        for table in ("report", "rule_hit", "recommendation", "report_info"):
            store.database.execute_sql(f"ALTER TABLE {table} ALTER COLUMN org_id TYPE integer")
        store.write([record(payload(org_id=LARGE_ORG, hits=[A]), 1)])
        assert outcomes(Replay(store).run()) == (0, {}, {"not_storable": 1})
        for table in ("report", "rule_hit", "recommendation", "report_info"):
            store.database.execute_sql(f"ALTER TABLE {table} ALTER COLUMN org_id TYPE bigint")
        assert outcomes(Replay(store).run()) == (1, {}, {})
        assert errors(store.database) == []
        store.database.close()


def clear(store: Store) -> None:
    with store.database.atomic():
        empty_tables(store.database)


class TestSelection:
    def test_by_reason(self, store: Store) -> None:
        store.write([record(BAD, 1), record(future(1, org_id=0), 2), record(future(1), 3), record(b"{}", 4)])
        selection = Selection(frozenset({"bad_attribute", "from_the_future"}))
        assert outcomes(Replay(store, selection=selection).run()) == (1, {}, {"bad_attribute": 1})
        assert {row[2] for row in errors(store.database)} == {1, 2, 4}

    def test_a_reason_is_compared_as_a_whole(self, store: Store) -> None:
        store.write([record(BAD, 1)])
        for text, count in [("not_json: x", 1), ("not_jsonx: x", 0), ("notxjson: x", 0), ("not_json", 0)]:
            store.database.execute_sql(f"UPDATE consumer_error SET error = '{text}'")
            assert Replay(store, selection=Selection(frozenset({"not_json"}))).rows.count() == count

    def test_rows_with_free_text_of_existing_deployments_have_no_reason_and_belong_to_all(self, store: Store) -> None:
        store.write([record(future(1), 1)])
        store.database.execute_sql("UPDATE consumer_error SET error = 'json: cannot unmarshal'")
        every = Selection(frozenset(Reason))
        assert outcomes(Replay(store, selection=every).run()) == (0, {}, {})
        assert outcomes(Replay(store).run()) == (1, {}, {})

    def test_by_time_of_the_rejection(self, store: Store) -> None:
        for offset in range(3):
            store.write([record(future(offset), offset)])
            store.later(1)
        since = NOON + timedelta(seconds=1)
        for selection, left in [(Selection(since=since + timedelta(microseconds=1)), 1), (Selection(since=since), 2)]:
            assert Replay(store, selection=selection, dry=True).rows.count() == left
        Replay(store, selection=Selection(since=since)).run()
        assert [row[2] for row in errors(store.database)] == [0]

    def test_a_most_counts_messages_in_the_order_of_topic_partition_and_offset(self, store: Store) -> None:
        places = [("b", 0, 1), ("a", 1, 2), ("a", 0, 10), ("a", 0, 9)]
        store.write([Record(*place, None, BAD, (), 0) for place in places])
        for most in range(1, 6):
            replay = Replay(store, selection=Selection(most=most), page_rows=2)
            found = [tuple(letter.row or ())[:3] for page in replay.rows.pages() for letter in page.letters]
            assert found == sorted(places)[:most]
            assert replay.rows.count() == min(most, 4)

    def test_every_wanted_row_comes_once_whatever_the_pages(self, store: Store) -> None:
        rng = random.Random(1)
        store.write([Record(f"t{n % 2}", n % 3, rng.randrange(10**12), None, BAD, (), 0) for n in range(100)])
        expected = [row[:3] for row in sorted(errors(store.database))]
        for rows in (1, 7, 100, 1000):
            pages = list(Replay(store, page_rows=rows).rows.pages())
            assert [tuple(letter.row or ())[:3] for page in pages for letter in page.letters] == expected
            assert max(len(page.letters) for page in pages) <= rows
            assert sum(page.passed for page in pages) == 100

    def test_a_page_is_bounded_in_what_it_holds(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes = [10, 400, 400, 400, 5_000, 10, 10]
        store.write([record(b"\xff" * size, place, key=b"k" * 5) for place, size in enumerate(sizes)])
        monkeypatch.setattr(error_rows, "PAGE_BYTES", 1_000)
        pages = [[letter.record.offset for letter in page.letters] for page in Replay(store).rows.pages()]
        assert pages == [[0, 1, 2], [3, 4], [5, 6]]


def test_a_page_is_found_by_the_primary_key_however_large_the_table_is(store: Store) -> None:
    """Otherwise the time of a replay would grow with the square of the rows."""
    store.write([record(BAD, number) for number in range(3_000)])
    replay = Replay(store)
    if store.database.param == "%s":
        store.database.execute_sql("ANALYZE consumer_error")
        explain, scan = "EXPLAIN ", "Seq Scan on consumer_error"
    else:
        explain, scan = "EXPLAIN QUERY PLAN ", "SCAN consumer_error"
    sized = list(replay.rows._places())[1_000:2_000]
    rows = [letter.row for page in replay.rows.pages() for letter in page.letters if letter.row][1_000:2_000]
    # in a transaction of the engine PostgreSQL takes an index where it can, however small the table
    with replay.engine.transaction():
        found = replay.engine.read(explain + statements.FIND_ERRORS.format(only=""), "results", 0, 1_000, 1_000)
        read = list(replay.engine.select(Query(explain + statements.READ_ERRORS.text), sized))
        deleted = list(replay.engine.select(Query(explain + statements.DELETE_ERRORS), rows))
    for plan in (found, read, deleted):
        text = "\n".join(str(row) for row in plan)
        assert "topic_offset" in text
        assert scan not in text


class TestDryRun:
    @given(
        offsets=st.lists(
            st.sampled_from(
                [
                    BAD,
                    future(1),
                    future(2, hits=[B], org_id=2),
                    future(3, CLUSTERS[1]),
                    payload(checked="2126-05-01T08:00:00Z", Report={}),
                    future(4, CLUSTERS[1], org_id=3),
                ]
            ),
            max_size=6,
        ),
        known=st.booleans(),
    )
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_it_tells_what_happens_and_changes_nothing(self, store: Store, offsets: list[bytes], known: bool) -> None:
        clear(store)
        if known:
            store.write([record(future(2), 99)])
            Replay(store).run()
        store.write([record(value, offset) for offset, value in enumerate(offsets)])
        before = read_tables(store.database)
        told = outcomes(Replay(store, dry=True, allowlist=frozenset({1, 2})).run())
        assert read_tables(store.database) == before
        assert told == outcomes(Replay(store, allowlist=frozenset({1, 2})).run())

    def test_it_tells_of_a_message_that_the_database_refuses_among_many(self, shared_url: str) -> None:
        store = Store(open_database(shared_url))
        clear(store)
        values = [future(1, cluster(n), [TOO_LONG if n == 30 else A]) for n in range(60)]
        store.write([record(value, n) for n, value in enumerate(values)])
        before = read_tables(store.database)
        assert outcomes(Replay(store, dry=True).run()) == (59, {}, {"not_storable": 1})
        assert read_tables(store.database) == before
        store.database.close()


class TestOthersInTheWay:
    def test_a_row_that_was_replaced_meanwhile_stays(self, store: Store) -> None:
        store.write([record(future(1), 1), record(future(1, CLUSTERS[1]), 2)])
        replay = Replay(store)
        (page,) = replay.rows.pages()
        store.later()
        store.write([record(BAD, 1)])
        replay.replayer.replay(page.letters, replay.summary)
        assert replay.summary.stored == 2
        ((_, _, offset, _, _, consumed_at, message, _),) = errors(store.database)
        assert (offset, consumed_at, message) == (1, store.now, BAD.decode())

    def test_a_row_that_was_replaced_meanwhile_is_not_told_another_reason(self, store: Store) -> None:
        store.write([record(future(1, hits=[HitSpec("", "K")]), 1)])
        replay = Replay(store)
        (page,) = replay.rows.pages()
        store.later()
        store.write([record(BAD, 1)])
        before = errors(store.database)
        replay.replayer.replay(page.letters, replay.summary)
        assert errors(store.database) == before

    def test_a_row_that_was_replaced_by_a_longer_one_before_it_was_read_is_left(self, store: Store) -> None:
        store.write([record(future(1), 1), record(future(1, CLUSTERS[1]), 2)])
        replay = Replay(store)
        sized = list(replay.rows._places())
        store.write([record(BAD, 1)])
        rows = replay.engine.select(statements.READ_ERRORS, sized)
        assert [row[2] for row in rows] == [2]

    def test_after_an_end_between_writing_and_removing_a_second_run_removes_the_rows(self, store: Store) -> None:
        store.write([record(future(n, cluster(n)), n) for n in range(5)])

        class Killed(Interrupted):
            def run(self, statement: str, rows: Sequence[Row], *values: Any) -> int:
                if statement == statements.DELETE_ERRORS:
                    raise KeyboardInterrupt
                return super().run(statement, rows, *values)

        with pytest.raises(KeyboardInterrupt):
            Replay(store, wrap=partial(Killed, meanwhile=lambda: None)).run()
        before, left = tables_and_errors(store.database)
        assert len(left) == 5
        store.later()
        assert outcomes(Replay(store).run()) == (0, {"stale": 5}, {})
        assert tables_and_errors(store.database) == (before, [])

    def test_a_second_replay_of_the_same_letters_does_nothing_further(self, store: Store) -> None:
        store.write([record(future(n, cluster(n)), n) for n in range(5)])
        first, second = Replay(store), Replay(store)
        pages = [list(replay.rows.pages()) for replay in (first, second)]
        first.replayer.replay(pages[0][0].letters, first.summary)
        before = read_tables(store.database)
        store.later()
        second.replayer.replay(pages[1][0].letters, second.summary)
        assert outcomes(second.summary) == (0, {"stale": 5}, {})
        assert read_tables(store.database) == before

    def test_a_conflict_is_done_again_a_bounded_number_of_times(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replayer, "_LONGEST_PAUSE", 0.0)
        store.write([record(future(1), 1)])

        class Contested(Interrupted):
            conflicts = 0

            def store(self, upsert: Any, rows: Sequence[Row]) -> int:
                if self.conflicts:
                    Contested.conflicts -= 1
                    raise Conflict("another consumer wrote a row of the same cluster")
                return super().store(upsert, rows)

        before = read_tables(store.database)
        Contested.conflicts = ATTEMPTS
        with pytest.raises(Conflict):
            Replay(store, wrap=partial(Contested, meanwhile=lambda: None)).run()
        assert read_tables(store.database) == before
        Contested.conflicts = ATTEMPTS - 1
        assert outcomes(Replay(store, wrap=partial(Contested, meanwhile=lambda: None)).run()) == (1, {}, {})


class TestLettersOfTheTopic:
    def test_they_have_the_row_that_holds_the_same_message_at_the_same_place(self, store: Store) -> None:
        values, keys = [future(1), b"\xff", b"", None], [None, b"", b"k", b"\0"]
        store.write([record(value, n, key) for n, (value, key) in enumerate(zip(values, keys, strict=True))])
        letters = [letter for page in Replay(store).rows.pages() for letter in page.letters]
        bare = [Letter(letter.record) for letter in letters]
        assert with_rows(engine_for(store.database), [*bare, *bare]) == [*letters, *letters]
        assert with_rows(engine_for(store.database), []) == []

    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param({"value": future(2)}, id="another message of the same length"),
            pytest.param({"value": b""}, id="a shorter message"),
            pytest.param({"key": b""}, id="another key"),
            pytest.param({"value": b"k", "key": future(1)[1:]}, id="cut elsewhere"),
            pytest.param({"offset": 2}, id="another offset"),
            pytest.param({"partition": 2}, id="another partition"),
            pytest.param({"topic": "other"}, id="another topic"),
        ],
    )
    def test_they_have_no_row_that_holds_something_else(self, store: Store, changed: dict[str, Any]) -> None:
        kept = record(future(1), 1, key=None)
        store.write([kept])
        (found,) = with_rows(engine_for(store.database), [Letter(replace(kept, **changed))])
        assert found.row is None

    def test_rows_of_those_that_fail_again_are_not_changed(self, store: Store) -> None:
        store.write([record(future(1, hits=[HitSpec("", "K")]), 1)])
        before = errors(store.database)
        replay = Replay(store, renews_errors=False)
        assert outcomes(replay.run()) == (0, {}, {"bad_report": 1})
        assert errors(store.database) == before


class GenerousConsumer(Consumer):
    """A consumer for which no message is from the future."""

    def write_once(self, records: Sequence[Record], engine: Engine | None = None) -> Written:
        batch = Pipeline(GENEROUS, None, lambda: self.now).sort(records)
        return Writer(engine or self.engine, lambda: self.now).write(batch.accepted, batch.rejected)


@pytest.mark.parametrize("seed", range(6))
def test_beside_two_consumers_that_store_other_results_of_the_same_clusters(shared_url: str, seed: int) -> None:
    """Whoever comes first: the newest message of each cluster is what is stored, and no row of a good one is left."""
    rng = random.Random(seed)
    store = Store(open_database(shared_url))
    clear(store)
    clusters = [f"{seed:04x}{number:04x}-0000-4000-8000-000000000000" for number in range(15)]
    minutes = {it: rng.sample(range(60), 30) for it in clusters}
    newest: dict[str, tuple[int, bytes]] = {}

    def messages(count: int) -> list[bytes]:
        made = []
        for it in rng.choices(clusters, k=count):
            if not minutes[it]:
                continue
            minute = minutes[it].pop()
            value = future(minute, it, rng.sample([A, B], rng.randint(0, 2)), rng.randint(1, 3))
            newest[it] = max(newest.get(it, (minute, value)), (minute, value))
            made.append(value)
        return made

    rejected = [value for value in messages(150) for value in ([value, BAD] if rng.random() < 0.2 else [value])]
    store.write([record(value, offset) for offset, value in enumerate(rejected)])
    store.database.close()
    live = [[messages(10) for _ in range(10)] for _ in range(2)]
    barrier, failures = Barrier(4), []

    def guarded(work: Callable[[], object]) -> None:
        barrier.wait(30)
        try:
            work()
        except BaseException as error:
            failures.append(error)

    def consume(batches: list[list[bytes]]) -> None:
        consumer = GenerousConsumer(shared_url, NOON)
        for batch in batches:
            consumer.write([record(value, offset) for offset, value in enumerate(batch)])
        consumer.database.close()

    def replay() -> None:
        replaying = Store(open_database(shared_url))
        Replay(replaying, page_rows=10).run()
        replaying.database.close()

    threads = [Thread(target=guarded, args=[partial(consume, batches)]) for batches in live]
    threads += [Thread(target=guarded, args=[replay]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    model = Model()
    for _, value in newest.values():
        model.apply(decode(value, GENEROUS, NOON), NOON)
    tables, left = tables_and_errors(store.database)
    assert {row[6] for row in left} == {BAD.decode()}
    assert len(left) == rejected.count(BAD)
    times = {"report": [3], "rule_hit": [5], "recommendation": [5, 6], "report_info": []}
    for table, places in times.items():
        expected = [without(row, places) for row in model.tables()[table]]
        assert [without(row, places) for row in tables[table]] == expected
    store.database.close()


def test_a_row_with_a_time_that_nobody_can_read_ends_the_run_in_words(shared_url: str) -> None:
    database = open_database(shared_url)
    with database.atomic():
        empty_tables(database)
    Store(database).write([record(BAD, 1), record(BAD, 2)])
    database.execute_sql("UPDATE consumer_error SET produced_at = '4712-01-01 BC' WHERE topic_offset = 2")
    with pytest.raises(error_rows.UnreadableRowError, match=r"from \('results', 0, 1\) to \('results', 0, 2\)"):
        next(ErrorRows(engine_for(database), Selection()).pages())
    database.close()
