"""Draws the figures of ingest that `make bench` wrote: throughput and time by step, as two SVG files.

python -m benchmarks.picture bench.json docs/pictures
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pygal
from pygal.style import CleanStyle

from benchmarks.ingest import ROUNDS, STEPS

ENGINES = ("PostgreSQL", "SQLite")
_LOOK = {"style": CleanStyle, "js": (), "width": 800, "height": 360, "legend_at_bottom": True, "show_minor_y_labels": 1}
_PARTS = ("poll", *STEPS)

Medians = Mapping[tuple[str, str], float]


def throughput(medians: Medians) -> Any:
    """Return a chart of messages a second in each round, and of the bare COPY."""
    chart = pygal.Bar(title="messages a second, one process, one partition", **_LOOK)
    chart.x_labels = ROUNDS
    for engine in ENGINES:
        chart.add(engine, [round(medians[engine, name]) for name in ROUNDS])
    chart.add("bare COPY of the rows, PostgreSQL", [round(medians["PostgreSQL", "bare COPY"])])
    return chart


def time_by_step(medians: Medians) -> Any:
    """Return a chart of the microseconds that a message takes in each step of the loop."""
    # drawn from below
    bars = [(engine, name) for engine in reversed(ENGINES) for name in reversed(ROUNDS)]
    chart = pygal.HorizontalStackedBar(title="microseconds a message, by step", **_LOOK)
    chart.x_labels = [f"{engine}, {name}" for engine, name in bars]
    for step in _PARTS:
        chart.add(step, [round(1000 * medians[engine, f"{name}: {step}"], 1) for engine, name in bars])
    return chart


def medians_of(figures: Sequence[Mapping[str, Any]]) -> Medians:
    """Return the medians by group and name."""
    return {(figure["group"], figure["name"]): figure["median"] for figure in figures}


@click.command()
@click.argument("figures", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(figures: Path, folder: Path) -> None:
    """Draw the file FIGURES into FOLDER."""
    medians = medians_of(json.loads(figures.read_text(encoding="utf-8"))["figures"])
    folder.mkdir(exist_ok=True)
    throughput(medians).render_to_file(str(folder / "throughput.svg"))
    time_by_step(medians).render_to_file(str(folder / "steps.svg"))


if __name__ == "__main__":
    main()
