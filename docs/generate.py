"""Makes what follows from something else; `--check` only tells whether it is true.

That is the tables of `settings.md` and `metrics.md` from the code, the files of Grafana from `docs/dashboards.py`, and
the manifest of the alerts from their rules.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import click

from api_service.metrics import METRICS as API_METRICS
from api_service.old_names import old_metrics as old_api_metrics
from api_service.settings import ApiProcessSettings, ApiSettings
from consumer_service.metrics import METRICS as CONSUMER_METRICS
from consumer_service.old_names import OLD_METRICS as OLD_CONSUMER_METRICS
from consumer_service.settings import ConsumerProcessSettings
from docs.dashboards import DASHBOARDS, json_text
from libaggregator.metrics import Metric
from libaggregator.old_names import OldMetric
from libaggregator.settings import Option, options_of, shown

DOCS = Path(__file__).parent
DEPLOY = DOCS.parent / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
RULES_TEST = DEPLOY / "prometheus" / "alerts_test.yaml"
RUNBOOKS = "docs/troubleshooting.md"
"""What every `runbook_url` begins with: the page in this repository. Set it to where people read it, with a scheme."""

BEGIN = "<!-- begin: made by docs/generate.py -->"
END = "<!-- end -->"

_MANIFEST = """\
# Made by docs/generate.py from deploy/prometheus/alerts.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: aggregator
spec:
"""


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit status 1 if a page is not true.")
def main(check: bool) -> None:
    """Write what is generated."""
    untrue = []
    for file, after in made_files():
        if not file.exists() or after != file.read_text(encoding="utf-8"):
            untrue.append(file.name)
            if not check:
                file.write_text(after, encoding="utf-8")
    if untrue and check:
        click.echo(f"not what the code says: {', '.join(untrue)}; run `make format`", err=True)
        sys.exit(1)


def made_files() -> Iterator[tuple[Path, str]]:
    """Yield each file that is made, or has a part that is, with what it has to hold."""
    for name, lines in (("settings.md", settings_tables()), ("metrics.md", metrics_tables())):
        head, _, rest = (DOCS / name).read_text(encoding="utf-8").partition(BEGIN)
        yield DOCS / name, "\n".join([head + BEGIN, "", *lines, "", END + rest.partition(END)[2]])
    for name, dashboard in DASHBOARDS.items():
        yield DEPLOY / "grafana" / name, json_text(dashboard)
    rules = with_runbooks(RULES)
    yield RULES, rules
    yield RULES_TEST, with_runbooks(RULES_TEST)
    yield DEPLOY / "kubernetes" / "components" / "monitoring" / "prometheus-rule.yaml", prometheus_rule(rules)


def with_runbooks(file: Path) -> str:
    """Return the text of a file in which every `runbook_url` begins with `RUNBOOKS`."""
    return re.sub(r"(?m)(?<=runbook_url: )[^#\n]*(?=#)", RUNBOOKS, file.read_text(encoding="utf-8"))


def prometheus_rule(rules: str) -> str:
    """Return the manifest with which the Prometheus operator takes these rules."""
    return _MANIFEST + indent(rules[rules.index("groups:") :], "  ")


def settings_tables() -> Iterator[str]:
    """Yield a table for each section of the settings of both processes."""
    consumer, api = options_of(ConsumerProcessSettings), options_of(ApiProcessSettings)
    section_before = ""
    for name, option in {**consumer, **api}.items():
        section = name.partition(".")[0]
        if section != section_before:
            users = [who for who, options in (("consumer", consumer), ("API", api)) if name in options]
            yield from ("", f"### `{section}` ({' and '.join(users)})", "")
            yield from ("| setting | default | expected | meaning |", "|---|---|---|---|")
            section_before = section
        yield f"| `{name}` | {_default(option)} | {_expected(option)} | {option.description} |"


def metrics_tables() -> Iterator[str]:
    """Yield a table of the metrics of each process."""
    for title, metrics in (("Consumer", CONSUMER_METRICS), ("API", API_METRICS)):
        yield from ("", f"## {title}", "", "| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|")
        yield from map(_metric_row, metrics)
    yield from ("", "## Old names", "", "| old name | kind | unit | labels | meaning | beside it |")
    yield "|---|---|---|---|---|---|"
    for old in (*OLD_CONSUMER_METRICS, *old_api_metrics(ApiSettings().prefix)):
        yield f"{_metric_row(old)} `{old.source.name}` |"


def _metric_row(metric: Metric | OldMetric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.description} |"


def _default(option: Option) -> str:
    value = shown(option, option.default)
    return "" if value in ('""', "''", "[]") else f"`{value}`"


def _expected(option: Option) -> str:
    return option.expected.replace("'", "`")


if __name__ == "__main__":
    main()
