"""`aggregator-consumer migrate` as a process on the database of an existing deployment, and the others on that."""

import json
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import psycopg2
import pytest
from kafka import KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from libaggregator.storage.models import WIDENED
from libaggregator.storage.schema import migrate
from libaggregator.storage.steps import all_steps
from tests.integration.conftest import StartApi
from tests.support.brokers import EmbeddedTestBroker
from tests.support.commands import CLI
from tests.support.databases import open_database
from tests.support.deployment import Deployment
from tests.support.existing import INSERTS_OF_OLD_SERVICE, digests, load_existing
from tests.support.messages import payload
from tests.support.processes import Process, Processes
from tests.support.roles import execute
from tests.support.topics import Sent
from tests.support.waiting import eventually

CLUSTER, OTHER = "5d5892d3-1f74-4ccf-91af-548dfc9767aa", "11111111-1111-1111-1111-111111111111"
LARGE_ORG = 4_294_967_295
STEPS = list(all_steps())
REWRITE = "0002_bigint"

Command = Callable[..., Process]


@pytest.fixture
def command(processes: Processes) -> Command:
    """Return a function that starts a command of the consumer on a database."""

    def start(url: str, *arguments: str, **settings: str) -> Process:
        environment = {"AGGREGATOR_DATABASE__URL": url, "AGGREGATOR_CONSUMER__ADMIN_PORT": "0"}
        environment |= {f"AGGREGATOR_{name}": value for name, value in settings.items()}
        return processes.start(arguments[0], [*CLI, *arguments], environment)

    return start


@pytest.fixture
def existing(postgresql_url: str) -> str:
    """Return the URL of a database of an existing deployment."""
    return load_existing(postgresql_url)


@contextmanager
def open_transaction(url: str) -> Iterator[None]:
    """Have a transaction open that is older than whatever comes now."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT 1")
        yield
        connection.rollback()


def ended(process: Process, status: int = 0) -> list[str]:
    assert process.wait_exit(60) == status, process.output
    return process.output.splitlines()


def waits(url: str) -> bool:
    return execute(url, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'virtualxid'") == [(1,)]


def test_a_plan_is_printed_and_a_run_tells_what_it_does(command: Command, existing: str) -> None:
    before = digests(existing)
    planned = ended(command(existing, "migrate", "--plan"))
    assert planned[-1] == "a plan: nothing was changed"
    assert execute(existing, "SELECT to_regclass('aggregator_migration')") == [(None,)]
    done = ended(command(existing, "migrate"))
    to_do = [line.removeprefix("to do: ") for line in planned if line.startswith("to do: ")]
    assert [line.removeprefix("done: ") for line in done if line.startswith("done: ")] == to_do
    for table in WIDENED:
        assert sum(f"writing table {table} anew" in line for line in done) == 1
    assert done[-1] == "the schema is up to date"
    assert digests(existing) == before


def test_what_is_refused_ends_with_status_2_and_one_line(command: Command, existing: str) -> None:
    execute(existing, "CREATE VIEW by_organization AS SELECT org_id FROM report")
    (line,) = ended(command(existing, "migrate"), 2)
    assert line == "error: nothing was changed: view by_organization uses column report.org_id"


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_a_run_that_a_signal_ends_in_the_middle_is_continued(
    command: Command, existing: str, number: signal.Signals
) -> None:
    before = digests(existing)
    with open_transaction(existing):
        broken = command(existing, "migrate")
        eventually(lambda: waits(existing), 60, "it waits for an older transaction")
        broken.signal(number)
        if number == signal.SIGTERM:
            lines = ended(broken, 128 + number)
            assert lines[-1] == "stopped; what was done stays done, run it again"
            assert not waits(existing)
        else:
            broken.wait_exit()
            # the server goes on with the statement of a client that is gone
            again = command(existing, "migrate")
            again.wait_for_log("another run is at work", 60)
    if number == signal.SIGTERM:
        with closing(open_database(existing)) as database:
            assert migrate(database) == ["0003_read_indexes"]
    else:
        assert [line for line in ended(again) if line.startswith("done: ")] == ["done: 0003_read_indexes"]
    assert digests(existing) == before


@pytest.mark.long
def test_a_column_that_demands_a_value_keeps_the_consumer_from_starting_and_not_the_api(
    command: Command, start_api: StartApi, existing: str, tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(payload(OTHER))
    execute(
        existing,
        "ALTER TABLE rule_hit ADD COLUMN tenant integer NOT NULL DEFAULT 1",
        "ALTER TABLE rule_hit ALTER COLUMN tenant DROP DEFAULT",
    )
    for arguments in (("migrate", "--plan"), ("migrate",), ("run",)):
        line = ended(command(existing, *arguments, CONSUMER__SOURCE="file", FILE__PATH=str(file)), 2)[-1]
        assert "column rule_hit.tenant is NOT NULL without a default" in line
    api = start_api(existing).wait_until_it_listens()
    assert api.get(f"organizations/1/clusters/{CLUSTER}/users/1/report").status == 200
    assert api.process.stop() == 0


@pytest.mark.long
def test_consumer_and_api_work_before_between_and_after_the_steps_and_requests_go_on_meanwhile(
    command: Command, start_api: StartApi, existing: str, tmp_path: Path
) -> None:
    def consume(day: int, org_id: int) -> Process:
        file = tmp_path / f"{day}.jsonl"
        file.write_bytes(payload(OTHER, f"2026-05-0{day}T08:00:00Z", org_id=org_id))
        process = command(existing, "run", CONSUMER__SOURCE="file", FILE__PATH=str(file))
        ended(process)
        return process

    def stored() -> list[tuple[object, ...]]:
        return execute(existing, f"SELECT org_id FROM report WHERE cluster = '{OTHER}'")

    def warnings(process: Process) -> int:
        return process.output.count("steps are missing in the schema")

    api = start_api(existing).wait_until_it_listens()
    assert warnings(api.process) == 1
    path = f"organizations/1/clusters/{CLUSTER}/users/1/report"
    answer = api.get(path)
    assert answer.status == 200
    assert warnings(consume(1, 5)) == 1
    assert stored() == [(5,)]

    lines = ended(command(existing, "migrate", "--skip-rewrite"))
    assert lines[-1] == f"left for a run without --skip-rewrite: {REWRITE}"
    assert warnings(consume(2, LARGE_ORG)) == 1
    assert stored() == [(5,)]
    found = execute(existing, "SELECT error FROM consumer_error WHERE error LIKE 'not_storable: %'")
    assert len(found) == 1

    over, statuses = Event(), list[int]()

    def read() -> None:
        while not over.is_set():
            statuses.append(api.get(path).status)

    reader = Thread(target=read)
    reader.start()
    ended(command(existing, "migrate"))
    over.set()
    reader.join()
    assert set(statuses) == {200}
    assert api.get(path).text == answer.text
    assert warnings(consume(3, LARGE_ORG)) == 0
    assert stored() == [(LARGE_ORG,)]
    assert api.get(f"organizations/{LARGE_ORG}/clusters").json["clusters"] == [OTHER]
    assert api.process.stop() == 0


@pytest.mark.long
def test_consumers_of_both_services_share_the_partitions_of_one_group_and_ours_goes_on_where_the_old_one_ended(
    processes: Processes, embedded_broker: EmbeddedTestBroker, existing: str
) -> None:
    """The old service is played by a client that offers `range`, and stores with the old statements."""
    deployment = Deployment(processes, embedded_broker, existing)
    topic = embedded_broker.create_topic(deployment.topic, 2)
    ids = iter(str(uuid.UUID(int=number)) for number in range(100))
    sent: list[str] = []

    def send_one_to_each_partition() -> None:
        clusters = [next(ids) for _ in range(2)]
        embedded_broker.produce(topic, [Sent(payload(c, org_id=7), partition=n) for n, c in enumerate(clusters)])
        sent.extend(clusters)

    def stored() -> set[object]:
        return {cluster for (cluster,) in execute(existing, "SELECT cluster FROM report WHERE org_id = 7")}

    old = OldConsumer(embedded_broker.bootstrap, topic, deployment.group, existing)
    with old.at_work():
        send_one_to_each_partition()
        eventually(lambda: stored() == set(sent), 30, "the old service stores alone")
        process = deployment.start_consumer()
        eventually(lambda: old.partitions == 1, 60, "ours has a partition too")
        process.process.wait_for_log("partitions assigned")
        send_one_to_each_partition()
        eventually(lambda: stored() == set(sent), 30, "both store")
    taken_by_old = len(old.stored)
    assert taken_by_old == 3
    send_one_to_each_partition()
    eventually(lambda: stored() == set(sent), 60, "ours stores alone")
    # the old one stores without looking: what is read twice would break a key
    assert len(old.stored) == taken_by_old
    outcomes = [value for name, value in process.metrics().items() if "messages_total" in name and value]
    assert outcomes == [3.0]
    assert process.process.stop() == 0


class OldConsumer:
    """A member of a group that stores what it reads as the old service does, and commits each message."""

    def __init__(self, bootstrap: str, topic: str, group: str, url: str) -> None:
        self.stored: list[str] = []
        self.partitions = 0
        self._url = url
        self._over = Event()
        self._client = KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=6000,
            heartbeat_interval_ms=300,
            partition_assignment_strategy=(RangePartitionAssignor, RoundRobinPartitionAssignor),
        )

    @contextmanager
    def at_work(self) -> Iterator[None]:
        worker = Thread(target=self._work)
        worker.start()
        try:
            yield
        finally:
            self._over.set()
            worker.join()

    def _work(self) -> None:
        while not self._over.is_set():
            for records in self._client.poll(timeout_ms=100).values():
                for record in records:
                    message = json.loads(record.value)
                    values = {"org_id": message["OrgID"], "cluster": message["ClusterName"]}
                    execute(self._url, *(s.format(**values) for s in INSERTS_OF_OLD_SERVICE if "_error" not in s))
                    self.stored.append(message["ClusterName"])
                    self._client.commit()
            self.partitions = len(self._client.assignment())
        self._client.close()
