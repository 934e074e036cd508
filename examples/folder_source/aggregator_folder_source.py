"""The source `folder`: files of a folder, one message each, which are removed when they have their effect.

Everything that it needs of the aggregator comes from `consumer_service.sources`.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from consumer_service.sources import (
    DeadLetter,
    Delivery,
    Partition,
    Progress,
    Record,
    SettingsError,
    SourceSettings,
    SourceUnavailable,
    dead_letter_headers,
    setting,
)

_LOOK_SECONDS = 0.05
_NAMES = "[0-9]" * 20 + ".json"
_LARGEST_OFFSET = 2**63 - 1


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """What this source takes of the section `plugin`."""

    folder: str = setting("", "folder with one message a file, `NUMBER.json` with 20 digits")
    rejected: str = setting("", "folder on the same disk for rejected messages; empty: none")


class FolderSource:
    """The files of a folder in the order of their numbers, which are the offsets; the class is the factory as well."""

    interface_version = 1
    exhausted = False

    def __init__(self, settings: SourceSettings) -> None:
        own = settings.read(FolderSettings)
        if not own.folder:
            raise SettingsError(["plugin.folder: the source `folder` needs it"])
        self._folder = Path(own.folder)
        self._rejected = Path(own.rejected) if own.rejected else None
        # one byte more, so that what is too large is rejected and not read as a whole
        self._most_bytes = settings.max_message_bytes + 1
        self._partition = Partition(str(self._folder), 0)
        self._position = 0
        self._problem: str | None = None

    def poll(self, timeout: float, max_records: int) -> Sequence[Record]:
        """Return the next files at once if there are some, else wait for them."""
        deadline = time.monotonic() + timeout
        while not (found := self._files()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        records = [self._record(number, found[number]) for number in sorted(found)[:max_records]]
        if records:
            self._position = records[-1].offset + 1
        return records

    def keep_alive(self, timeout: float) -> None:
        """Wait: nobody else reads the folder."""
        time.sleep(timeout)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Remove files whose messages have their effect; what is still there after a crash comes again."""
        end = offsets.get(self._partition, 0)
        for number, file in self._files(first=0).items():
            if number < min(end, self._position):
                try:
                    file.unlink(missing_ok=True)
                except OSError as error:
                    raise self._unavailable(error) from error

    def send_dead_letters(self, letters: Sequence[DeadLetter]) -> Delivery:
        """Write each letter to the disk before it returns; one that comes again replaces itself."""
        if self._rejected is None:
            return Delivery()
        try:
            for letter in letters:
                name = f"{letter.record.offset:020}"
                headers = b"".join(b"%s: %s\n" % (key.encode(), value) for key, value in dead_letter_headers(letter))
                _write(self._rejected / f"{name}.headers", headers)
                _write(self._rejected / f"{name}.json", letter.record.value or b"")
        except OSError as error:
            raise self._unavailable(error) from error
        return Delivery(sent=len(letters))

    def progress(self) -> Mapping[Partition, Progress]:
        """Return the number after the newest file as the end."""
        try:
            files = self._files()
        except SourceUnavailable:
            return {}
        return {self._partition: Progress(self._position, max(files, default=self._position - 1) + 1)}

    def problem(self) -> str | None:
        """Return why the folder could not be used the last time."""
        return self._problem

    def close(self) -> None:
        """Do nothing: no file is open between two calls."""

    def _files(self, first: int | None = None) -> dict[int, Path]:
        """Return the files from a number on, by default from the one after what was returned."""
        first = self._position if first is None else first
        try:
            self._folder.stat()
            files = {int(file.stem): file for file in self._folder.glob(_NAMES)}
        except OSError as error:
            raise self._unavailable(error) from error
        self._problem = None
        return {number: file for number, file in files.items() if first <= number < _LARGEST_OFFSET}

    def _record(self, number: int, file: Path) -> Record:
        try:
            with file.open("rb") as opened:
                value = opened.read(self._most_bytes)
                written_at = os.fstat(opened.fileno()).st_mtime
        except OSError as error:
            raise self._unavailable(error) from error
        return Record(*self._partition, number, None, value, (), round(written_at * 1000))

    def _unavailable(self, error: OSError) -> SourceUnavailable:
        self._problem = f"{error.filename}: {error.strerror}"
        return SourceUnavailable(self._problem)


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
