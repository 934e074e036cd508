"""The commands `aggregator-api health` and `config`."""

import json

from examples.demo.ports import free_port
from tests.support.api_process import API, StartApi, fill
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Process, Processes
from tests.support.waiting import eventually


def _run(processes: Processes, *arguments: str, **settings: str) -> Process:
    environment = {f"AGGREGATOR_{name}": value for name, value in settings.items()}
    process = processes.start("command", [*API, *arguments], environment)
    process.wait_exit()
    return process


def test_health_asks_the_admin_port(
    processes: Processes, start_api: StartApi, own_postgresql: PostgresqlServer
) -> None:
    api = start_api(fill(own_postgresql.create_database())).wait_until_it_listens()
    port = str(api.admin_port)
    eventually(lambda: api.readiness().status == 200, 10, "readiness")
    ready = _run(processes, "health", API__ADMIN_PORT=port)
    assert (ready.exit_code, json.loads(ready.output)["status"]) == (0, "ok")
    own_postgresql.stop()
    eventually(lambda: api.readiness().status == 503, 10, "an end of readiness")
    assert _run(processes, "health", API__ADMIN_PORT=port).exit_code == 1
    assert _run(processes, "health", "--live", API__ADMIN_PORT=port).exit_code == 0
    assert _run(processes, "health", API__ADMIN_PORT=str(free_port())).exit_code == 1


def test_config_shows_what_is_in_force_without_secrets(processes: Processes) -> None:
    shown = _run(processes, "config", DATABASE__URL="postgresql://me:secret@host/db", API__THREADS="7")
    assert shown.exit_code == 0
    assert "threads = 7" in shown.output
    assert "environment AGGREGATOR_API__THREADS" in shown.output
    assert "postgresql://me:***@host/db" in shown.output
    assert "secret" not in shown.output


def test_an_unknown_setting_is_named(processes: Processes) -> None:
    refused = _run(processes, "config", API__PROT="1")
    assert refused.exit_code == 2
    assert refused.output.startswith("error: api.prot: unknown setting")
