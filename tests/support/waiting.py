"""Waiting for something to become true: the only place where tests sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T], timeout: float = 10.0, what: str = "the condition", interval: float = 0.05
) -> T:
    """Call `condition` until it returns something true, and return that.

    An AssertionError in it counts as not yet. After `timeout` seconds raises AssertionError, naming `what` and
    the last result or error; `interval` is the pause between two calls in seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        result, error = _attempt(condition)
        if result:
            return result
        if time.monotonic() >= deadline:
            reason = f": {error}" if error else f", last was {result!r}"
            raise AssertionError(f"{what}: not within {timeout:g} s{reason}") from error
        time.sleep(interval)


def last(seconds: float) -> None:
    """Let a fault last; what follows has to be waited for with `eventually`."""
    time.sleep(seconds)


def _attempt(condition: Callable[[], T]) -> tuple[T | None, AssertionError | None]:
    try:
        return condition(), None
    except AssertionError as error:
        return None, error
