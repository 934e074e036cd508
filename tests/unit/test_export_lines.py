"""The format of exports: what is written is read again, and nothing else is (`docs/export.md`)."""

import io
import json
import random
import re
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer_service.transfer import files, line_reader, line_writer
from consumer_service.transfer.line_format import FORMAT, Limits, ValueRefused, time_from_file, time_in_file
from consumer_service.transfer.line_reader import FileRefused, LineReader
from tests.support.exports import HEADER, Rows, export_of, odd_rows, sealed

AT = "2026-05-01 08:00:00"
HIT = (1, "a", "rule.report", "KEY", '{"x": "ä"}', AT)
REPORT = (1, "a", '{"reports": []}', AT, None, 0, AT)
TOGGLE = ("a", "rule", 1, AT, None, AT, None, "", "1")
ROWS: Rows = {"rule_hit": [HIT, (1, "b", *HIT[2:])], "report": [REPORT], "cluster_rule_toggle": [TOGGLE]}
EXPORT = export_of(ROWS)
LINES = EXPORT.splitlines(keepends=True)


def read(export: bytes, limits: Limits | None = None) -> dict[str, list[tuple[Any, ...]]]:
    return read_from(io.BytesIO(export), limits)


def read_from(file: BinaryIO, limits: Limits | None = None) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for block in LineReader(file, limits or Limits()).blocks():
        found.setdefault(block.table.name, []).extend(block.rows)
    return found


def refusal(export: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(FileRefused) as refused:
        read(export, limits)
    return str(refused.value)


def changed(change: Callable[[list[bytes]], object]) -> bytes:
    """Return the export with a change, and checksums that do not tell."""
    copy = list(LINES)
    change(copy)
    return sealed(copy)


def with_row(number: int, row: Any) -> bytes:
    return changed(lambda copy: copy.__setitem__(number - 1, json.dumps(row).encode() + b"\n"))


@settings(max_examples=50, deadline=None)
@given(odd_rows(), st.integers(1, 3))
def test_what_is_written_is_read_again(rows: Rows, rows_in_block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_writer, "_BLOCK_ROWS", rows_in_block)
        found = read(export_of(rows))
    as_text = {
        table: [tuple(str(value) if isinstance(value, datetime) else value for value in row) for row in of_it]
        for table, of_it in found.items()
    }
    assert as_text == {table: of_it for table, of_it in rows.items() if of_it}


def test_a_block_tells_the_line_of_its_first_row() -> None:
    blocks = list(LineReader(io.BytesIO(EXPORT), Limits()).blocks())
    assert [(block.table.name, block.first_line) for block in blocks] == [
        ("rule_hit", 3),
        ("report", 9),
        ("cluster_rule_toggle", 13),
    ]
    assert json.loads(LINES[8])[:3] == list(REPORT[:3])


def test_every_line_is_json_and_rows_are_arrays_in_the_order_of_the_header() -> None:
    header, _, hit, *_ = map(json.loads, LINES)
    assert dict(zip(header["tables"]["rule_hit"], hit, strict=True)) == {
        "org_id": 1,
        "cluster_id": "a",
        "rule_fqdn": "rule.report",
        "error_key": "KEY",
        "template_data": '{"x": "ä"}',
        "created_at": "2026-05-01T08:00:00.000000Z",
    }


class TestCut:
    @pytest.mark.parametrize("length", [*range(0, len(EXPORT), 97), len(EXPORT) - 1])
    def test_a_file_that_was_cut_is_refused_with_the_line(self, length: int) -> None:
        cut = EXPORT[:length]
        found = refusal(cut)
        lines_before = cut.count(b"\n")
        assert found.startswith(f"line {lines_before + 1}: ")
        assert "cut" in found or lines_before == 0

    @pytest.mark.parametrize("count", range(len(LINES)))
    def test_lines_that_are_missing_at_the_end_are_noticed(self, count: int) -> None:
        assert refusal(b"".join(LINES[:count])).startswith(f"line {count + 1}: ")

    def test_nothing_comes_after_the_last_line(self) -> None:
        assert refusal(EXPORT + b"\n") == f"line {len(LINES) + 1}: more after the last line"
        assert refusal(EXPORT * 2) == f"line {len(LINES) + 1}: more after the last line"


class TestChanged:
    @pytest.mark.parametrize("number", range(1, len(LINES)))
    def test_a_line_that_was_taken_out_is_noticed(self, number: int) -> None:
        assert refusal(b"".join([*LINES[: number - 1], *LINES[number:]]))

    def test_another_value_is_noticed_with_the_lines_where_it_is(self) -> None:
        assert refusal(EXPORT.replace(b'\\"reports\\"', b'\\"repart\\"')) == (
            "line 10: lines 6 to 9 have another checksum: the file was changed"
        )
        assert refusal(EXPORT.replace(b'"sqlite"', b'"Sqlite"')).startswith("line 5: lines 1 to 4 have another")

    def test_another_count_in_the_last_line_is_noticed(self) -> None:
        assert "counts other rows" in refusal(EXPORT.replace(b'"report_info":0', b'"report_info":1'))

    def test_another_checksum_in_the_last_line_is_noticed(self) -> None:
        bad = LINES[-1].replace(LINES[-1][-10:-3], b"0000000")
        assert refusal(b"".join([*LINES[:-1], bad])).endswith("have another checksum: the file was changed")

    def test_rows_without_a_checksum_are_refused_whatever_comes_then(self) -> None:
        assert refusal(changed(lambda copy: copy.pop(4))) == "line 5: expected a checksum after rows"
        assert "counts 7 rows" in refusal(
            changed(lambda copy: copy.__setitem__(4, copy[4].replace(b'"rows":2', b'"rows":7')))
        )
        assert "without rows" in refusal(changed(lambda copy: copy.insert(5, copy[4])))

    def test_tables_come_in_their_order_and_all_of_them(self) -> None:
        assert "line 2: a row before the first table" in refusal(changed(lambda copy: copy.pop(1)))
        assert "table 'report_info', expected recommendation" in refusal(changed(lambda copy: copy.pop(5)))
        assert "no table advisor_ratings" in refusal(changed(lambda copy: copy.pop(-2)))
        assert "expected the last line" in refusal(changed(lambda copy: copy.insert(-1, copy[-2])))

    @pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst"])
    def test_a_bit_that_flipped_lets_nothing_in_that_was_not_exported(self, tmp_path: Path, name: str) -> None:
        file = tmp_path / name
        with files.written(str(file), force=False) as compressed:
            compressed.write(EXPORT)
        whole, expected, taken, reasons = file.read_bytes(), read(EXPORT), 0, list[str]()
        for bit in random.Random(name).sample(range(8 * len(whole)), 300):
            broken = bytearray(whole)
            broken[bit // 8] ^= 1 << bit % 8
            file.write_bytes(broken)
            with closing(files.ExportFile(str(file))) as opened:
                try:
                    found = read_from(opened.open())
                except FileRefused as refused:
                    reasons.append(str(refused))
                else:
                    assert found == expected, bit
                    taken += 1
        assert all(re.fullmatch("line [0-9]+: .+", reason) for reason in reasons)
        # the time in a header of gzip, for example
        assert taken == 0 if name == "x.jsonl" else taken < 20

    @pytest.mark.parametrize("kind", [b'{"table"', b'"rule_hit"', b'"sha256"', b"KEY", b'"format"', b'{"end"'])
    @pytest.mark.parametrize("bad", [b"\xff", b"\xed\xa0\x80"])
    def test_what_is_not_utf8_is_refused_with_the_line(self, kind: bytes, bad: bytes) -> None:
        number, line = next((number, line) for number, line in enumerate(LINES, 1) if kind in line)
        changed_line = line.replace(kind, kind[:2] + bad + kind[2:])
        assert refusal(b"".join([*LINES[: number - 1], changed_line, *LINES[number:]])).startswith(f"line {number}: ")


class TestOtherFiles:
    @pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\n", b"\x00\xff" * 100_000, b'{"format": "x"}\n'])
    def test_a_file_of_another_kind_is_refused(self, content: bytes) -> None:
        assert refusal(content) == "line 1: not an export of this program, or cut within its first line"

    def test_a_newer_format_is_refused_whatever_else_is_in_it(self) -> None:
        header = {"format": FORMAT, "format_version": 2, "program_version": "9.1", "tables": 7}
        assert refusal(json.dumps(header).encode() + b"\n") == (
            "line 1: made by a newer version of this program (9.1): format version 2, this one knows 1"
        )

    @pytest.mark.parametrize(
        ("version", "problem"),
        [
            (31, "format version 1 with schema version 31, expected 1 with 32"),
            (33, "made by a newer version of this program (tests): schema version 33, this one knows 32"),
        ],
    )
    def test_another_schema_is_refused(self, version: int, problem: str) -> None:
        header = LINES[0].replace(b'"schema_version":32', b'"schema_version":%d' % version)
        assert refusal(header + b"".join(LINES[1:])) == f"line 1: {problem}"

    @pytest.mark.parametrize("before", ["", '["', "[1,", '{"rows":', '{"end":', '{"table":'])
    def test_nested_brackets_are_refused(self, before: str) -> None:
        # Python recurses about 1,000 times, and less in a function that is called by others
        for depth in (*range(900, 1000), 100_000):
            nested = before.encode() + b"[" * depth
            for line in (nested, nested + b"]" * depth):
                assert refusal(b"".join([*LINES[:2], line + b"\n"])).startswith("line 3: "), depth

    def test_nested_brackets_in_the_header_are_refused(self) -> None:
        header = LINES[0].replace(b'"engine":', b'"x":%s,"engine":' % (b"[" * 20_000 + b"]" * 20_000))
        assert refusal(header).startswith("line 1: ")

    def test_names_of_the_file_neither_break_the_line_nor_fill_it(self) -> None:
        header = {**json.loads(LINES[0]), "tables": {"\n\x1b[31m" + "x" * 10_000: []}}
        found = refusal(json.dumps(header).encode() + b"\n")
        assert found.startswith(r"line 1: unknown table \n\x1b[31mxxx")
        assert len(found) < 1100


class TestLongLines:
    def test_a_row_longer_than_the_format_allows_is_neither_read_nor_written(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (line_reader, line_writer):
            monkeypatch.setattr(module, "LONGEST_ROW", 1000)
        assert read(export_of({"rule_hit": [HIT, (1, "b", *HIT[2:4], "x" * 939, AT)]}))
        long = (1, "b", *HIT[2:4], "x" * 940, AT)
        for content in (LINES[3].replace(b"KEY", b"K" * 1000), b"[" * 10_000):
            assert refusal(b"".join([*LINES[:3], content])) == "line 4: longer than 1000 bytes"
        with pytest.raises(ValueRefused, match=r"^table rule_hit, row with cluster_id 'b'.*: longer than [0-9]+ bytes"):
            export_of({"rule_hit": [HIT, long]})

    def test_no_more_rows_than_a_block_has_are_kept_without_a_checksum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(line_reader, "MOST_ROWS", 1)
        assert refusal(EXPORT) == "line 4: expected a checksum after 1 rows"

    def test_what_is_no_row_is_short(self) -> None:
        long = b'{"end":{' + b'"x":1,' * 20_000 + b'"y":1}}\n'
        assert refusal(b"".join([*LINES[:2], long])).startswith("line 3: neither a row nor anything else")

    def test_a_wrong_value_is_not_looked_up_in_a_very_long_row(self) -> None:
        row = ["1", *HIT[1:4], "x" * 2_000_000, None]
        assert refusal(with_row(3, row)) == "line 3: table rule_hit: org_id: Expected `int`, got `str`"

    def test_unknown_and_missing_tables_and_columns_are_named(self) -> None:
        tables = {**HEADER.tables, "dvo": ["x"], "report": ["org_id", "new"]}
        tables.pop("rule_disable")
        header = json.dumps({**json.loads(LINES[0]), "tables": tables}).encode() + b"\n"
        found = refusal(header + b"".join(LINES[1:]))
        for part in (
            "unknown table dvo",
            "no table rule_disable",
            "unknown column report.new",
            "no column report.report",
        ):
            assert part in found


class TestValues:
    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            (["1", *HIT[1:5], None], "org_id: Expected `int`, got `str`: '1'"),
            ([1.0, *HIT[1:5], None], "org_id: Expected `int`, got `float`: 1.0"),
            ([True, *HIT[1:5], None], "org_id: Expected `int`, got `bool`: True"),
            ([2**63, *HIT[1:5], None], "org_id: Expected `int` <= 9223372036854775807: 9223372036854775808"),
            ([1, None, *HIT[2:5], None], "cluster_id: Expected `str`, got `null`: None"),
            (list(HIT[:5]), "Expected `array` of length 6"),
            ([*HIT[:5], None, 1], "Expected `array` of length 6"),
            ([*HIT[:5], 7], "created_at: Expected `str | null`, got `int`: 7"),
        ],
    )
    def test_a_wrong_type_is_refused_with_line_column_and_value(self, row: list[Any], problem: str) -> None:
        assert refusal(with_row(3, row)) == f"line 3: table rule_hit: {problem}"

    @pytest.mark.parametrize(
        "time",
        [
            "2026-05-01 08:00:00",
            "2026-05-01T08:00:00Z",
            "2026-02-30T08:00:00.000000Z",
            "2026-05-01T08:00:00.000000+0",
            "2026-05-01T24:00:00.000000Z",
            "2026-05-01T080000.00000000Z",
            "2026-05-01T08:00:00,000000Z",
            "2026-W18-5T08:00:00.0000000Z",
            "2026-05-01T08:00:00.00000\u0660Z",
        ],
    )
    def test_a_time_of_another_form_is_refused(self, time: str) -> None:
        found = refusal(with_row(3, [*HIT[:5], time]))
        assert found.startswith("line 3: table rule_hit, row with cluster_id 'a'")
        assert "created_at: " in found
        assert f"got {time!r}" in found

    def test_a_flag_is_0_or_1(self) -> None:
        row = json.loads(LINES[12])
        assert "line 13: table cluster_rule_toggle: disabled: Expected `int` <= 1: 2" in refusal(
            with_row(13, [*row[:2], 2, *row[3:]])
        )

    def test_a_long_value_is_not_shown_whole(self) -> None:
        assert len(refusal(with_row(3, [*HIT[:5], "x" * 10_000]))) < 300

    def test_a_key_that_comes_twice_or_out_of_order_is_refused(self) -> None:
        twice = refusal(changed(lambda copy: copy.__setitem__(3, copy[2])))
        assert twice.startswith("line 4: table rule_hit, row with cluster_id 'a', org_id 1, rule_fqdn 'rule.report'")
        assert twice.endswith("comes twice")
        swapped = changed(lambda copy: copy.__setitem__(slice(2, 4), [copy[3], copy[2]]))
        assert refusal(swapped).endswith("is not in the order of keys")

    def test_a_cluster_has_one_report_whatever_its_organization(self) -> None:
        with pytest.raises(FileRefused, match="cluster 'a': comes twice"):
            read(export_of({"report": [REPORT, (2, *REPORT[1:])]}))

    def test_integers_are_held_against_the_columns_of_the_database(self) -> None:
        limits = Limits(integer_bytes={"report.org_id": 4})
        export = export_of({"report": [(2**31, *REPORT[1:])]})
        assert refusal(export, limits) == "line 6: table report: org_id: Expected `int` <= 2147483647: 2147483648"
        assert read(export)["report"][0][0] == 2**31

    @pytest.mark.parametrize("text", ["\0", "a\0b", "\\\0", "\\u0000\0"])
    def test_nul_is_refused_where_the_database_can_not_have_it(self, text: str) -> None:
        export = export_of({"rule_hit": [(1, "a", "r", "K", text, None)]})
        assert refusal(export, Limits(takes_nul=False)).endswith(
            "template_data: holds NUL, which PostgreSQL can't store"
        )
        assert read(export)["rule_hit"][0][4] == text

    def test_an_escaped_nul_in_the_json_of_a_report_is_no_nul(self) -> None:
        export = export_of({"rule_hit": [(1, "a", "r", "K", '"\\u0000"', None)]})
        assert read(export, Limits(takes_nul=False))["rule_hit"][0][4] == '"\\u0000"'


class TestTimes:
    @pytest.mark.parametrize(
        ("stored", "written"),
        [
            ("2026-05-01 08:00:00", "2026-05-01T08:00:00.000000Z"),
            ("2026-05-01 08:00:00.1", "2026-05-01T08:00:00.100000Z"),
            ("2026-05-01T08:00:00.123456", "2026-05-01T08:00:00.123456Z"),
            ("0001-01-01 00:00:00.000001", "0001-01-01T00:00:00.000001Z"),
        ],
    )
    def test_they_are_written_in_one_form(self, stored: str, written: str) -> None:
        assert time_in_file(stored) == written
        assert time_from_file(written) == datetime.fromisoformat(written[:-1])

    @pytest.mark.parametrize(
        "stored",
        [
            "infinity",
            "0044-03-15 00:00:00 BC",
            "10000-01-01 00:00:00",
            "2026-05-01",
            "2026-02-30 08:00:00",
            "",
            "2026-05-01 08:00:00+02",
            "2026-05-01 08:00:00.1234567",
            "2026-05-01 24:00:00",
        ],
    )
    def test_what_is_no_time_of_the_years_1_to_9999_is_named(self, stored: str) -> None:
        with pytest.raises(ValueRefused, match="table report, row with cluster 'a': reported_at: "):
            export_of({"report": [(1, "a", "{}", stored, None, 0, None)]})
