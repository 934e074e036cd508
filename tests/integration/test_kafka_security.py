"""TLS and logging in to Apache Kafka, with real certificates: what works, and what is said of what does not."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import Authority, Certificate
from tests.support.commands import CLI
from tests.support.databases import migrate_database, sqlite_url_in
from tests.support.deployment import Consumer, Deployment
from tests.support.kafka import ApacheKafka, Listener
from tests.support.messages import payload
from tests.support.processes import Processes
from tests.support.programs import skipped_without_programs
from tests.support.topics import fresh_name
from tests.support.waiting import eventually

pytestmark = pytest.mark.long

USER = "aggregator"
# characters that mean something in one of the mechanisms
SCRAM_USER = "aggre=gator,1"
PASSWORD = "s3cr3t-pässwörd"
WRONG_PASSWORD = "wr0ng-pässwörd"
KEY_PASSWORD = "k3y-password"
SESSION_SECONDS = 4

_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


@dataclass(frozen=True)
class Secured:
    """A broker with a listener for each kind of security, and the certificates that fit them."""

    broker: ApacheKafka
    listeners: dict[str, Listener]
    authority: Authority
    stranger: Authority
    client: Certificate

    def address(self, listener: str) -> str:
        return self.listeners[listener].address


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Yield one broker for all tests here."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    listeners = make_listeners(authority)
    with skipped_without_programs():
        broker = ApacheKafka(listeners=listeners)
    try:
        broker.start()
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            broker.set_scram_password(SCRAM_USER, mechanism, PASSWORD)
        yield Secured(
            broker,
            {listener.name: listener for listener in listeners},
            authority,
            Authority(folder, "stranger"),
            authority.issue("client", "aggregator@example.org"),
        )
    finally:
        broker.close()


def make_listeners(authority: Authority) -> list[Listener]:
    server = store("ssl.keystore", authority.issue("server", "127.0.0.1").both)
    elsewhere = store("ssl.keystore", authority.issue("elsewhere", "kafka.example.org").both)
    clients = {**store("ssl.truststore", authority.certificate), "ssl.client.auth": "required"}
    password = "".join(f"\\u{ord(letter):04x}" if ord(letter) > 127 else letter for letter in PASSWORD)
    plain = {
        "sasl.enabled.mechanisms": "PLAIN",
        "plain.sasl.jaas.config": f'{_PLAIN} required user_{USER}="{password}";',
    }
    every = {
        **plain,
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "scram-sha-256.sasl.jaas.config": f"{_SCRAM} required;",
        "scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
    }
    return [
        Listener("tls", "SSL", server),
        Listener("mutual", "SSL", {**server, **clients}),
        Listener("elsewhere", "SSL", elsewhere),
        Listener("login", "SASL_SSL", {**server, **every}),
        Listener("bare", "SASL_PLAINTEXT", plain),
        Listener("brief", "SASL_SSL", {**server, **every, "connections.max.reauth.ms": str(SESSION_SECONDS * 1000)}),
    ]


def store(name: str, file: Path) -> dict[str, str]:
    return {f"{name}.type": "PEM", f"{name}.location": str(file)}


@pytest.fixture
def deployment(secured: Secured, processes: Processes, tmp_path: Path) -> Deployment:
    url = sqlite_url_in(tmp_path)
    migrate_database(url)
    made = Deployment(processes, secured.broker, url)
    secured.broker.create_topic(made.topic)
    return made


def start(deployment: Deployment, secured: Secured, listener: str, **settings: str) -> tuple[Consumer, str]:
    """Start a consumer that comes in by a listener; return it, and the name of its dead letter topic."""
    dead = secured.broker.create_topic(fresh_name("dead"))
    way = {
        "KAFKA__BOOTSTRAP_SERVERS": secured.address(listener),
        "KAFKA__SECURITY_PROTOCOL": secured.listeners[listener].protocol,
        "KAFKA__DEAD_LETTER_TOPIC": dead,
    }
    return deployment.start_consumer(**{**way, **settings}), dead


def login(secured: Secured, mechanism: str, password: str = PASSWORD, user: str | None = None) -> dict[str, str]:
    """Return settings to log in with over TLS."""
    return {
        "KAFKA__SASL_MECHANISM": mechanism,
        "KAFKA__SASL_USERNAME": user or (USER if mechanism == "PLAIN" else SCRAM_USER),
        "KAFKA__SASL_PASSWORD": password,
        "KAFKA__SSL_CAFILE": str(secured.authority.certificate),
    }


def assert_it_works(deployment: Deployment, consumer: Consumer, dead: str) -> None:
    """Have a message stored, a dead letter sent and both committed."""
    broker = deployment.broker
    broker.produce(deployment.topic, [payload(), b"not a message"])
    deployment.wait_for_rows("report", 1)
    assert [letter.value for letter in broker.read(dead, 1)] == [b"not a message"]
    eventually(lambda: broker.committed(deployment.group, deployment.topic) == {0: 2}, 20, "both are committed")
    consumer.wait_until_ready()
    assert_nothing_secret(consumer)


def assert_it_waits(consumer: Consumer, *said: str) -> None:
    """Expect one line in the log and readiness that says what is wrong, while the process lives on.

    On a busy machine the line can be of a first try that had no answer in time.
    """
    line = consumer.process.wait_for_log("source unavailable", timeout=30)
    assert all(text in line for text in said) or "no answer" in line

    def says_why() -> bool:
        told = consumer.readiness().json["checks"]["source"]
        assert "\n" not in told
        return all(text in told for text in said)

    eventually(says_why, 20, f"{said} in what /readyz says")
    assert consumer.readiness().status == 503
    assert consumer.liveness().status == 200
    assert consumer.process.output.count("source unavailable") == 1
    assert_nothing_secret(consumer)


def assert_nothing_secret(consumer: Consumer) -> None:
    for secret in (PASSWORD, WRONG_PASSWORD, KEY_PASSWORD, "PRIVATE KEY"):
        assert secret not in consumer.process.output
        assert secret not in consumer.readiness().text
    assert "Traceback" not in consumer.process.output


class TestWhatWorks:
    def test_tls(self, secured: Secured, deployment: Deployment) -> None:
        consumer, dead = start(deployment, secured, "tls", KAFKA__SSL_CAFILE=str(secured.authority.certificate))
        assert_it_works(deployment, consumer, dead)

    def test_tls_with_the_authorities_of_the_system(
        self, secured: Secured, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # what OpenSSL takes for those of the system
        monkeypatch.setenv("SSL_CERT_FILE", str(secured.authority.certificate))
        consumer, dead = start(deployment, secured, "tls")
        assert_it_works(deployment, consumer, dead)

    @pytest.mark.parametrize("kind", ["two files", "one file", "encrypted key"])
    def test_a_certificate_of_the_client(self, secured: Secured, deployment: Deployment, kind: str) -> None:
        files = {
            "two files": {"SSL_CERTFILE": secured.client.certificate, "SSL_KEYFILE": secured.client.key},
            "one file": {"SSL_CERTFILE": secured.client.both},
            "encrypted key": {
                "SSL_CERTFILE": secured.client.certificate,
                "SSL_KEYFILE": secured.client.encrypt_key(KEY_PASSWORD),
                "SSL_PASSWORD": KEY_PASSWORD,
            },
        }[kind]
        settings = {f"KAFKA__{name}": str(value) for name, value in files.items()}
        consumer, dead = start(
            deployment, secured, "mutual", KAFKA__SSL_CAFILE=str(secured.authority.certificate), **settings
        )
        assert_it_works(deployment, consumer, dead)

    @pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
    def test_logging_in_over_tls(self, secured: Secured, deployment: Deployment, mechanism: str) -> None:
        consumer, dead = start(deployment, secured, "login", **login(secured, mechanism))
        assert_it_works(deployment, consumer, dead)

    def test_logging_in_without_tls(self, secured: Secured, deployment: Deployment) -> None:
        settings = {"KAFKA__SASL_USERNAME": USER, "KAFKA__SASL_PASSWORD": PASSWORD}
        consumer, dead = start(deployment, secured, "bare", **settings)
        assert_it_works(deployment, consumer, dead)


def test_a_bad_setting_ends_the_start_with_a_line_that_names_it(processes: Processes, tmp_path: Path) -> None:
    # OpenSSL would ask the terminal for the password, and wait
    client = Authority(tmp_path).issue("client", "aggregator@example.org")
    settings = {
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_USERNAME": USER,
        "SSL_CERTFILE": str(client.certificate),
        "SSL_KEYFILE": str(client.encrypt_key(KEY_PASSWORD)),
    }
    environment = {f"AGGREGATOR_KAFKA__{name}": value for name, value in settings.items()}
    process = processes.start("consumer", [*CLI, "run"], environment)

    assert process.wait_exit() == 2
    assert process.output.splitlines() == [
        "error: kafka.sasl_password: needed with SASL_SSL",
        f"error: kafka.ssl_password: needed for the encrypted key in {settings['SSL_KEYFILE']}",
    ]


class TestWhatDoesNot:
    @pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
    @pytest.mark.parametrize(("user", "password"), [(None, WRONG_PASSWORD), ("nobody", PASSWORD)])
    def test_a_wrong_login_is_told(
        self, secured: Secured, deployment: Deployment, mechanism: str, user: str | None, password: str
    ) -> None:
        consumer, _ = start(deployment, secured, "login", **login(secured, mechanism, password, user))
        assert_it_waits(consumer, "SaslAuthenticationFailed", "Authentication failed")

    def test_a_mechanism_that_the_broker_does_not_have_is_told(self, secured: Secured, deployment: Deployment) -> None:
        settings = {key: value for key, value in login(secured, "SCRAM-SHA-256").items() if "CAFILE" not in key}
        consumer, _ = start(deployment, secured, "bare", **settings)
        assert_it_waits(consumer, "UnsupportedSaslMechanism")

    def test_a_broker_of_an_unknown_authority_is_told(self, secured: Secured, deployment: Deployment) -> None:
        consumer, _ = start(deployment, secured, "tls", KAFKA__SSL_CAFILE=str(secured.stranger.certificate))
        assert_it_waits(consumer, "certificate verify failed", secured.address("tls"))

    def test_a_broker_of_another_name_is_told(self, secured: Secured, deployment: Deployment) -> None:
        consumer, _ = start(deployment, secured, "elsewhere", KAFKA__SSL_CAFILE=str(secured.authority.certificate))
        assert_it_waits(consumer, "IP address mismatch", "127.0.0.1")

    def test_a_missing_certificate_of_the_client_is_told(self, secured: Secured, deployment: Deployment) -> None:
        consumer, _ = start(deployment, secured, "mutual", KAFKA__SSL_CAFILE=str(secured.authority.certificate))
        assert_it_waits(consumer, "alert bad certificate", secured.address("mutual"))

    def test_a_client_without_tls_is_told(self, secured: Secured, deployment: Deployment) -> None:
        consumer, _ = start(deployment, secured, "tls", KAFKA__SECURITY_PROTOCOL="PLAINTEXT")
        assert_it_waits(consumer, secured.address("tls"))


class TestWhatIsMended:
    def test_a_user_that_is_added_later_is_let_in(self, secured: Secured, deployment: Deployment) -> None:
        user = fresh_name("user")
        settings = login(secured, "SCRAM-SHA-512", user=user)
        consumer, dead = start(deployment, secured, "login", **settings)
        assert_it_waits(consumer, "SaslAuthenticationFailed")
        secured.broker.set_scram_password(user, "SCRAM-SHA-512", PASSWORD)
        assert_it_works(deployment, consumer, dead)

    def test_a_session_is_renewed_and_a_user_may_be_gone_for_a_while(
        self, secured: Secured, deployment: Deployment
    ) -> None:
        user = fresh_name("user")
        secured.broker.set_scram_password(user, "SCRAM-SHA-256", PASSWORD)
        consumer, dead = start(deployment, secured, "brief", **login(secured, "SCRAM-SHA-256", user=user))
        assert_it_works(deployment, consumer, dead)
        secured.broker.remove_scram_user(user, "SCRAM-SHA-256")
        eventually(
            lambda: "SaslAuthenticationFailed" in consumer.readiness().json["checks"]["source"],
            5 * SESSION_SECONDS,
            "the session can't be renewed",
        )
        secured.broker.produce(deployment.topic, [payload(org_id=2, checked="2026-05-01T09:00:00Z"), b"nor this"])
        secured.broker.set_scram_password(user, "SCRAM-SHA-256", PASSWORD)
        consumer.wait_until_ready()
        assert len(secured.broker.read(dead, 2)) == 2
        assert_nothing_secret(consumer)

    def test_an_authority_that_is_mended_in_its_file_is_read_without_a_restart(
        self, secured: Secured, deployment: Deployment, tmp_path: Path
    ) -> None:
        file = tmp_path / "ca.pem"
        file.write_bytes(secured.stranger.certificate.read_bytes())
        consumer, dead = start(deployment, secured, "tls", KAFKA__SSL_CAFILE=str(file))
        assert_it_waits(consumer, "certificate verify failed")
        file.write_bytes(secured.authority.certificate.read_bytes())
        assert_it_works(deployment, consumer, dead)
