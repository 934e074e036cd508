"""A database that was restored from a dump, beside a topic whose offsets have gone on (`docs/deployment.md`)."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.end_to_end.conftest import BeginRun
from tests.support.databases import migrate_database
from tests.support.deployment import Deployment
from tests.support.kafka import ApacheKafka
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Processes
from tests.support.roles import database_with_roles, execute, make_roles

pytestmark = [pytest.mark.faults, pytest.mark.long]

GROUPS_TOOL = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
"""What `kafka-consumer-groups.sh` runs."""


def test_setting_the_offsets_back_to_the_time_of_the_dump_brings_back_all_that_came_since(
    own_postgresql: PostgresqlServer,
    apache_kafka: ApacheKafka,
    processes: Processes,
    begin_run: BeginRun,
    tmp_path: Path,
) -> None:
    server, dump = own_postgresql, str(tmp_path / "aggregator.dump")
    urls = database_with_roles(server)
    url = urls.superuser
    migrate_database(urls.owner)
    make_roles(url)
    deployment = Deployment(processes, apache_kafka, url)
    run = begin_run(deployment, seed=25, DATABASE__URL=urls.writer)

    run.produce(run.traffic.take(600))
    run.start_two()
    run.wait_until_handled()
    time_of_dump = datetime.now(UTC)
    _run(server, "pg_dump", "--format=custom", f"--file={dump}", url)
    rights = execute(url, "SELECT relname, relacl::text FROM pg_class WHERE relacl IS NOT NULL ORDER BY 1")

    run.produce(run.traffic.take(600))
    run.wait_until_handled()
    for consumer in list(run.consumers):
        run.stop(consumer)
    name = urlsplit(url).path[1:]
    with run.fault("the database is lost"):
        server.drop_database(url)
        server.execute(f"CREATE DATABASE {name}")
        _run(server, "pg_restore", "--exit-on-error", f"--dbname={url}", dump)
        make_roles(url)
    assert execute(url, "SELECT relname, relacl::text FROM pg_class WHERE relacl IS NOT NULL ORDER BY 1") == rights
    apache_kafka.run_tool(
        GROUPS_TOOL,
        *("--group", deployment.group, "--topic", deployment.topic),
        *("--reset-offsets", "--to-datetime", f"{time_of_dump:%Y-%m-%dT%H:%M:%S.000Z}", "--execute"),
    )
    run.finish(1200)


def _run(server: PostgresqlServer, program: str, *arguments: str) -> None:
    result = subprocess.run(
        [str(server.programs / program), *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
