"""Settings from the file of Clowder: what is taken from it, what wins over it, and what is wrong with it."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2.extensions
import pytest

from api_service.settings import ApiProcessSettings
from consumer_service.kafka_security import security_options
from consumer_service.settings import ConsumerProcessSettings
from libaggregator.settings import Loaded, SettingsError, load
from tests.support.clowder import (
    CLOWDER_DEAD_LETTERS,
    CLOWDER_TOPIC,
    PASSWORD,
    SASL_PASSWORD,
    configuration,
    write_configuration,
)

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def own_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let certificates be put into a folder of this test."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def consumer(folder: Path, document: Any, **variables: str) -> Loaded[ConsumerProcessSettings]:
    return load(ConsumerProcessSettings, None, _environment(folder, document, variables))


def api(folder: Path, document: Any, **variables: str) -> Loaded[ApiProcessSettings]:
    return load(ApiProcessSettings, None, _environment(folder, document, variables))


def problems(folder: Path, document: Any, **variables: str) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        consumer(folder, document, **variables)
    return raised.value.problems


def _environment(folder: Path, document: Any, variables: dict[str, str]) -> dict[str, str]:
    named = {f"AGGREGATOR_{name}": value for name, value in variables.items()}
    return {"ACG_CONFIG": str(write_configuration(folder, document)), **named}


def changed(change: Callable[[dict[str, Any]], object], certificate: str = "") -> dict[str, Any]:
    document = configuration(certificate)
    change(document)
    return document


def test_database_brokers_topic_and_ports_are_taken_from_it(tmp_path: Path) -> None:
    loaded = consumer(tmp_path, configuration())
    kafka, own = loaded.settings.kafka, loaded.settings.consumer
    assert kafka.bootstrap_servers == ("kafka-0.stage.svc:9092", "kafka-1.stage.svc:9093")
    assert (kafka.topic, kafka.dead_letter_topic, kafka.security_protocol) == (CLOWDER_TOPIC, "", "PLAINTEXT")
    assert (own.admin_host, own.admin_port) == ("0.0.0.0", 9000)
    assert loaded.origins["kafka.bootstrap_servers"] == f"Clowder {tmp_path}/cdappconfig.json"
    assert loaded.origins["kafka.topic"] == f"Clowder {tmp_path}/cdappconfig.json, for 'ccx.ocp.results' (default)"
    assert loaded.origins["kafka.group"] == "default"
    served = api(tmp_path, configuration()).settings.api
    assert (served.host, served.port, served.admin_host, served.admin_port) == ("0.0.0.0", 8000, "0.0.0.0", 9000)


def test_every_character_of_a_password_comes_through_the_url(tmp_path: Path) -> None:
    given = psycopg2.extensions.parse_dsn(consumer(tmp_path, configuration()).settings.database.url.reveal())
    assert given == {
        "host": "aggregator-db.stage.svc",
        "port": "5432",
        "dbname": "aggregator",
        "user": "aggregator_writer",
        "password": PASSWORD,
        "sslmode": "prefer",
    }


def test_a_host_can_be_an_address_of_ipv6(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["database"]["hostname"] = document["kafka"]["brokers"][0]["hostname"] = "fd00::1"

    settings = consumer(tmp_path, changed(change)).settings
    assert psycopg2.extensions.parse_dsn(settings.database.url.reveal())["host"] == "fd00::1"
    assert settings.kafka.bootstrap_servers[0] == "[fd00::1]:9092"


def test_tls_and_login_are_taken_from_it(tmp_path: Path) -> None:
    settings = consumer(tmp_path, configuration(CERTIFICATE)).settings
    options = security_options(settings.kafka)
    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("aggregator", SASL_PASSWORD)
    assert Path(options["ssl_cafile"]).read_text() == CERTIFICATE
    given = psycopg2.extensions.parse_dsn(settings.database.url.reveal())
    assert (given["sslmode"], given["sslrootcert"]) == ("verify-full", options["ssl_cafile"])


@pytest.mark.parametrize(
    ("broker", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"cacert": CERTIFICATE}, "SSL"),
        ({"sasl": {"username": "u", "password": "p"}}, "SASL_SSL"),
        ({"sasl": {"username": "u", "password": "p", "securityProtocol": "SASL_PLAINTEXT"}}, "SASL_PLAINTEXT"),
        ({"securityProtocol": "SSL"}, "SSL"),
    ],
)
def test_a_broker_that_says_nothing_of_its_protocol_is_not_spoken_to_with_less_than_it_is_given(
    tmp_path: Path, broker: dict[str, Any], protocol: str
) -> None:
    document = configuration()
    document["kafka"]["brokers"] = [{"hostname": "kafka", "port": 9092, **broker}]
    assert consumer(tmp_path, document).settings.kafka.security_protocol == protocol


def test_files_with_certificates_are_the_same_ones_at_each_start_and_nobody_elses(
    tmp_path: Path, own_temporary_files: Path
) -> None:
    for _ in range(2):
        consumer(tmp_path, configuration(CERTIFICATE))
    (folder,) = own_temporary_files.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 1
    folder.chmod(0o777)
    (line,) = problems(tmp_path, configuration(CERTIFICATE))
    assert f"database.rdsCa: can't be put into a file: {folder}: not a folder that this user alone can use" in line


def test_explicit_settings_win(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "database.url").write_text("sqlite:///mine.db")
    toml = tmp_path / "aggregator.toml"
    toml.write_text('[kafka]\nbootstrap_servers = ["mine:1"]\n')
    variables = {"CONFIG": str(toml), "SECRETS_DIR": str(secrets), "CONSUMER__ADMIN_PORT": "1234"}
    loaded = consumer(tmp_path, configuration(), **variables)
    assert loaded.settings.database.url.reveal() == "sqlite:///mine.db"
    assert loaded.settings.kafka.bootstrap_servers == ("mine:1",)
    assert loaded.settings.consumer.admin_port == 1234
    assert loaded.origins["kafka.bootstrap_servers"] == str(toml)


def test_topics_of_explicit_settings_are_names_to_ask_for(tmp_path: Path) -> None:
    loaded = consumer(tmp_path, configuration(), KAFKA__DEAD_LETTER_TOPIC="ccx.ocp.results.rejected")
    assert loaded.settings.kafka.dead_letter_topic == CLOWDER_DEAD_LETTERS
    assert loaded.origins["kafka.dead_letter_topic"].endswith("(environment AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC)")


def test_a_topic_that_it_lacks_is_an_error_that_names_those_it_has(tmp_path: Path) -> None:
    assert problems(tmp_path, configuration(), KAFKA__TOPIC="other") == [
        f"kafka.topic: no topic 'other' in {tmp_path}/cdappconfig.json, kafka.topics has: 'ccx.ocp.results',"
        " 'ccx.ocp.results.rejected' (environment AGGREGATOR_KAFKA__TOPIC)"
    ]


def test_what_it_does_not_have_stays_as_it_is_set(tmp_path: Path) -> None:
    loaded = consumer(tmp_path, {"metricsPath": "/metrics"}, KAFKA__TOPIC="mine")
    assert loaded.settings.kafka.topic == "mine"
    assert set(loaded.origins.values()) == {"default", "environment AGGREGATOR_KAFKA__TOPIC"}
    assert load(ConsumerProcessSettings, None, {"ACG_CONFIG": ""}).origins["kafka.topic"] == "default"


def _without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["database"].pop(name)


def _with(section: str, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document[section].update(values)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_with("database", port="secret"), "database.port: expected int, got str"),
        (_without("password"), "database.password: expected str, got null"),
        (_with("kafka", brokers=[{"port": 1}]), "kafka.brokers[0].hostname: expected str, got null"),
        (_with("kafka", topics=[{"name": "a"}]), "kafka.topics[0].requestedName: expected str, got null"),
        (_with("kafka", brokers=[]), "kafka.brokers: expected at least one, got none"),
        (_with("kafka", topics=3), "not a configuration of Clowder"),
        (lambda document: document.update(metricsPort="x"), "metricsPort: expected int | null, got str"),
        (
            lambda document: document.update(metricsPath="/other"),
            "metricsPath: expected '/metrics', where metrics are, got '/other'",
        ),
        (
            lambda document: document["kafka"]["brokers"][1]["sasl"].update(password="other"),
            "kafka.brokers[1]: not spoken to like kafka.brokers[0]",
        ),
    ],
)
def test_a_field_that_can_not_be_used_is_named_without_its_value_if_that_is_secret(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    (line,) = problems(tmp_path, changed(change, CERTIFICATE))
    assert f"{tmp_path}/cdappconfig.json: {problem}" in line
    assert PASSWORD not in line
    assert SASL_PASSWORD not in line


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"database": {"password": "secret" ', "not JSON: "),
        (b'{"database": {"password": "\xff secret"}}', "not JSON: "),
        (b'{"database": {"password": "secret\\ud800"}}', "not JSON: "),
        (b"[]", "not a configuration of Clowder"),
        (b"null", "not a configuration of Clowder"),
    ],
)
def test_what_is_no_configuration_is_refused_without_a_word_of_it(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "cdappconfig.json"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as raised:
        load(ConsumerProcessSettings, None, {"ACG_CONFIG": str(file)})
    (line,) = raised.value.problems
    assert line.startswith(f"{file}: {problem}")
    assert line.endswith("(from ACG_CONFIG)")
    assert "secret" not in line


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.json: No such file or directory \(from ACG_CONFIG\)"):
        load(ConsumerProcessSettings, None, {"ACG_CONFIG": str(tmp_path / "none.json")})


def test_a_value_of_the_wrong_kind_for_a_setting_names_setting_and_file(tmp_path: Path) -> None:
    document = changed(lambda document: document.update(publicPort=70_000))
    with pytest.raises(SettingsError) as raised:
        api(tmp_path, document)
    (line,) = raised.value.problems
    assert line.startswith("api.port: expected an integer from 0 to 65535, got 70000 (Clowder ")


COMMANDS = {"consumer": "consumer_service.cli", "api": "api_service.cli"}


def _run(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    environment = {"ACG_CONFIG": str(file)}
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", COMMANDS)
def test_config_shows_what_is_from_it_and_no_secret(tmp_path: Path, name: str) -> None:
    file = write_configuration(tmp_path, configuration(CERTIFICATE))
    done = _run(file, "-m", COMMANDS[name], "config")
    assert (done.returncode, done.stderr) == (0, "")
    assert 'url = "postgresql://aggregator_writer:***@aggregator-db.stage.svc:5432/aggregator?sslmode=' in done.stdout
    assert f"# Clowder {file}\n" in done.stdout
    assert (CLOWDER_TOPIC in done.stdout) == (name == "consumer")
    for secret in ("p%40ss", "p@ss", SASL_PASSWORD, "admin-secret"):
        assert secret not in done.stdout


@pytest.mark.parametrize("module", COMMANDS.values())
def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path, module: str) -> None:
    folder = tmp_path / "hidden"
    folder.mkdir()
    (folder / "app_common_python.py").write_text("raise ModuleNotFoundError(name='app_common_python')\n")
    file = write_configuration(tmp_path, configuration())
    script = (
        f"import runpy, sys; sys.path.insert(0, {str(folder)!r}); runpy.run_module({module!r}, run_name='__main__')"
    )
    done = _run(file, "-c", script, "config")
    assert done.returncode == 2
    assert done.stderr == (
        "error: ACG_CONFIG is set, but app_common_python is missing, install the extra:"
        " pip install 'insights-results-aggregator[clowder]'\n"
    )


def test_nothing_of_it_is_imported_where_there_is_none() -> None:
    script = (
        "import sys; from libaggregator.settings import load; from api_service.settings import ApiProcessSettings;"
        "load(ApiProcessSettings, None, {}); sys.exit('app_common_python' in sys.modules)"
    )
    assert _run(Path(), "-c", script).returncode == 0
