"""How `aggregator-consumer status` computes the lag, and what it looks like (`docs/chores.md`)."""

from datetime import UTC, datetime, timedelta

import pytest

from consumer_service.status.broker import lag_of
from consumer_service.status.model import (
    DatabaseStatus,
    DeadLettersStatus,
    PartitionStatus,
    Rows,
    Schema,
    SourceStatus,
    Status,
    TopicStatus,
)
from consumer_service.status.table import age, lines_of

NOW = datetime(2026, 6, 1, 12, 0, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("committed", "begin", "end", "reads_all", "lag"),
    [
        (10, 0, 10, True, 0),
        (4, 0, 10, True, 6),
        (4, 4, 10, True, 6),
        (3, 4, 10, True, 6),
        (None, 4, 10, True, 6),
        (None, 4, 10, False, 0),
        (3, 4, 10, False, 0),
        # the topic was made again
        (12, 0, 10, True, 10),
        (12, 0, 10, False, 0),
        (0, 0, 0, True, 0),
    ],
)
def test_the_lag_is_what_the_group_has_still_to_read(
    committed: int | None, begin: int, end: int, reads_all: bool, lag: int
) -> None:
    assert lag_of(committed, begin, end, reads_all=reads_all) == lag


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s ago"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (3600, "1 h ago"),
        (86_400 * 45, "45 d ago"),
        (-1, "in the future"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert age(NOW - timedelta(seconds=seconds), NOW) == text


def test_of_a_stream_there_is_one_line() -> None:
    lines = list(lines_of(Status(NOW, SourceStatus("redis", "results", "g", None, pending=2))))
    assert lines[-1] == "topic  results, group g, lag ?, pending 2"


def test_the_table_is_aligned() -> None:
    tables = {"report": Rows(12, exact=True), "rule_hit": Rows(1_000_000, exact=False), "x": Rows(None, exact=False)}
    status = Status(
        NOW,
        SourceStatus("kafka", "results", "g", 7, [PartitionStatus(0, 1200, 1207, 7), PartitionStatus(11, None, 0, 0)]),
        DatabaseStatus(
            "postgresql",
            Schema(32, ["0003_read_indexes"]),
            tables,
            datetime(2026, 5, 1, 8, tzinfo=UTC),
            NOW - timedelta(seconds=3),
            {"not_json": 12, "other": 1},
        ),
        DeadLettersStatus(Rows(13, exact=True), TopicStatus("rejected", None)),
    )
    assert (
        "\n".join(lines_of(status))
        == """\
database  postgresql, schema 32, steps missing: 0003_read_indexes
  report          12
  rule_hit  ~1000000
  x                ?

oldest result  2026-05-01 08:00:00 UTC, 31 d ago
newest result  2026-06-01 11:59:57 UTC, 3 s ago
rejected in the last hour  13
  not_json  12
  other      1

topic  results, group g, lag 7
  partition  committed   end  lag
  0               1200  1207    7
  11              none     0    0

rejected messages kept
  consumer_error  13
  rejected         ?"""
    )


def test_what_could_not_be_told_is_a_question_mark() -> None:
    source = SourceStatus("kafka", "results", "g")
    assert list(lines_of(Status(NOW, source, None, DeadLettersStatus(None, None)))) == [
        "database  ?",
        "",
        "topic  results, group g, lag ?",
        "",
        "rejected messages kept",
        "  consumer_error  ?",
    ]
