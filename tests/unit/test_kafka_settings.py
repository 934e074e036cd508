"""Which settings the source `kafka` refuses, and what its clients are told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumer_service.kafka_client import connection_options
from consumer_service.settings import ConsumerProcessSettings, KafkaSettings
from consumer_service.sources import find_source
from libaggregator.settings import Secret, SettingsError, load


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
        (
            {"bootstrap_servers": ("broker:port",)},
            "kafka.bootstrap_servers: expected HOST:PORT, got ['broker:port']",
        ),
        ({"bootstrap_servers": ()}, "kafka.bootstrap_servers: expected at least one HOST:PORT"),
        ({"topic": "with spaces"}, "kafka.topic: not a name of a topic: 'with spaces'"),
        ({"topic": ""}, "kafka.topic: not a name of a topic: ''"),
        ({"dead_letter_topic": ".."}, "kafka.dead_letter_topic: not a name of a topic: '..'"),
        ({"group": ""}, "kafka.group: expected a name, got ''"),
        ({"security_protocol": "SASL_SSL"}, "kafka.sasl_username: needed with SASL_SSL"),
        ({"ssl_cafile": "/nowhere/ca.pem"}, "kafka.ssl_cafile: can't be read: /nowhere/ca.pem"),
    ],
)
def test_what_no_client_could_use_is_refused(changes: dict[str, Any], expected: str) -> None:
    assert problems(**changes) == [expected]


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
