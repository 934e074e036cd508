"""Partitions that change hands while a batch is being written."""

import signal

import psutil
import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Consumer, Deployment
from tests.support.failpoints import COMMAND
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults


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
    [
        "before decode",
        "before COMMIT",
        pytest.param("after WITH wanted (cluster,", marks=pytest.mark.long),
        pytest.param("before offset commit", marks=pytest.mark.long),
        pytest.param("before dead letters", marks=pytest.mark.long),
    ],
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


def _is_stopped(consumer: Consumer) -> bool:
    return psutil.Process(consumer.process.pid).status() == psutil.STATUS_STOPPED
