"""The file of organizations whose messages are stored (`docs/messages.md`, section 7)."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer_service.allowlist import read_allowlist
from consumer_service.pipeline import Pipeline, SkipReason
from libaggregator.messages import Limits
from libaggregator.settings import SettingsError
from tests.storage.conftest import NOON
from tests.support.messages import payload, record

LARGEST = 4_294_967_295


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Return a function that writes a list and returns the name of its file."""

    def write_file(content: str | bytes) -> str:
        file = tmp_path / "organizations.csv"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(file)

    return write_file


Write = Callable[[str | bytes], str]


def refusal(file: str) -> str:
    with pytest.raises(SettingsError) as raised:
        read_allowlist(file)
    (problem,) = raised.value.problems
    assert problem.startswith("consumer.org_allowlist: ")
    assert "\n" not in problem
    return problem


@pytest.mark.parametrize(
    ("content", "organizations"),
    [
        pytest.param("OrgID\n1\n11789772\n", {1, 11789772}, id="as in the documentation"),
        pytest.param("OrgID\n1\n2", {1, 2}, id="no end of the last line"),
        pytest.param("OrgID\r\n1\r\n2\r\n", {1, 2}, id="CRLF"),
        pytest.param("OrgID\r1\r2\r", {1, 2}, id="CR"),
        pytest.param("OrgID\n1\r\n2\r3\n", {1, 2, 3}, id="mixed line ends"),
        pytest.param("\ufeffOrgID\n1\n", {1}, id="byte order mark"),
        pytest.param('"OrgID"\n"1"\n"2",name\n', {1, 2}, id="quotes"),
        pytest.param('OrgID,name\n1,"a, b"\n2,"two\nlines"\n3,"say ""hi"""\n', {1, 2, 3}, id="quoted remarks"),
        pytest.param("OrgID,Name,Remark\n1,first,x\n2\n3,,,,\n", {1, 2, 3}, id="further columns are free"),
        pytest.param("OrgID\n  1  \n\t2\t\n", {1, 2}, id="blanks around"),
        pytest.param("OrgID\n\n1\n   \n\n2\n\n", {1, 2}, id="empty lines"),
        pytest.param("OrgID\n1\n1\n1\n", {1}, id="the same number twice"),
        pytest.param(f"OrgID\n1\n{LARGEST}\n", {1, LARGEST}, id="smallest and largest"),
        pytest.param("OrgID\n007\n", {7}, id="leading zeros"),
        pytest.param("whatever, even 5\n1\n", {1}, id="any name in the header"),
        pytest.param("Größe ID\n1\n", {1}, id="not ASCII"),
        pytest.param("OrgID 1\n2\n", {2}, id="a header that ends in a number"),
        pytest.param("OrgID\n", set(), id="header only"),
        pytest.param("OrgID", set(), id="header only, no end of the line"),
        pytest.param("", set(), id="empty file"),
        pytest.param("\n\n", set(), id="empty lines only"),
        pytest.param("\ufeff", set(), id="byte order mark only"),
    ],
)
def test_usable_files(write: Write, content: str, organizations: set[int]) -> None:
    assert read_allowlist(write(content)) == organizations


@pytest.mark.parametrize(
    "first", ["1", "11789772", " 1 ", '"1"', "\ufeff1", "0", "-1", "+1", "1.5", "99999999999999", "1,x"]
)
def test_a_first_line_that_is_a_number_is_refused_since_it_would_be_dropped_without_a_word(
    write: Write, first: str
) -> None:
    file = write(f"{first}\n2\n")
    problem = refusal(file)
    assert f"{file}, line 1: expected a header" in problem
    assert first.strip('\ufeff "').split(",")[0] in problem


@pytest.mark.parametrize(
    "value",
    [
        "0",
        str(LARGEST + 1),
        "-1",
        "+1",
        "1.0",
        "1e3",
        "0x10",
        "1_000",
        "1 000",
        "one",
        "OrgID",
        "1;2",
        "#1",
        "'1'",
        "\u0661",
        "²",
        "9" * 5000,
        "1\x00",
    ],
)
def test_a_line_that_is_no_organization_is_refused_with_file_line_and_value(write: Write, value: str) -> None:
    file = write(f"OrgID\n1\n\n{value}\n2\n")
    problem = refusal(file)
    assert f"{file}, line 4: expected an organization from 1 to {LARGEST}, got {value!r}" in problem


def test_a_line_whose_first_column_is_empty_is_no_organization(write: Write) -> None:
    assert "line 3: expected an organization" in refusal(write("OrgID,name\n1,a\n,b\n"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"OrgID\n1\n2\xff\n3\n", "line 3: not UTF-8"),
        ("OrgID\n1\n".encode("utf-16"), "line 1: not UTF-8"),
        (b'OrgID\n1\n"2\n', "not CSV"),
        (b'OrgID\n"1"2\n', "line 2: not CSV"),
    ],
)
def test_what_is_not_csv_in_utf_8_is_refused(write: Write, content: bytes, said: str) -> None:
    file = write(content)
    problem = refusal(file)
    assert file in problem
    assert said in problem


def test_utf_16_without_a_byte_order_mark_is_never_taken_for_a_list(write: Write) -> None:
    assert "line" in refusal(write("OrgID\n1\n".encode("utf-16-le")))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.csv")
    assert f"{missing}: No such file or directory" in refusal(missing)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path}: Is a directory" in refusal(str(tmp_path))


def test_a_file_that_can_not_be_read_is_refused(write: Write) -> None:
    file = write("OrgID\n1\n")
    Path(file).chmod(0)
    if os.access(file, os.R_OK):
        # root may read everything
        assert read_allowlist(file) == {1}
    else:
        assert f"{file}: Permission denied" in refusal(file)


def test_no_file_named_is_refused() -> None:
    assert "no file named" in refusal("")


@pytest.mark.long
def test_a_million_lines_are_read_and_looked_up_in_seconds(write: Write) -> None:
    file = write("OrgID\n" + "\n".join(map(str, range(1, 1_000_001))) + "\n")
    begin = time.process_time()
    organizations = read_allowlist(file)
    assert len(organizations) == 1_000_000
    pipeline = Pipeline(Limits(), organizations, lambda: NOON)
    batch = [record(payload(org_id=org_id), org_id) for org_id in (1, 1_000_000, 1_000_001)]
    sorted_batch = pipeline.sort(batch * 300)
    assert len(sorted_batch.accepted) == 600
    assert time.process_time() - begin < 15


def test_messages_of_other_organizations_are_skipped_and_leave_no_error(write: Write) -> None:
    pipeline = Pipeline(Limits(), read_allowlist(write("OrgID\n1\n")), lambda: NOON)
    batch = pipeline.sort([record(payload(org_id=1), 0), record(payload(org_id=2), 1), record(b"bad", 2)])
    assert [entry.record.offset for entry in batch.accepted] == [0]
    assert [(entry.record.offset, entry.reason) for entry in batch.skipped] == [(1, SkipReason.NOT_ALLOWLISTED)]
    assert [entry.record.offset for entry in batch.rejected] == [2]


def test_an_empty_list_skips_every_message(write: Write) -> None:
    pipeline = Pipeline(Limits(), read_allowlist(write("OrgID\n")), lambda: NOON)
    batch = pipeline.sort([record(payload(org_id=1), 0)])
    assert not batch.accepted
    assert [entry.reason for entry in batch.skipped] == [SkipReason.NOT_ALLOWLISTED]


def test_a_rejected_message_and_an_empty_report_are_told_before_the_list_is_looked_at(write: Write) -> None:
    pipeline = Pipeline(Limits(), read_allowlist(write("OrgID\n1\n")), lambda: NOON)
    batch = pipeline.sort([record(payload(org_id=2, Report={"x": 1}), 0), record(payload(org_id=2, Report={}), 1)])
    assert [entry.reason for entry in batch.rejected] == ["bad_report"]
    assert [entry.reason for entry in batch.skipped] == [SkipReason.EMPTY_REPORT]


@given(st.text(st.characters(codec="utf-8"), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_either_a_whole_list_or_refused_with_its_line(write: Write, content: str) -> None:
    file = write(content)
    try:
        organizations = read_allowlist(file)
    except SettingsError as error:
        (problem,) = error.problems
        assert file in problem
        assert "line" in problem
        assert "\n" not in problem
    else:
        assert all(1 <= organization <= LARGEST for organization in organizations)


@given(st.lists(st.integers(1, LARGEST)), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["", ",name"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_organization_that_is_written_is_read(
    write: Write, organizations: list[int], line_end: str, rest: str
) -> None:
    lines = ["OrgID", *(f"{organization}{rest}" for organization in organizations)]
    assert read_allowlist(write(line_end.join(lines))) == frozenset(organizations)
