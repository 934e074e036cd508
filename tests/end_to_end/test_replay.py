"""`aggregator-consumer replay` as an operator runs it: real processes, real letters, killed and told to stop."""

import random
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import pytest

from consumer_service.errors_table import as_text
from examples.demo.ports import free_port
from libaggregator.messages import InvalidMessage, Limits, decode
from tests.support.commands import CLI
from tests.support.databases import migrate_database
from tests.support.deployment import Deployment
from tests.support.messages import HitSpec, payload
from tests.support.model import Model
from tests.support.postgresql import PostgresqlServer, table_locked
from tests.support.processes import Process, Processes
from tests.support.tables import read_tables
from tests.support.topics import Sent, fresh_name
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

PASSWORD = "s3cr3t"
NOW = datetime(2036, 1, 1)
GENEROUS = {"CONSUMER__MAX_FUTURE_SKEW": "1000000000"}
"""With these, messages of the year 2035 are as good as any other."""

HITS = [HitSpec(f"{name}.report", "K", {"n": name}) for name in "abc"]
WITHOUT = frozenset(
    {"report.reported_at", "rule_hit.created_at", "recommendation.created_at", "recommendation.impacted_since"}
)


def cluster(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def messages(seed: int, count: int, clusters: int, first: int = 0) -> list[bytes]:
    """Return messages of the year 2035, no two of one cluster with the same time, some of them of no use to anybody."""
    rng = random.Random(seed)
    made = []
    for place in range(first, first + count):
        if rng.random() < 0.1:
            made.append(rng.choice([b"", b"not a message", b"\xff\x00", b'{"OrgID": 1}']))
            continue
        at = f"2035-01-01T{place // 3600:02}:{place // 60 % 60:02}:{place % 60:02}Z"
        hits = rng.sample(HITS, rng.randint(0, 3))
        made.append(payload(cluster(rng.randrange(clusters)), at, hits, rng.randint(1, 3), version=f"4.{place}.0"))
    return made


def is_usable(value: bytes) -> bool:
    try:
        decode(value, Limits(), NOW)
    except InvalidMessage:
        return False
    return True


def assert_tables_are_those_of(values: Iterable[bytes], deployment: Deployment) -> None:
    """Compare every row but for the times of storing; the rows of `consumer_error` by their message."""
    model, useless = Model(), []
    for value in values:
        if is_usable(value):
            model.apply(decode(value, Limits(), NOW), NOW)
        else:
            useless.append(value)
    with deployment.database() as database:
        tables = read_tables(database, WITHOUT)
    expected = model.tables()
    assert expected["report"]
    expected["report"] = sorted((row[:3] + row[4:] for row in expected["report"]), key=repr)
    expected["rule_hit"] = sorted((row[:5] for row in expected["rule_hit"]), key=repr)
    expected["recommendation"] = sorted((row[:5] for row in expected["recommendation"]), key=repr)
    assert {table: tables[table] for table in expected} == expected
    assert sorted(row[6] for row in tables["consumer_error"]) == sorted(str(as_text(value)) for value in useless)


def start_replay(deployment: Deployment, *arguments: str, name: str = "replay", **settings: str) -> Process:
    """Start the command; messages of the year 2035 are usable for it."""
    environment = {f"AGGREGATOR_{key}": value for key, value in {**GENEROUS, **settings}.items()}
    command = [*CLI, "replay", *arguments]
    return deployment.processes.start(name, command, {**deployment.environment, **environment})


def replay(deployment: Deployment, *arguments: str, **settings: str) -> dict[str, int]:
    """Run the command to its end and return its summary, each line by its words."""
    process = start_replay(deployment, *arguments, **settings)
    assert process.wait_exit(60) == 0, process.output
    return summary_of(process)


def summary_of(process: Process) -> dict[str, int]:
    words = [line.rsplit(maxsplit=1) for line in process.output.splitlines()]
    found = {line[0]: int(line[1]) for line in words if len(line) == 2 and line[1].isdigit()}
    outcomes = sum(count for name, count in found.items() if name.startswith(("stored", "skipped", "rejected again")))
    assert found["replayed"] == outcomes
    return found


def reject_all(deployment: Deployment, values: Sequence[bytes], **settings: str) -> None:
    """Have a live consumer reject messages, and end it."""
    deployment.broker.create_topic(deployment.topic)
    deployment.broker.produce(deployment.topic, [Sent(value) for value in values])
    consumer = deployment.start_consumer("rejecting", **settings)
    deployment.wait_for_rows("consumer_error", len(values))
    assert consumer.process.stop() == 0
    assert deployment.count("report") == 0


def test_rows_of_mended_messages_are_stored_and_go(deployment: Deployment) -> None:
    values = messages(seed=1, count=300, clusters=60)
    reject_all(deployment, values)
    usable = sum(map(is_usable, values))
    told = replay(deployment, "--dry-run")
    assert deployment.count("report") == 0
    assert deployment.count("consumer_error") == len(values)
    assert told["replayed"] == len(values)
    found = replay(deployment)
    assert found["stored"] == usable
    assert found["rejected again, not_json"] + found["rejected again, missing_attribute"] == len(values) - usable
    assert_tables_are_those_of(values, deployment)
    assert "stored" not in {name for name, count in replay(deployment).items() if count and name != "replayed"}


@pytest.mark.long
def test_options_choose_what_is_replayed(deployment: Deployment) -> None:
    reject_all(deployment, messages(seed=2, count=100, clusters=100))
    assert replay(deployment, "--since", "2035-01-01T00:00:00+01:00")["replayed"] == 0
    assert replay(deployment, "--reason", "from_the_future", "--max", "7")["stored"] == 7
    found = replay(deployment, "--reason", "not_json", "--reason", "missing_attribute")
    assert found["stored"] == 0
    assert found["replayed"] == found["rejected again, not_json"] + found["rejected again, missing_attribute"]


@pytest.mark.long
def test_letters_of_the_topic_are_stored_and_their_rows_go_and_they_stay(deployment: Deployment) -> None:
    letters = fresh_name("rejected")
    deployment.broker.create_topic(letters, 2)
    # rejected for its time first, and for its hit afterwards, which no row may say then
    values = [
        *messages(seed=3, count=300, clusters=60),
        payload(checked="2035-01-01T00:00:00Z", hits=[HitSpec("", "K")]),
    ]
    reject_all(deployment, values, KAFKA__DEAD_LETTER_TOPIC=letters)
    deployment.broker.produce(letters, [Sent(b"of somebody else", None, [("aggregator-topic", b"x")])])
    with deployment.database() as database:
        before = read_tables(database)["consumer_error"]
    settings = {"KAFKA__DEAD_LETTER_TOPIC": letters}
    usable = sum(map(is_usable, values))
    for stored, stale in ((usable, 0), (0, usable)):
        found = replay(deployment, "--from", "dead_letters", **settings)
        # letters come in another order than their records did
        assert found["stored"] + found.get("skipped, stale", 0) == usable
        assert found["stored"] <= stored
        assert found.get("skipped, stale", 0) >= stale
        assert found["not a dead letter of ours"] == 1
        assert_tables_are_those_of(values, deployment)
    with deployment.database() as database:
        assert set(read_tables(database)["consumer_error"]) <= set(before)
    assert len(deployment.broker.read(letters, len(values) + 1)) == len(values) + 1


@contextmanager
def rows_kept(deployment: Deployment) -> Iterator[None]:
    """Let nobody remove a row of `consumer_error` (PostgreSQL)."""
    with table_locked(deployment.database_url, "consumer_error", "SHARE"):
        yield


@pytest.mark.long
@pytest.mark.parametrize("origin", ["consumer_error", "dead_letters"])
def test_killed_in_the_middle_and_run_again_it_leaves_what_one_run_leaves(
    real_deployment: Deployment, origin: str
) -> None:
    deployment = real_deployment
    letters = deployment.broker.create_topic(fresh_name("rejected"))
    values = messages(seed=4, count=400, clusters=80)
    reject_all(deployment, values, KAFKA__DEAD_LETTER_TOPIC=letters)
    settings = {"KAFKA__DEAD_LETTER_TOPIC": letters, "CONSUMER__MAX_BATCH": "50"}
    for kept in (deployment.reports_locked, lambda: rows_kept(deployment)):
        with kept():
            killed = start_replay(deployment, "--from", origin, **settings)
            eventually(deployment.waits_for_lock, 30, "it is in the middle of a page")
            killed.kill()
    assert 0 < deployment.count("report") <= 50
    assert deployment.count("consumer_error") == len(values)
    found = replay(deployment, "--from", origin, **settings)
    assert found["skipped, stale"] > 0
    assert_tables_are_those_of(values, deployment)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)]
)
def test_a_signal_ends_it_after_the_page_in_hand_with_a_summary(
    real_deployment: Deployment, number: signal.Signals, status: int
) -> None:
    deployment = real_deployment
    values = messages(seed=5, count=200, clusters=200)
    reject_all(deployment, values)
    with rows_kept(deployment):
        process = start_replay(deployment, CONSUMER__MAX_BATCH="50")
        eventually(deployment.waits_for_lock, 30, "it is in the middle of a page")
        process.signal(number)
    assert process.wait_exit(30) == status
    found = summary_of(process)
    assert found["replayed"] == 50
    assert deployment.count("report") <= 50
    assert deployment.count("consumer_error") == len(values) - found["stored"] - found.get("skipped, stale", 0)
    assert "Traceback" not in process.output
    replay(deployment)
    assert_tables_are_those_of(values, deployment)


@pytest.mark.long
def test_a_second_signal_ends_it_at_once_even_while_the_database_says_nothing(real_deployment: Deployment) -> None:
    deployment = real_deployment
    reject_all(deployment, messages(seed=5, count=20, clusters=20))
    with rows_kept(deployment):
        process = start_replay(deployment)
        eventually(deployment.waits_for_lock, 30, "it is in the middle of a page")
        process.signal(signal.SIGTERM)

        def ended() -> bool:
            # the first one may not have been heard yet
            process.signal(signal.SIGTERM)
            return process.exit_code is not None

        eventually(ended, 20, "it ends")
        assert process.exit_code == -signal.SIGTERM


@pytest.mark.long
def test_beside_two_live_consumers_that_store_newer_results_of_the_same_clusters(real_deployment: Deployment) -> None:
    deployment = real_deployment
    rejected = messages(seed=6, count=600, clusters=50)
    newer = messages(seed=7, count=600, clusters=50, first=600)
    reject_all(deployment, rejected)
    deployment.broker.add_partitions(deployment.topic, 2)
    consumers = [deployment.start_consumer(f"live-{number}", **GENEROUS) for number in range(2)]
    for consumer in consumers:
        consumer.wait_until_ready()
    # both partitions have messages of every cluster
    records = [Sent(value, partition=place % 2) for place, value in enumerate(newer)]
    replays = [start_replay(deployment, name=f"replay-{n}", CONSUMER__MAX_BATCH="20") for n in range(2)]
    for start in range(0, len(records), 100):
        deployment.broker.produce(deployment.topic, records[start : start + 100])
    for process in replays:
        assert process.wait_exit(60) == 0, process.output
    ends = {0: len(rejected) + len(records) // 2, 1: len(records) // 2}
    eventually(lambda: deployment.broker.committed(deployment.group, deployment.topic) == ends, 60, "all is read")
    # of what one of them rejected while the other one still read: it is the last row that counts
    assert_tables_are_those_of([*rejected, *newer], deployment)


@pytest.mark.long
def test_an_outage_of_the_database_is_told_in_one_line_and_a_second_run_goes_on(
    own_postgresql: PostgresqlServer, real_deployment: Deployment, processes: Processes
) -> None:
    deployment = Deployment(processes, real_deployment.broker, own_postgresql.create_database())
    deployment.migrate()
    values = messages(seed=8, count=200, clusters=200)
    reject_all(deployment, values)
    with rows_kept(deployment):
        process = start_replay(deployment, CONSUMER__MAX_BATCH="50")
        eventually(deployment.waits_for_lock, 30, "it is in the middle of a page")
        own_postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%replay'"
        )
        assert process.wait_exit(30) == 1
    (line,) = [line for line in process.output.splitlines() if line.startswith("Error: ")]
    assert line.endswith("; what was done stays done, run it again")
    assert "Traceback" not in process.output
    replay(deployment)
    assert_tables_are_those_of(values, deployment)


@pytest.mark.long
def test_a_database_or_broker_that_is_away_is_told_without_a_secret(deployment: Deployment, sqlite_url: str) -> None:
    away = f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/x"
    broker = {"KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}", "KAFKA__DEAD_LETTER_TOPIC": "t"}
    broker |= {
        "KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA__SASL_USERNAME": "aggregator",
        "KAFKA__SASL_PASSWORD": PASSWORD,
    }
    missing = {"KAFKA__DEAD_LETTER_TOPIC": fresh_name("missing")}
    for process, said in [
        (start_replay(deployment, DATABASE__URL=away), "refused"),
        (start_replay(deployment, "--from", "dead_letters", **broker), "can't connect to"),
        (start_replay(deployment, "--from", "dead_letters", **missing), "does not exist"),
    ]:
        assert process.wait_exit(30) == 1, process.output
        (line,) = [line for line in process.output.splitlines() if line.startswith("Error: ")]
        assert said in line
        assert PASSWORD not in process.output
        assert "Traceback" not in process.output


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["--reason", "no_such_reason"], {}, "no_such_reason"),
        (["--since", "2026-05-01 08:00"], {}, "2026-05-01 08:00"),
        (["--max", "0"], {}, "--max"),
        (["--from", "elsewhere"], {}, "elsewhere"),
        (["--from", "dead_letters"], {}, "kafka.dead_letter_topic"),
        (["--from", "dead_letters"], {"CONSUMER__SOURCE": "redis"}, "use --from consumer_error"),
        ([], {"DATABASE__URL": f"mysql://u:{PASSWORD}@h/n"}, "database.url"),
        ([], {"DATABASE__URL": "sqlite:////no/such/file.db"}, "aggregator-consumer migrate"),
        ([], {"CONSUMER__ENABLE_ORG_ALLOWLIST": "true"}, "consumer.org_allowlist"),
    ],
)
def test_a_bad_option_or_setting_is_refused(
    processes: Processes, sqlite_url: str, arguments: list[str], settings: dict[str, str], said: str
) -> None:
    environment = {"AGGREGATOR_DATABASE__URL": migrate_database(sqlite_url)}
    environment |= {f"AGGREGATOR_{key}": value for key, value in settings.items()}
    command = [*CLI, "replay", *arguments]
    process = processes.start("replay", command, environment)
    assert process.wait_exit() == 2, process.output
    assert said in process.output
    assert PASSWORD not in process.output
    assert "Traceback" not in process.output
