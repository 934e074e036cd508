"""Consumers that are killed at any moment: every message has its effect once, or leaves a row and a dead letter."""

import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.deployment import Deployment

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(
    ("any_deployment", "seed"),
    [("kafka", 1), pytest.param("kafka", 2, marks=pytest.mark.long), pytest.param("redis", 1, marks=pytest.mark.long)],
    indirect=["any_deployment"],
)
def test_a_consumer_killed_again_and_again_loses_and_repeats_nothing(
    any_deployment: Deployment, begin_run: BeginRun, seed: int
) -> None:
    run = begin_run(any_deployment, seed)
    run.begin_load()
    run.start_two()
    for _ in range(6):
        run.wait_for_stored(run.random.randrange(1, 150))
        run.kill(run.random.choice(run.consumers))
        run.start_consumer()
    run.finish()


@pytest.mark.long
@pytest.mark.parametrize("any_deployment", ["kafka", "redis"], indirect=True)
def test_both_consumers_killed_at_once_lose_and_repeat_nothing(any_deployment: Deployment, begin_run: BeginRun) -> None:
    run = begin_run(any_deployment, seed=3)
    run.begin_load()
    for _ in range(3):
        run.start_two()
        run.wait_for_stored(run.random.randrange(1, 150))
        for consumer in list(run.consumers):
            run.kill(consumer)
    run.finish()
