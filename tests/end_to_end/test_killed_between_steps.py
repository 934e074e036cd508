"""Consumers that are killed between any two steps of their loop, which are wrapped by `tests.support.failpoints`."""

from pathlib import Path

import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Deployment
from tests.support.failpoints import COMMAND
from tests.support.fault_run import FaultRun

pytestmark = pytest.mark.faults

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
    [
        ("kafka", range(1, 70, 16)),
        pytest.param("kafka", range(2, 70), marks=pytest.mark.long),
        pytest.param("redis", range(1, 70, 8), marks=pytest.mark.long),
    ],
    indirect=["any_deployment"],
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
    """Let two consumers live until each comes to a step of this number."""
    run.note(f"both consumers killed at step {step}")
    # with a name of its own each takes over from its predecessor at once
    named = run.deployment.broker.name_setting
    lives = [
        run.start_consumer(COMMAND, **{named: name, "FAILPOINT_AT": str(step), "FAILPOINT_LOG": str(log)})
        for name in ("first", "second")
    ]
    for life in lives:
        assert life.process.wait_exit(60) < 0
        run.consumers.remove(life)
