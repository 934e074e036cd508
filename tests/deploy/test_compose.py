"""`deploy/compose.yaml` is what Compose takes, and everything that it names is there.

The schema, `compose-spec.json`, is that of github.com/compose-spec/compose-go v2.16.2 (Apache License 2.0).
"""

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import psycopg2
import pytest
import yaml

from api_service.cli import main as api
from api_service.settings import ApiProcessSettings
from consumer_service.cli import main as consumer
from consumer_service.settings import ConsumerProcessSettings
from libaggregator.settings import CONFIG_VARIABLE, SECRETS_VARIABLE, load, options_of
from tests.support.databases import migrate_database
from tests.support.postgresql import PostgresqlServer
from tests.support.processes import REPOSITORY
from tests.support.roles import WRITER, database_with_roles, execute

DEPLOY = REPOSITORY / "deploy"
SCHEMA = Path(__file__).with_name("compose-spec.json")
PROCESSES = {
    "migrate": ("aggregator-consumer", consumer.commands, ConsumerProcessSettings),
    "consumer": ("aggregator-consumer", consumer.commands, ConsumerProcessSettings),
    "api": ("aggregator-api", api.commands, ApiProcessSettings),
}
MEMORY = "256m"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Return what the file says, its anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def test_it_is_of_the_schema_of_compose(compose: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(compose, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"api": {"comand": []}}}, schema)


def test_it_names_no_registry_and_one_image_of_ours(compose: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in compose["services"].items()}
    assert {images[name] for name in PROCESSES} == {"insights-results-aggregator"}
    assert [image for image in images.values() if "." in image.partition("/")[0] and "/" in image] == []
    others = [image for name, image in images.items() if name not in PROCESSES]
    assert [image for image in others if ":" not in image or image.endswith(":latest")] == []


@pytest.mark.parametrize("name", PROCESSES)
def test_commands_settings_and_ports_of_our_processes_exist(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    program, commands, settings = PROCESSES[name]
    assert service["command"][0] == program
    assert service["command"][1] in commands
    if "healthcheck" in service:
        assert service["healthcheck"]["test"] == ["CMD", program, "health"]
    variables = dict(service["environment"])
    assert variables.pop(CONFIG_VARIABLE) in {volume.split(":")[1] for volume in service["volumes"]}
    assert {str(Path(secret["target"]).parent) for secret in service["secrets"]} == {variables.pop(SECRETS_VARIABLE)}
    known = {option.variable for option in options_of(ConsumerProcessSettings).values()}
    assert variables.keys() <= known
    loaded = load(settings, DEPLOY / "aggregator.toml", variables).settings
    if name == "api":
        ports = {str(loaded.api.port)}
        assert {port.rpartition(":")[2] for port in service["ports"]} == ports


def test_what_the_build_is_told_comes_from_the_environment_and_is_what_the_dockerfile_takes(
    compose: dict[str, Any],
) -> None:
    build = compose["services"]["api"]["build"]
    assert build["args"] == {name: f"${{{name}:-}}" for name in build["args"]}
    taken = re.findall(r"^ARG (\w+)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert build["args"].keys() == set(taken) - {"BASE_IMAGE", "SOURCE_DATE_EPOCH"}


@pytest.mark.parametrize("name", PROCESSES)
def test_our_processes_have_the_least_that_they_need(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] == MEMORY
    assert "user" not in service
    assert "privileged" not in service


@pytest.mark.parametrize("name", ["consumer", "api"])
def test_no_process_starts_before_the_roles_were_made_once_more_after_the_migration(
    compose: dict[str, Any], name: str
) -> None:
    done = {"condition": "service_completed_successfully"}
    assert compose["services"][name]["depends_on"]["roles"] == done
    assert compose["services"]["roles"]["depends_on"] == {"migrate": done}


def test_each_process_has_its_own_role(compose: dict[str, Any]) -> None:
    roles = {name: compose["services"][name]["secrets"][0]["source"] for name in PROCESSES}
    assert roles == {"migrate": "owner.url", "consumer": "writer.url", "api": "reader.url"}


def test_processes_are_killed_only_after_they_had_the_time_that_they_take_to_stop(compose: dict[str, Any]) -> None:
    def grace(name: str) -> float:
        return float(compose["services"][name]["stop_grace_period"].removesuffix("s"))

    consumer_settings = load(ConsumerProcessSettings, DEPLOY / "aggregator.toml", {}).settings.consumer
    api_settings = load(ApiProcessSettings, DEPLOY / "aggregator.toml", {}).settings.api
    assert grace("consumer") >= consumer_settings.shutdown_timeout + 5
    assert grace("api") >= api_settings.shutdown_delay + api_settings.shutdown_timeout + 10


def test_whom_a_service_waits_for_can_be_waited_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        awaited = service.get("depends_on", {})
        for name, how in awaited.items() if isinstance(awaited, dict) else ():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
            else:
                assert services[name].get("restart", "no") == "no"


def test_every_file_that_is_mounted_is_there(compose: dict[str, Any]) -> None:
    volumes = [volume for service in compose["services"].values() for volume in service.get("volumes", ())]
    sources = {volume.split(":")[0] for volume in volumes}
    named = {source for source in sources if not source.startswith(".")}
    assert named == compose["volumes"].keys()
    assert [source for source in sources - named if not (DEPLOY / source).exists()] == []


def test_the_topics_are_those_of_the_settings(compose: dict[str, Any]) -> None:
    kafka = load(ConsumerProcessSettings, DEPLOY / "aggregator.toml", {}).settings.kafka
    made = compose["services"]["topics"]["command"][-1].splitlines()[0]
    assert made == f"for topic in {kafka.topic} {kafka.dead_letter_topic}; do"


def test_no_secret_is_in_it(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "URL" in name:
                assert name.endswith("_FILE")
                assert value.startswith("/run/secrets/")
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())


@pytest.fixture
def made(tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Return what makes the secrets in a copy of the folder, and gives them by their names."""
    shutil.copy(DEPLOY / "make-secrets", tmp_path)

    def make() -> dict[str, str]:
        subprocess.run([tmp_path / "make-secrets"], check=True, timeout=30)
        return {path.name: path.read_text(encoding="ascii") for path in (tmp_path / "secrets").iterdir()}

    return make


def test_the_secrets_that_it_takes_are_made_once_and_others_do_not_reach_them(
    compose: dict[str, Any], made: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    secrets = made()
    assert {f"./secrets/{name}" for name in secrets} == {secret["file"] for secret in compose["secrets"].values()}
    passwords = {value for name, value in secrets.items() if name.endswith(".password")}
    assert len(passwords) == 5
    assert {len(password) for password in passwords} == {48}
    for role in ("owner", "writer", "reader"):
        assert secrets[f"{role}.url"] == (
            f"postgresql://aggregator_{role}:{secrets[f'{role}.password']}@postgres/aggregator"
        )
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o444}
    (tmp_path / "secrets" / "grafana.password").unlink()
    again = made()
    assert again.pop("grafana.password") != secrets.pop("grafana.password")
    assert again == secrets


def test_a_password_that_was_removed_is_another_one_in_the_url_too(
    made: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    secrets = made()
    (tmp_path / "secrets" / "writer.password").unlink()
    again = made()
    assert {name for name in again if again[name] != secrets[name]} == {"writer.password", "writer.url"}
    assert again["writer.url"] == secrets["writer.url"].replace(secrets["writer.password"], again["writer.password"])
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o444}


def test_the_step_after_the_migration_leaves_the_writer_no_more_than_it_needs(
    compose: dict[str, Any], own_postgresql: PostgresqlServer, made: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    password = made()["postgres.password"]
    urls = database_with_roles(own_postgresql)
    migrate_database(urls.owner)
    rights = f"SELECT has_table_privilege('{WRITER}', 'report', 'DELETE')"
    assert execute(urls.superuser, rights) == [(True,)]
    own_postgresql.execute(f"ALTER ROLE postgres PASSWORD '{password}'")
    own_postgresql.require_password("postgres")

    step = compose["services"]["roles"]
    assert step["environment"]["PGHOST"] in compose["services"]
    assert step["environment"]["PGDATABASE"] == compose["services"]["postgres"]["environment"]["POSTGRES_DB"]
    assert {PurePath(volume.split(":")[0]).name for volume in step["volumes"]} == {"roles.sql"}
    mounts = {volume.split(":")[1]: str(DEPLOY / volume.split(":")[0]) for volume in step["volumes"]}
    command = step["command"][-1].replace("$$", "$")
    for inside, outside in {**mounts, "/run/secrets/": f"{tmp_path}/secrets/"}.items():
        assert inside in command
        command = command.replace(inside, outside)
    environment = {
        **step["environment"],
        "PATH": f"{own_postgresql.programs}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(own_postgresql.port),
        "PGDATABASE": urlsplit(urls.superuser).path.removeprefix("/"),
    }
    subprocess.run([*step["command"][:-1], command], env=environment, check=True, timeout=30)
    assert execute(urls.owner, rights) == [(False,)]


@pytest.fixture
def server(own_postgresql: PostgresqlServer) -> PostgresqlServer:
    """Return a server with the roles, without their passwords."""
    for role in ("owner", "writer", "reader"):
        own_postgresql.execute(f"CREATE ROLE aggregator_{role} LOGIN")
        own_postgresql.require_password(f"aggregator_{role}")
    return own_postgresql


def test_the_roles_get_the_passwords_of_the_files(
    server: PostgresqlServer, made: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    secrets = made()
    script = (DEPLOY / "postgresql" / "passwords.sql").read_text(encoding="utf-8")
    assert script.count("/run/secrets/") == 3
    command = [server.program("psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1", server.admin_url]
    subprocess.run(
        command, input=script.replace("/run/secrets", str(tmp_path / "secrets")), text=True, check=True, timeout=30
    )
    for role in ("owner", "writer", "reader"):
        url = secrets[f"{role}.url"].replace("@postgres/aggregator", f"@127.0.0.1:{server.port}/postgres")
        psycopg2.connect(url).close()
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(url.replace(secrets[f"{role}.password"], "wrong"))
