"""Apache Kafka for tests: one node from the jars of its release, fetched by Maven into `.cache/kafka`."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialDeletion, UserScramCredentialUpsertion

from examples.demo.ports import free_port
from tests.support.processes import REPOSITORY
from tests.support.programs import ProgramMissingError
from tests.support.server_process import ServerProcess
from tests.support.topics import Topics

JARS = REPOSITORY / ".cache" / "kafka"
POM = Path(__file__).with_name("kafka-jars.xml")
OLDEST_JAVA = 17
FETCH_TIMEOUT = 600.0
START_TIMEOUT = 60.0
JAVA_OPTIONS = ["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]


@dataclass(frozen=True)
class Listener:
    """A further way into a broker: its name in lower case, how it is spoken to, and settings for it alone.

    Clients are told to connect to `proxy_port` instead of `port`, if there is one.
    """

    name: str
    protocol: str
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    proxy_port: int | None = None

    @property
    def address(self) -> str:
        """Where it listens, `HOST:PORT`."""
        return f"127.0.0.1:{self.port}"

    @property
    def advertised(self) -> str:
        """Where clients are told to connect, `HOST:PORT`."""
        return f"127.0.0.1:{self.proxy_port or self.port}"


class ApacheKafka(ServerProcess, Topics):
    """One broker on 127.0.0.1 with its own data, which a test can stop, kill and start again.

    `settings` are added to its configuration, `listeners` to the one without security, which tests themselves use.
    Raises ProgramMissingError without a JDK or its jars.
    """

    stop_timeout = 30.0

    def __init__(self, settings: dict[str, str] | None = None, listeners: Sequence[Listener] = ()) -> None:
        self._java = find_java()
        self._jars = fetch_jars()
        self._settings, self._listeners = settings or {}, listeners
        self._folder = Path(tempfile.mkdtemp(prefix="aggregator-kafka-"))
        self._configuration = self._folder / "server.properties"
        self._log = self._folder / "server.log"
        self._choose_ports()

    @property
    def bootstrap(self) -> str:
        """Where it listens, `HOST:PORT`."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the broker printed."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start the broker and return when it answers; the first start formats its data folder."""
        if (self._folder / "data" / "meta.properties").exists():
            self._launch()
            return
        self._format()
        try:
            self._launch()
        except AssertionError:
            # it takes seconds to listen, and somebody else may have a port by then
            self.kill()
            self._choose_ports()
            self._launch()

    def _launch(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._configuration)),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_it_answers(self._process)

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def set_scram_password(self, user: str, mechanism: str, password: str) -> None:
        """Let a user log in with a mechanism, `SCRAM-SHA-256` or `SCRAM-SHA-512`."""
        self._alter_user(UserScramCredentialUpsertion(user, mechanism, password))

    def remove_scram_user(self, user: str, mechanism: str) -> None:
        """Let a user log in no more; sessions that there are go on until they have to be renewed."""
        self._alter_user(UserScramCredentialDeletion(user, mechanism))

    def run_tool(self, main_class: str, *arguments: str) -> str:
        """Run one of the programs that come with it on this broker, and return what it printed."""
        command = self._command(main_class, "--bootstrap-server", self.bootstrap, *arguments)
        result = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 0, f"{main_class} failed:\n{result.stdout}{result.stderr}"
        return result.stdout

    def _alter_user(self, alteration: UserScramCredentialUpsertion | UserScramCredentialDeletion) -> None:
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            problems = client.alter_user_scram_credentials([alteration])
        finally:
            client.close()
        assert not any(problems.values()), problems

    def _choose_ports(self) -> None:
        self.port, self._controller_port = free_port(), free_port()
        self._write_configuration(self._settings, self._listeners)

    def _write_configuration(self, settings: dict[str, str], listeners: Sequence[Listener]) -> None:
        controller = f"127.0.0.1:{self._controller_port}"
        further = [f"{listener.name.upper()}://{listener.address}" for listener in listeners]
        advertised = [f"{listener.name.upper()}://{listener.advertised}" for listener in listeners]
        protocols = [f"{listener.name.upper()}:{listener.protocol}" for listener in listeners]
        configuration = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": ",".join([f"PLAINTEXT://{self.bootstrap}", f"CONTROLLER://{controller}", *further]),
            "advertised.listeners": ",".join([f"PLAINTEXT://{self.bootstrap}", *advertised]),
            "listener.security.protocol.map": ",".join(["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", *protocols]),
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self._folder / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # most deployments have it, and it is what shows a client that makes topics by asking for them
            "auto.create.topics.enable": "true",
            "message.max.bytes": "20000000",
            "file.delete.delay.ms": "100",
            # a killed broker may register again only when its old registration has run out
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "log.segment.bytes": "67108864",
            **{
                f"listener.name.{listener.name}.{key}": value
                for listener in listeners
                for key, value in listener.settings.items()
            },
            **settings,
        }
        self._configuration.write_text("".join(f"{key}={value}\n" for key, value in configuration.items()))

    def _format(self) -> None:
        cluster = uuid.uuid4().hex[:22]
        command = self._command(
            "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(self._configuration)
        )
        result = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, f"Kafka could not format its data folder:\n{result.stdout}{result.stderr}"

    def _command(self, main_class: str, *arguments: str) -> list[str]:
        return [self._java, *JAVA_OPTIONS, "-cp", f"{self._jars}/*", main_class, *arguments]

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not _takes_requests(self.port):
            assert process.poll() is None, f"Apache Kafka ended with {process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"no answer of Apache Kafka within {START_TIMEOUT:g} s:\n{self.log}"
            time.sleep(0.05)


def find_java() -> str:
    """Return the path of a Java that can run Kafka; ProgramMissingError if there is none."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        raise ProgramMissingError("KAFKA", f"Apache Kafka needs a JDK {OLDEST_JAVA} or newer; there is no `java`")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise ProgramMissingError(
            "KAFKA", f"Apache Kafka needs a JDK {OLDEST_JAVA} or newer; `java` is {shown.splitlines()[:1]}"
        )
    return java


def fetch_jars() -> Path:
    """Return the folder of Kafka's jars, filled by Maven the first time; ProgramMissingError if it can't be."""
    folder = JARS / _pom_version()
    if folder.exists():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise ProgramMissingError("KAFKA", "Apache Kafka's jars are fetched by Maven; there is no `mvn`")
    JARS.mkdir(parents=True, exist_ok=True)
    fetched = Path(tempfile.mkdtemp(dir=JARS))
    command = [
        maven,
        "-q",
        "-B",
        "-f",
        str(POM),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={fetched}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_TIMEOUT)
    if result.returncode:
        shutil.rmtree(fetched)
        last = (result.stdout + result.stderr).strip().splitlines()[:1]
        raise ProgramMissingError("KAFKA", f"Maven could not fetch Apache Kafka's jars: {last}")
    try:
        fetched.rename(folder)
    except OSError:
        # another run of the tests was faster
        shutil.rmtree(fetched)
    return folder


def _pom_version() -> str:
    match = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)", POM.read_text())
    assert match, f"no version of Kafka in {POM}"
    return match[1]


def _takes_requests(port: int) -> bool:
    """Ask for the versions of the protocol, which a broker answers only when it is ready for clients."""
    request = bytes.fromhex("0000000e 0012 0000 00000001 0004 74657374")
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(request)
            return len(connection.recv(4)) == 4
    except OSError:
        return False
