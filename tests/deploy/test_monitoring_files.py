"""What has to hold for dashboards and alerts as files, whatever is measured."""

import re
from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from tests.support.monitoring import (
    DASHBOARDS,
    DEPLOY,
    OF_EVERY_PROCESS,
    OURS,
    RULES,
    Drawn,
    alerts,
    dashboards,
    metrics_in,
    read_yaml,
)
from tests.support.processes import REPOSITORY

SCRAPED_EVERY = 30
"""Seconds, by the PodMonitors."""

NOT_DRAWN: dict[str, str] = {}
"""Metrics that are on no panel, and why."""

TROUBLESHOOTING = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def _states() -> dict[str, str]:
    """Return the section of each state of the page, by its anchor, as web pages of repositories make them."""
    states: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for heading, body in re.findall(r"(?m)^#{1,3} (.+)\n((?:(?!#{1,3} ).*\n?)*)", TROUBLESHOOTING):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        seen[anchor] += 1
        states[anchor if seen[anchor] == 1 else f"{anchor}-{seen[anchor] - 1}"] = body
    return states


STATES = _states()


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def _by_name(alert: dict[str, Any]) -> str:
    return str(alert["alert"])


@pytest.fixture(params=dashboards(), ids=lambda drawn: drawn.file.name)
def drawn(request: pytest.FixtureRequest) -> Drawn:
    found: Drawn = request.param
    return found


class TestAlerts:
    def test_each_has_a_name_of_its_own(self) -> None:
        names = [alert["alert"] for alert in alerts()]
        assert len(names) == len(set(names)) > 20

    @pytest.mark.parametrize("alert", alerts(), ids=_by_name)
    def test_each_says_how_bad_it_is_what_happened_and_where_to_read_on(self, alert: dict[str, Any]) -> None:
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert all(alert["annotations"].values())
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page.endswith("docs/troubleshooting.md")
        assert f"`{alert['alert']}`" in STATES[anchor]

    @pytest.mark.parametrize("anchor", [anchor for anchor, body in STATES.items() if "| shows |" in body])
    def test_each_state_has_one_or_says_why_it_has_none(self, anchor: str) -> None:
        (told,) = re.findall(r"(?m)^\| alert \| (.+) \|$", STATES[anchor])
        named = re.findall(r"`(\w+)`", told)
        assert set(named) <= {alert["alert"] for alert in alerts()}
        assert named or re.fullmatch(r"none: .+", told)

    @pytest.mark.parametrize("alert", alerts(), ids=_by_name)
    def test_each_asks_for_metrics_of_the_closed_lists(self, alert: dict[str, Any]) -> None:
        asked = metrics_in(alert["expr"])
        assert asked
        assert asked - OURS - OF_EVERY_PROCESS == set()

    def test_each_is_tested_where_it_has_to_fire_and_where_it_must_not(self) -> None:
        cases = [
            case
            for test in read_yaml(DEPLOY / "prometheus" / "alerts_test.yaml")["tests"]
            for case in test.get("alert_rule_test", [])
        ]
        names = {alert["alert"] for alert in alerts()}
        assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
        assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names

    @pytest.mark.parametrize("alert", alerts(), ids=_by_name)
    def test_a_moment_is_not_taken_for_as_long_as_each_waits(self, alert: dict[str, Any]) -> None:
        windows = [
            _seconds(window) for window in re.findall(r"(?:rate|increase|changes)\([^()]*\[(\w+)\]\)", alert["expr"])
        ]
        assert all(window >= 4 * SCRAPED_EVERY for window in windows)
        if windows and "for" in alert:
            # both sides of an `and` have to hold, so that the shortest one says how long it does
            assert 2 * min(windows) <= _seconds(alert["for"])

    def test_the_operator_of_prometheus_gets_the_same(self) -> None:
        manifest = read_yaml(DEPLOY / "kubernetes" / "components" / "monitoring" / "prometheus-rule.yaml")
        assert manifest["spec"] == read_yaml(RULES)
        assert (manifest["kind"], manifest["metadata"]["name"]) == ("PrometheusRule", "aggregator")

    def test_the_jobs_of_compose_are_those_that_they_look_for(self) -> None:
        jobs = [job["job_name"] for job in read_yaml(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]]
        wanted = [match for alert in alerts() for match in re.findall(r'\{job=~"([^"]+)"\}', alert["expr"])]
        assert len(jobs) == len(set(wanted)) == 2
        for expression, job in zip(sorted(set(wanted)), sorted(jobs), strict=True):
            assert re.fullmatch(expression, job)
            assert re.fullmatch(expression, f"namespace/{job}")


class TestDashboards:
    def test_have_addresses_that_stay_as_they_are(self) -> None:
        assert {drawn.file.name: drawn.json["uid"] for drawn in dashboards()} == {
            "consumer.json": "aggregator-consumer",
            "api.json": "aggregator-api",
        }

    def test_every_metric_is_drawn_or_named_as_not_drawn(self) -> None:
        drawn = {metric for board in dashboards() for _, query in board.queries for metric in metrics_in(query)}
        assert OURS - drawn == NOT_DRAWN.keys()
        assert all(NOT_DRAWN.values())

    def test_every_query_asks_for_metrics_of_the_closed_lists(self, drawn: Drawn) -> None:
        for title, query in drawn.queries:
            asked = metrics_in(query)
            assert asked, title
            assert asked - OURS - OF_EVERY_PROCESS == set(), title

    def test_every_panel_has_a_unit_a_description_and_the_data_source_of_the_variable(self, drawn: Drawn) -> None:
        for panel in drawn.panels:
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["description"].endswith("."), panel["title"]
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert sources == [{"type": "prometheus", "uid": "${datasource}"}] * len(sources)

    def test_every_selector_has_the_variables_that_choose_processes(self, drawn: Drawn) -> None:
        for title, query in drawn.queries:
            without = re.sub(r'\{[^}]*job=~"\$job",instance=~"\$instance"[^}]*\}', "", query)
            assert "{" not in without, title
            assert len(re.findall(r"\b(?:aggregator|process)_\w+", query)) == query.count("$job"), title

    def test_panels_have_titles_and_numbers_of_their_own_and_lie_beside_each_other(self, drawn: Drawn) -> None:
        panels = drawn.json["panels"]
        titles = [panel["title"] for panel in panels]
        assert len(titles) == len(set(titles))
        assert len({panel["id"] for panel in panels}) == len(panels)
        for one, other in combinations([panel["gridPos"] for panel in panels], 2):
            apart_in_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            apart_in_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert apart_in_x or apart_in_y
            assert one["x"] + one["w"] <= 24

    def test_every_one_becomes_a_config_map_that_grafana_finds(self) -> None:
        kustomization = read_yaml(DEPLOY / "grafana" / "kustomization.yaml")
        files = [file for made in kustomization["configMapGenerator"] for file in made["files"]]
        assert sorted(files) == [file.name for file in DASHBOARDS]
        options = kustomization["generatorOptions"]
        assert options == {"disableNameSuffixHash": True, "labels": {"grafana_dashboard": "1"}}
