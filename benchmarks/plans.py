"""Reads the plans that `benchmarks.explained` wrote: which statements there were, and which of them read a table."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b")
_ROWS = re.compile(r"VALUES \(.*?\)(?= ON CONFLICT|$)")
# a batch of an UPDATE comes as many of them; the first one is the one that was explained
_REPEATED = re.compile(r";.*")

_INDEX_SCANS = ("Index Scan", "Index Only Scan")
# below a LIMIT a scan ends early, and the smallest entry of an index is found at once
_MANY_ROWS = 1000


@dataclass
class Explained:
    """A statement without its values and one plan for it: how often it was so, and how long that took at most."""

    statement: str
    plan: str
    """Nodes of the plan, the inner ones in parentheses; empty where there is none, as for COPY."""
    scanned: set[str] = field(default_factory=set)
    """Big tables of which all rows were read."""
    times: int = 0
    slowest_milliseconds: float = 0.0
    most_pages: int = 0
    """Pages of 8 kB that it looked at."""


def read_plans(file: Path, big_tables: Collection[str]) -> list[Explained]:
    """Return each statement with each of its plans, in the order of the first execution."""
    found: dict[tuple[str, str], Explained] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        statement, explained = _without_values(document["statement"]), document["plan"]
        shape = _shape(explained["Plan"]) if explained else ""
        entry = found.setdefault((statement, shape), Explained(statement, shape))
        entry.times += 1
        if explained:
            top = explained["Plan"]
            entry.scanned |= {node["Relation Name"] for node in _nodes(top) if _reads_all(node, big_tables)}
            entry.slowest_milliseconds = max(entry.slowest_milliseconds, explained["Execution Time"])
            entry.most_pages = max(entry.most_pages, top["Shared Hit Blocks"] + top["Shared Read Blocks"])
    return list(found.values())


def _without_values(statement: str) -> str:
    flat = " ".join(_LITERAL.sub("?", statement).split())
    flat = _ROWS.sub("VALUES ...", flat)
    return _REPEATED.sub("", flat)


def _shape(node: dict[str, Any]) -> str:
    name = str(node["Node Type"])
    if "Operation" in node and name == "ModifyTable":
        name = str(node["Operation"])
    on = [node[key] for key in ("Relation Name", "Index Name", "Function Name", "CTE Name") if key in node]
    below = ", ".join(_shape(child) for child in node.get("Plans", []))
    return " ".join([name, *on]) + (f" ({below})" if below else "")


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


def _reads_all(node: dict[str, Any], big_tables: Collection[str]) -> bool:
    """Whether a node read many rows of a big table, or entries of an index on it, without being told which."""
    if node.get("Relation Name") not in big_tables:
        return False
    reads_on = node["Node Type"] == "Seq Scan" or (node["Node Type"] in _INDEX_SCANS and "Index Cond" not in node)
    rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return bool(reads_on and rows * node["Actual Loops"] >= _MANY_ROWS)
