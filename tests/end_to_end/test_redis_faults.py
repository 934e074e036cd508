"""Consumers of a stream of Redis while the server, or one of them, is killed or does not run for a while."""

import signal

import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Deployment
from tests.support.waiting import eventually, last

pytestmark = [pytest.mark.faults, pytest.mark.long]

CLAIM_AFTER = 2.0
"""Seconds, as `RedisServer.quick_settings` has it."""


def test_a_server_that_is_killed_frozen_and_started_again_costs_nothing(
    redis_deployment: Deployment, begin_run: BeginRun
) -> None:
    server = redis_deployment.broker
    run = begin_run(redis_deployment, seed=11)
    run.begin_load()
    run.start_two()
    for _ in range(2):
        run.wait_for_stored(run.random.randrange(1, 100))
        with run.fault("SIGKILL of Redis"):
            server.kill()
            for consumer in run.consumers:
                eventually(lambda one=consumer: one.readiness().status == 503, 20, "the outage is told of")
                assert consumer.liveness().status == 200
        server.start()
    run.wait_for_stored()
    with run.fault("SIGSTOP of Redis"), server.frozen():
        last(6)
    run.finish()


def test_a_consumer_that_sleeps_past_its_claim_finds_its_messages_handled(
    redis_deployment: Deployment, begin_run: BeginRun
) -> None:
    run = begin_run(redis_deployment, seed=12)
    run.begin_load()
    run.start_two()
    asleep, awake = run.consumers
    run.wait_for_stored(50)
    for _ in range(2):
        with run.fault(f"SIGSTOP of {asleep.process.name}"):
            asleep.process.signal(signal.SIGSTOP)
            last(2 * CLAIM_AFTER)
            asleep.process.signal(signal.SIGCONT)
        run.wait_for_stored(50)
    with run.fault("a table locked for longer than entries are kept"), redis_deployment.reports_locked():
        eventually(redis_deployment.waits_for_lock, what="a batch waits")
        last(2 * CLAIM_AFTER)
    run.finish()
    assert awake.process.exit_code == 0
