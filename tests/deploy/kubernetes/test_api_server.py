"""A Kubernetes API server takes every overlay, without an error and without a warning, and again after each change.

`make test-kubernetes` builds the server and runs this; it is not part of `.ci/run`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.deploy.kubernetes.server import ApiServer
from tests.support.manifests import (
    OVERLAYS,
    Manifests,
    Workload,
    build_overlay,
    change,
    copy_of_deploy,
    rendered_text,
)
from tests.support.programs import skipped_without_programs

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("kustomize")]

NAMESPACES = {"demo": "aggregator-demo", "production": "aggregator"}
COMBINATIONS = "combinations"
DRY_RUN = "--dry-run=server"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Yield an API server with a restricted namespace for each overlay."""
    with skipped_without_programs():
        server = ApiServer(tmp_path_factory.mktemp("kubernetes"))
    try:
        server.start()
        for namespace in (*NAMESPACES.values(), COMBINATIONS):
            server.make_restricted_namespace(namespace)
        yield server
    finally:
        server.stop()


def assert_taken(server: ApiServer, document: str, *options: str) -> None:
    """Expect each object of a document to be taken, without a word against it."""
    run = server.try_apply(document, *options)
    assert run.returncode == 0, run.stderr
    assert not run.stderr, run.stderr
    count = len(list(yaml.load_all(document, yaml.CSafeLoader)))
    assert run.stdout.count(" serverside-applied") == count > 0


def refused(server: ApiServer, document: str, *options: str) -> str:
    """Expect a document not to be taken as it is, and return what is said against it."""
    run = server.try_apply(document, *options)
    assert run.returncode != 0
    return run.stderr


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_taken(server: ApiServer, overlay: str) -> None:
    assert_taken(server, rendered_text(overlay), DRY_RUN)


def test_the_base_is_taken_with_every_choice_of_components(
    server: ApiServer, combined: Mapping[str, Manifests]
) -> None:
    for manifests in combined.values():
        document = yaml.safe_dump_all(manifests.objects)
        assert_taken(server, document, DRY_RUN, f"--namespace={COMBINATIONS}")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_may_run_in_a_restricted_namespace(server: ApiServer, overlay: str) -> None:
    """Of a Deployment the server says only what its pods would violate; here it is asked for the pods themselves."""
    workloads = build_overlay(overlay).workloads
    pods = yaml.safe_dump_all(pod_of(workload) for workload in workloads)
    assert_taken(server, pods, DRY_RUN, f"--namespace={NAMESPACES[overlay]}")


def pod_of(workload: Workload) -> Mapping[str, object]:
    """Return a pod as the controller of a workload would make it."""
    claims = workload.spec.get("volumeClaimTemplates", [])
    volumes = [
        {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
        for claim in claims
    ]
    spec = {**workload.pod, "volumes": [*workload.pod.get("volumes", []), *volumes]}
    metadata = {"name": workload.name, "labels": workload.labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


WRONG = [
    ("base/consumer.yaml", "maxSurge: 0", "maxSurged: 0", "field not declared in schema", "maxSurged"),
    ("base/api.yaml", "seconds: 5\n", "seconds: ten\n", "preStop.sleep.seconds", "expected numeric"),
    ("base/api.yaml", "drop: [ALL]", "drop: [NET_RAW]", "would violate PodSecurity", "unrestricted capabilities"),
    ("base/consumer.yaml", "runAsNonRoot: true", "fsGroup: 1", "would violate PodSecurity", "runAsNonRoot != true"),
    ("base/migration.yaml", "backoffLimit: 8", "backofLimit: 8", "field not declared in schema", "backofLimit"),
    ("base/api.yaml", "minReplicas: 2", "minReplicas: 9", "maxReplicas", "must be greater than or equal"),
    (
        "components/keda/scaled-object.yaml",
        "pollingInterval",
        "poolingInterval",
        "field not declared in schema",
        "poolingInterval",
    ),
    (
        "components/monitoring/pod-monitor.yaml",
        "consumer\n  podMetricsEndpoints:",
        "consumer\n  podMetricsEndpoint:",
        "field not declared in schema",
        "podMetricsEndpoint",
    ),
]


@pytest.mark.parametrize(("file", "right", "wrong", "where", "what"), WRONG)
def test_what_is_wrong_is_found(
    file: str, right: str, wrong: str, where: str, what: str, server: ApiServer, tmp_path: Path
) -> None:
    copy = copy_of_deploy(tmp_path)
    change(copy / "kubernetes" / file, right, wrong)
    complaint = refused(server, rendered_text("production", copy), DRY_RUN)
    assert where in complaint
    assert what in complaint


def test_what_is_applied_can_be_changed_upgraded_and_rolled_back(server: ApiServer, tmp_path: Path) -> None:
    """And what the autoscalers did in between stays. A Job whose name stays can't be changed."""
    namespace = f"--namespace={NAMESPACES['production']}"
    assert_taken(server, rendered_text("production"))
    for name in ("aggregator-api", "aggregator-consumer"):
        server.kubectl(namespace, "scale", f"deployment/{name}", "--replicas=5")
    copy = copy_of_deploy(tmp_path)
    overlay = copy / "kubernetes" / "overlays" / "production"
    change(overlay / "aggregator.toml", "[logging]\n", '[logging]\nlevel = "debug"\n')
    assert_taken(server, rendered_text("production", copy))
    change(overlay / "kustomization.yaml", "newTag: 0.1.0", "newTag: 0.2.0")
    assert "field is immutable" in refused(server, rendered_text("production", copy))
    images = server.kubectl(namespace, "get", "deployments", "--output=jsonpath={.items[*].spec..image}").split()
    assert [image.rpartition(":")[2] for image in images] == ["0.2.0", "0.2.0"], "the others are applied all the same"
    change(overlay / "kustomization.yaml", "aggregator-migration-0-1-0", "aggregator-migration-0-2-0")
    assert_taken(server, rendered_text("production", copy))
    assert_taken(server, rendered_text("production"))
    jobs = server.kubectl(namespace, "get", "jobs", "--output=name").split()
    assert jobs == ["job.batch/aggregator-migration-0-1-0", "job.batch/aggregator-migration-0-2-0"]
    replicas = server.kubectl(namespace, "get", "deployments", "--output=jsonpath={.items[*].spec.replicas}")
    assert replicas.split() == ["5", "5"]
