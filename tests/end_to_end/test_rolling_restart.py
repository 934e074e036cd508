"""Every process is replaced under load, one after another: no request fails, no message is lost or stored twice."""

import http.client
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Way:
    """How a client asks: the pause in seconds between two requests, and how many it sends on a connection.

    None of them looks whether its connection was closed meanwhile before it sends the next request.
    """

    pause: float
    requests_a_connection: int = 1_000_000


BUSY = (Way(0.01, 1), Way(0.01, 1), Way(0.01), Way(0.01), Way(0.3))
LEISURELY_SECONDS = 3.0
LEISURELY = (Way(1.0),) * 4 + (Way(LEISURELY_SECONDS),) * 4


class Clients:
    """Clients of a port that ask all the time, each in its way."""

    def __init__(self, port: int, ways: Sequence[Way]) -> None:
        self._port = port
        self._over = threading.Event()
        self.answered = 0
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=[way]) for way in ways]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        enough = self.answered + count
        eventually(lambda: self.answered >= enough or self.failed, 30, f"{count} answers")

    def _ask(self, way: Way) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        asked = 0
        while not self._over.wait(way.pause):
            if asked % way.requests_a_connection == 0:
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
                self.failed.append(f"{way}: {status}")
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
    _replace_all(
        processes, postgresql_url, balancer, _as_kubernetes(balancer), API__SERVER=server, API__WORKERS=workers
    )


@pytest.mark.parametrize(("server", "workers"), [("waitress", "2"), ("granian", "1")])
def test_no_request_of_clients_that_pause_on_kept_connections_fails(
    processes: Processes, postgresql_url: str, balancer: Balancer, server: str, workers: str
) -> None:
    """Each asks once more within `api.shutdown_delay`, and hears that the connection ends."""
    settings = {
        "API__SERVER": server,
        "API__WORKERS": workers,
        "API__SHUTDOWN_DELAY": str(LEISURELY_SECONDS + 1),
    }
    retire = _as_kubernetes(balancer)
    # so many come when each client has a connection that it keeps
    _replace_all(processes, postgresql_url, balancer, retire, LEISURELY, 2 * len(LEISURELY), **settings)


@pytest.mark.parametrize(("server", "workers"), [("waitress", "1"), ("granian", "2")])
def test_no_request_fails_when_a_balancer_asks_readiness_and_instances_wait_for_it(
    processes: Processes, postgresql_url: str, balancer: Balancer, server: str, workers: str
) -> None:
    """The signal comes first; `api.shutdown_delay` is longer than the balancer takes to hear of it."""

    def retire(api: Api) -> None:
        assert api.process.stop(GRACE_SECONDS) == 0

    delay = {"API__SHUTDOWN_DELAY": "1.5", "API__SERVER": server, "API__WORKERS": workers}
    _replace_all(processes, postgresql_url, balancer, retire, **delay)


def _as_kubernetes(balancer: Balancer) -> Callable[[Api], None]:
    """Return what ends an instance as Kubernetes does with the manifests."""

    def retire(api: Api) -> None:
        balancer.remove(api)
        last(_PRE_STOP_SECONDS)
        assert api.process.stop(GRACE_SECONDS) == 0

    return retire


def _replace_all(
    processes: Processes,
    url: str,
    balancer: Balancer,
    retire: Callable[[Api], None],
    ways: Sequence[Way] = BUSY,
    answers: int = 50,
    **settings: str,
) -> None:
    """Replace the oldest instance again and again, each time after a newer one is given connections.

    Before and after each step clients get so many answers.
    """
    reading_url = fill(url, REPORT)

    def start() -> Api:
        api = Api(processes, reading_url, **settings)
        balancer.add(api)
        return api

    apis = [start() for _ in range(REPLICAS)]
    with Clients(balancer.port, ways) as clients:
        for _ in range(ROUNDS):
            clients.wait_for_more(answers)
            apis.append(start())
            clients.wait_for_more(answers)
            retire(apis.pop(0))
        clients.wait_for_more(answers)
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
