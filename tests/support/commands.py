"""Commands of `aggregator-consumer` as processes of their own."""

import sys
from collections.abc import Callable

from tests.support.processes import Process

CLI = [sys.executable, "-m", "consumer_service.cli"]

Start = Callable[..., Process]
"""Starts a command with its arguments, and with settings that are named as variables without their prefix."""


def printed(process: Process, status: int = 0) -> list[str]:
    """Wait for the end of a process and return its lines, each with single spaces."""
    assert process.wait_exit() == status, process.output
    return [" ".join(line.split()) for line in process.output.splitlines()]
