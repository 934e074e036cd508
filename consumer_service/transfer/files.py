"""Files of exports: written compressed by their name, which they get when whole; read whatever compressed them."""

import gzip
import io
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, cast

STANDARD = "-"
"""Instead of a file: standard output or input."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_BUFFER_BYTES = 1024 * 1024


class BrokenCompression(Exception):
    """The bytes of a file are not those of its compression, or end too early."""


class BadName(Exception):
    """The file can't be written under this name; the text says why."""


def refuse_bad_name(name: str, *, force: bool) -> None:
    """Raise BadName if nothing can be written under a name, or if there is something that `force` is needed for."""
    if name == STANDARD:
        return
    if not name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
        raise BadName(f"{name}: expected a name that ends in .jsonl, .jsonl.gz or .jsonl.zst, or - for standard output")
    if Path(name).is_dir():
        raise BadName(f"{name}: is a folder")
    if not force and os.path.lexists(name):
        raise BadName(f"{name}: is there already, --force replaces it")


@contextmanager
def written(name: str, *, force: bool) -> Iterator[BinaryIO]:
    """Yield a file to write to, which gets its name when the block ends without an exception.

    Until then it is beside it, under a name that ends in `.part`, and it is removed if anything goes wrong. Only the
    user who made it can read it. Raises BadName, and OSError where the system does not do it.
    """
    refuse_bad_name(name, force=force)
    if name == STANDARD:
        with _standard_output() as output:
            yield output
        return
    target = Path(name).absolute()
    number, part_name = tempfile.mkstemp(prefix=f"{target.name}.", suffix=".part", dir=target.parent)
    part = Path(part_name)
    try:
        with open(number, "wb", _BUFFER_BYTES) as raw:  # noqa: PTH123 - it is open already
            with _compressed(raw, name) as compressed:
                yield compressed
            raw.flush()
            os.fsync(raw.fileno())
        refuse_bad_name(name, force=force)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError:
        # what is held back for it would fail once more when Python ends
        # https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


class ExportFile:
    """An export to be read several times from its beginning; what can be read only once is copied first."""

    def __init__(self, name: str) -> None:
        """Open a file, until `close`; raises OSError if that can't be done."""
        self._raw: BinaryIO = sys.stdin.buffer if name == STANDARD else Path(name).open("rb")  # noqa: SIM115
        if not self._raw.seekable():
            copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
            shutil.copyfileobj(self._raw, copy, _BUFFER_BYTES)
            self._raw = copy

    @property
    def size(self) -> int:
        """Its bytes, compressed as they are."""
        return os.fstat(self._raw.fileno()).st_size

    @property
    def position(self) -> int:
        """How many of its bytes were read."""
        return self._raw.tell()

    def open(self) -> BinaryIO:
        """Return its lines, from the first one on; reading raises BrokenCompression where the compression is broken."""
        self._raw.seek(0)
        beginning = self._raw.read(len(_ZSTD_MAGIC))
        self._raw.seek(0)
        if beginning.startswith(_GZIP_MAGIC):
            inflated: Any = gzip.GzipFile(fileobj=self._raw)
            return cast(BinaryIO, _Inflated(_buffered(inflated), (EOFError, zlib.error, gzip.BadGzipFile)))
        if beginning == _ZSTD_MAGIC:
            import zstandard  # noqa: PLC0415 - only for this kind of file, and part of an extra

            stream: Any = zstandard.ZstdDecompressor().stream_reader(self._raw, read_across_frames=True, closefd=False)
            return cast(BinaryIO, _Inflated(_buffered(stream), (zstandard.ZstdError,)))
        return self._raw

    def close(self) -> None:
        """Close it."""
        self._raw.close()


class _Inflated:
    """The lines of a compressed file."""

    def __init__(self, lines: BinaryIO, broken: tuple[type[Exception], ...]) -> None:
        self._lines = lines
        self._broken = broken

    def readline(self, size: int = -1) -> bytes:
        try:
            return self._lines.readline(size)
        except self._broken as error:
            raise BrokenCompression(f"the compression is broken, or the file was cut: {error}") from None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._lines.read(size)
        except self._broken as error:
            raise BrokenCompression(f"the compression is broken, or the file was cut: {error}") from None


def _compressed(raw: BinaryIO, name: str) -> AbstractContextManager[BinaryIO]:
    if name.endswith(".gz"):
        return cast(AbstractContextManager[BinaryIO], gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0))
    if name.endswith(".zst"):
        import zstandard  # noqa: PLC0415 - only for this kind of file, and part of an extra

        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        return cast(AbstractContextManager[BinaryIO], compressor.stream_writer(raw, closefd=False))
    return nullcontext(raw)


def _buffered(stream: Any) -> BinaryIO:
    return io.BufferedReader(stream, _BUFFER_BYTES)


def _sync_folder(folder: Path) -> None:
    """Let the new name outlive a loss of power."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
