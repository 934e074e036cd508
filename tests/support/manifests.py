"""The manifests of `deploy/kubernetes` as kustomize renders them, and what a container finds in its file system."""

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import yaml

from tests.support.processes import REPOSITORY
from tests.support.programs import ProgramMissingError

TOOLS = REPOSITORY / ".cache" / "bin"
KUSTOMIZE = TOOLS / "kustomize"
KUBE_SCORE = TOOLS / "kube-score"
DEPLOY = REPOSITORY / "deploy"
OVERLAYS = ("demo", "production")
COMPONENTS = ("keda", "monitoring", "network-policy", "prune", "read-replica")

OUR_NAME = "insights-results-aggregator"
WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob")
NAME_LABEL, COMPONENT_LABEL = "app.kubernetes.io/name", "app.kubernetes.io/component"

Object = Mapping[str, Any]


class KustomizeError(Exception):
    """kustomize did not take a folder; the text is what it said."""


class MountError(Exception):
    """A pod would not be started, since something that it mounts is not there; the text names it."""


@dataclass(frozen=True)
class Workload:
    """One Deployment, StatefulSet, Job or CronJob."""

    manifest: Object

    @property
    def kind(self) -> str:
        """For example `Deployment`."""
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        """Its name in the namespace."""
        return str(self.manifest["metadata"]["name"])

    @property
    def spec(self) -> Object:
        """Its specification; of a CronJob, that of its Jobs."""
        spec: Object = self.manifest["spec"]
        job: Object = spec["jobTemplate"]["spec"] if self.kind == "CronJob" else spec
        return job

    @property
    def pod(self) -> Object:
        """The specification of its pods."""
        pod: Object = self.spec["template"]["spec"]
        return pod

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of its pods."""
        labels: Mapping[str, str] = self.spec["template"]["metadata"]["labels"]
        return labels

    @property
    def is_ours(self) -> bool:
        """Whether it runs a program of this project."""
        return self.labels.get(NAME_LABEL) == OUR_NAME

    @property
    def component(self) -> str:
        """Which of our processes it is: `consumer`, `api`, `migration` or `prune`."""
        return self.labels[COMPONENT_LABEL]

    @property
    def container(self) -> Object:
        """Its only container."""
        (container,) = self.pod["containers"]
        assert not self.pod.get("initContainers")
        one: Object = container
        return one

    @property
    def ports(self) -> dict[str, int]:
        """The ports of its container by name."""
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    @property
    def mounts(self) -> dict[str, Object]:
        """Each volume of its container by the path where it is mounted."""
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        return {mount["mountPath"]: volumes[mount["name"]] for mount in self.container["volumeMounts"]}


class Manifests:
    """Everything that one overlay applies."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self.objects = list(objects)

    def of_kind(self, kind: str) -> list[Object]:
        """Return all objects of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """Return the object of a kind and name; MountError if there is none."""
        for found in self.of_kind(kind):
            if found["metadata"]["name"] == name:
                return found
        raise MountError(f'{kind.lower()} "{name}" not found')

    @property
    def workloads(self) -> list[Workload]:
        """Everything that has pods."""
        return [Workload(one) for one in self.objects if one["kind"] in WORKLOADS]

    @property
    def ours(self) -> list[Workload]:
        """Those that run a program of this project."""
        return [workload for workload in self.workloads if workload.is_ours]

    def our(self, component: str) -> Workload:
        """Return the workload of one of our processes."""
        (found,) = [workload for workload in self.ours if workload.component == component]
        return found


def require_kustomize() -> None:
    """Raise ProgramMissingError if it is not there."""
    for tool in (KUSTOMIZE, KUBE_SCORE):
        if not tool.is_file():
            raise ProgramMissingError(
                "KUSTOMIZE", f"{tool.name} is missing: `make check` makes it where Go is installed"
            )


def rendered_text(overlay: str, deploy: Path = DEPLOY) -> str:
    """Return an overlay as `kubectl apply` gets it, of a copy of `deploy` if that is given."""
    return _render(deploy / "kubernetes" / "overlays" / overlay)


def build_overlay(name: str, deploy: Path = DEPLOY) -> Manifests:
    """Render an overlay, of a copy of `deploy` if that is given; KustomizeError if it can't be."""
    return _parse(rendered_text(name, deploy))


def build_combination(components: Iterable[str], folder: Path) -> Manifests:
    """Render the base with some components, by a kustomization that is written to a folder outside of `deploy`."""
    # kustomize takes no absolute paths
    kubernetes = Path(os.path.relpath(DEPLOY / "kubernetes", folder.resolve()))
    document = {
        "resources": [str(kubernetes / "base")],
        "components": [str(kubernetes / "components" / name) for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return _parse(_render(folder))


def all_combinations() -> list[tuple[str, ...]]:
    """Return every choice of components."""
    return list(chain.from_iterable(combinations(COMPONENTS, size) for size in range(len(COMPONENTS) + 1)))


def copy_of_deploy(folder: Path) -> Path:
    """Copy `deploy` into a folder, to be changed there; return the copy."""
    return Path(shutil.copytree(DEPLOY, folder / "deploy"))


def change(file: Path, old: str, new: str) -> None:
    """Replace a text that has to be in a file, once."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
    file.write_text(text.replace(old, new), encoding="utf-8")


@dataclass(frozen=True)
class Root:
    """What a container finds: files below `folder` as below `/`, and its environment."""

    folder: Path
    environment: Mapping[str, str]


def start_conditions(manifests: Manifests, workload: Workload, outside: Sequence[Object], folder: Path) -> Root:
    """Lay out ConfigMaps and Secrets in a folder as the kubelet does, and return it with the environment.

    `outside` are the Secrets and ConfigMaps that the overlay expects to be there. Paths in the environment and in the
    files lead into the folder. Raises MountError for what is named and not there, where the kubelet starts no pod.
    """
    given = Manifests([*manifests.objects, *outside])
    for path, volume in workload.mounts.items():
        place = folder / path.lstrip("/")
        place.mkdir(parents=True)
        for name, content in _files(given, volume):
            _write_as_kubelet(place, name, _moved(content, workload, folder))
    environment = {name: _moved(value, workload, folder) for name, value in environment_of(given, workload).items()}
    return Root(folder, environment)


def environment_of(manifests: Manifests, workload: Workload) -> dict[str, str]:
    """Return the environment that a workload names; MountError if a ConfigMap of it is not there."""
    environment: dict[str, str] = {}
    for source in workload.container.get("envFrom", []):
        environment |= manifests.one("ConfigMap", source["configMapRef"]["name"])["data"]
    return environment | {variable["name"]: variable["value"] for variable in workload.container.get("env", [])}


def secret(name: str, **values: str) -> Object:
    """Return the manifest of a Secret; `__` in a name stands for a dot."""
    data = {key.replace("__", "."): base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def config_map(name: str, **values: str) -> Object:
    """Return the manifest of a ConfigMap; `__` in a name stands for a dot."""
    data = {key.replace("__", "."): value for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _render(folder: Path) -> str:
    require_kustomize()
    run = subprocess.run([KUSTOMIZE, "build", folder], capture_output=True, text=True, check=False)
    if run.returncode or run.stderr:
        raise KustomizeError(run.stderr)
    return run.stdout


def _parse(text: str) -> Manifests:
    return Manifests(yaml.load_all(text, yaml.CSafeLoader))


def _files(manifests: Manifests, volume: Object) -> Iterator[tuple[str, str]]:
    if "emptyDir" in volume:
        return
    for source in volume.get("projected", {}).get("sources", [volume]):
        ((kind, reference),) = [(key, value) for key, value in source.items() if key in ("configMap", "secret")]
        found = manifests.one("ConfigMap" if kind == "configMap" else "Secret", reference["name"])
        data = dict(found.get("data", {}))
        if kind == "secret":
            data = {key: base64.b64decode(value).decode() for key, value in data.items()}
        for item in reference.get("items", [{"key": key, "path": key} for key in data]):
            if item["key"] not in data:
                raise MountError(f"references non-existent {kind} key: {item['key']}")
            yield item["path"], data[item["key"]]


def _write_as_kubelet(place: Path, name: str, content: str) -> None:
    """Write a file into a hidden folder, with a link to it by way of `..data`."""
    data = place / "..2026_01_01"
    data.mkdir(exist_ok=True)
    (data / name).write_text(content, encoding="utf-8")
    if not (place / "..data").is_symlink():
        (place / "..data").symlink_to(data.name)
    (place / name).symlink_to(Path("..data") / name)


def _moved(text: str, workload: Workload, folder: Path) -> str:
    paths = sorted(workload.mounts, key=len, reverse=True)
    return re.sub("(?<![\\w./-])(" + "|".join(map(re.escape, paths)) + ")(?![\\w.-])", rf"{folder}\1", text)
