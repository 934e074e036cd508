"""Messages that are bad, huge or refused, in numbers: they cost nobody else anything."""

import gzip
import json
import random
import re
import string
from pathlib import Path

import psutil
import pytest

from libaggregator.messages import Message
from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Deployment
from tests.support.fault_run import FaultRun
from tests.support.messages import HitSpec, payload
from tests.support.reckoning import Reckoning
from tests.support.topics import Sent
from tests.support.traffic import Mix, Traffic

pytestmark = pytest.mark.faults

MIB = 1024 * 1024
LIMIT = 10 * MIB
GOOD_ALONE = Mix(bad=0)


def test_a_thousand_bad_messages_in_a_row_are_rejected_and_the_good_ones_behind_them_stored(
    deployment: Deployment, begin_run: BeginRun
) -> None:
    reject_then_store(deployment, begin_run, 1_000)


@pytest.mark.long
def test_so_are_ten_thousand(real_deployment: Deployment, begin_run: BeginRun) -> None:
    reject_then_store(real_deployment, begin_run, 10_000)


def reject_then_store(deployment: Deployment, begin_run: BeginRun, count: int) -> None:
    """Produce so many bad messages and a thousand good ones behind them, and compare what two consumers make of it."""
    run = begin_run(deployment, seed=31, CONSUMER__MAX_BATCH="500")
    run.produce([run.traffic.bad() for _ in range(count)])
    run.produce(run.traffic.take(1_000))
    run.start_two()
    run.note(f"{count} bad messages")
    compared = run.finish()
    assert compared.errors >= count


@pytest.mark.long
def test_bad_messages_alone_at_the_end_of_each_partition_are_rejected(
    deployment: Deployment, begin_run: BeginRun
) -> None:
    run = begin_run(deployment, seed=32)
    run.produce(run.traffic.take(1_000))
    run.start_two()
    run.wait_until_handled()
    run.note("poison at the end")
    run.produce([Sent(b"poison", None, (), partition) for partition in range(4)])
    run.finish()


@pytest.mark.long
def test_gzip_bombs_are_rejected_without_being_inflated(real_deployment: Deployment, begin_run: BeginRun) -> None:
    run = begin_run(real_deployment, seed=33)
    bomb = gzip.compress(b'{"OrgID": 1, "Report": "' + bytes(1) * (500 * MIB), compresslevel=6)
    nested = gzip.compress(gzip.compress(bytes(100 * MIB)))
    run.produce(run.traffic.take(500))
    run.produce([Sent(bomb, b"bomb", (), 0), Sent(nested, b"bomb", (), 1)] * 5)
    run.produce(run.traffic.take(500))
    run.start_two()
    run.note("gzip bombs")
    run.wait_until_handled()
    assert max(_peak_bytes(run)) < 200 * MIB
    run.finish()


@pytest.mark.long
def test_messages_of_the_largest_size_are_stored_and_larger_ones_rejected(
    real_deployment: Deployment, begin_run: BeginRun
) -> None:
    run = begin_run(real_deployment, seed=34, traffic=Traffic(34, mix=GOOD_ALONE))
    run.produce(run.traffic.take(1_000))
    run.produce([_of_size(run, number, LIMIT + number % 2) for number in range(8)])
    run.start_two()
    run.note("messages of 10 MiB")
    assert run.finish().errors == 4


@pytest.mark.long
def test_one_message_that_only_the_database_refuses_is_rejected_and_its_neighbours_are_stored(
    real_deployment: Deployment, begin_run: BeginRun
) -> None:
    reckoning = Reckoning(is_unstorable=_has_an_unstorable_rule)
    run = begin_run(
        real_deployment,
        seed=35,
        traffic=Traffic(35, partitions=2, clusters=600, mix=Mix(0, 0, 0, 0, 0)),
        reckoning=reckoning,
        partitions=2,
        CONSUMER__MAX_BATCH="500",
    )
    letters = "".join(run.random.choices(string.ascii_letters + string.digits, k=3_000))
    for partition in range(2):
        good = [record for record in run.traffic.take(1_100) if record.partition == partition][:499]
        poison = Sent(payload(run.traffic.clusters[partition].name, "2026-06-01T00:00:00Z", [HitSpec(letters, "K")]))
        good.insert(250, poison._replace(partition=partition))
        run.produce(good)
    run.note("a rule whose name no index takes")
    run.start_two()
    assert run.finish().errors == 2


def _has_an_unstorable_rule(message: Message) -> bool:
    return any(len(hit.component) > 2_700 for hit in message.hits)


def _of_size(run: FaultRun, number: int, size: int) -> Sent:
    """Return a message of so many bytes, which hardly get fewer by compression."""
    cluster = run.traffic.clusters[number]
    message = json.loads(payload(cluster.name, f"2026-06-01T00:00:{number:02}Z", [HitSpec("large.report", "K")]))
    message["Report"]["filling"] = ""
    filling = random.Random(number).randbytes(size - len(json.dumps(message))).hex()
    message["Report"]["filling"] = filling[: size - len(json.dumps(message))]
    value = json.dumps(message).encode()
    assert len(value) == size
    return Sent(value, cluster.name.encode(), (), cluster.partition)


def _peak_bytes(run: FaultRun) -> list[int]:
    """Return the most memory that each consumer had, where the system tells, else what it has."""
    return [_peak_of(consumer.process.pid) for consumer in run.consumers]


def _peak_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return int(psutil.Process(pid).memory_info().rss)
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(kilobytes) * 1024
