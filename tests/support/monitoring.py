"""Dashboards and alerts as files, and a real Prometheus that asks what they ask."""

import json
import re
import shutil
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from api_service.metrics import METRICS as API_METRICS
from consumer_service.metrics import METRICS as CONSUMER_METRICS
from examples.demo.ports import free_port
from tests.support.deployment import fetch
from tests.support.processes import REPOSITORY, Process, Processes
from tests.support.programs import ProgramMissingError, skipped_without_programs
from tests.support.waiting import eventually

DEPLOY = REPOSITORY / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
OURS = {metric.name for metric in (*CONSUMER_METRICS, *API_METRICS)}
OF_EVERY_PROCESS = {
    "up",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
}

_SELECTOR = re.compile(r"\b((?:aggregator|process)_[a-z_]+|up)\b(\{[^}]*\})?")
_HISTOGRAM_ENDINGS = re.compile(r"_(?:bucket|sum|count)$")


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    """Return every alert of the rule file."""
    return [rule for group in read_yaml(RULES)["groups"] for rule in group["rules"]]


def selectors(expression: str) -> list[str]:
    """Return what selects series in a query: each name of a metric with what stands in braces after it."""
    return [name + labels for name, labels in _SELECTOR.findall(expression)]


def metrics_in(expression: str) -> set[str]:
    """Return the metrics of a query, histograms without the endings of their series."""
    names = {name for name, _ in _SELECTOR.findall(expression)}
    return {name if name in OURS else _HISTOGRAM_ENDINGS.sub("", name) for name in names}


@dataclass(frozen=True)
class Drawn:
    """A dashboard from its file."""

    file: Path
    json: Mapping[str, Any]

    @property
    def panels(self) -> list[dict[str, Any]]:
        """Everything that draws."""
        return [panel for panel in self.json["panels"] if panel["type"] != "row"]

    @property
    def variables(self) -> list[dict[str, Any]]:
        """The variables that are asked for."""
        return [variable for variable in self.json["templating"]["list"] if variable["type"] == "query"]

    @property
    def queries(self) -> Iterator[tuple[str, str]]:
        """Each query with the title of its panel."""
        for panel in self.panels:
            for target in panel["targets"]:
                yield panel["title"], target["expr"]


def dashboards() -> list[Drawn]:
    """Return all dashboards."""
    return [Drawn(file, json.loads(file.read_text(encoding="utf-8"))) for file in DASHBOARDS]


def require_prometheus() -> None:
    """Skip the test where Prometheus is missing, or fail it where it must not be."""
    with skipped_without_programs():
        if not shutil.which("prometheus"):
            raise ProgramMissingError("PROMETHEUS", "Prometheus is missing: apt-get install prometheus")


class Prometheus:
    """A Prometheus that looks every second at admin ports, by the name of their job, and has the alerts."""

    def __init__(self, processes: Processes, folder: Path, jobs: Mapping[str, int]) -> None:
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in jobs.items()
            ],
        }
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        self._port = free_port()
        command = [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        self.process: Process = processes.start("prometheus", command)

    def wait_for(self, query: str, timeout: float = 30) -> None:
        """Wait until a query returns a series."""
        eventually(lambda: self.query(query), timeout, f"Prometheus has {query}")

    def query(self, query: str) -> Sequence[Any]:
        """Return the series of a query as of now; AssertionError if it is none, or nobody answers."""
        found: Sequence[Any] = self._ask("query", query=query)["result"]
        return found

    def values_of(self, label: str, selector: str) -> Sequence[str]:
        """Return the values that a label has in the series of a selector."""
        values: Sequence[str] = self._ask(f"label/{label}/values", **{"match[]": selector})
        return values

    def rules(self) -> list[dict[str, Any]]:
        """Return each alert as Prometheus has it, with its health."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def alerts_that_hold(self) -> set[str]:
        """Return the names of the alerts whose condition holds, though not yet for as long as they wait."""
        return {rule["name"] for rule in self.rules() if rule["state"] != "inactive"}

    def _ask(self, path: str, **parameters: str) -> Any:
        answer = fetch(self._port, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        assert answer.status == 200, f"{parameters}: {answer.text}"
        return answer.json["data"]
