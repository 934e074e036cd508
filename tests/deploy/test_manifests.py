"""What `deploy/kubernetes` says is so: its names exist in the programs, and its parts fit each other.

Whether Kubernetes would take the manifests is for `test_manifests_valid.py` and `make test-kubernetes`.
"""

import base64
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent, indent
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from api_service.cli import main as api_command
from api_service.settings import ApiProcessSettings
from consumer_service.cli import main as consumer_command
from consumer_service.settings import ConsumerProcessSettings
from libaggregator.admin import AdminServer, Health
from libaggregator.settings import (
    CONFIG_VARIABLE,
    ENVIRONMENT_PREFIX,
    SECRETS_VARIABLE,
    Loaded,
    Secret,
    load,
    options_of,
)
from tests.support.deployment import fetch
from tests.support.manifests import (
    COMPONENT_LABEL,
    COMPONENTS,
    NAME_LABEL,
    OVERLAYS,
    Manifests,
    MountError,
    Object,
    Root,
    Workload,
    build_overlay,
    change,
    config_map,
    copy_of_deploy,
    environment_of,
    secret,
    start_conditions,
)
from tests.support.processes import REPOSITORY, Processes

# `make check` runs it
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("kustomize")]

PROCESSES = ("migration", "consumer", "api")
"""In each overlay; `prune` is a component, which production has."""

COMMANDS: Mapping[str, click.Command] = {"aggregator-consumer": consumer_command, "aggregator-api": api_command}
MODULES = {"aggregator-consumer": "consumer_service.cli", "aggregator-api": "api_service.cli"}
SETTINGS: Mapping[str, type] = {
    "migration": ConsumerProcessSettings,
    "consumer": ConsumerProcessSettings,
    "api": ApiProcessSettings,
    "prune": ConsumerProcessSettings,
}

_TLS = "?sslmode=verify-full&sslrootcert=/etc/aggregator-authorities/postgresql.crt"
OUTSIDE = {
    "demo": [],
    # what kustomization.yaml of the overlay says has to be in the namespace
    "production": [
        secret("aggregator-migration", database__url=f"postgresql://aggregator_owner:one@db.example.org/a{_TLS}"),
        secret(
            "aggregator-consumer",
            database__url=f"postgresql://aggregator_writer:two@db.example.org/a{_TLS}",
            kafka__sasl_username="aggregator",
            kafka__sasl_password="three",
        ),
        secret("aggregator-prune", database__url=f"postgresql://aggregator_pruner:five@db.example.org/a{_TLS}"),
        secret(
            "aggregator-read-replica",
            database__read_url=f"postgresql://aggregator_reader:four@replica.example.org/a{_TLS}",
        ),
        config_map("aggregator-authorities", kafka__crt="none", postgresql__crt="none"),
    ],
}
ROLES = {
    "migration": "aggregator_owner",
    "consumer": "aggregator_writer",
    "api": "aggregator_reader",
    "prune": "aggregator_pruner",
}

TEMPORARY = "/tmp"

SPARE_SECONDS = 10
"""Between the longest end of a process and its being killed; several workers of the API may take 5 of them."""


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """Return the name of each overlay in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def rendered(kustomize: None) -> Mapping[str, Manifests]:
    """Return every overlay, rendered."""
    return {name: build_overlay(name) for name in OVERLAYS}


@pytest.fixture
def manifests(rendered: Mapping[str, Manifests], overlay: str) -> Manifests:
    """Return one overlay, rendered."""
    return rendered[overlay]


@pytest.fixture(scope="module")
def everything(rendered: Mapping[str, Manifests], combined: Mapping[str, Manifests]) -> Mapping[str, Manifests]:
    """Return every overlay and the base with every choice of components, rendered."""
    assert len(combined) == 2 ** len(COMPONENTS)
    return {**rendered, **combined}


def loaded(manifests: Manifests, overlay: str, process: str, folder: Path) -> Loaded[Any]:
    """Return the settings that a process would have in its pod."""
    root = start_conditions(manifests, manifests.our(process), OUTSIDE[overlay], folder)
    return load(SETTINGS[process], None, root.environment)


# The programs


def test_each_program_takes_its_settings_without_complaint(manifests: Manifests, overlay: str, tmp_path: Path) -> None:
    assert {workload.component for workload in manifests.ours} == set(PROCESSES if overlay == "demo" else SETTINGS)
    for workload in manifests.ours:
        process = workload.component
        root = start_conditions(manifests, workload, OUTSIDE[overlay], tmp_path / process)
        result = CliRunner().invoke(COMMANDS[workload.container["command"][0]], ["config"], env=dict(root.environment))
        assert result.exit_code == 0, result.output
        secrets = root.environment[SECRETS_VARIABLE]
        key = "read_url" if overlay == "production" and process == "api" else "url"
        assert re.search(rf"\n{key} = .*{ROLES[process]}.*# {secrets}/database.{key}\n", result.output)


def test_commands_and_arguments_exist(manifests: Manifests) -> None:
    scripts = {script.name for script in entry_points(group="console_scripts")}
    for workload in manifests.ours:
        (program,), arguments = workload.container["command"], workload.container["args"]
        assert program in scripts
        group = COMMANDS[program]
        assert isinstance(group, click.Group)
        command = group.commands[arguments[0]]
        command.make_context(program, list(arguments[1:]))


def test_each_variable_of_the_environment_is_a_setting_of_its_process(manifests: Manifests) -> None:
    for workload in manifests.ours:
        known = {option.variable for option in options_of(SETTINGS[workload.component]).values()}
        assert set(environment_of(manifests, workload)) <= known | {CONFIG_VARIABLE, SECRETS_VARIABLE}


def test_no_setting_is_given_twice(manifests: Manifests, overlay: str, tmp_path: Path) -> None:
    """The environment wins over the file, so that a change in the file would do nothing."""
    for process in PROCESSES:
        root = start_conditions(manifests, manifests.our(process), OUTSIDE[overlay], tmp_path / process)
        document = tomllib.loads(Path(root.environment[CONFIG_VARIABLE]).read_text(encoding="utf-8"))
        in_file = {f"{ENVIRONMENT_PREFIX}{section}__{key}".upper() for section in document for key in document[section]}
        assert not in_file & root.environment.keys()


def test_each_process_gets_its_own_secrets_and_no_others(manifests: Manifests, overlay: str) -> None:
    sources = {
        workload.component: [
            (source["secret"]["name"], item["key"], item["path"])
            for volume in workload.pod["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
            for item in source["secret"]["items"]
        ]
        for workload in manifests.ours
    }
    names = {process: {name for name, _, _ in found} for process, found in sources.items()}
    assert {len(found) for found in names.values()} == {1}
    assert len(set.union(*names.values())) == len(names), "two processes share a secret"
    keys = {process: {path for _, _, path in found} for process, found in sources.items()}
    assert all(key == path for found in sources.values() for _, key, path in found)
    reader = "database.read_url" if overlay == "production" else "database.url"
    login = {"kafka.sasl_username", "kafka.sasl_password"} if overlay == "production" else set()
    expected = {"migration": {"database.url"}, "consumer": {"database.url", *login}, "api": {reader}}
    assert keys == expected | ({"prune": {"database.url"}} if overlay == "production" else {})
    for process, found in keys.items():
        assert found <= options_of(SETTINGS[process]).keys()
    for workload in manifests.ours:
        assert "secretKeyRef" not in str(workload.pod), "a secret in the environment"
        assert not any("secret" in volume or "secretRef" in volume for volume in workload.pod["volumes"])


def test_each_file_that_a_setting_names_is_mounted(manifests: Manifests, overlay: str, tmp_path: Path) -> None:
    for process in [workload.component for workload in manifests.ours]:
        folder = tmp_path / process
        settings = loaded(manifests, overlay, process, folder).settings
        paths = set(_paths_of(settings))
        assert all(Path(path).is_file() for path in paths), paths
        if overlay == "production":
            assert any(path.endswith("postgresql.crt") for path in paths), "the database is not checked"
            assert process != "consumer" or any(path.endswith("kafka.crt") for path in paths)


def _paths_of(settings: Any) -> Iterator[str]:
    """Yield each setting that is a path, and the paths in URLs."""
    for name, option in options_of(type(settings)).items():
        section, _, key = name.partition(".")
        value = getattr(getattr(settings, section), key)
        if isinstance(value, Secret):
            yield from parse_qs(urlsplit(value.reveal()).query).get("sslrootcert", [])
        elif isinstance(value, str) and value.startswith("/") and option.name != "api.prefix":
            yield value


def test_the_temporary_folder_can_be_written_and_nothing_else(manifests: Manifests) -> None:
    for workload in manifests.ours:
        writable = {mount["mountPath"] for mount in workload.container["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {TEMPORARY}
        assert "emptyDir" in workload.mounts[TEMPORARY]


# Ports and probes


def test_ports_are_those_of_the_settings(manifests: Manifests, overlay: str, tmp_path: Path) -> None:
    consumer = loaded(manifests, overlay, "consumer", tmp_path / "consumer").settings.consumer
    api = loaded(manifests, overlay, "api", tmp_path / "api").settings.api
    assert manifests.our("consumer").ports == {"admin": consumer.admin_port}
    assert manifests.our("api").ports == {"http": api.port, "admin": api.admin_port}
    assert [consumer.admin_host, api.admin_host, api.host] == ["0.0.0.0"] * 3, "others can't reach it"


def test_the_settings_file_can_not_move_a_port_that_probes_and_services_go_by(tmp_path: Path) -> None:
    copy = copy_of_deploy(tmp_path)
    file = copy / "kubernetes" / "overlays" / "production" / "aggregator.toml"
    moved = 'host = "127.0.0.1"\nport = 9090\nadmin_host = "127.0.0.1"\nadmin_port = 9091\n'
    change(file, "[api]\n", f"[api]\n{moved}")
    change(file, "[consumer]\n", '[consumer]\nadmin_host = "127.0.0.1"\nadmin_port = 9092\n')
    manifests = build_overlay("production", copy)
    api = loaded(manifests, "production", "api", tmp_path / "api").settings.api
    assert (api.host, api.admin_host) == ("0.0.0.0", "0.0.0.0")
    assert {"http": api.port, "admin": api.admin_port} == manifests.our("api").ports
    consumer = loaded(manifests, "production", "consumer", tmp_path / "consumer").settings.consumer
    assert consumer.admin_host == "0.0.0.0"
    assert {"admin": consumer.admin_port} == manifests.our("consumer").ports


def test_probes_and_scrapes_ask_paths_of_the_admin_port(everything: Mapping[str, Manifests]) -> None:
    server = AdminServer("127.0.0.1", 0, Health({}, {}), CollectorRegistry())
    server.start()
    try:
        for manifests in everything.values():
            for workload in (manifests.our("consumer"), manifests.our("api")):
                probes = {kind: workload.container[kind]["httpGet"] for kind in _PROBES}
                assert {kind: probe["path"] for kind, probe in probes.items()} == _PROBES
                assert {probe["port"] for probe in probes.values()} == {"admin"}
            for monitor in manifests.of_kind("PodMonitor"):
                (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
                assert (endpoint["port"], endpoint["path"]) == ("admin", "/metrics")
                assert "jobLabel" not in monitor["spec"], "its name is the label `job`"
        for path in {*_PROBES.values(), "/metrics"}:
            assert fetch(server.port, path).status == 200, path
    finally:
        server.stop()


_PROBES = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}


def test_everything_that_selects_pods_selects_those_that_it_is_for(everything: Mapping[str, Manifests]) -> None:
    for name, manifests in everything.items():
        selected = {
            "Service": {"aggregator-api": {"api"}},
            "PodDisruptionBudget": {"aggregator-api": {"api"}, "aggregator-consumer": {"consumer"}},
            "PodMonitor": {"aggregator-api": {"api"}, "aggregator-consumer": {"consumer"}},
        }
        for kind, expected in selected.items():
            for one in manifests.of_kind(kind):
                spec = one["spec"]["selector"]
                selector = {"matchLabels": spec} if kind == "Service" else spec
                found = {workload.name for workload in manifests.workloads if matches(selector, workload.labels)}
                components = {workload.component for workload in manifests.ours if workload.name in found}
                wanted = expected.get(one["metadata"]["name"], set())
                assert components == wanted, f"{name}: {kind} {one['metadata']['name']}"
        for workload in manifests.ours:
            for constraint in workload.pod.get("topologySpreadConstraints", []):
                assert matches(constraint["labelSelector"], workload.labels)
            if workload.kind == "Deployment":
                assert matches(workload.spec["selector"], workload.labels)


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector selects a pod."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def test_the_service_leads_to_the_api(manifests: Manifests) -> None:
    (port,) = manifests.one("Service", "aggregator-api")["spec"]["ports"]
    assert port["targetPort"] == "http"
    assert port["port"] == manifests.our("api").ports["http"]


# Starting, stopping and scaling


def test_a_process_ends_before_it_is_killed(manifests: Manifests, overlay: str, tmp_path: Path) -> None:
    consumer = loaded(manifests, overlay, "consumer", tmp_path / "consumer").settings.consumer
    assert manifests.our("consumer").pod["terminationGracePeriodSeconds"] >= consumer.shutdown_timeout + SPARE_SECONDS
    api = loaded(manifests, overlay, "api", tmp_path / "api").settings.api
    pause = manifests.our("api").container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = pause + api.shutdown_delay + api.shutdown_timeout + SPARE_SECONDS
    assert manifests.our("api").pod["terminationGracePeriodSeconds"] >= needed
    assert pause >= 5, "connections still come when the others are told to end"
    assert api.shutdown_delay >= 10, "clients that pause on a kept connection don't hear that it ends"


def test_a_roll_out_keeps_the_api_whole_and_never_starts_a_consumer_too_many(manifests: Manifests) -> None:
    assert manifests.our("consumer").spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert manifests.our("api").spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_prune_runs_alone_and_is_let_finish_the_page_in_hand(rendered: Mapping[str, Manifests], tmp_path: Path) -> None:
    production = rendered["production"]
    cron_job = production.one("CronJob", "aggregator-prune")
    assert cron_job["spec"]["concurrencyPolicy"] == "Forbid"
    statement = loaded(production, "production", "prune", tmp_path).settings.database.statement_timeout
    assert production.our("prune").pod["terminationGracePeriodSeconds"] >= statement + SPARE_SECONDS


def test_nobody_but_its_autoscaler_says_how_many_replicas_a_deployment_has(
    everything: Mapping[str, Manifests],
) -> None:
    for name, manifests in everything.items():
        targets = [
            one["spec"]["scaleTargetRef"]["name"]
            for one in manifests.of_kind("HorizontalPodAutoscaler") + manifests.of_kind("ScaledObject")
        ]
        assert len(targets) == len(set(targets))
        for target in targets:
            assert "replicas" not in manifests.one("Deployment", target)["spec"], f"{name}: {target}"
        if "aggregator-consumer" not in targets:
            expected = 1 if name == "demo" else 2
            assert manifests.one("Deployment", "aggregator-consumer")["spec"]["replicas"] == expected, name
    assert everything["production"].of_kind("ScaledObject")
    assert everything["production"].of_kind("HorizontalPodAutoscaler")


def test_keda_means_the_topic_the_group_and_the_login_of_the_consumer(
    everything: Mapping[str, Manifests], tmp_path: Path
) -> None:
    for manifests in everything.values():
        for scaled in manifests.of_kind("ScaledObject"):
            assert scaled["spec"]["minReplicaCount"] <= scaled["spec"]["maxReplicaCount"]
            (trigger,) = scaled["spec"]["triggers"]
            environment = environment_of(manifests, manifests.our("consumer"))
            named = {key: name for key, name in trigger["metadata"].items() if key.endswith("FromEnv")}
            assert named == {
                "bootstrapServersFromEnv": "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS",
                "topicFromEnv": "AGGREGATOR_KAFKA__TOPIC",
                "consumerGroupFromEnv": "AGGREGATOR_KAFKA__GROUP",
            }
            assert all(environment[name] for name in named.values())
    production = everything["production"]
    kafka = loaded(production, "production", "consumer", tmp_path).settings.kafka
    (trigger,) = production.one("ScaledObject", "aggregator-consumer")["spec"]["triggers"]
    assert (trigger["metadata"]["tls"] == "enable") == kafka.security_protocol.endswith("SSL")
    assert trigger["metadata"]["sasl"] == kafka.sasl_mechanism.lower().replace("-sha-", "_sha")
    login = production.one("TriggerAuthentication", trigger["authenticationRef"]["name"])["spec"]
    assert {(one["name"], one["key"]) for one in login["secretTargetRef"]} == {
        ("aggregator-consumer", "kafka.sasl_username"),
        ("aggregator-consumer", "kafka.sasl_password"),
    }
    (authority,) = login["configMapTargetRef"]
    assert authority["name"] == production.our("consumer").mounts["/etc/aggregator-authorities"]["configMap"]["name"]
    assert authority["key"] == Path(kafka.ssl_cafile).name


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("../../components/monitoring", {"PodMonitor", "PrometheusRule"}),
        ("keda", {"ScaledObject", "TriggerAuthentication"}),
        ("network", {"NetworkPolicy"}),
        ("../../components/prune", {"CronJob"}),
        ("../../components/read-replica", set()),
    ],
)
def test_a_component_is_left_out_of_the_overlay_by_its_line_alone(line: str, kinds: set[str], tmp_path: Path) -> None:
    copy = copy_of_deploy(tmp_path)
    change(copy / "kubernetes" / "overlays" / "production" / "kustomization.yaml", f"  - {line}\n", "")
    manifests = build_overlay("production", copy)
    whole = {one["kind"] for one in build_overlay("production").objects}
    assert {one["kind"] for one in manifests.objects} == whole - kinds
    outside = [*OUTSIDE["production"], secret("aggregator-api", database__url="postgresql://aggregator_reader@db/a")]
    for workload in manifests.ours:
        start_conditions(manifests, workload, outside, tmp_path / workload.component)
    (source,) = manifests.our("api").mounts["/run/secrets/aggregator"]["projected"]["sources"]
    assert source["secret"]["name"] == ("aggregator-api" if "replica" in line else "aggregator-read-replica")


def test_the_patches_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    copy = copy_of_deploy(tmp_path)
    page = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"### Often wanted\n\n.*\n\n((?:    .*\n)+)", page)
    change(
        copy / "kubernetes" / "overlays" / "production" / "kustomization.yaml",
        "patches:\n",
        f"patches:\n{indent(dedent(block), '  ')}",
    )
    manifests = build_overlay("production", copy)
    for kind in ("PodMonitor", "PrometheusRule"):
        labels = [one["metadata"]["labels"] for one in manifests.of_kind(kind)]
        assert {label["release"] for label in labels} == {"kube-prometheus-stack"}
    assert all(workload.pod["imagePullSecrets"] == [{"name": "registry"}] for workload in manifests.ours)
    for process in ("consumer", "api"):
        endpoint = urlsplit(environment_of(manifests, manifests.our(process))["OTEL_EXPORTER_OTLP_ENDPOINT"])
        _, egress = opened(manifests, manifests.our(process))
        assert egress["namespace observability"] == {endpoint.port}
    start_conditions(manifests, manifests.our("api"), OUTSIDE["production"], tmp_path / "root")


def test_redis_takes_the_place_of_kafka_as_the_page_says(tmp_path: Path) -> None:
    overlay = copy_of_deploy(tmp_path) / "kubernetes" / "overlays" / "production"
    page = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    _, found, section = page.partition("### Redis in the place of Kafka")
    assert found
    settings, operation = (dedent(block) for block in re.findall(r"\n\n((?:        .*\n|\n)+)\n- ", section)[:2])
    _, consumer, own = settings.partition('source = "redis"\n')
    change(overlay / "aggregator.toml", "[consumer]\n", f"[consumer]\n{consumer}")
    (overlay / "aggregator.toml").write_text((overlay / "aggregator.toml").read_text(encoding="utf-8") + own, "utf-8")
    whole = (overlay / "kustomization.yaml").read_text(encoding="utf-8")
    (login,) = re.findall(r"      - op: add\n.*\n.*\n.*sasl_username\n.*\n      - op: add\n.*\n.*\n.*\n.*\n", whole)
    change(overlay / "kustomization.yaml", login, indent(operation, "      "))
    change(overlay / "kustomization.yaml", "  - keda\n", "")
    change(overlay / "network" / "addresses.yaml", "9093", "6380")
    manifests = build_overlay("production", overlay.parents[2])
    url = "rediss://aggregator:six@redis.example.org:6380/0"
    outside = [secret("aggregator-consumer", database__url="postgresql://aggregator_writer@db/a", redis__url=url)]
    outside += [one for one in OUTSIDE["production"] if one["metadata"]["name"] == "aggregator-authorities"]
    consumer_pod = manifests.our("consumer")
    root = start_conditions(manifests, consumer_pod, outside, tmp_path / "root")
    found_settings = load(ConsumerProcessSettings, None, root.environment).settings
    assert (found_settings.consumer.source, found_settings.redis.url.reveal()) == ("redis", url)
    _, egress = opened(manifests, consumer_pod)
    assert {6380} in egress.values()


def test_a_changed_setting_starts_new_pods_and_leaves_the_job_as_it_is(overlay: str, tmp_path: Path) -> None:
    before = build_overlay(overlay)
    copy = copy_of_deploy(tmp_path)
    settings = copy / "kubernetes" / ("base" if overlay == "demo" else "overlays/production") / "aggregator.toml"
    change(settings, "[logging]\n", '[logging]\nlevel = "debug"\n')
    after = build_overlay(overlay, copy)
    assert before.our("migration") == after.our("migration"), "a Job can't be changed"
    for process in ("consumer", "api"):
        assert before.our(process).pod != after.our(process).pod


def test_all_have_the_same_image_and_the_job_is_named_for_it(manifests: Manifests) -> None:
    images = {workload.container["image"] for workload in manifests.ours}
    assert len(images) == 1
    tag = images.pop().rpartition(":")[2]
    assert manifests.our("migration").name == "aggregator-migration-" + re.sub("[^a-z0-9]", "-", tag)


# Least privilege


def test_every_container_is_restricted(everything: Mapping[str, Manifests]) -> None:
    for name, manifests in everything.items():
        for workload in manifests.workloads:
            assert restricted_problems(workload) == [], f"{name}: {workload.name}"
            assert workload.pod["automountServiceAccountToken"] is False
            assert workload.pod["enableServiceLinks"] is False
        for workload in manifests.ours:
            assert workload.container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "runAsUser" not in workload.pod["securityContext"], "platforms choose one"
            account = manifests.one("ServiceAccount", workload.pod["serviceAccountName"])
            assert account["automountServiceAccountToken"] is False
        accounts = [workload.pod["serviceAccountName"] for workload in manifests.ours]
        assert len(set(accounts)) == len(manifests.ours)


def restricted_problems(workload: Workload) -> list[str]:
    """Return what the profile `restricted` of the Pod Security Standards would not take."""
    pod, container = workload.pod, workload.container
    own = container.get("securityContext", {})
    both = {**pod.get("securityContext", {}), **own}
    rules = {
        "runAsNonRoot": both.get("runAsNonRoot") is True,
        "runAsUser": both.get("runAsUser") != 0,
        "seccompProfile": both.get("seccompProfile", {}).get("type") == "RuntimeDefault",
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
        "privileged": not own.get("privileged"),
        "host": not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(),
        "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
        "volumes": all(
            set(volume) & {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
            for volume in pod.get("volumes", [])
        ),
    }
    return [rule for rule, holds in rules.items() if not holds]


def test_memory_is_bounded_and_cpu_is_not(manifests: Manifests) -> None:
    for workload in manifests.workloads:
        resources = workload.container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory", "ephemeral-storage"}
        assert set(resources["limits"]) == {"memory", "ephemeral-storage"}
        if workload.is_ours:
            assert resources["limits"]["memory"] == "256Mi"


# The network

DNS = {"namespace kube-system": {53}}
PROMETHEUS = "namespace monitoring, pods app.kubernetes.io/name=prometheus"
CLIENTS = ("namespace ingress-nginx", "namespaces aggregator-client=true")


def test_each_process_reaches_what_it_needs_and_nothing_else(
    rendered: Mapping[str, Manifests], overlay: str, tmp_path: Path
) -> None:
    manifests = rendered[overlay]
    if overlay == "demo":
        kafka = {"pods app.kubernetes.io/name=kafka": {9092}}
        database = {"pods app.kubernetes.io/name=postgresql": {5432}}
    else:
        kafka = {"192.0.2.0/28": {9093}}
        database = {"198.51.100.8/32": {5432}, "198.51.100.9/32": {5432}}
    scrapes = {PROMETHEUS: {"admin"}}
    pruned = {"prune": ({}, {**DNS, **database})} if overlay == "production" else {}
    assert {workload.component: opened(manifests, workload) for workload in manifests.ours} == pruned | {
        "migration": ({}, {**DNS, **database}),
        "consumer": (scrapes, {**DNS, **kafka, **database}),
        "api": ({**scrapes, **{client: {"http"} for client in CLIENTS}}, {**DNS, **database}),
    }
    brokers = loaded(manifests, overlay, "consumer", tmp_path).settings.kafka.bootstrap_servers
    assert {int(broker.rpartition(":")[2]) for broker in brokers} == set.union(*kafka.values())


def opened(manifests: Manifests, workload: Workload) -> tuple[dict[str, set[Any]], dict[str, set[Any]]]:
    """Return the ports by who may ask a pod, and by whom it may ask."""
    policies = [
        one["spec"]
        for one in manifests.of_kind("NetworkPolicy")
        if matches(one["spec"]["podSelector"], workload.labels)
    ]
    closing = [policy for policy in policies if not {"ingress", "egress"} & policy.keys()]
    assert [set(policy["policyTypes"]) for policy in closing] == [{"Ingress", "Egress"}], "not closed by default"
    ingress = _rules((rule["from"], rule["ports"]) for policy in policies for rule in policy.get("ingress", []))
    egress = _rules((rule["to"], rule["ports"]) for policy in policies for rule in policy.get("egress", []))
    assert all(port in workload.ports for ports in ingress.values() for port in ports)
    return ingress, egress


def _rules(rules: Iterable[tuple[list[Object], list[Object]]]) -> dict[str, set[Any]]:
    found: dict[str, set[Any]] = {}
    for peers, ports in rules:
        assert peers, "no peers are all peers"
        assert ports, "no ports are all ports"
        for peer in peers:
            found.setdefault(_peer(peer), set()).update(port["port"] for port in ports)
    return found


def _peer(peer: Object) -> str:
    if "ipBlock" in peer:
        assert not peer["ipBlock"]["cidr"].endswith("/0")
        return str(peer["ipBlock"]["cidr"])
    parts = []
    if "namespaceSelector" in peer:
        ((key, value),) = peer["namespaceSelector"]["matchLabels"].items()
        is_name = key == "kubernetes.io/metadata.name"
        parts.append(f"namespace {value}" if is_name else f"namespaces {key}={value}")
    if "podSelector" in peer:
        ((key, value),) = peer["podSelector"]["matchLabels"].items()
        parts.append(f"pods {key}={value}")
    return ", ".join(parts)


def test_the_demo_brings_what_its_settings_name(rendered: Mapping[str, Manifests], tmp_path: Path) -> None:
    demo = rendered["demo"]
    for process in PROCESSES:
        url = urlsplit(loaded(demo, "demo", process, tmp_path / process).settings.database.url.reveal())
        assert url.hostname == "postgresql"
        assert url.username == ROLES[process]
        assert demo.one("Service", "postgresql")["spec"]["ports"][0]["port"] == (url.port or 5432)
        role = ROLES[process].removeprefix("aggregator_")
        assert f"ALTER ROLE {ROLES[process]} PASSWORD :'{role}'" in str(demo.of_kind("ConfigMap"))
        (password,) = [one["data"][f"{role}.password"] for one in demo.of_kind("Secret") if _is_of_server(one)]
        assert url.password == base64.b64decode(password).decode()
    kafka = loaded(demo, "demo", "consumer", tmp_path / "kafka").settings.kafka
    (service,) = demo.one("Service", "kafka")["spec"]["ports"]
    assert kafka.bootstrap_servers == (f"kafka:{service['port']}",)
    (topics,) = [one for one in demo.workloads if one.name == "kafka-topics"]
    assert f"{kafka.topic} {kafka.dead_letter_topic};" in topics.container["args"][0]
    for name in ("postgresql", "kafka"):
        (part,) = [one for one in demo.workloads if one.name == name]
        selector = demo.one("Service", name)["spec"]["selector"]
        assert matches({"matchLabels": selector}, part.labels)
        assert part.labels[NAME_LABEL] == name
        assert COMPONENT_LABEL not in part.labels


def _is_of_server(one: Object) -> bool:
    return str(one["metadata"]["name"]).startswith("postgresql-")


# Bad input

WRONG_VALUES = [
    ("aggregator.toml", 'auth = "xrh"', 'auth = "xr"', "api", "api.auth: expected one of 'none', 'xrh', got 'xr'"),
    ("aggregator.toml", "shutdown_delay = 10.0", 'shutdown_delay = "soon"', "api", "api.shutdown_delay: expected"),
    ("aggregator.toml", 'server = "granian"', 'sever = "granian"', "api", "api.sever: unknown setting"),
    ("aggregator.toml", 'format = "json"', 'format = "xml"', "consumer", "logging.format: expected one of"),
    ("aggregator.toml", '"SASL_SSL"', '"TLS"', "consumer", "kafka.security_protocol: expected one of"),
    ("kafka.env", "KAFKA__GROUP=", "KAFKA__GROUPS=", "consumer", "kafka.groups: unknown setting (environment"),
    ("kafka.env", "KAFKA__TOPIC=", "KAFKA_TOPIC=", "consumer", "AGGREGATOR_KAFKA_TOPIC: unknown variable, expected"),
]


@pytest.mark.parametrize(("file", "right", "wrong", "process", "line"), WRONG_VALUES)
def test_a_wrong_value_in_an_overlay_is_refused_with_a_line_that_names_it(
    file: str, right: str, wrong: str, process: str, line: str, tmp_path: Path
) -> None:
    manifests = changed_production(file, right, wrong, tmp_path)
    workload = manifests.our(process)
    root = start_conditions(manifests, workload, OUTSIDE["production"], tmp_path / "root")
    result = CliRunner().invoke(COMMANDS[workload.container["command"][0]], ["config"], env=dict(root.environment))
    assert result.exit_code == 2
    (printed,) = result.output.splitlines()
    assert printed.startswith(f"error: {line}")


def test_a_wrong_value_that_shows_when_it_is_used_ends_the_start_with_a_line_that_names_it(
    processes: Processes, tmp_path: Path
) -> None:
    manifests = changed_production("aggregator.toml", "/kafka.crt", "/kafka.pem", tmp_path)
    root = start_conditions(manifests, manifests.our("consumer"), OUTSIDE["production"], tmp_path / "root")
    line = refusal(manifests.our("consumer"), root, processes)
    assert line.startswith("error: kafka.ssl_cafile: can't be read: ")


def changed_production(file: str, right: str, wrong: str, folder: Path) -> Manifests:
    """Render the overlay production with a text replaced in one of its files."""
    copy = copy_of_deploy(folder)
    change(copy / "kubernetes" / "overlays" / "production" / file, right, wrong)
    return build_overlay("production", copy)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_without_its_secret_file_names_it(
    process: str, rendered: Mapping[str, Manifests], processes: Processes, tmp_path: Path
) -> None:
    workload = rendered["demo"].our(process)
    root = start_conditions(rendered["demo"], workload, [], tmp_path / "root")
    for file in Path(root.environment[SECRETS_VARIABLE]).iterdir():
        if file.is_symlink():
            file.unlink()
    assert refusal(workload, root, processes) == (
        "error: database.url: expected sqlite:///FILE or postgresql://HOST/NAME, got 'missing://secrets/database.url'"
    )


@pytest.mark.parametrize("mount", ["/run/secrets/aggregator", "/etc/aggregator"])
def test_a_process_without_a_mount_names_what_is_missing(
    mount: str, rendered: Mapping[str, Manifests], tmp_path: Path
) -> None:
    root = start_conditions(rendered["demo"], rendered["demo"].our("api"), [], tmp_path / "root")
    Path(f"{root.folder}{mount}").rename(f"{root.folder}{mount}.away")
    result = CliRunner().invoke(api_command, ["config"], env=dict(root.environment))
    assert result.exit_code == 2
    assert re.fullmatch(rf"error: {root.folder}{mount}[a-z/.]*: No such file or directory.*\n", result.output)


@pytest.mark.parametrize(
    ("process", "name", "key"),
    [
        ("migration", "aggregator-migration", "database.url"),
        ("consumer", "aggregator-consumer", "kafka.sasl_password"),
        ("api", "aggregator-read-replica", "database.read_url"),
    ],
)
def test_a_pod_without_a_key_of_its_secret_is_not_started(
    process: str, name: str, key: str, rendered: Mapping[str, Manifests], tmp_path: Path
) -> None:
    """The kubelet does so because the manifests name each key; without them it mounts what there is."""
    production = rendered["production"]
    poor = [without(one, key) if one["metadata"]["name"] == name else one for one in OUTSIDE["production"]]
    with pytest.raises(MountError, match=f"^references non-existent secret key: {re.escape(key)}$"):
        start_conditions(production, production.our(process), poor, tmp_path)


def without(one: Object, key: str) -> Object:
    """Return a Secret without a key."""
    return {**one, "data": {name: value for name, value in one["data"].items() if name != key}}


def refusal(workload: Workload, root: Root, processes: Processes) -> str:
    """Start the program as its pod does, expect it to end with exit status 2, and return its only line."""
    module = MODULES[workload.container["command"][0]]
    process = processes.start(
        workload.component, [sys.executable, "-m", module, *workload.container["args"]], root.environment
    )
    assert process.wait_exit() == 2, process.output
    (line,) = [line for line in process.output.splitlines() if line.startswith("error: ")]
    assert process.output.splitlines()[-1] == line
    return line


def test_the_version_of_the_image_is_that_of_the_distribution(manifests: Manifests) -> None:
    version = re.search(r"^version = (.+)$", (REPOSITORY / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    assert all(workload.container["image"].endswith(f":{version[1]}") for workload in manifests.ours)
