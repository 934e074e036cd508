"""What the source for Redis has to do besides what every source does."""

import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from consumer_service import redis_client
from consumer_service.settings import RedisSettings
from consumer_service.sources import DeadLetter, Delivery, MessageSource, Partition, Record, SourceUnavailable
from examples.demo.ports import free_port
from libaggregator.settings import Secret
from tests.conftest import running_redis
from tests.support.certificates import Authority
from tests.support.databases import sqlite_url_in
from tests.support.deployment import Deployment
from tests.support.messages import CLUSTERS, payload
from tests.support.processes import REPOSITORY, Processes
from tests.support.redis import RedisServer
from tests.support.source_harness import POLL_SECONDS, RedisHarness, offsets_after, read, read_nothing, values
from tests.support.topics import fresh_name
from tests.support.waiting import eventually, last

TEN = [b'{"number": %d}' % number for number in range(10)]
PATIENCE = 1.0
LONGEST_CALL = PATIENCE + 2
CLAIM_AFTER = 1.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the source wait for its server for a second only."""
    monkeypatch.setattr(redis_client, "CALL_TIMEOUT", PATIENCE)


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisHarness]:
    """Yield names of a stream and a group; the stream is not there yet."""
    made = RedisHarness(redis_server)
    yield made
    made.close()


@pytest.fixture
def stoppable(own_redis: RedisServer) -> Iterator[RedisHarness]:
    """Yield the same on a server that the test may stop."""
    made = RedisHarness(own_redis)
    yield made
    made.close()


class TestRecords:
    def test_have_key_value_and_the_other_fields_as_headers(self, redis: RedisHarness) -> None:
        client = redis.server.client
        client.xadd(
            redis.stream, {b"value": b"\xff", b"trace": b"\x00", b"key": b"", b"n\xff": b"1"}, "1700000000000-7"
        )
        client.xadd(redis.stream, {b"other": b"x"}, "1700000000001-0")

        records = read(redis.open(), 2)

        offset = 1_700_000_000_000 * 2**20
        headers = (("trace", b"\x00"), ("n\udcff", b"1"))
        assert records == [
            Record(redis.stream, 0, offset + 7, b"", b"\xff", headers, 1_700_000_000_000),
            Record(redis.stream, 0, offset + 2**20, None, None, (("other", b"x"),), 1_700_000_000_001),
        ]

    def test_with_ids_of_any_size_come_and_each_is_acknowledged_by_itself(self, redis: RedisHarness) -> None:
        ids = ["0-1", f"5-{2**20 - 1}", f"5-{2**20}", f"5-{2**64 - 1}", "6-0", f"{2**42}-0", f"{2**64 - 1}-{2**64 - 1}"]
        for entry_id in ids:
            redis.server.client.xadd(redis.stream, {"value": entry_id}, entry_id)
        source = redis.open()

        found: list[Record] = []
        while len(found) < len(ids):
            records = source.poll(POLL_SECONDS, 1000)
            found += records
            # the runner may handle a part of what a poll returned
            for number in range(1, len(records) + 1):
                source.commit(offsets_after(records[:number]))
                assert pending(redis) == len(ids) - len(found) + len(records) - number

        assert [(record.value or b"").decode() for record in found] == ids
        assert len({record.offset for record in found}) == len(ids)
        assert all(0 <= record.offset < 2**63 for record in found)

    def test_large_ones_are_read_few_at_a_time(self, redis: RedisHarness) -> None:
        redis.fill([bytes(1_000_000)] * 40)
        source = redis.open()

        sizes = [len(source.poll(POLL_SECONDS, 1000)) for _ in range(4)]

        assert max(sizes) <= 8

    def test_small_ones_are_read_many_at_a_time(self, redis: RedisHarness) -> None:
        redis.fill([b"x"] * 3000)
        source = redis.open()

        sizes = [len(source.poll(POLL_SECONDS, 1000)) for _ in range(9)]

        assert max(sizes) == 1000


class TestGroup:
    def test_waits_for_the_stream_without_making_it(self, redis: RedisHarness) -> None:
        source = redis.open()

        read_nothing(source, POLL_SECONDS)

        assert source.problem() == f"stream {redis.stream!r} does not exist yet"
        assert not redis.server.client.exists(redis.stream)
        redis.fill([b"first"])
        assert values(read(source, 1)) == [b"first"]
        assert source.problem() is None

    @pytest.mark.parametrize(("start_at", "expected"), [("first", [b"before", b"after"]), ("next", [b"after"])])
    def test_begins_where_the_settings_say(self, redis: RedisHarness, start_at: Any, expected: list[bytes]) -> None:
        redis.redis = replace(redis.redis, start_at=start_at)
        redis.fill([b"before"])
        source = redis.open()
        source.poll(0, 1) if start_at == "next" else None

        redis.fill([b"after"])

        assert values(read(source, len(expected))) == expected

    @pytest.mark.parametrize("start_at", ["first", "next"])
    def test_a_stream_that_is_made_again_is_read_from_its_first_entry(
        self, redis: RedisHarness, start_at: Any, plain_logs: None
    ) -> None:
        redis.redis = replace(redis.redis, start_at=start_at)
        redis.fill([b"unread"])
        source = redis.open()
        source.poll(POLL_SECONDS, 1)
        redis.server.client.delete(redis.stream)
        redis.fill(TEN)

        records = read(source, 10)

        assert values(records) == TEN
        source.commit(offsets_after(records))
        assert pending(redis) == 0

    def test_a_group_that_was_destroyed_begins_at_the_first_entry(self, redis: RedisHarness, plain_logs: None) -> None:
        redis.fill(TEN)
        source = redis.open()
        source.commit(offsets_after(read(source, 10)))

        redis.server.client.xgroup_destroy(redis.stream, redis.redis.group)

        assert values(read(source, 10)) == TEN

    def test_a_stream_that_goes_while_an_entry_is_waited_for_is_no_outage(
        self, redis: RedisHarness, plain_logs: None
    ) -> None:
        redis.fill([b"before"])
        source = redis.open()
        source.commit(offsets_after(read(source, 1)))

        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(source.poll, 20, 1)
            eventually(lambda: redis.server.client.info("clients")["blocked_clients"], 20, "the source waits")
            redis.server.client.delete(redis.stream)
            assert waiting.result() == []

        redis.fill([b"after"])
        assert values(read(source, 1)) == [b"after"]

    def test_two_share_a_stream(self, redis: RedisHarness) -> None:
        redis.fill(TEN)
        first, second = redis.open(), redis.open()

        records = [*read(first, 5, max_records=5), *read(second, 5, max_records=5)]

        assert values(records) == TEN

    def test_is_left_at_the_end_but_never_with_entries(self, redis: RedisHarness) -> None:
        redis.fill(TEN)
        first, second = redis.open(), redis.open()
        read(first, 5, max_records=5)
        second.commit(offsets_after(read(second, 5, max_records=5)))
        first.close()
        second.close()

        consumers = redis.server.client.xinfo_consumers(redis.stream, redis.redis.group)

        assert [consumer["pending"] for consumer in consumers] == [5]

    def test_a_name_of_ones_own_is_kept(self, redis: RedisHarness) -> None:
        redis.redis = replace(redis.redis, consumer="mine")
        redis.fill(TEN)
        source = redis.open()
        source.commit(offsets_after(read(source, 10)))
        source.close()

        consumers = redis.server.client.xinfo_consumers(redis.stream, redis.redis.group)

        assert [consumer["name"] for consumer in consumers] == [b"mine"]


class TestClaiming:
    def test_entries_of_a_dead_consumer_are_claimed_after_a_while_and_not_before(self, redis: RedisHarness) -> None:
        redis.redis = replace(redis.redis, claim_after=2)
        redis.fill(TEN)
        dead, other = redis.open(), redis.open()
        read(dead, 10)

        read_nothing(other, 1)
        records = read(other, 10)

        assert values(records) == TEN
        other.commit(offsets_after(records))
        assert pending(redis) == 0

    def test_those_before_a_restart_under_the_same_name_come_first_and_at_once(self, redis: RedisHarness) -> None:
        redis.redis = replace(redis.redis, consumer="same", claim_after=3600)
        redis.fill(TEN)
        read(redis.open(), 8, max_records=4)

        restarted = redis.open()

        assert values(read(restarted, 10)) == TEN

    def test_entries_in_hand_are_not_claimed_while_they_are_kept_alive(self, redis: RedisHarness) -> None:
        redis.fill(TEN)
        slow, other = redis.open(), redis.open()
        records = read(slow, 10)

        deadline = time.monotonic() + 2.5 * CLAIM_AFTER
        while time.monotonic() < deadline:
            slow.keep_alive(0.1)
            assert not other.poll(0.1, 1000)

        slow.commit(offsets_after(records))
        assert pending(redis) == 0

    def test_what_another_has_claimed_is_not_taken_back_and_a_late_acknowledgement_is_right(
        self, redis: RedisHarness
    ) -> None:
        redis.fill(TEN)
        asleep, other = redis.open(), redis.open()
        records = read(asleep, 10)
        last(1.5 * CLAIM_AFTER)
        claimed = read(other, 10)

        asleep.keep_alive(0.1)

        assert owners(redis) == {owner_of(other): 10}
        asleep.commit(offsets_after(records))
        assert pending(redis) == 0
        other.commit(offsets_after(claimed))
        redis.fill([b"next"])
        assert values(read(other, 1)) == [b"next"]

    def test_new_entries_are_read_while_there_is_nothing_to_claim(self, redis: RedisHarness) -> None:
        redis.fill(TEN)
        busy, other = redis.open(), redis.open()
        read(busy, 10)

        redis.fill([b"next"])

        assert values(read(other, 1)) == [b"next"]

    @pytest.mark.parametrize("name", ["same", ""])
    def test_entries_that_were_removed_before_they_were_acknowledged_are_told_of_and_passed_over(
        self, redis: RedisHarness, name: str
    ) -> None:
        redis.redis = replace(redis.redis, consumer=name, claim_after=1 if not name else 3600)
        redis.fill(TEN)
        read(redis.open(), 10)
        redis.server.client.xtrim(redis.stream, maxlen=3, approximate=False)

        with capture_logs() as logs:
            records = read(redis.open(), 3)

        assert values(records) == TEN[7:]
        (told,) = [entry for entry in logs if entry["log_level"] == "warning"]
        assert told["count"] == 7
        assert pending(redis) == 3


class TestOutage:
    def test_the_server_is_waited_for_at_the_start_and_not_at_the_end(self, stoppable: RedisHarness) -> None:
        stoppable.server.stop()
        source = stoppable.open()

        with pytest.raises(SourceUnavailable, match="Connection refused"):
            source.poll(POLL_SECONDS, 1)
        assert "Connection refused" in (source.problem() or "")
        source.keep_alive(0.1)
        source.commit({Partition(stoppable.stream, 0): 1})

        stoppable.server.start()
        stoppable.fill([b"first"])
        assert values(read(source, 1)) == [b"first"]
        stoppable.server.stop()
        begin = time.monotonic()
        source.close()
        assert time.monotonic() - begin < LONGEST_CALL

    def test_what_was_in_hand_is_acknowledged_after_it_and_nothing_comes_twice(self, stoppable: RedisHarness) -> None:
        stoppable.redis = replace(stoppable.redis, dead_letter_stream=fresh_name("dead"), claim_after=3600)
        stoppable.fill(TEN)
        source = stoppable.open()
        records = read(source, 4, max_records=4)

        stoppable.server.kill()
        for call in (
            lambda: source.commit(offsets_after(records)),
            lambda: source.send_dead_letters([letter()]),
            lambda: source.poll(POLL_SECONDS, 1),
        ):
            with pytest.raises(SourceUnavailable):
                call()
        assert source.progress() == {}
        stoppable.server.start()

        assert source.send_dead_letters([letter()]) == Delivery(sent=1)
        source.commit(offsets_after(records))
        assert values(read(source, 6)) == TEN[4:]
        assert source.problem() is None

    def test_entries_whose_answer_was_lost_come_with_the_next_poll(
        self, redis: RedisHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        redis.redis = replace(redis.redis, claim_after=3600)
        redis.fill(TEN)
        source = redis.open()
        records = read(source, 4, max_records=4)
        read_group = Redis.xreadgroup

        def lose(*arguments: Any, **options: Any) -> None:
            read_group(*arguments, **options)
            raise ConnectionError("reset")

        with monkeypatch.context() as lossy:
            lossy.setattr(Redis, "xreadgroup", lose)
            with pytest.raises(SourceUnavailable, match="reset"):
                source.poll(POLL_SECONDS, 3)

        assert values(read(source, 3, max_records=3)) == TEN[4:7]
        source.commit(offsets_after(records))
        assert values(read(source, 3)) == TEN[7:]

    def test_a_frozen_server_is_an_outage_of_bounded_calls(self, stoppable: RedisHarness) -> None:
        stoppable.fill(TEN)
        source = stoppable.open()
        records = read(source, 10)

        with stoppable.server.frozen():
            begin = time.monotonic()
            with pytest.raises(SourceUnavailable, match="no answer"):
                source.commit(offsets_after(records))
            assert time.monotonic() - begin < LONGEST_CALL
        source.commit(offsets_after(records))
        assert pending(stoppable) == 0

    def test_a_replica_is_waited_for_until_it_can_be_written(self, stoppable: RedisHarness) -> None:
        stoppable.fill(TEN)
        source = stoppable.open()
        records = read(source, 10)
        stoppable.server.client.replicaof("127.0.0.1", 1)

        for call in (lambda: source.commit(offsets_after(records)), lambda: source.poll(0, 1)):
            with pytest.raises(SourceUnavailable, match="read only replica"):
                call()

        stoppable.server.client.replicaof("NO", "ONE")
        source.commit(offsets_after(records))
        assert pending(stoppable) == 0

    def test_a_wrong_password_is_waited_for_and_not_shown(self, stoppable: RedisHarness) -> None:
        stoppable.fill([b"first"])
        stoppable.redis = replace(
            stoppable.redis, url=Secret(f"redis://default:s3cr3t%40@127.0.0.1:{stoppable.server.port}/0")
        )
        stoppable.server.client.config_set("requirepass", "another")
        source = stoppable.open()

        place = f"127.0.0.1:{stoppable.server.port}"
        with pytest.raises(SourceUnavailable, match=f"^{place}: invalid username-password pair"):
            source.poll(POLL_SECONDS, 1)
        assert "s3cr3t" not in (source.problem() or "")
        stoppable.server.client.config_set("requirepass", "s3cr3t@")

        assert values(read(source, 1)) == [b"first"]

    def test_the_rights_that_the_page_names_are_enough(self, stoppable: RedisHarness) -> None:
        stoppable.redis = replace(
            stoppable.redis,
            url=Secret(f"redis://aggregator:secret@127.0.0.1:{stoppable.server.port}"),
            stream="ccx.ocp.results",
            dead_letter_stream="ccx.ocp.results.rejected",
        )
        (rule,) = re.findall("    (ACL SETUSER .*)", (REPOSITORY / "docs" / "sources.md").read_text(encoding="utf-8"))
        stoppable.server.client.execute_command(*rule.split())
        stoppable.fill(TEN)
        dead, source = stoppable.open(), stoppable.open()
        read(dead, 5, max_records=5)
        records = read(source, 5, max_records=5)
        last(CLAIM_AFTER)
        source.keep_alive(0)

        assert source.send_dead_letters([letter()]) == Delivery(sent=1)
        source.commit(offsets_after(records))
        source.commit(offsets_after(read(source, 5)))
        assert lag(source) == 0
        source.close()

        assert pending(stoppable) == 0
        consumers = stoppable.server.client.xinfo_consumers(stoppable.stream, stoppable.redis.group)
        assert len(consumers) == 1

    def test_a_key_that_is_no_stream_is_a_problem(self, redis: RedisHarness) -> None:
        redis.server.client.set(redis.stream, "x")

        with pytest.raises(SourceUnavailable, match=f"stream '{redis.stream}': .*wrong kind of value"):
            redis.open().poll(POLL_SECONDS, 1)

    def test_tls_at_a_port_without_it_is_told_of(self, redis: RedisHarness) -> None:
        redis.redis = replace(redis.redis, url=Secret(redis.server.url.replace("redis://", "rediss://")))

        with pytest.raises(SourceUnavailable, match=r"redis\.url has to begin with redis://"):
            redis.open().poll(POLL_SECONDS, 1)

    def test_tls_with_certificates_of_both_sides(self, tmp_path: Path) -> None:
        authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
        server, client = authority.issue("server", "localhost"), authority.issue("client", "client")
        files = {"tls-cert-file": server.certificate, "tls-key-file": server.key}
        with running_redis() as found:
            for name, file in {**files, "tls-ca-cert-file": authority.certificate}.items():
                found.client.config_set(name, str(file))
            port = free_port()
            found.client.config_set("tls-port", port)
            made = RedisHarness(found)
            made.fill(TEN)
            made.redis = replace(
                made.redis,
                url=Secret(f"rediss://localhost:{port}"),
                ssl_cafile=str(stranger.certificate),
                ssl_certfile=str(client.certificate),
                ssl_keyfile=str(client.key),
            )
            with pytest.raises(SourceUnavailable, match="certificate verify failed"):
                made.open().poll(POLL_SECONDS, 1)
            made.redis = replace(made.redis, ssl_cafile=str(authority.certificate))
            assert values(read(made.open(), 10)) == TEN
            made.redis = RedisSettings(url=Secret(f"redis://localhost:{port}"))
            with pytest.raises(SourceUnavailable, match=r"redis\.url has to begin with rediss://"):
                made.open().poll(POLL_SECONDS, 1)
            made.close()


class TestDeadLetters:
    @pytest.fixture
    def redis(self, redis: RedisHarness) -> RedisHarness:
        redis.redis = replace(redis.redis, dead_letter_stream=fresh_name("dead"))
        return redis

    def test_have_the_original_bytes_and_our_headers(self, redis: RedisHarness) -> None:
        client = redis.server.client
        client.xadd(
            redis.stream, {b"value": b"\x1f\xff", b"key": b"\x00", b"n\xff": b"1", b"aggregator-reason": b"old"}
        )
        client.xadd(redis.stream, {b"other": b"x"})
        source = redis.open()
        records = read(source, 2)

        delivery = source.send_dead_letters([DeadLetter(record, "not_json", "position 1") for record in records])

        assert delivery == Delivery(sent=2)
        first, second = (fields for _, fields in client.xrange(redis.redis.dead_letter_stream))
        assert first == {
            b"key": b"\x00",
            b"value": b"\x1f\xff",
            b"n\xff": b"1",
            b"aggregator-reason": b"not_json",
            b"aggregator-detail": b"position 1",
            b"aggregator-topic": redis.stream.encode(),
            b"aggregator-partition": b"0",
            b"aggregator-offset": str(records[0].offset).encode(),
            b"aggregator-timestamp": str(records[0].timestamp).encode(),
        }
        assert b"value" not in second
        assert b"key" not in second

    def test_many_are_sent_in_order(self, redis: RedisHarness) -> None:
        letters = [letter(b"%d" % number) for number in range(500)]

        assert redis.open().send_dead_letters(letters) == Delivery(sent=500)

        found = redis.server.client.xrange(redis.redis.dead_letter_stream)
        assert [fields[b"value"] for _, fields in found] == [b"%d" % number for number in range(500)]

    def test_a_server_without_memory_for_them_is_an_outage_that_shows_nothing_of_them(
        self, stoppable: RedisHarness
    ) -> None:
        stoppable.redis = replace(stoppable.redis, dead_letter_stream=fresh_name("dead"))
        stoppable.fill(TEN)
        source = stoppable.open()
        records = read(source, 10)
        stoppable.server.client.config_set("maxmemory", 1)

        with pytest.raises(SourceUnavailable, match=r"^dead letters: 127.*: stream 'dead.*maxmemory"):
            source.send_dead_letters([letter(b"payload")])
        assert "payload" not in (source.problem() or "")
        stoppable.server.client.config_set("maxmemory", 0)

        assert source.send_dead_letters([letter(b"payload")]) == Delivery(sent=1)
        source.commit(offsets_after(records))
        assert pending(stoppable) == 0

    def test_a_server_without_memory_is_read_if_the_group_is_there(self, stoppable: RedisHarness) -> None:
        client = stoppable.server.client
        stoppable.fill(TEN)
        client.config_set("maxmemory", 1)
        source = stoppable.open()
        with pytest.raises(SourceUnavailable, match=f"stream '{stoppable.stream}': .*maxmemory"):
            source.poll(POLL_SECONDS, 1)
        client.config_set("maxmemory", 0)
        client.xgroup_create(stoppable.stream, stoppable.redis.group, "0")
        client.config_set("maxmemory", 1)

        records = read(source, 10)

        assert values(records) == TEN
        source.commit(offsets_after(records))
        assert pending(stoppable) == 0


class TestProgress:
    def test_counts_what_the_group_has_taken(self, redis: RedisHarness) -> None:
        redis.fill(TEN)
        source = redis.open()
        assert source.progress() == {}
        read(source, 3, max_records=3)

        (found,) = source.progress().items()

        assert found[0] == Partition(redis.stream, 0)
        assert (found[1].position, found[1].end) == (3, 10)
        redis.fill(TEN)
        assert lag(source) == 17

    @pytest.mark.parametrize(("trimmed", "left"), [(0, 0), (3, 3)])
    def test_what_was_trimmed_is_not_waited_for(self, redis: RedisHarness, trimmed: int, left: int) -> None:
        redis.fill(TEN)
        source = redis.open()
        read(source, 3, max_records=3)

        redis.server.client.xtrim(redis.stream, maxlen=trimmed, approximate=False)

        assert lag(source) == left
        if left:
            read(source, left)
            assert lag(source) == 0

    def test_is_not_known_after_entries_in_the_middle_were_deleted_until_they_are_passed(
        self, redis: RedisHarness
    ) -> None:
        redis.fill(TEN)
        source = redis.open()
        records = read(source, 3, max_records=3)
        assert len(records) == 3
        redis.server.client.xdel(redis.stream, redis.server.client.xrange(redis.stream)[5][0])

        assert source.progress() == {}
        read(source, 6)
        assert lag(source) == 0

    def test_is_empty_while_the_stream_is_gone(self, redis: RedisHarness) -> None:
        redis.fill(TEN)
        source = redis.open()
        read(source, 10)

        redis.server.client.delete(redis.stream)

        assert source.progress() == {}


def test_the_consumer_stores_acknowledges_and_sends_dead_letters(
    redis: RedisHarness, tmp_path: Path, processes: Processes
) -> None:
    deployment = Deployment(processes, redis.server, sqlite_url_in(tmp_path), redis.stream, redis.redis.group)
    deployment.migrate()
    letters = fresh_name("rejected")
    redis.fill([payload(CLUSTERS[0]), b"no JSON", payload(CLUSTERS[1])])

    consumer = deployment.start_consumer(REDIS__DEAD_LETTER_STREAM=letters, CONSUMER__STALLED_AFTER="2")

    deployment.wait_for_rows("report", 2)
    consumer.wait_until_ready()
    lag_metric = f'aggregator_consumer_lag_messages{{partition="0",topic="{redis.stream}"}}'
    eventually(lambda: consumer.metrics().get(lag_metric) == 0, 20, "the lag is known")
    assert consumer.process.stop() == 0, consumer.process.output
    assert deployment.count("consumer_error") == redis.server.client.xlen(letters) == 1
    assert pending(redis) == 0
    assert redis.server.client.xinfo_consumers(redis.stream, redis.redis.group) == []


def letter(value: bytes = b"x") -> DeadLetter:
    return DeadLetter(Record("results", 0, 7, None, value, (), 1_700_000_000_000), "not_json", "position 1")


def pending(redis: RedisHarness) -> int:
    """Return how many entries are in the hands of all consumers."""
    return int(redis.server.client.xpending(redis.stream, redis.redis.group)["pending"])


def owners(redis: RedisHarness) -> Mapping[bytes, int]:
    """Return how many entries each consumer has in hand that has some."""
    found = redis.server.client.xpending(redis.stream, redis.redis.group)["consumers"]
    return {one["name"]: one["pending"] for one in found}


def owner_of(source: MessageSource) -> bytes:
    name: str = source._consumer  # type: ignore[attr-defined]
    return name.encode()


def lag(source: MessageSource) -> int:
    (found,) = source.progress().values()
    return found.lag
