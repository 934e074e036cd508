"""Partitions that change hands while a batch is being written."""

import signal

import psutil
import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Consumer, Deployment
from tests.support.failpoints import COMMAND
from tests.support.postgresql import waiting_for_locks
from tests.support.waiting import eventually, last

pytestmark = [pytest.mark.faults, pytest.mark.long]


def test_consumers_that_come_and_go_while_batches_are_written_lose_and_repeat_nothing(
    real_deployment: Deployment, begin_run: BeginRun
) -> None:
    run = begin_run(real_deployment, seed=21)
    run.begin_load(100)
    run.start_two()
    for _ in range(8):
        run.wait_for_stored(run.random.randrange(1, 60))
        if len(run.consumers) < 3 and run.random.random() < 0.5:
            run.start_consumer()
        elif len(run.consumers) > 1:
            run.stop(run.random.choice(run.consumers))
        else:
            run.start_consumer()
    run.finish()


@pytest.mark.parametrize(
    "step",
    ["before decode", "before COMMIT", "after WITH wanted (cluster,", "before offset commit", "before dead letters"],
)
def test_a_consumer_that_wakes_up_after_its_session_ran_out_undoes_nothing(
    real_deployment: Deployment, begin_run: BeginRun, step: str
) -> None:
    run = begin_run(real_deployment, seed=22, DATABASE__STATEMENT_TIMEOUT="3")
    run.begin_load()
    run.start_consumer()
    for _ in range(2):
        sleeper = run.start_consumer(COMMAND, FAILPOINT_AT=step, FAILPOINT_SIGNAL=str(int(signal.SIGSTOP)))
        eventually(lambda: _is_stopped(sleeper), 30, "stopped in the middle of a batch")  # noqa: B023 - called at once
        run.note(f"SIGSTOP of {sleeper.process.name} {step}")
        # its partitions go to the other one, which stores what the sleeper has in hand, and newer results
        run.wait_until_stored_everywhere()
        sleeper.process.signal(signal.SIGCONT)
        run.wait_for_stored(50)
        run.stop(sleeper)
    run.finish()


def test_partitions_that_change_hands_during_an_outage_are_read_where_they_were_left(
    real_deployment: Deployment, begin_run: BeginRun
) -> None:
    run = begin_run(real_deployment, seed=23, DATABASE__STATEMENT_TIMEOUT="1")
    run.begin_load()
    run.start_two()
    for _ in range(3):
        run.wait_until_shared()
        with run.fault("table locked by another session"), run.deployment.reports_locked():
            url = run.deployment.database_url
            eventually(lambda: waiting_for_locks(url) == 2, 20, "both wait for the lock")  # noqa: B023
            run.kill(run.consumers[0])
            # longer than a session, so that the other one is given its partitions while it waits
            last(5)
        run.start_consumer()
    run.finish()


def _is_stopped(consumer: Consumer) -> bool:
    return psutil.Process(consumer.process.pid).status() == psutil.STATUS_STOPPED
