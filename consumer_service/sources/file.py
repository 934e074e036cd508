"""The source `file`: messages from files, without a broker."""

import errno
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import structlog

from consumer_service.settings import ConsumerProcessSettings
from consumer_service.sources import DeadLetter, Delivery, MessageSource, Partition, Progress, Record, SourceFailed
from libaggregator.settings import SettingsError

_LINE_SUFFIXES = (".jsonl", ".ndjson")
_BATCH_BYTES = 8 * 1024 * 1024

log = structlog.get_logger(__name__)


def create(settings: ConsumerProcessSettings) -> MessageSource:
    """Return the source for `file.path`; SettingsError if nothing can be read there."""
    path = settings.file.path
    if not path:
        raise SettingsError(["file.path: the source `file` needs it"])
    try:
        files = files_of(Path(path))
    except OSError as error:
        raise SettingsError([f"file.path: {error.filename}: {error.strerror}"]) from None
    except ValueError as error:
        raise SettingsError([f"file.path: {error}, got {path!r}"]) from None
    return FileSource(files, settings.consumer.max_message_bytes)


def files_of(path: Path) -> list[Path]:
    """Return the files that `path` stands for: itself, or those of a folder that are not hidden, by name.

    Raises OSError if one of them can't be read. So does a pipe or a device: it could not be read from its beginning
    again, and may let the reader wait for ever.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    elif stat.S_ISREG(mode):
        files = [path]
    else:
        raise OSError(errno.EINVAL, "neither a regular file nor a folder", str(path))
    for file in files:
        file.open("rb").close()
    return files


class FileSource:
    """All messages of some files, in order, once.

    The topic of a record is the path of its file, the partition 0, the offset the number of the line from 0. A
    message longer than `max_message_bytes` is cut one byte beyond, so that it is still too large.
    """

    def __init__(self, files: Sequence[Path], max_message_bytes: int) -> None:
        self._limit = max_message_bytes + 1
        self._files = len(files)
        self._returned = 0
        self._is_closed = False
        self._records = (record for file in files for record in _read(file, self._limit))
        self._ahead = next(self._records, None)

    @property
    def exhausted(self) -> bool:
        """Whether every record was returned."""
        return self._ahead is None

    def poll(self, timeout: float, max_records: int) -> Sequence[Record]:
        """Return the next records at once: `max_records`, fewer if they are large or the last ones.

        Raises SourceFailed if a file can't be read any more.
        """
        records: list[Record] = []
        size = 0
        while self._ahead is not None and len(records) < max_records and size < _BATCH_BYTES:
            records.append(self._ahead)
            size += len(self._ahead.value or b"")
            self._ahead = next(self._records, None)
        self._returned += len(records)
        return records

    def keep_alive(self, timeout: float) -> None:
        """Wait: files have no membership to keep."""
        time.sleep(timeout)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Do nothing: files are read from their beginning every time."""

    def send_dead_letters(self, letters: Sequence[DeadLetter]) -> Delivery:
        """Do nothing: rejected messages are in `consumer_error`, and in their file."""
        return Delivery()

    def progress(self) -> Mapping[Partition, Progress]:
        """Return nothing: a file that stands still has come to its end."""
        return {}

    def problem(self) -> str | None:
        """Return None: a file that can be opened delivers."""
        return None

    def close(self) -> None:
        """Close the file that is open, and tell what was read if the end was reached."""
        if self.exhausted and not self._is_closed:
            self._tell_of_end()
        self._is_closed = True
        self._records.close()
        self._ahead = None

    def _tell_of_end(self) -> None:
        if self._files:
            log.info("all files are read", files=self._files, records=self._returned)
        else:
            log.warning("the folder has no file to read")


def _read(file: Path, limit: int) -> Iterator[Record]:
    try:
        with file.open("rb") as opened:
            if file.suffix.lower() in _LINE_SUFFIXES:
                for number, line in enumerate(_lines(opened, limit)):
                    if line.strip():
                        yield _record(file, number, line)
            else:
                yield _record(file, 0, opened.read(limit))
    except OSError as error:
        raise SourceFailed(f"{file}: {error.strerror or error}") from error


def _lines(opened: BinaryIO, limit: int) -> Iterator[bytes]:
    """Yield each line without its end, cut to `limit` bytes."""
    # two bytes more, for the end of a line that has just the limit
    while line := opened.readline(limit + 2):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = opened.readline(limit)
        yield line.removesuffix(b"\n").removesuffix(b"\r")[:limit]


def _record(file: Path, offset: int, value: bytes) -> Record:
    # a name of a file can be bytes that are no text
    topic = str(file).encode(errors="replace").decode()
    return Record(topic, 0, offset, key=None, value=value, headers=(), timestamp=None)
