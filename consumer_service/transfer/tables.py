"""What is in an export: the tables in the order of the file, with what is known of their columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from peewee import BigIntegerField, DateTimeField, IntegerField, Model, SmallIntegerField

from consumer_service.statements import Table
from libaggregator.storage.models import (
    TABLES,
    MigrationInfo,
    Recommendation,
    Report,
    ReportInfo,
    RuleHit,
)

_KINDS = {SmallIntegerField: "smallint", IntegerField: "integer", BigIntegerField: "bigint", DateTimeField: "timestamp"}
_LONG_TEXTS = {"report": "report", "rule_hit": "template_data", "consumer_error": "message"}
_UNIQUE_BY_CLUSTER = {"report": ("cluster",), "report_info": ("cluster_id",)}

# what hangs on a report comes before it: an import that wrote the report of a cluster has written all of the others
_OF_A_REPORT: tuple[type[Model], ...] = (RuleHit, Recommendation, ReportInfo)
_BEFORE_OTHERS: tuple[type[Model], ...] = (*_OF_A_REPORT, Report)


@dataclass(frozen=True)
class Exported:
    """One table of an export."""

    table: Table
    key: tuple[str, ...]
    """Columns by which no two rows are equal; rows are in their order."""
    nullable: frozenset[str]
    is_of_report: bool
    """Whether its rows belong to the report of a cluster, and are wanted only with it."""

    @property
    def name(self) -> str:
        """The name of the table."""
        return self.table.name

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the values of a row."""
        return tuple(self.table.columns)

    @cached_property
    def times(self) -> tuple[int, ...]:
        """The places of times in a row."""
        return tuple(place for place, kind in enumerate(self.table.columns.values()) if kind == "timestamp")

    @cached_property
    def key_places(self) -> tuple[int, ...]:
        """The places of the key in a row."""
        return tuple(map(self.columns.index, self.key))

    def key_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return the values by which a row is told from others."""
        return tuple([row[place] for place in self.key_places])


def _exported(model: type[Model]) -> Exported:
    meta: Any = model._meta
    columns = {field.column_name: _KINDS.get(type(field), "varchar") for field in meta.sorted_fields}
    name = meta.table_name
    return Exported(
        table=Table(name, columns, _LONG_TEXTS.get(name)),
        key=_UNIQUE_BY_CLUSTER.get(name, meta.primary_key.field_names),
        nullable=frozenset(field.column_name for field in meta.sorted_fields if field.null),
        is_of_report=model in _OF_A_REPORT,
    )


_OTHERS = [model for model in TABLES if model not in (*_BEFORE_OTHERS, MigrationInfo)]

EXPORTED = tuple(_exported(model) for model in (*_BEFORE_OTHERS, *_OTHERS))
"""In the order in which they are in the file, and are written to a database."""
