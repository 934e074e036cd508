"""Size and compression of payloads (`docs/messages.md`, sections 1 and 5)."""

import contextlib
import gzip
import io
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libaggregator.payloads import BadCompression, TooLarge, inflate

TEXT = b'{"a": 1}'
GZIP = gzip.compress(TEXT, mtime=0)


def gzip_with_header_fields(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile("a name.json", "wb", fileobj=buffer, mtime=1) as file:
        file.write(content)
    return buffer.getvalue()


def test_a_payload_that_does_not_begin_like_gzip_is_returned_as_it_is() -> None:
    for payload in (TEXT, b"", b"\x1f", b"\x8b\x1f", zlib.compress(TEXT)):
        assert inflate(payload, 1_000) == payload


def test_gzip_is_inflated() -> None:
    assert inflate(GZIP, 1_000) == TEXT
    assert inflate(gzip_with_header_fields(TEXT), 1_000) == TEXT


def test_several_members_are_read_as_one() -> None:
    assert inflate(gzip.compress(TEXT[:3]) + gzip.compress(b"") + gzip.compress(TEXT[3:]), 1_000) == TEXT


@pytest.mark.parametrize("end", range(2, len(GZIP)))
def test_gzip_that_ends_early_is_refused(end: int) -> None:
    with pytest.raises(BadCompression):
        inflate(GZIP[:end], 1_000)


@pytest.mark.parametrize(
    "rest", [b"\x00", b"\x00" * 512, b"x", b" ", b"\n", b"\x1f", b"\x1f\x8b", GZIP[:-1], TEXT, zlib.compress(TEXT)]
)
def test_gzip_followed_by_anything_but_another_member_is_refused(rest: bytes) -> None:
    with pytest.raises(BadCompression):
        inflate(GZIP + rest, 1_000)


def test_gzip_with_a_wrong_checksum_or_length_is_refused() -> None:
    for position in (-8, -4):
        broken = bytearray(GZIP)
        broken[position] ^= 1
        with pytest.raises(BadCompression):
            inflate(bytes(broken), 1_000)


def test_gzip_with_another_method_is_refused() -> None:
    with pytest.raises(BadCompression):
        inflate(GZIP[:2] + b"\x07" + GZIP[3:], 1_000)


def test_a_payload_of_exactly_the_limit_passes_and_one_byte_more_is_too_large() -> None:
    assert inflate(b"x" * 100, 100) == b"x" * 100
    with pytest.raises(TooLarge, match=r"expected at most 100 bytes$"):
        inflate(b"x" * 101, 100)


def test_a_compressed_payload_may_inflate_to_exactly_the_limit_and_no_further() -> None:
    payload = gzip.compress(b"x" * 500) + gzip.compress(b"x" * 500)
    assert len(inflate(payload, 1_000)) == 1_000
    with pytest.raises(TooLarge, match="expected at most 999 bytes when inflated"):
        inflate(payload, 999)


def test_the_size_counts_as_it_came_before_it_is_inflated() -> None:
    with pytest.raises(TooLarge, match=r"bytes$"):
        inflate(gzip.compress(b""), 10)


def test_what_is_too_large_is_so_even_if_the_rest_is_broken() -> None:
    with pytest.raises(TooLarge):
        inflate(gzip.compress(b"x" * 1_001) + b"broken", 1_000)


def test_what_is_broken_within_the_limit_is_so_even_if_more_would_follow() -> None:
    with pytest.raises(BadCompression):
        inflate(GZIP + b"broken" + gzip.compress(b"x" * 1_001), 1_000)


def test_inflating_stops_at_the_limit() -> None:
    bomb = gzip.compress(bytes(64_000_000), compresslevel=1)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(bomb, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(20)
def test_the_time_taken_grows_with_the_number_of_members_not_with_its_square() -> None:
    many = gzip.compress(b"") * 200_000
    assert inflate(many, len(many)) == b""


@given(st.lists(st.binary(max_size=20_000), min_size=1, max_size=4), st.integers(0, 9))
def test_whatever_was_compressed_comes_out(parts: list[bytes], level: int) -> None:
    payload = b"".join(gzip.compress(part, level) for part in parts)
    assert inflate(payload, 100_000) == b"".join(parts)


@given(st.binary(max_size=200))
def test_any_bytes_that_begin_like_gzip_are_inflated_or_refused(rest: bytes) -> None:
    for payload in (b"\x1f\x8b" + rest, b"\x1f\x8b\x08\x00" + rest, GZIP + rest):
        with contextlib.suppress(BadCompression, TooLarge):
            inflate(payload, 100)
