"""Consumers that are killed between any two steps of their loop, which are wrapped by `tests.support.failpoints`."""

from pathlib import Path

import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Deployment
from tests.support.failpoints import COMMAND
from tests.support.fault_run import FaultRun

pytestmark = [pytest.mark.faults, pytest.mark.long]

STEPS_OF_THE_LOOP = {
    "after poll",
    "before decode",
    "after decode",
    "before BEGIN",
    "after BEGIN",
    "before COMMIT",
    "after COMMIT",
    "before dead letters",
    "before one dead letter",
    "after dead letters",
    "before offset commit",
    "after offset commit",
}


@pytest.mark.parametrize(
    ("any_deployment", "steps"),
    [("kafka", range(1, 70, 2)), ("redis", range(1, 70, 8))],
    indirect=["any_deployment"],
    ids=["kafka", "redis"],
)
def test_consumers_killed_between_any_two_steps_lose_and_repeat_nothing(
    any_deployment: Deployment, begin_run: BeginRun, tmp_path: Path, steps: range
) -> None:
    run = begin_run(any_deployment, seed=4, CONSUMER__MAX_BATCH="25")
    run.produce(run.traffic.take(2_000))
    log = tmp_path / "steps"
    for step in steps:
        _live_until(run, step, log)
    run.finish()
    reached = set(log.read_text(encoding="utf-8").splitlines())
    assert reached >= STEPS_OF_THE_LOOP
    assert {name for name in reached if "INSERT INTO" in name or "COPY" in name}


def _live_until(run: FaultRun, step: int, log: Path) -> None:
    """Let two consumers live until one comes to the step of this number, the other to the next one."""
    run.note(f"both consumers killed at step {step} and the next one")
    # with a name of its own each takes over from its predecessor at once
    named = run.deployment.broker.name_setting
    lives = [
        run.start_consumer(COMMAND, **{named: name, "FAILPOINT_AT": str(at), "FAILPOINT_LOG": str(log)})
        for name, at in (("first", step), ("second", step + 1))
    ]
    for life in lives:
        assert life.process.wait_exit(60) < 0
        run.consumers.remove(life)
