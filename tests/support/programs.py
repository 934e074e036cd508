"""Programs that are no packages of Python: tests with one that is missing are skipped, unless it is required."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class ProgramMissingError(Exception):
    """Something that tests run is not there; the text says in one line what, and how to get it.

    `name` is the end of the variable AGGREGATOR_TEST_REQUIRE_NAME, with which `1` demands it.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.variable = f"AGGREGATOR_TEST_REQUIRE_{name}"


@contextmanager
def skipped_without_programs() -> Iterator[None]:
    """Skip the test if a program of the block is missing; let it fail if that one is required."""
    try:
        yield
    except ProgramMissingError as missing:
        if os.environ.get(missing.variable) == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
