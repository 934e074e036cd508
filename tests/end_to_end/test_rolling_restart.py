"""Every process is replaced under load, one after another: no request fails, no message is lost or stored twice."""

import http.client
import re
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.api_process import REPORT, SERVERS, Api, fill
from tests.support.balancer import REMOVAL_SECONDS, Balancer
from tests.support.deployment import PREFIX, Consumer, Deployment
from tests.support.processes import Processes
from tests.support.waiting import eventually, last

pytestmark = pytest.mark.long

ROUNDS = 3
REPLICAS = 2
GRACE_SECONDS = 30
"""What Kubernetes gives a process by default between SIGTERM and SIGKILL."""

_PRE_STOP_SECONDS = 2 * REMOVAL_SECONDS


class Clients:
    """Clients of a port that ask all the time: on fresh connections, on one that they keep, busily and at leisure."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.answered = 0
        self.failed: list[str] = []
        ways = [(0.01, 1), (0.01, 1), (0.01, 1_000_000), (0.01, 1_000_000), (0.3, 1_000_000)]
        self._threads = [threading.Thread(target=self._ask, args=way) for way in ways]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int = 50) -> None:
        """Wait until so many more requests were answered."""
        enough = self.answered + count
        eventually(lambda: self.answered >= enough or self.failed, 30, f"{count} answers")

    def _ask(self, pause: float, requests_a_connection: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        asked = 0
        while not self._over.wait(pause):
            if asked % requests_a_connection == 0:
                connection.close()
            asked += 1
            try:
                connection.request("GET", f"{PREFIX}organizations/1/clusters")
                response = connection.getresponse()
                response.read()
                status = str(response.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status = repr(error)
            if status == "200":
                self.answered += 1
            else:
                self.failed.append(f"every {pause} s, {requests_a_connection} a connection: {status}")
        connection.close()


@pytest.fixture
def balancer() -> Iterator[Balancer]:
    """Yield a balancer without instances."""
    balancer = Balancer()
    yield balancer
    balancer.close()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("server", SERVERS)
def test_no_request_fails_when_instances_are_replaced_as_kubernetes_does_it(
    processes: Processes, postgresql_url: str, balancer: Balancer, server: str, workers: str
) -> None:
    """Taken out of the service first, with a pause before the signal (`maxUnavailable: 0`, `preStop.sleep`)."""

    def retire(api: Api) -> None:
        balancer.remove(api)
        last(_PRE_STOP_SECONDS)
        assert api.process.stop(GRACE_SECONDS) == 0

    _replace_all(processes, postgresql_url, balancer, retire, API__SERVER=server, API__WORKERS=workers)


@pytest.mark.parametrize(("server", "workers"), [("waitress", "1"), ("granian", "2")])
def test_no_request_fails_when_a_balancer_asks_readiness_and_instances_wait_for_it(
    processes: Processes, postgresql_url: str, balancer: Balancer, server: str, workers: str
) -> None:
    """The signal comes first; `api.shutdown_delay` is longer than the balancer takes to hear of it."""

    def retire(api: Api) -> None:
        assert api.process.stop(GRACE_SECONDS) == 0

    delay = {"API__SHUTDOWN_DELAY": "1.5", "API__SERVER": server, "API__WORKERS": workers}
    _replace_all(processes, postgresql_url, balancer, retire, **delay)


def _replace_all(
    processes: Processes, url: str, balancer: Balancer, retire: Callable[[Api], None], **settings: str
) -> None:
    """Replace the oldest instance again and again, each time after a newer one is given connections."""
    reading_url = fill(url, REPORT)

    def start() -> Api:
        api = Api(processes, reading_url, **settings)
        balancer.add(api)
        return api

    apis = [start() for _ in range(REPLICAS)]
    with Clients(balancer.port) as clients:
        for _ in range(ROUNDS):
            clients.wait_for_more()
            apis.append(start())
            clients.wait_for_more()
            retire(apis.pop(0))
        clients.wait_for_more()
    assert clients.failed == []


@pytest.mark.faults
@pytest.mark.parametrize("is_static", [False, True], ids=["", "static members"])
def test_no_message_is_lost_or_handled_twice_when_consumers_are_replaced_one_after_another(
    real_deployment: Deployment, begin_run: BeginRun, is_static: bool
) -> None:
    """Each ends before the one in its place begins (`maxSurge: 0`)."""
    run = begin_run(real_deployment, seed=24, partitions=6)

    def start(number: int) -> Consumer:
        return run.start_consumer(**{"KAFKA__GROUP_INSTANCE_ID": f"consumer-{number}"} if is_static else {})

    run.begin_load(100)
    consumers = [start(number) for number in range(3)]
    run.wait_until_shared()
    started = list(consumers)
    for number in range(3):
        run.wait_for_stored(100)
        run.stop(consumers[number])
        started.append(start(number))
        run.wait_until_shared()
    compared = run.finish()
    assert sum(_handled(consumer) for consumer in started) == compared.messages


def _handled(consumer: Consumer) -> int:
    """Return how many messages a consumer stored, skipped or rejected, as its log tells."""
    batches = re.findall(r"batch done .*rejected=(\d+).* skipped=(\d+).* stored=(\d+)", consumer.process.output)
    assert batches, consumer.process.output
    return sum(int(count) for batch in batches for count in batch)
