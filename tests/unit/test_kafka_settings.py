"""Which settings the source `kafka` refuses, and what its clients are told."""

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka.net.transport import KafkaSSLTransport

from consumer_service.kafka_client import connection_options, problems_of
from consumer_service.settings import ConsumerProcessSettings, KafkaSettings
from consumer_service.sources.loading import find_source
from libaggregator.settings import Secret, SettingsError, load
from tests.support.certificates import Authority

LOGIN = {"security_protocol": "SASL_SSL", "sasl_username": "aggregator", "sasl_password": Secret("hidden")}


def problems(**changes: Any) -> list[str]:
    settings = load(ConsumerProcessSettings, None, {}).settings
    settings = replace(settings, kafka=replace(settings.kafka, **changes))
    with pytest.raises(SettingsError) as caught:
        find_source("kafka")(settings)
    return caught.value.problems


def test_the_defaults_are_accepted_without_a_broker() -> None:
    source = find_source("kafka")(load(ConsumerProcessSettings, None, {}).settings)

    assert source.problem() == "not connected yet"
    source.close()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *(
            (
                {"bootstrap_servers": ("good:9092", server)},
                f"kafka.bootstrap_servers: expected HOST:PORT, got {server!r}",
            )
            for server in ("broker:port", "broker", "broker:", ":9092", "broker:0", "broker:65536", "broker:-1", "::1")
        ),
        ({"bootstrap_servers": ()}, "kafka.bootstrap_servers: expected at least one HOST:PORT"),
        ({"topic": "with spaces"}, "kafka.topic: not a name of a topic: 'with spaces'"),
        ({"topic": ""}, "kafka.topic: not a name of a topic: ''"),
        ({"dead_letter_topic": ".."}, "kafka.dead_letter_topic: not a name of a topic: '..'"),
        (
            {"topic": "results", "dead_letter_topic": "results"},
            "kafka.dead_letter_topic: expected another topic than kafka.topic, got 'results'",
        ),
        ({"group": ""}, "kafka.group: expected a name, got ''"),
        ({**LOGIN, "sasl_username": ""}, "kafka.sasl_username: needed with SASL_SSL"),
        ({**LOGIN, "sasl_password": Secret("")}, "kafka.sasl_password: needed with SASL_SSL"),
        ({**LOGIN, "sasl_username": "a\0b"}, "kafka.sasl_username: has a NUL byte"),
        ({**LOGIN, "sasl_password": Secret("hid\0den")}, "kafka.sasl_password: has a NUL byte"),
        (
            {"sasl_username": "aggregator"},
            "kafka.sasl_username: needs kafka.security_protocol SASL_SSL or SASL_PLAINTEXT, got PLAINTEXT",
        ),
        (
            {"security_protocol": "SSL", "sasl_password": Secret("hidden")},
            "kafka.sasl_password: needs kafka.security_protocol SASL_SSL or SASL_PLAINTEXT, got SSL",
        ),
        (
            {"sasl_mechanism": "SCRAM-SHA-256"},
            "kafka.sasl_mechanism: needs kafka.security_protocol SASL_SSL or SASL_PLAINTEXT, got PLAINTEXT",
        ),
        (
            {"ssl_cafile": "/nowhere/ca.pem"},
            "kafka.ssl_cafile: needs kafka.security_protocol SSL or SASL_SSL, got PLAINTEXT",
        ),
        (
            {"security_protocol": "SSL", "ssl_cafile": "/nowhere/ca.pem"},
            "kafka.ssl_cafile: can't be read: /nowhere/ca.pem (No such file or directory)",
        ),
        ({"security_protocol": "SSL", "ssl_certfile": "/"}, "kafka.ssl_certfile: can't be read: / (Is a directory)"),
        (
            {"security_protocol": "SSL", "ssl_password": Secret("hidden")},
            "kafka.ssl_certfile: needed with kafka.ssl_password",
        ),
    ],
)
def test_what_no_client_could_use_is_refused(changes: dict[str, Any], expected: str) -> None:
    assert problems(**changes) == [expected]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the names of files, good and bad ones."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    own, other = authority.issue("own", "aggregator@example.org"), authority.issue("other", "other@example.org")
    broken = folder / "broken.pem"
    broken.write_text(own.certificate.read_text().replace("M", "#"))
    return {
        "authority": str(authority.certificate),
        "certificate": str(own.certificate),
        "key": str(own.key),
        "both": str(own.both),
        "other key": str(other.key),
        "encrypted key": str(own.encrypt_key("right")),
        "broken": str(broken),
    }


@pytest.mark.parametrize(
    ("files", "password", "expected"),
    [
        ({"ssl_cafile": "broken"}, "", "kafka.ssl_cafile: no PEM file with certificates: {broken}"),
        ({"ssl_cafile": "key"}, "", "kafka.ssl_cafile: no PEM file with certificates: {key}"),
        ({"ssl_keyfile": "key"}, "", "kafka.ssl_certfile: needed with kafka.ssl_keyfile"),
        (
            {"ssl_certfile": "broken", "ssl_keyfile": "key"},
            "",
            "kafka.ssl_certfile: no PEM file with a certificate: {broken}",
        ),
        (
            {"ssl_certfile": "certificate"},
            "",
            "kafka.ssl_keyfile: no PEM file with a key for {certificate}: {certificate}",
        ),
        (
            {"ssl_certfile": "certificate", "ssl_keyfile": "broken"},
            "",
            "kafka.ssl_keyfile: no PEM file with a key for {certificate}: {broken}",
        ),
        (
            {"ssl_certfile": "certificate", "ssl_keyfile": "other key"},
            "",
            "kafka.ssl_keyfile: not the key of the certificate in {certificate}: {other key}",
        ),
        (
            {"ssl_certfile": "certificate", "ssl_keyfile": "encrypted key"},
            "",
            "kafka.ssl_password: needed for the encrypted key in {encrypted key}",
        ),
        (
            {"ssl_certfile": "certificate", "ssl_keyfile": "encrypted key"},
            "wrong",
            "kafka.ssl_password: does not fit the encrypted key in {encrypted key}",
        ),
        (
            {"ssl_certfile": "certificate", "ssl_keyfile": "encrypted key"},
            "x" * 2000,
            "kafka.ssl_password: does not fit the encrypted key in {encrypted key}",
        ),
    ],
)
def test_files_that_no_connection_could_be_made_with_are_refused(
    certificates: dict[str, str], files: dict[str, str], password: str, expected: str
) -> None:
    named = {name: certificates[file] for name, file in files.items()}
    (problem,) = problems(security_protocol="SSL", ssl_password=Secret(password), **named)
    # some versions of OpenSSL give a reason besides
    assert problem.startswith(expected.format_map(certificates))
    assert not any(secret in problem for secret in ("wrong", "xxx", "PRIVATE"))


@pytest.mark.parametrize(
    ("files", "password"),
    [
        ({}, ""),
        ({"ssl_cafile": "authority"}, ""),
        ({"ssl_certfile": "certificate", "ssl_keyfile": "key"}, ""),
        ({"ssl_certfile": "certificate", "ssl_keyfile": "key"}, "not needed"),
        ({"ssl_certfile": "both"}, ""),
        ({"ssl_certfile": "certificate", "ssl_keyfile": "encrypted key"}, "right"),
    ],
)
def test_with_other_files_a_connection_checks_the_broker_and_its_name(
    certificates: dict[str, str], files: dict[str, str], password: str
) -> None:
    named = {name: certificates[file] for name, file in files.items()}
    settings = KafkaSettings(security_protocol="SSL", ssl_password=Secret(password), **named)
    assert problems_of(settings) == []
    options = {**KafkaSSLTransport.DEFAULT_CONFIG, **connection_options(settings)}
    context = KafkaSSLTransport._build_ssl_context(options)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("mechanism", "sent"), [("PLAIN", "a=b,c"), ("SCRAM-SHA-256", "a=3Db=2Cc"), ("SCRAM-SHA-512", "a=3Db=2Cc")]
)
def test_a_user_is_sent_as_the_mechanism_wants_it(mechanism: Any, sent: str) -> None:
    settings = KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism=mechanism, sasl_username="a=b,c")
    assert connection_options(settings)["sasl_plain_username"] == sent


def test_a_client_is_told_how_to_log_in_over_tls(tmp_path: Path) -> None:
    settings = KafkaSettings(
        bootstrap_servers=("one:9092", "two:9093"),
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="aggregator",
        sasl_password=Secret("hidden"),
        ssl_cafile=str(tmp_path / "ca.pem"),
    )

    options = connection_options(settings)

    assert options["bootstrap_servers"] == ["one:9092", "two:9093"]
    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_username"] == "aggregator"
    assert options["sasl_plain_password"] == "hidden"
    assert options["ssl_cafile"] == str(tmp_path / "ca.pem")
    assert options["ssl_certfile"] is None


def test_a_client_without_security_is_told_nothing_of_it() -> None:
    assert not {"sasl_mechanism", "sasl_plain_password", "ssl_cafile"} & connection_options(KafkaSettings()).keys()
