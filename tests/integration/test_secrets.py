"""Secrets are shown nowhere: they are planted in every way, all is made to fail, and what came out is searched."""

import base64
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
import psycopg2
import pytest

from api_service.settings import ApiProcessSettings
from consumer_service.settings import ConsumerProcessSettings
from consumer_service.sources import SourceUnavailable
from consumer_service.sources.loading import find_source
from examples.demo.ports import free_port
from libaggregator.settings import load
from libaggregator.storage.connections import open_reader, open_writer
from tests.support.brokers import EmbeddedTestBroker
from tests.support.certificates import Authority, Certificate
from tests.support.databases import migrate_database, open_database, sqlite_url_in
from tests.support.deployment import PREFIX, fetch
from tests.support.messages import CLUSTERS, payload
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import Process, Processes
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

pytestmark = pytest.mark.long

USER = "planted_user"
# characters that a URL, a TOML file, JSON and a shell write in another way
PASSWORD = 'Pl4nted/data"base@p:ss'
READ_PASSWORD = "Pl4nted?read&p=ss"
WRONG_PASSWORD = "Pl4nted#wr0ng%p ss"
SASL_PASSWORD = "Pl4nted\\sasl'p,ss"
KEY_PASSWORD = "Pl4nted=key;pässword"
PASSWORDS = (PASSWORD, READ_PASSWORD, WRONG_PASSWORD, SASL_PASSWORD, KEY_PASSWORD)

WAYS = ["file", "environment", "secret files"]
ADMIN_PATHS = ["/livez", "/readyz", "/metrics", "/nothing"]
API_PATHS = ["openapi.json", "info", "organizations", f"cluster/{CLUSTERS[0]}/reports", "metrics", "nothing"]
CONSUMER, API = "consumer_service.cli", "api_service.cli"


@dataclass
class Search:
    """What came out of the processes, by where it was found; `secrets` are looked for in every form that there is."""

    secrets: tuple[str, ...]
    found: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, content: str) -> None:
        """Take something to be searched; it must not be empty, or nothing would be tested."""
        assert content, f"nothing to search in {where}"
        self.found[where] = self.found.get(where, "") + content

    def add_process(self, process: Process, *admin_ports: int) -> None:
        """Take what a process printed, its command line and those of its children, and what its ports answer."""
        running = process.exit_code is None
        if running:
            main = psutil.Process(process.pid)
            for one in [main, *main.children(recursive=True)]:
                self.add("command lines", Path(f"/proc/{one.pid}/cmdline").read_text() + one.name())
        for port in admin_ports:
            for path in ADMIN_PATHS:
                self.add(f"answers to {path}", fetch(port, path).text)
        self.add(f"output of {process.name}", process.output)

    def add_files(self, folder: Path) -> None:
        """Take every file in a folder."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.add("files", str(file) + file.read_bytes().decode(errors="replace"))

    def assert_clean(self, *kinds: str) -> None:
        """Expect no secret anywhere, and something to have come out of each of `kinds`."""
        assert self.secrets
        assert not set(kinds) - self.found.keys(), "not everything was searched"
        for where, content in self.found.items():
            for secret in self.secrets:
                for form in forms(secret):
                    assert form not in content, f"{form!r} in {where}: {content}"


def forms(secret: str) -> set[str]:
    """Return a secret as programs may write it."""
    encoded = {base64.b64encode(secret.encode()).decode(), secret.encode().hex()}
    quoted = {
        quote(secret),
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        repr(secret.encode())[2:-1],
    }
    return {secret, *encoded, *quoted}


def test_a_search_finds_what_it_looks_for() -> None:
    for secret in PASSWORDS:
        for form in forms(secret):
            search = Search(PASSWORDS, {"there": f"x{form}y"})
            with pytest.raises(AssertionError, match="in there"):
                search.assert_clean("there")
    with pytest.raises(AssertionError, match="not everything was searched"):
        Search(PASSWORDS).assert_clean("there")
    with pytest.raises(AssertionError, match="nothing to search"):
        Search(PASSWORDS).add("there", "")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    """Yield a PostgreSQL server that lets `planted_user` in with its password only."""
    server = PostgresqlServer()
    try:
        server.start()
        with psycopg2.connect(server.admin_url) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {USER} LOGIN SUPERUSER PASSWORD %s", [PASSWORD])
            cursor.execute(f"CREATE ROLE {USER}_reader LOGIN SUPERUSER PASSWORD %s", [READ_PASSWORD])
            cursor.execute("SHOW hba_file")
            (file,) = cursor.fetchone()
        rules = Path(file)
        names = f"{USER},{USER}_reader"
        rules.write_text(f"host all {names} 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        server.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        server.close()


@pytest.fixture
def client(tmp_path: Path) -> Certificate:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder).issue("client", "aggregator@example.org")


@dataclass
class Planted:
    """Settings with secrets in one of the ways to give them, and the processes that get them."""

    way: str
    folder: Path
    processes: Processes
    secrets: dict[str, str]
    plain: dict[str, str] = field(default_factory=dict)
    admin_port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process; files that they name are written."""
        temporary = self.folder / "temporary"
        temporary.mkdir(exist_ok=True)
        settings = {
            "logging.level": "debug",
            "consumer.admin_port": str(self.admin_port),
            "api.admin_port": str(self.admin_port),
            "api.port": str(self.api_port),
            **self.plain,
        }
        variables = {variable(name): value for name, value in settings.items()}
        variables["TMPDIR"] = str(temporary)
        match self.way:
            case "environment":
                variables |= {variable(name): value for name, value in self.secrets.items()}
            case "file":
                file = self.folder / "aggregator.toml"
                file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in self.secrets.items()))
                variables["AGGREGATOR_CONFIG"] = str(file)
            case "secret files":
                folder = self.folder / "secrets"
                folder.mkdir(exist_ok=True)
                for name, value in self.secrets.items():
                    (folder / name).write_text(value)
                variables["AGGREGATOR_SECRETS_DIR"] = str(folder)
        return variables

    def start(self, module: str, command: str) -> Process:
        return self.processes.start(command, [sys.executable, "-m", module, command], self.environment)

    def crash(self, module: str, what: str) -> Process:
        """Start a process in which a function raises where nobody expects it."""
        owner, _, name = what.rpartition(".")
        parts = owner.rpartition(".")
        code = (
            f"from {parts[0]} import {parts[2]} as owner\n"
            "def crash(*arguments, **options): raise RuntimeError('crashed on purpose')\n"
            f"owner.{name} = crash\n"
            f"from {module} import main\n"
            f"main([{'run' if module == CONSUMER else 'serve'!r}])\n"
        )
        return self.processes.start("crash", [sys.executable, "-c", code], self.environment)

    def search(self, *further: str) -> Search:
        return Search((*PASSWORDS, *further))


def variable(name: str) -> str:
    return "AGGREGATOR_" + name.upper().replace(".", "__")


def url_of(server: PostgresqlServer, database: str, password: str, as_option: bool = False, user: str = USER) -> str:
    encoded = quote(password, safe="")
    where = f"127.0.0.1:{server.port}/{urlsplit(database).path.strip('/')}"
    return f"postgresql://{user}@{where}?password={encoded}" if as_option else f"postgresql://{user}:{encoded}@{where}"


@pytest.mark.parametrize(("way", "as_option"), [("file", False), ("environment", True), ("secret files", False)])
def test_processes_that_work_show_none_and_neither_do_they_when_the_database_goes(
    way: str,
    as_option: bool,
    guarded: PostgresqlServer,
    embedded_broker: EmbeddedTestBroker,
    processes: Processes,
    tmp_path: Path,
) -> None:
    database = guarded.create_database()
    secrets = {
        "database.url": url_of(guarded, database, PASSWORD, as_option),
        "database.read_url": url_of(guarded, database, READ_PASSWORD, as_option, f"{USER}_reader"),
    }
    topic = embedded_broker.create_topic(fresh_name("results"))
    kafka = {"kafka.bootstrap_servers": embedded_broker.bootstrap, "kafka.topic": topic, "kafka.session_timeout": "2"}
    kafka |= {"kafka.group": fresh_name("group")}
    consumer = Planted(way, tmp_path, processes, secrets, {**kafka, "logging.format": "json"})
    api = Planted(way, tmp_path, processes, secrets, {"api.workers": "2", "logging.format": "console"})
    search = consumer.search()
    migration = consumer.start(CONSUMER, "migrate")
    assert migration.wait_exit() == 0, migration.output
    search.add_process(migration)
    for planted, module in ((consumer, CONSUMER), (api, API)):
        config = planted.start(module, "config")
        assert config.wait_exit() == 0
        assert USER in config.output
        search.add_process(config)

    running, serving = consumer.start(CONSUMER, "run"), api.start(API, "serve")
    serving.wait_for_log("API started")
    embedded_broker.produce(topic, [payload(), b"not a message", payload(LastChecked="bad", cluster=CLUSTERS[1])])
    with_rows = open_database(database)
    eventually(lambda: with_rows.execute_sql("SELECT count(*) FROM consumer_error").fetchone()[0] == 2, 30, "rows")
    for table in ("report", "consumer_error"):
        search.add("rows", str(with_rows.execute_sql(f"SELECT * FROM {table}").fetchall()))
    search.add("rows", str(with_rows.execute_sql("SELECT application_name, query FROM pg_stat_activity").fetchall()))
    with_rows.close()
    search_everything(search, running, consumer, serving, api)
    guarded.drop_database(database)
    running.wait_for_log("database unavailable", 30)
    eventually(lambda: fetch(api.admin_port, "/readyz").status == 503, 30, "the API is not ready")
    search_everything(search, running, consumer, serving, api)
    search.add_files(tmp_path / "temporary")
    # what a fault of the machine does
    running.signal(signal.SIGABRT)
    serving.signal(signal.SIGABRT)
    running.wait_exit()
    serving.wait_exit()
    search.add_process(running)
    search.add_process(serving)

    search.assert_clean(
        "rows",
        "files",
        "command lines",
        "answers to /readyz",
        "answers to organizations",
        "output of run",
        "output of config",
    )


def search_everything(search: Search, running: Process, consumer: Planted, serving: Process, api: Planted) -> None:
    for path in API_PATHS:
        search.add(f"answers to {path}", fetch(api.api_port, PREFIX + path).text)
    search.add_process(running, consumer.admin_port)
    search.add_process(serving, api.admin_port)


@pytest.mark.parametrize(
    ("way", "failure"), [("file", "wrong password"), ("environment", "unknown host"), ("secret files", "away")]
)
def test_what_waits_or_gives_up_shows_none(
    way: str,
    failure: str,
    guarded: PostgresqlServer,
    embedded_broker: EmbeddedTestBroker,
    processes: Processes,
    tmp_path: Path,
    client: Certificate,
) -> None:
    url = {
        "wrong password": url_of(guarded, "/postgres", WRONG_PASSWORD),
        "unknown host": f"postgresql://{USER}:{quote(PASSWORD, safe='')}@nowhere.invalid/postgres",
        "away": f"postgresql://{USER}@127.0.0.1:{free_port()}/postgres?password={quote(PASSWORD, safe='')}",
    }[failure]
    secrets = {"database.url": url, "kafka.sasl_password": SASL_PASSWORD}
    kafka = {
        "kafka.bootstrap_servers": embedded_broker.bootstrap,
        "kafka.security_protocol": "SASL_PLAINTEXT",
        "kafka.sasl_username": USER,
    }
    search = Search((*PASSWORDS, client.secret))
    for module, command in ((CONSUMER, "run"), (API, "serve")):
        planted = Planted(way, tmp_path, processes, secrets, kafka if module == CONSUMER else {})
        process = planted.start(module, command)
        if failure == "wrong password":
            assert process.wait_exit() == 2
            search.add_process(process)
        else:
            process.wait_for_log("database unavailable")
            search.add_process(process, planted.admin_port)
    for command, expected in (("migrate", 1), ("config", 0)):
        process = Planted(way, tmp_path, processes, secrets, kafka).start(CONSUMER, command)
        assert process.wait_exit() == expected
        search.add_process(process)

    search.assert_clean("output of run", "output of serve", "output of migrate", "output of config")


def test_a_broker_that_refuses_is_shown_none(
    embedded_broker: EmbeddedTestBroker, processes: Processes, tmp_path: Path, client: Certificate
) -> None:
    """Neither the password of the login nor that of the key, nor the key."""
    login = {
        "database.url": migrate_database(sqlite_url_in(tmp_path)),
        "kafka.sasl_username": USER,
        "kafka.bootstrap_servers": embedded_broker.bootstrap,
    }
    over_tls = {
        **login,
        "kafka.security_protocol": "SASL_SSL",
        "kafka.ssl_certfile": str(client.certificate),
        "kafka.ssl_keyfile": str(client.encrypt_key(KEY_PASSWORD)),
    }
    password, both = {"kafka.sasl_password": SASL_PASSWORD}, {"kafka.ssl_password": KEY_PASSWORD}
    started = []
    for way in WAYS:
        for name, secrets, plain in (
            ("bare", password, {**login, "kafka.security_protocol": "SASL_PLAINTEXT"}),
            ("tls", password | both, over_tls),
        ):
            folder = tmp_path / f"{way} {name}"
            folder.mkdir()
            planted = Planted(way, folder, processes, secrets, plain)
            started.append((planted, planted.start(CONSUMER, "run")))
    search = Search((*PASSWORDS, client.secret))
    for planted, process in started:
        line = process.wait_for_log("source unavailable", 30)
        # this broker takes the first bytes of TLS for a length, and waits for the rest
        assert "kafka.ssl_keyfile" not in planted.plain or "no answer to the TLS handshake" in line
        search.add_process(process, planted.admin_port)
        assert process.stop() == 0
        search.add_process(process)

    search.assert_clean("output of run", "answers to /readyz", "command lines")


@pytest.mark.parametrize(
    "bad",
    [
        {"database.url": f"mysql://{USER}:{PASSWORD}@host/name"},
        {"database.url": f"postgresql//{USER}:{PASSWORD}@host/name"},
        {"database.url": f"postgresql://{USER}:{PASSWORD}@host/name"},
        {"database.url": f"postgresql://{USER}@host/name?pasword={PASSWORD}"},
        {"kafka.sasl_password": SASL_PASSWORD},
        {"kafka.ssl_password": KEY_PASSWORD},
        {"kafka.sasl_pasword": SASL_PASSWORD},
        {"kafka.sasl_password": SASL_PASSWORD, "kafka.session_timeout": "ages"},
    ],
)
def test_a_bad_setting_shows_none(bad: dict[str, str], processes: Processes, tmp_path: Path) -> None:
    search = Search(PASSWORDS)
    started = []
    for way in WAYS:
        folder = tmp_path / way
        folder.mkdir()
        started.append(Planted(way, folder, processes, bad).start(CONSUMER, "run"))
    for process in started:
        assert process.wait_exit() == 2, process.output
        search.add_process(process)
    search.assert_clean("output of run")


@pytest.mark.parametrize(
    "text",
    [
        f'sasl_password = "{SASL_PASSWORD}',
        f"sasl_password = {SASL_PASSWORD}",
        "sasl_password = 1234567890",
        "sasl_password = ['1234567890']",
        f"{SASL_PASSWORD}",
    ],
)
def test_a_file_that_is_not_right_is_not_shown(text: str, processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "aggregator.toml"
    file.write_text(f"[kafka]\n{text}\n")
    process = processes.start("run", [sys.executable, "-m", CONSUMER, "run", "--config", str(file)])
    assert process.wait_exit() == 2, process.output
    search = Search((*PASSWORDS, "1234567890"))
    search.add_process(process)
    search.assert_clean("output of run")


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(
    ("module", "what"),
    [
        (CONSUMER, "consumer_service.runner.Runner.run"),
        (CONSUMER, "consumer_service.sources.kafka.KafkaConsumer.__init__"),
        (API, "api_service.database.Reader.read"),
        (API, "api_service.servers.waitress.WaitressServer.run"),
    ],
)
def test_a_crash_shows_none(
    module: str, what: str, form: str, guarded: PostgresqlServer, processes: Processes, tmp_path: Path
) -> None:
    url = url_of(guarded, migrate_database(guarded.create_database()), PASSWORD)
    secrets = {"database.url": url, "kafka.sasl_password": SASL_PASSWORD}
    kafka = {"kafka.security_protocol": "SASL_PLAINTEXT", "kafka.sasl_username": USER}
    planted = Planted(
        "environment", tmp_path, processes, secrets, {**(kafka if module == CONSUMER else {}), "logging.format": form}
    )
    process = planted.crash(module, what)
    search = Search(PASSWORDS)
    if what.endswith("read"):
        process.wait_for_log("API started")
        for path in API_PATHS:
            search.add(f"answers to {path}", fetch(planted.api_port, PREFIX + path).text)
    process.wait_for_log("crashed on purpose", 20)
    assert "Traceback" in process.output or "unavailable" in process.output
    search.add_process(process)
    search.assert_clean("output of crash")


def test_no_object_shows_them_as_text(guarded: PostgresqlServer, client: Certificate) -> None:
    url = url_of(guarded, "/postgres", PASSWORD)
    environment = {
        "AGGREGATOR_DATABASE__URL": url,
        "AGGREGATOR_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "AGGREGATOR_KAFKA__SASL_USERNAME": USER,
        "AGGREGATOR_KAFKA__SASL_PASSWORD": SASL_PASSWORD,
        "AGGREGATOR_KAFKA__SSL_CERTFILE": str(client.certificate),
        "AGGREGATOR_KAFKA__SSL_KEYFILE": str(client.encrypt_key(KEY_PASSWORD)),
        "AGGREGATOR_KAFKA__SSL_PASSWORD": KEY_PASSWORD,
        "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
    }
    consumer = load(ConsumerProcessSettings, None, environment)
    api = load(ApiProcessSettings, None, {"AGGREGATOR_DATABASE__URL": url})
    writer, reader = open_writer(consumer.settings.database, "tests"), open_reader(api.settings.database, "tests")
    source = find_source("kafka")(consumer.settings)
    with pytest.raises(SourceUnavailable) as refused:
        source.poll(0.1, 1)
    search = Search((*PASSWORDS, client.secret))
    objects: list[Any] = [consumer, consumer.settings, consumer.settings.kafka, api, source, refused.value]
    objects += [refused.value.__cause__, writer, reader, writer.connection(), reader.connection()]
    for one in objects:
        for shown in (repr(one), str(one), f"{one}"):
            search.add("texts of objects", shown)
    source.close()
    writer.close()
    reader.close()
    search.assert_clean("texts of objects")
