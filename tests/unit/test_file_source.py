"""The source `file`."""

import gzip
import os
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer_service.settings import ConsumerProcessSettings
from consumer_service.sources import Record, SourceFailed
from consumer_service.sources.file import FileSource, create, files_of
from consumer_service.sources.loading import find_source
from libaggregator.settings import SettingsError, load

LIMIT = 100


def settings_for(path: str) -> ConsumerProcessSettings:
    settings = load(ConsumerProcessSettings, None, {}).settings
    return replace(settings, file=replace(settings.file, path=path))


def read_all(path: Path, limit: int = LIMIT) -> list[Record]:
    source = FileSource(files_of(path), limit)
    records: list[Record] = []
    while not source.exhausted:
        records += source.poll(0, 1000)
    source.close()
    return records


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JSONL"])
def test_a_line_is_a_message(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"results{suffix}"
    file.write_bytes(b'{"a": 1}\n{"b": 2}\r\n  {"c": 3} ')

    assert read_all(file) == [
        Record(str(file), 0, 0, None, b'{"a": 1}', (), None),
        Record(str(file), 0, 1, None, b'{"b": 2}', (), None),
        Record(str(file), 0, 2, None, b'  {"c": 3} ', (), None),
    ]


def test_blank_lines_are_passed_over_but_count(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(b"\n \t\r\n1\n\n\n2")

    assert [(record.offset, record.value) for record in read_all(file)] == [(2, b"1"), (5, b"2")]


@pytest.mark.parametrize("name", ["result.json", "result.json.gz", "result", "result.jsonl.gz"])
def test_any_other_file_is_one_message_as_it_is(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    content = gzip.compress(b'{\n"a": 1\n}\n', mtime=0)
    file.write_bytes(content)

    assert [(record.offset, record.value) for record in read_all(file)] == [(0, content)]


def test_an_empty_file_is_an_empty_message_and_an_empty_list_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.json").touch()
    (tmp_path / "none.jsonl").touch()

    assert [record.value for record in read_all(tmp_path)] == [b""]


def test_a_folder_is_its_files_by_name_without_hidden_ones_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b"3")
    (tmp_path / "a.jsonl").write_bytes(b"1\n2\n")
    (tmp_path / ".hidden.json").write_bytes(b"no")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "folder.json" / "c.json").write_bytes(b"no")

    records = read_all(tmp_path)

    assert [record.value for record in records] == [b"1", b"2", b"3"]
    assert records[2].topic == str(tmp_path / "b.json")


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    source = FileSource(files_of(tmp_path), LIMIT)

    assert source.exhausted
    assert source.poll(0, 10) == []


@pytest.mark.parametrize(("length", "expected"), [(99, 99), (100, 100), (101, 101), (102, 101), (350, 101)])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_long_line_is_cut_beyond_the_limit_and_the_next_one_is_whole(
    tmp_path: Path, length: int, expected: int, end: bytes
) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(b"x" * length + end + b"next" + end)

    assert [(record.offset, len(record.value or b"")) for record in read_all(file)] == [(0, expected), (1, 4)]


@pytest.mark.parametrize("length", [200, 201, 202, 203, 204, 303, 404])
def test_a_long_last_line_without_an_end_is_cut(tmp_path: Path, length: int) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(b"x" * length)

    assert [len(record.value or b"") for record in read_all(file)] == [101]


def test_a_large_file_is_cut_beyond_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(b"x" * 5000)

    assert [len(record.value or b"") for record in read_all(file)] == [101]


def test_a_poll_returns_few_records_if_they_are_large(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes((b"x" * 5_000_000 + b"\n") * 3)
    source = FileSource([file], 10_000_000)

    assert [len(source.poll(0, 1000)) for _ in range(2)] == [2, 1]
    assert source.exhausted


def test_the_end_is_known_with_the_last_record(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(b"1\n2\n\n\n")
    source = FileSource([file], LIMIT)

    assert len(source.poll(0, 1)) == 1
    assert not source.exhausted
    assert len(source.poll(0, 1)) == 1
    assert source.exhausted
    source.close()


def test_settings_without_a_path_are_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        create(settings_for(""))

    assert caught.value.problems == ["file.path: the source `file` needs it"]


def test_a_path_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        create(settings_for("/nowhere/results.jsonl"))

    assert caught.value.problems == ["file.path: /nowhere/results.jsonl: No such file or directory"]


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    # so that a reader that opens it all the same does not wait
    writer = os.open(pipe, os.O_RDWR)

    with pytest.raises(OSError, match="neither a regular file nor a folder"):
        files_of(pipe)
    os.close(writer)
    with pytest.raises(SettingsError) as caught:
        create(settings_for(str(pipe)))

    assert caught.value.problems == [f"file.path: {pipe}: neither a regular file nor a folder"]


def test_a_path_that_can_not_be_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"file\.path: embedded null byte, got 'a"):
        create(settings_for("a\0b"))


def test_a_file_that_vanishes_before_it_is_read_is_named(tmp_path: Path) -> None:
    for name in ("a.json", "b.json", "c.json"):
        (tmp_path / name).touch()
    source = create(settings_for(str(tmp_path)))
    (tmp_path / "b.json").unlink()

    with pytest.raises(SourceFailed) as caught:
        source.poll(0, 10)

    assert str(caught.value) == f"{tmp_path / 'b.json'}: No such file or directory"
    assert not source.exhausted
    with capture_logs() as logs:
        source.close()
    assert logs == []


def test_how_much_was_read_is_told_once_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"1\n\n2\n")
    (tmp_path / "b.json").touch()
    source = create(settings_for(str(tmp_path)))
    source.poll(0, 1)
    source.poll(0, 10)

    with capture_logs() as logs:
        source.close()
        source.close()

    assert logs == [{"event": "all files are read", "files": 2, "records": 3, "log_level": "info"}]


def test_the_end_is_not_told_of_before_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"1\n2\n")
    source = create(settings_for(str(tmp_path)))
    source.poll(0, 1)

    with capture_logs() as logs:
        source.close()

    assert logs == []


def test_a_folder_without_files_is_warned_of(tmp_path: Path) -> None:
    source = create(settings_for(str(tmp_path)))

    with capture_logs() as logs:
        source.close()

    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("the folder has no file to read", "warning")]


def test_is_found_by_its_name(tmp_path: Path) -> None:
    assert isinstance(find_source("file")(settings_for(str(tmp_path))), FileSource)


def test_a_name_that_no_source_has_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        find_source("pigeons")

    assert caught.value.problems == ["consumer.source: no source named 'pigeons'; installed: file, kafka, redis"]
