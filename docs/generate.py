"""Makes the tables of `settings.md` and `metrics.md` from the code; `--check` only tells whether they are true."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from api_service.metrics import METRICS as API_METRICS
from api_service.old_names import old_metrics as old_api_metrics
from api_service.settings import ApiProcessSettings, ApiSettings
from consumer_service.metrics import METRICS as CONSUMER_METRICS
from consumer_service.old_names import OLD_METRICS as OLD_CONSUMER_METRICS
from consumer_service.settings import ConsumerProcessSettings
from libaggregator.metrics import Metric
from libaggregator.old_names import OldMetric
from libaggregator.settings import Option, options_of, shown

DOCS = Path(__file__).parent
BEGIN = "<!-- begin: made by docs/generate.py -->"
END = "<!-- end -->"


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit status 1 if a page is not true.")
def main(check: bool) -> None:
    """Write the generated part of each page."""
    untrue = []
    for name, lines in (("settings.md", settings_tables()), ("metrics.md", metrics_tables())):
        page = DOCS / name
        before = page.read_text(encoding="utf-8")
        head, _, rest = before.partition(BEGIN)
        after = "\n".join([head + BEGIN, "", *lines, "", END + rest.partition(END)[2]])
        if after != before:
            untrue.append(name)
            if not check:
                page.write_text(after, encoding="utf-8")
    if untrue and check:
        click.echo(f"not what the code says: {', '.join(untrue)}; run `make format`", err=True)
        sys.exit(1)


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
