"""Figures: what was measured in every repeat, as a table with spread and as JSON."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Figure:
    """One quantity, with a sample of each repeat; `group` says what it was measured on, a ratio has no unit."""

    group: str
    name: str
    unit: str
    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The sample in the middle."""
        return statistics.median(self.samples)


class Figures:
    """All figures of a run, in the order in which they were first measured."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], Figure] = {}

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._figures.values())

    def add(self, group: str, name: str, unit: str, sample: float) -> None:
        """Note what one repeat gave."""
        self._figures.setdefault((group, name), Figure(group, name, unit)).samples.append(sample)

    def add_ratio(self, group: str, name: str, dividend: float, divisor: float) -> None:
        """Note how two quantities of one repeat compare: within a repeat the machine was equally busy for both."""
        self.add(group, name, "", dividend / divisor)

    def last(self, group: str, name: str) -> float:
        """Return the newest sample of a figure."""
        return self._figures[group, name].samples[-1]

    def print(self, echo: Callable[[str], Any]) -> None:
        """Print a table: median, smallest and largest sample of each figure."""
        width = max((max(len(figure.name), len(figure.group)) for figure in self), default=0)
        group = None
        for figure in self:
            if figure.group != group:
                group = figure.group
                echo(f"\n{group:<{width}} {'median':>10} {'least':>10} {'most':>10}")
            values = (figure.median, min(figure.samples), max(figure.samples))
            echo(f"{figure.name:<{width}} {' '.join(map(_shown, values))}  {figure.unit}".rstrip())

    def save(self, file: Path, about: dict[str, Any]) -> None:
        """Write everything as JSON; `about` says what was measured and how."""
        figures = [{**asdict(figure), "median": figure.median} for figure in self]
        document = {"machine": _machine(), **about, "figures": figures}
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _shown(value: float) -> str:
    decimals = 0 if value >= 100 else 1 if value >= 10 else 3
    return f"{value:>10,.{decimals}f}"


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }
