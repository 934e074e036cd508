"""The image as a cluster runs it: an unknown user, a read-only root, 256 MiB of memory. `make test-image`."""

import json
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from benchmarks.large_answers import fill_up
from benchmarks.parts import produce, run_at_once
from benchmarks.rounds import make_rounds
from benchmarks.services import Question
from benchmarks.services import ask as ask_api
from examples.demo.generator import Fleet
from examples.demo.ports import free_port
from tests.support.brokers import EmbeddedTestBroker
from tests.support.deployment import PREFIX, fetch, metrics_of
from tests.support.image import BRANCH, COMMIT, GROUP, USER, Container, Containers, Image, version
from tests.support.kafka import ApacheKafka
from tests.support.messages import CLUSTERS, HitSpec, payload
from tests.support.postgresql import PostgresqlServer, with_select_only
from tests.support.processes import REPOSITORY
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]

MEMORY = 256 * 1024 * 1024
SETTINGS = {"AGGREGATOR_LOGGING__FORMAT": "json"}
CONFIG_FILE = "/etc/aggregator/aggregator.toml"
SECRETS = "/run/secrets/aggregator"


# https://man7.org/linux/man-pages/man2/PR_SET_MDWE.2const.html; what was allowed to a process is not given back by exec
WITHOUT_WRITE_AND_EXECUTE = (
    "python",
    "-c",
    "import ctypes, os, sys\nassert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0\nos.execvp(sys.argv[1], sys.argv[1:])",
)


class Service:
    """A process in a container, with ports of its own."""

    def __init__(self, containers: Containers, command: Sequence[str], settings: Mapping[str, str]) -> None:
        self.port, self.admin_port = free_port(), free_port()
        section = "CONSUMER" if "aggregator-consumer" in command else "API"
        ports = {f"AGGREGATOR_{section}__ADMIN_PORT": str(self.admin_port)}
        if section == "API":
            ports["AGGREGATOR_API__PORT"] = str(self.port)
        self.settings = {**SETTINGS, **ports, **settings}
        self.container: Container = containers.start(*command, settings=self.settings)

    def wait_until_ready(self) -> None:
        """Wait until all its checks are well."""
        eventually(lambda: fetch(self.admin_port, "/readyz").status == 200, 60, f"{self.container.name} is ready")

    def get(self, path: str) -> object:
        """Return the JSON that the API answers with."""
        answer = fetch(self.port, PREFIX + path)
        assert answer.status == 200, answer
        return answer.json

    def stop(self) -> int:
        """Stop it as a cluster does, and return its exit code."""
        self.container.process.signal(signal.SIGTERM)
        return self.container.process.wait_exit(60)


def start_consumer(containers: Containers, **settings: str) -> Service:
    return Service(containers, ("aggregator-consumer", "run"), _variables(settings))


def start_api(containers: Containers, **settings: str) -> Service:
    return Service(containers, ("aggregator-api", "serve"), _variables(settings))


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"AGGREGATOR_{name}": value for name, value in settings.items()}


def migrate(containers: Containers, **settings: str) -> None:
    output = containers.start("aggregator-consumer", "migrate", settings=_variables(settings)).run_to_end()
    assert "the schema is up to date" in output


def refusal(container: Container) -> str:
    """Return the one line with which a start ends."""
    assert container.process.wait_exit(30) == 2, container.process.output
    (line,) = container.process.output.splitlines()
    return line


# what it is made of


def test_its_configuration_names_user_signal_ports_and_what_it_was_made_of(image: Image) -> None:
    assert image.config["User"] == "10001:0"
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["WorkingDir"] == "/var/lib/aggregator"
    assert set(image.config["ExposedPorts"]) == {"8080/tcp", "8081/tcp", "8082/tcp"}
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in image.config["Labels"].items()}
    assert labels["title"] == "insights-results-aggregator"
    assert (labels["version"], labels["revision"], labels["licenses"]) == (version(), COMMIT, "Apache-2.0")


def test_any_user_of_group_0_may_write_to_the_data_folder_and_nowhere_else(image: Image) -> None:
    state = (image.root / "var/lib/aggregator").stat()
    assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (10001, 0, 0o770)
    programs = [path for path in (image.root / "opt/aggregator").rglob("*") if not path.is_symlink()]
    assert len(programs) > 1000
    assert [path for path in programs if path.lstat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)] == []
    assert {path.lstat().st_uid for path in programs} == {0}


def test_it_holds_bytecode_of_every_module_and_nothing_that_only_builds_need(image: Image) -> None:
    (packages,) = (image.root / "opt/aggregator/lib").glob("python*/site-packages")
    modules = list(packages.rglob("*.py"))
    assert len(modules) > 500
    missing = [path for path in modules if not list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))]
    assert missing == []
    # PEP 552: 1 is a file that goes by its hash and is not compared with the source
    compiled = next((packages / "libaggregator" / "__pycache__").glob("settings.*.pyc"))
    assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 1
    assert not {"pip", "setuptools", "tests", "benchmarks", "docs", "examples"} & {
        path.name for path in packages.iterdir()
    }
    assert not (image.root / "build").exists()


def test_both_commands_are_found_and_tell_their_version(containers: Containers) -> None:
    for program in ("aggregator-consumer", "aggregator-api"):
        assert containers.start(program, "--version").run_to_end().strip() == f"{program}, version {version()}"
        assert "[database]" in containers.start(program, "config").run_to_end()


def test_nothing_but_its_data_and_temporary_files_can_be_written(containers: Containers) -> None:
    program = """if True:
        import os, pathlib
        for folder in ("/", "/etc", "/opt/aggregator", "/run", "/tmp", "/var/lib/aggregator"):
            try:
                (pathlib.Path(folder) / "x").touch()
                print(folder)
            except OSError:
                pass
        print(os.getuid(), os.getgid(), os.getpid())"""
    lines = containers.start("python", "-c", program).run_to_end().split("\n")
    assert lines[:3] == ["/tmp", "/var/lib/aggregator", f"{USER} {GROUP} 1"]


def test_more_memory_than_allowed_is_not_to_be_had(containers: Containers) -> None:
    container = containers.start("python", "-c", "bytearray(400 * 1024 * 1024)")
    assert container.process.wait_exit(30) == 128 + signal.SIGKILL


# what it does


def test_a_message_becomes_an_answer_and_both_end_when_told(
    containers: Containers, embedded_broker: EmbeddedTestBroker
) -> None:
    migrate(containers)
    topic = embedded_broker.create_topic(fresh_name("results"))
    hit = HitSpec("rules.a.report", "KEY", {"size": 1})
    embedded_broker.produce(topic, [payload(hits=[hit])])
    kafka = {"KAFKA__BOOTSTRAP_SERVERS": embedded_broker.bootstrap, "KAFKA__TOPIC": topic}
    consumer, api = start_consumer(containers, **kafka), start_api(containers)
    consumer.wait_until_ready()
    api.wait_until_ready()
    eventually(lambda: api.get("organizations") == {"organizations": [1], "status": "ok"}, 30, "an organization")
    answer = fetch(api.port, f"{PREFIX}organizations/1/clusters/{CLUSTERS[0]}/users/11/report")
    assert [found["key"] for found in answer.json["report"]["reports"]] == ["KEY"]
    for service, program in ((consumer, "aggregator-consumer"), (api, "aggregator-api")):
        health = containers.start(program, "health", settings=service.settings)
        assert '"status": "ok"' in health.run_to_end()
    info = api.get("info")
    assert isinstance(info, dict)
    build = info["info"]
    assert (build["BuildVersion"], build["BuildBranch"], build["BuildCommit"]) == (version(), BRANCH, COMMIT)
    assert build["BuildTime"] == "Tue Nov 24 07:33:05 UTC 2026"
    assert [consumer.stop(), api.stop()] == [0, 0]
    files = {path.name for path in containers.data.iterdir()}
    assert "aggregator.db" in files
    assert {path.stat().st_uid for path in containers.data.iterdir()} == {USER}


def test_a_second_signal_ends_at_once_although_it_is_process_1(containers: Containers) -> None:
    migrate(containers)
    api = start_api(containers, API__SHUTDOWN_DELAY="60")
    api.wait_until_ready()
    api.container.process.signal(signal.SIGTERM)
    eventually(lambda: fetch(api.admin_port, "/readyz").status == 503, 20, "the API is stopping")
    assert api.stop() == 128 + signal.SIGTERM


def test_workers_of_either_server_share_memory_and_metrics_under_a_read_only_root(
    containers: Containers, own_postgresql: PostgresqlServer
) -> None:
    url = own_postgresql.create_database()
    migrate(containers, DATABASE__URL=url)
    for server in ("waitress", "granian"):
        api = start_api(containers, DATABASE__URL=with_select_only(url), API__SERVER=server, API__WORKERS="2")
        api.wait_until_ready()
        assert api.get("organizations") == {"organizations": [], "status": "ok"}
        requests = [value for name, value in metrics_of(api.admin_port).items() if "requests_total" in name]
        assert sum(requests) >= 1
        assert api.stop() == 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
@pytest.mark.parametrize("server", ["waitress", "granian"])
def test_both_live_with_what_their_systemd_units_leave_them(
    containers: Containers, embedded_broker: EmbeddedTestBroker, server: str
) -> None:
    """`SystemCallFilter` as the units have it, and no memory that is written and run (`MemoryDenyWriteExecute`)."""
    allowed = sorted(system_calls("@system-service") - system_calls("@privileged"))
    assert "socket" in allowed
    assert "chown" not in allowed
    limited = replace(containers, system_calls=allowed)
    migrate(containers)
    topic = embedded_broker.create_topic(fresh_name("results"))
    embedded_broker.produce(topic, [payload()])
    kafka = {"KAFKA__BOOTSTRAP_SERVERS": embedded_broker.bootstrap, "KAFKA__TOPIC": topic}
    consumer = Service(limited, (*WITHOUT_WRITE_AND_EXECUTE, "aggregator-consumer", "run"), _variables(kafka))
    workers = {"API__WORKERS": "2", "API__SERVER": server}
    api = Service(limited, (*WITHOUT_WRITE_AND_EXECUTE, "aggregator-api", "serve"), _variables(workers))
    api.wait_until_ready()
    eventually(lambda: api.get("organizations") == {"organizations": [1], "status": "ok"}, 30, "an organization")
    assert [consumer.stop(), api.stop()] == [0, 0]


def system_calls(group: str) -> set[str]:
    """Return what systemd has in a group of system calls, groups in it resolved."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    names = {line.strip() for line in listed.stdout.splitlines()[1:] if line.strip() and "#" not in line}
    inner = [system_calls(name) for name in names if name.startswith("@")]
    return {name for name in names if not name.startswith("@")}.union(*inner)


# how it refuses


def test_settings_and_secrets_are_read_from_files_and_what_is_wrong_with_them_is_one_line(
    containers: Containers, tmp_path: Path
) -> None:
    config, secrets = tmp_path / "aggregator.toml", tmp_path / "secrets"
    secrets.mkdir()
    deployed = (REPOSITORY / "deploy" / "aggregator.toml").read_text(encoding="utf-8")
    config.write_text(deployed, encoding="utf-8")
    mounts = {config: CONFIG_FILE, secrets: SECRETS}
    commands = (("aggregator-consumer", "run"), ("aggregator-api", "serve"), ("aggregator-consumer", "migrate"))
    settings = {"AGGREGATOR_CONFIG": CONFIG_FILE, "AGGREGATOR_SECRETS_DIR": SECRETS}

    def refusals(**changed: str) -> set[str]:
        variables = {**settings, **changed}
        started = [containers.start(*command, settings=variables, mounts=mounts) for command in commands]
        return {refusal(container) for container in started}

    nothing = "/run/secrets/nothing"
    assert refusals(AGGREGATOR_CONFIG=nothing) == {f"error: {nothing}: No such file or directory"}
    assert refusals(AGGREGATOR_SECRETS_DIR=nothing) == {
        f"error: {nothing}: No such file or directory (from AGGREGATOR_SECRETS_DIR)"
    }
    (missing_file,) = refusals()
    assert missing_file.startswith("error: database.url: ")
    assert "missing://secrets/database.url" in missing_file
    (secrets / "database.url").write_text("sqlite:////var/lib/aggregator/aggregator.db\n")
    config.write_text(deployed.replace('format = "json"', 'format = "jsn"'), encoding="utf-8")
    (wrong_value,) = refusals()
    assert wrong_value == f"error: logging.format: expected one of 'console', 'json', got 'jsn' ({CONFIG_FILE})"
    config.write_text(deployed, encoding="utf-8")
    containers.start("aggregator-consumer", "migrate", settings=settings, mounts=mounts).run_to_end()
    assert (containers.data / "aggregator.db").exists()


def test_two_on_one_port_say_which(containers: Containers) -> None:
    migrate(containers)
    for command, port in (
        (("aggregator-api", "serve"), "api.port"),
        (("aggregator-api", "serve"), "api.admin_port"),
        (("aggregator-consumer", "run"), "consumer.admin_port"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = str(taken.getsockname()[1])
            ports = dict.fromkeys(("API__PORT", "API__ADMIN_PORT", "CONSUMER__ADMIN_PORT"), "0")
            ports[port.upper().replace(".", "__")] = number
            container = containers.start(*command, settings=_variables(ports))
            assert refusal(container) == f"error: {port}: can't listen on 127.0.0.1:{number}: Address already in use"


# what it needs


def test_the_load_of_the_benchmarks_fits_into_the_memory_of_each(
    containers: Containers,
    apache_kafka: ApacheKafka,
    own_postgresql: PostgresqlServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The consumer stores three rounds of 10,000 clusters, and the API gives each answer that is measured.

    Organization 1 gets 1,000 clusters whose reports are asked for at once, and 50,000 in its list.
    """
    assert containers.memory == MEMORY
    topic, listed = apache_kafka.create_topic(fresh_name("results")), Fleet(2, 1, 1000)
    rounds = make_rounds(10_000)
    for messages in (rounds.first, rounds.changed, rounds.same, list(listed.messages(1000, datetime(2026, 5, 1)))):
        produce(apache_kafka, topic, messages)
    kafka = {"KAFKA__BOOTSTRAP_SERVERS": apache_kafka.bootstrap, "KAFKA__TOPIC": topic}
    url = own_postgresql.create_database()
    # what is cached of an SQLite file counts too, up to the limit, and goes when memory is needed
    _peak_of_storing(containers, 31_000, KAFKA__GROUP="sqlite", **kafka)
    peaks = {"consumer": _peak_of_storing(containers, 31_000, DATABASE__URL=url, **kafka)}
    fill_up(url, 1, 50_000)
    for server, workers in (("waitress", 1), ("waitress", 2), ("granian", 1), ("granian", 2)):
        settings = {"API__SERVER": server, "API__WORKERS": str(workers), "DATABASE__URL": with_select_only(url)}
        peaks[f"API, {server}, {workers} worker(s)"] = _peak_of_answering(containers, listed, **settings)
    with capsys.disabled():
        for name, peak in peaks.items():
            print(f"\npeak of memory, {name}: {peak / 2**20:.0f} MiB", end="")
    assert max(peaks.values()) < MEMORY


def _peak_of_storing(containers: Containers, messages: int, **settings: str) -> int:
    """Return the most bytes that a consumer had while it stored a topic in an empty database."""
    migrate(containers, **settings)
    consumer = start_consumer(containers, **settings)
    stored = 'aggregator_consumer_messages_total{outcome="stored",reason=""}'
    eventually(lambda: metrics_of(consumer.admin_port).get(stored) == messages, 600, "all messages are stored", 0.5)
    peak = consumer.container.peak_memory
    assert consumer.stop() == 0
    return peak


def _peak_of_answering(containers: Containers, listed: Fleet, **settings: str) -> int:
    """Return the most bytes that an API had while it was asked what `make bench` asks, and more at once."""
    api = start_api(containers, **settings)
    api.wait_until_ready()
    cluster = max(listed.clusters, key=lambda cluster: len(cluster.rules))
    clusters = f"organizations/{cluster.org_id}/clusters"
    report = f"{clusters}/{cluster.cluster_id}/users/1/report"
    for path in ("info", report, f"{report}/info"):
        run_at_once("benchmarks.http_load", [[str(api.port), PREFIX + path]], 2.0)
    body = json.dumps({"clusters": [cluster.cluster_id for cluster in listed.clusters]}).encode()
    questions = [Question(clusters), Question(f"{clusters}/reports", "POST", body)] * 8
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(partial(ask_api, api.port), questions))
    assert min(map(len, answers)) > 1_000_000
    peak = api.container.peak_memory
    assert api.stop() == 0
    return peak
