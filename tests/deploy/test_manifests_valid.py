"""The manifests as far as they can be judged without an API server: kubernetes-validate and kube-score."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import kubernetes_validate
import pytest

from tests.support.manifests import (
    KUBE_SCORE,
    OVERLAYS,
    KustomizeError,
    Manifests,
    Object,
    build_overlay,
    change,
    copy_of_deploy,
    rendered_text,
)

# `make check` runs it
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("kustomize")]

VERSION = "1.36"
"""Of Kubernetes, as in `tests/deploy/kubernetes/go.mod`."""

OPERATORS = {"ScaledObject", "TriggerAuthentication", "PodMonitor", "PrometheusRule"}
"""Kinds that Kubernetes learns from KEDA and the Prometheus operator; `make test-kubernetes` has their schemas."""

KUBE_SCORE_OPTIONS = [
    "--exit-one-on-warning",
    # what the node has to spare is used (see the resources in `deploy/kubernetes/base`)
    "--ignore-container-cpu-limit",
]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_is_valid(name: str) -> None:
    assert problems_of(build_overlay(name)) == []


def test_the_base_is_valid_with_every_choice_of_components(combined: Mapping[str, Manifests]) -> None:
    valid: list[Object] = []
    for chosen, manifests in combined.items():
        # most are in all of them
        unseen = [one for one in manifests.objects if one not in valid]
        assert problems_of(Manifests(unseen)) == [], chosen
        valid += unseen
    assert valid


def test_a_misspelt_field_a_wrong_type_and_a_missing_file_are_found(tmp_path: Path) -> None:
    copy = copy_of_deploy(tmp_path)
    base = copy / "kubernetes" / "base"
    change(base / "consumer.yaml", "maxSurge: 0", "maxSurged: 0")
    change(base / "api.yaml", "seconds: 5", 'seconds: "5"')
    problems = problems_of(build_overlay("production", copy))
    assert len(problems) == 2
    assert "maxSurged" in str(problems)
    assert "'5' is not of type 'integer'" in str(problems)
    (base / "aggregator.toml").unlink()
    with pytest.raises(KustomizeError, match=r"aggregator\.toml"):
        build_overlay("production", copy)


def problems_of(manifests: Manifests) -> list[str]:
    """Return what the schemas of Kubernetes say against manifests, fields that they do not know included."""
    problems = []
    for one in manifests.objects:
        try:
            kubernetes_validate.validate(one, VERSION, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            if one["kind"] not in OPERATORS:
                problems.append(f"{one['kind']}: unknown")
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{one['kind']} {one['metadata']['name']}: {error.message}")
    return problems


@pytest.mark.parametrize("name", OVERLAYS)
def test_kube_score_finds_nothing(name: str) -> None:
    assert complaints_about(rendered_text(name)) == []


def test_kube_score_finds_what_is_missing(tmp_path: Path) -> None:
    copy = copy_of_deploy(tmp_path)
    change(copy / "kubernetes" / "base" / "api.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    (complaint,) = complaints_about(rendered_text("production", copy))
    assert "aggregator-api" in complaint
    assert "writable root filesystem" in complaint


def complaints_about(text: str) -> list[str]:
    """Return what kube-score says against manifests; what it must not say is in annotations beside the objects."""
    run = subprocess.run(
        [KUBE_SCORE, "score", *KUBE_SCORE_OPTIONS, "--output-format", "ci", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not run.stderr, run.stderr
    complaints = [line for line in run.stdout.splitlines() if not line.startswith(("[OK]", "[SKIPPED]"))]
    assert "[OK]" in run.stdout
    assert bool(complaints) == bool(run.returncode)
    return complaints
