"""Consumers that hold the same clusters at the same moment, new ones among them."""

import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Deployment
from tests.support.postgresql import waiting_for_locks
from tests.support.reckoning import Reckoning
from tests.support.traffic import Traffic
from tests.support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.long]


@pytest.mark.parametrize("seed", [41, 42])
def test_the_newest_of_each_cluster_is_stored_whoever_had_the_others(
    real_deployment: Deployment, begin_run: BeginRun, seed: int
) -> None:
    """Messages of one cluster are in all partitions: the order is nobody's, and the guard alone decides."""
    run = begin_run(
        real_deployment,
        seed,
        traffic=Traffic(seed, clusters=300, scattered=True),
        reckoning=Reckoning(in_order=False),
        CONSUMER__MAX_BATCH="100",
    )
    # clusters about which users said something are known, so that every change of organization is a move
    run.produce(run.traffic.begin(run.traffic.clusters[::2]))
    run.start_two()
    run.wait_until_handled()
    for consumer in list(run.consumers):
        run.stop(consumer)
    run.start_two()
    run.start_two()
    run.wait_until_shared()
    with real_deployment.reports_locked():
        run.produce(run.traffic.take(4_000))
        url = real_deployment.database_url
        eventually(lambda: waiting_for_locks(url) == 4, 30, "all four have a batch in hand")
    run.finish()
    outputs = " ".join(process.output for process in run.deployment.processes.started)
    assert "conflict with another consumer" in outputs, "no two consumers met"
