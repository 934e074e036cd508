"""The command `aggregator-consumer status` as an operator has it (`docs/chores.md`)."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kafka import KafkaAdminClient

from consumer_service.cli import main
from examples.demo.ports import free_port
from libaggregator.clock import utc_now
from tests.support.brokers import AnyBroker, EmbeddedTestBroker
from tests.support.commands import Start, printed
from tests.support.databases import migrate_database, open_database
from tests.support.deployment import Deployment
from tests.support.kafka import ApacheKafka
from tests.support.messages import CLUSTERS, payload
from tests.support.postgresql import PostgresqlServer, table_locked, waiting_for_locks
from tests.support.processes import Processes
from tests.support.redis import RedisServer
from tests.support.rows import add_cluster
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

PASSWORD = "s3cr3t"


def test_lag_and_dead_letters_are_told_without_joining_the_group(
    embedded_broker: EmbeddedTestBroker, processes: Processes, sqlite: str, start: Start
) -> None:
    check_lag_and_letters(embedded_broker, processes, sqlite, start)


@pytest.mark.long
def test_so_they_are_on_apache_kafka(
    apache_kafka: ApacheKafka, processes: Processes, sqlite: str, start: Start
) -> None:
    group = check_lag_and_letters(apache_kafka, processes, sqlite, start)
    client = KafkaAdminClient(bootstrap_servers=apache_kafka.bootstrap)
    try:
        (found,) = client.describe_groups([group]).values()
    finally:
        client.close()
    assert found["members"] == []


def test_a_broker_that_is_away_is_said_and_the_database_is_told_all_the_same(start: Start, sqlite: str) -> None:
    add_cluster_to(sqlite)
    broker = f"127.0.0.1:{free_port()}"
    process = start("status", DATABASE__URL=sqlite, KAFKA__BOOTSTRAP_SERVERS=broker)
    lines = printed(process, 1)
    assert "report 1" in lines
    assert "topic ccx.ocp.results, group aggregator, lag ?" in lines
    (problem,) = [line for line in lines if line.startswith("Error: ")]
    assert problem.startswith(f"Error: source: can't connect to {broker}")


@pytest.mark.long
def test_a_database_that_is_away_is_said_and_the_broker_is_told_all_the_same(
    start: Start, embedded_broker: EmbeddedTestBroker
) -> None:
    topic = embedded_broker.create_topic(fresh_name("results"))
    process = start(
        "status",
        DATABASE__URL=f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/x",
        KAFKA__BOOTSTRAP_SERVERS=embedded_broker.bootstrap,
        KAFKA__TOPIC=topic,
        KAFKA__DEAD_LETTER_TOPIC="no-such-topic",
    )
    lines = printed(process, 1)
    assert f"topic {topic}, group aggregator, lag 0" in lines
    assert [line for line in lines if line.startswith("Error: ")][1:] == [
        "Error: dead_letters: topic 'no-such-topic' does not exist"
    ]
    assert PASSWORD not in process.output


def test_another_source_has_no_lag(sqlite: str) -> None:
    found = status_as_json({"DATABASE__URL": sqlite, "CONSUMER__SOURCE": "file", "FILE__PATH": str(Path(__file__))})
    nothing = dict.fromkeys(("topic", "group", "lag", "pending", "partitions"))
    assert found["source"] == {"name": "file", **nothing}
    assert found["problems"] == []


def test_of_a_stream_lag_pending_entries_and_dead_letters_are_told_and_none_is_taken(
    redis_server: RedisServer, sqlite: str
) -> None:
    stream, letters, group = fresh_name("results"), fresh_name("rejected"), fresh_name("group")
    settings = {"DATABASE__URL": sqlite, "REDIS__DEAD_LETTER_STREAM": letters}
    settings |= redis_server.consumer_settings(stream, group)

    def source_and_letters() -> tuple[object, object]:
        found = status_as_json(settings)
        assert found["problems"] == []
        return [found["source"][key] for key in ("topic", "group", "lag", "pending")], found["dead_letters"]["topic"]

    redis_server.produce(stream, [payload()] * 5)
    assert source_and_letters() == ([stream, group, 5, 0], {"name": letters, "records": 0})
    redis_server.client.xgroup_create(stream, group, "0")
    redis_server.client.xreadgroup(group, "somebody", {stream: ">"}, count=2)
    redis_server.produce(letters, [b"bad"])
    for _ in range(2):
        assert source_and_letters() == ([stream, group, 3, 2], {"name": letters, "records": 1})


def test_a_stream_that_does_not_exist_and_a_server_that_is_away_are_said(
    redis_server: RedisServer, sqlite: str
) -> None:
    settings = {"DATABASE__URL": sqlite, **redis_server.consumer_settings(fresh_name("missing"), "aggregator")}
    (problem,) = status_as_json(settings, 1)["problems"]
    assert problem == {"part": "source", "problem": f"stream {settings['REDIS__STREAM']!r} does not exist"}
    settings["REDIS__URL"] = f"redis://u:{PASSWORD}@127.0.0.1:{free_port()}"
    (problem,) = status_as_json(settings, 1)["problems"]
    assert problem["part"] == "source"
    assert "refused" in problem["problem"]
    assert PASSWORD not in problem["problem"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"KAFKA__BOOTSTRAP_SERVERS": "nowhere"}, "kafka.bootstrap_servers: expected HOST:PORT, got 'nowhere'"),
        ({"CONSUMER__SOURCE": "nope"}, "consumer.source: no source named 'nope'"),
        ({"CONSUMER__SOURCE": "redis", "REDIS__URL": "bad"}, "redis.url: expected redis://"),
        ({"CONSUMER__SOURCE": "file"}, "file.path"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_of_a_source_that_can_not_work_are_refused(sqlite: str, settings: dict[str, str], said: str) -> None:
    result = run_status({"DATABASE__URL": sqlite, **settings})
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@pytest.mark.long
def test_a_server_that_does_not_answer_is_said_and_the_source_is_told_all_the_same(
    own_postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer_service.status.command.SCAN_SECONDS", 1)
    with own_postgresql.database() as url, ThreadPoolExecutor(1) as pool:
        migrate_database(url)
        environment = {"DATABASE__URL": url, "CONSUMER__SOURCE": "file", "FILE__PATH": str(Path(__file__))}
        with table_locked(url, "report", "ACCESS EXCLUSIVE"):
            running = pool.submit(run_status, environment)
            eventually(lambda: waiting_for_locks(url), 30, "it counts")
            with own_postgresql.frozen():
                result = running.result(60)
    assert (result.exit_code, result.stdout.splitlines()[:3]) == (1, ["database  ?", "", "source  file"])
    assert result.stderr.startswith("Error: database: no answer for 6 s")


def run_status(settings: Mapping[str, str], *options: str) -> Result:
    environment = {f"AGGREGATOR_{name}": value for name, value in settings.items()}
    return CliRunner().invoke(main, ["status", *options], env=environment)


def status_as_json(settings: Mapping[str, str], status: int = 0) -> Any:
    result = run_status(settings, "--json")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def check_lag_and_letters(broker: AnyBroker, processes: Processes, url: str, start: Start) -> str:
    """Consume a part of a topic, look at the status, and return the name of the group."""
    deployment = Deployment(processes, broker, url)
    broker.create_topic(deployment.topic, partitions=1)
    letters = broker.create_topic(fresh_name("rejected"), partitions=1)
    broker.produce(deployment.topic, [payload(CLUSTERS[0]), b"bad", payload(CLUSTERS[1])])
    consumer = deployment.start_consumer(KAFKA__DEAD_LETTER_TOPIC=letters)
    # before that there may be no coordinator to ask
    deployment.wait_for_rows("report", 2)
    eventually(lambda: broker.committed(deployment.group, deployment.topic).get(0) == 3, 60, "all is committed")
    assert consumer.process.stop() == 0
    broker.produce(deployment.topic, [payload(CLUSTERS[2])] * 2)
    settings = {name.removeprefix("AGGREGATOR_"): value for name, value in deployment.environment.items()}
    process = start("status", "--json", **settings, KAFKA__DEAD_LETTER_TOPIC=letters)
    found: dict[str, Any] = json.loads("\n".join(printed(process)))
    assert found["source"] == {
        "name": "kafka",
        "topic": deployment.topic,
        "group": deployment.group,
        "lag": 2,
        "pending": None,
        "partitions": [{"partition": 0, "committed": 3, "end": 5, "lag": 2}],
    }
    assert found["dead_letters"] == {
        "consumer_error": {"rows": 1, "exact": True},
        "topic": {"name": letters, "records": 1},
    }
    assert found["database"]["rejected_last_hour"] == {"not_json": 1}
    assert found["database"]["tables"]["report"] == {"rows": 2, "exact": True}
    assert found["problems"] == []
    for time in (found["time"], found["database"]["newest_result"], found["database"]["oldest_result"]):
        assert time.endswith("Z")
        assert abs(datetime.fromisoformat(time[:-1]) - utc_now()) < timedelta(hours=1)
    return deployment.group


def add_cluster_to(url: str) -> None:
    """Insert one cluster."""
    database = open_database(url)
    add_cluster(database, CLUSTERS[0], utc_now())
    database.close()
