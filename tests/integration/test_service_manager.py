"""What systemd hears of both processes, with `Type=notify` and `NotifyAccess=main`."""

from collections.abc import Iterator

import pytest

from tests.support.api_process import StartApi, fill
from tests.support.brokers import EmbeddedTestBroker
from tests.support.deployment import Deployment
from tests.support.processes import Processes
from tests.support.service_manager import ServiceManager, service_manager
from tests.support.waiting import eventually


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    """Yield a service manager that processes find in their environment."""
    with service_manager() as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        yield manager


@pytest.mark.parametrize("workers", [1, 2])
def test_the_api_is_ready_when_it_answers_and_one_process_alone_tells(
    manager: ServiceManager, start_api: StartApi, sqlite_url: str, workers: int
) -> None:
    api = start_api(fill(sqlite_url), API__WORKERS=str(workers), API__SHUTDOWN_DELAY="1")
    eventually(lambda: "READY=1" in manager.messages, 20, "ready")
    assert api.get("info").status == 200
    eventually(lambda: manager.messages.count("WATCHDOG=1") >= 2, 5, "signs of life")
    assert api.process.stop() == 0
    assert manager.messages[-1] == "STOPPING=1"
    assert manager.senders == {api.process.pid}


def test_the_consumer_is_ready_when_it_reads(
    manager: ServiceManager, processes: Processes, embedded_broker: EmbeddedTestBroker, sqlite_url: str
) -> None:
    deployment = Deployment(processes, embedded_broker, fill(sqlite_url))
    consumer = deployment.start_consumer()
    eventually(lambda: any("source: " in message for message in manager.messages), 20, "a status that names the source")
    consumer.process.wait_for_log("source unavailable")
    assert "READY=1" not in manager.messages
    embedded_broker.create_topic(deployment.topic)
    eventually(lambda: "READY=1" in manager.messages, 30, "ready")
    assert consumer.readiness().status == 200
    eventually(lambda: manager.messages.count("WATCHDOG=1") >= 2, 5, "signs of life")
    assert consumer.process.stop() == 0
    assert manager.messages[-1] == "STOPPING=1"
    assert manager.senders == {consumer.process.pid}
