"""What the service manager is told, on a socket like its own."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from libaggregator.admin import Check, Health
from libaggregator.service_manager import kept_informed
from tests.support.service_manager import ServiceManager, service_manager
from tests.support.waiting import eventually


@dataclass
class Checks:
    """Checks of health that a test sets, by name."""

    problems: dict[str, str | None] = field(default_factory=lambda: {"loop": None, "database": None, "source": None})
    is_stopping: bool = False

    def health(self) -> Health:
        live, *ready = self.problems
        return Health({live: lambda: self.problems[live]}, {name: self._check(name) for name in ready})

    def _check(self, name: str) -> Check:
        return lambda: self.problems[name]


@pytest.fixture
def manager() -> Iterator[ServiceManager]:
    with service_manager() as manager:
        yield manager


def test_ready_is_told_once_and_only_after_all_checks_were_well_at_the_same_time(manager: ServiceManager) -> None:
    checks = Checks()
    checks.problems |= {"database": "no connection", "source": "no\nbroker"}
    with kept_informed(checks.health(), lambda: False, {"NOTIFY_SOCKET": manager.address}):
        eventually(lambda: manager.messages == ["STATUS=database: no connection; source: no broker"], 5, "the status")
        checks.problems["database"] = None
        eventually(lambda: manager.messages[-1] == "STATUS=source: no broker", 5, "the next status")
        assert "READY=1" not in manager.messages
        checks.problems["source"] = None
        eventually(lambda: manager.messages[-2:] == ["STATUS=ok", "READY=1"], 5, "ready")
        checks.problems["source"] = "gone again"
        eventually(lambda: manager.messages[-1] == "STATUS=source: gone again", 5, "a status after that")
        checks.problems["source"] = None
        eventually(lambda: manager.messages[-1] == "STATUS=ok", 5, "well again")
    assert manager.messages.count("READY=1") == 1
    assert manager.messages[-1] == "STOPPING=1"


def test_stopping_is_told_when_it_begins_and_ends_all_else(manager: ServiceManager) -> None:
    checks = Checks()
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000"}
    with kept_informed(checks.health(), lambda: checks.is_stopping, environment):
        eventually(lambda: "READY=1" in manager.messages, 5, "ready")
        checks.is_stopping = True
        eventually(lambda: manager.messages[-1] == "STOPPING=1", 5, "stopping, before the end of the block")
    assert manager.messages[-1] == "STOPPING=1"
    assert manager.messages.count("STOPPING=1") == 1


def test_a_watchdog_hears_signs_of_life_while_the_checks_of_liveness_are_well(manager: ServiceManager) -> None:
    checks = Checks()
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000", "WATCHDOG_PID": str(os.getpid())}
    checks.problems |= {"loop": "hangs", "source": "away"}
    with kept_informed(checks.health(), lambda: False, environment):
        eventually(lambda: manager.messages, 5, "a status")
        checks.problems["source"] = None
        eventually(lambda: "READY=1" in manager.messages, 5, "ready")
        assert "WATCHDOG=1" not in manager.messages
        checks.problems["loop"] = None
        eventually(lambda: manager.messages.count("WATCHDOG=1") >= 3, 5, "signs of life")


@pytest.mark.parametrize("other", [{}, {"WATCHDOG_USEC": "300000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_no_signs_of_life_without_a_watchdog_for_this_process(manager: ServiceManager, other: dict[str, str]) -> None:
    checks = Checks()
    with kept_informed(checks.health(), lambda: False, {"NOTIFY_SOCKET": manager.address, **other}):
        eventually(lambda: "READY=1" in manager.messages, 5, "ready")
        checks.problems["source"] = "away"
        eventually(lambda: manager.messages[-1].startswith("STATUS=source"), 5, "a later look")
    assert "WATCHDOG=1" not in manager.messages


def test_a_socket_that_is_not_in_the_file_system_is_found() -> None:
    manager = ServiceManager(f"@aggregator-{uuid.uuid4().hex}")
    with kept_informed(Checks().health(), lambda: False, {"NOTIFY_SOCKET": manager.address}):
        eventually(lambda: "READY=1" in manager.messages, 5, "ready")
    manager.close()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nobody/listens/here"}])
def test_a_process_that_nobody_manages_does_its_work(environment: dict[str, str]) -> None:
    with kept_informed(Checks().health(), lambda: False, environment):
        pass


def test_an_error_of_the_work_comes_through_after_stopping_was_told(manager: ServiceManager) -> None:
    with (
        pytest.raises(LookupError),
        kept_informed(Checks().health(), lambda: False, {"NOTIFY_SOCKET": manager.address}),
    ):
        raise LookupError
    assert manager.messages[-1] == "STOPPING=1"
