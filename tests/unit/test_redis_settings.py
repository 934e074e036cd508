"""Settings of the source for Redis that can't be used, and ids as offsets."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from consumer_service.redis_client import describe
from consumer_service.settings import ConsumerProcessSettings, RedisSettings
from consumer_service.sources import SettingsError
from consumer_service.sources.loading import find_source
from consumer_service.sources.redis_entries import EntryId
from libaggregator.settings import Secret, load, options_of, shown
from tests.support.certificates import Authority

IDS = st.builds(EntryId, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
USUAL_IDS = st.builds(EntryId, st.integers(0, 2**42 - 1), st.integers(0, 2**20 - 1))


def problems(**changes: object) -> list[str]:
    settings = load(ConsumerProcessSettings, None, {}).settings
    with pytest.raises(SettingsError) as raised:
        find_source("redis")(replace(settings, redis=replace(RedisSettings(), **changes)))
    return raised.value.problems


def test_the_defaults_make_a_source_that_is_not_connected() -> None:
    source = find_source("redis")(load(ConsumerProcessSettings, None, {}).settings)
    assert source.problem() == "not connected yet"
    source.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://",
        "localhost:6379",
        "http://localhost",
        "unix:///run/redis.sock",
        "redis://localhost:port/0",
        "redis://localhost:6379/zero",
        "redis://localhost/0?decode_responses=true",
        "redis://localhost/0#x",
    ],
)
def test_a_url_that_names_no_server_is_refused(url: str) -> None:
    (problem,) = problems(url=Secret(url))
    assert problem.startswith("redis.url: expected redis://USER:PASSWORD@HOST:PORT/DATABASE, with `#`")


def test_a_url_is_shown_without_its_password() -> None:
    (problem,) = problems(url=Secret("redis://user:s3cr3t@localhost:port/0"))
    assert "s3cr3t" not in problem
    option = options_of(ConsumerProcessSettings)["redis.url"]
    assert shown(option, Secret("rediss://user:s3cr3t@h:1/0")) == '"rediss://user:***@h:1/0"'
    assert shown(option, Secret("redis://:s3cr3t@h")) == '"redis://:***@h"'


@pytest.mark.parametrize("character", ["#", "/", "?", "[", "@/", "@#", ":/", "%/", "\n/"])
def test_a_password_that_is_not_encoded_is_not_shown_and_the_one_problem_says_how_it_is(character: str) -> None:
    url = Secret(f"rediss://aggregator:s3cr3t{character}s3cr3t@localhost:26380/0")
    (problem,) = problems(url=url, ssl_cafile="ca.pem", ssl_password=Secret("x"))
    assert "s3cr3t" not in problem
    assert "`#`, `/`, `?`, `@`, `%` in USER and PASSWORD encoded (%23, %2F, %3F, %40, %25)" in problem


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ResponseError("WRONGTYPE x"), "h:7: stream 's': WRONGTYPE x"),
        (AuthenticationError("invalid pair"), "h:7: invalid pair"),
        (RedisConnectionError("Error 111 connecting to h:7. Refused."), "Error 111 connecting to h:7. Refused."),
        (RedisTimeoutError("Timeout\nreading"), "h:7: no answer: Timeout reading"),
        (UnicodeError(), "h:7: UnicodeError"),
    ],
)
def test_a_fault_is_described_with_the_server_and_the_stream_that_it_is_of(error: Exception, expected: str) -> None:
    settings = RedisSettings(url=Secret("redis://user:s3cr3t@h:7"))
    assert describe(error, settings, "s", was_answered=True) == expected


@pytest.mark.parametrize(
    ("scheme", "error", "hint"),
    [
        ("redis", RedisConnectionError("(104, 'Connection reset by peer')"), "rediss://"),
        ("redis", RedisConnectionError("Connection closed by server."), "rediss://"),
        ("redis", RedisConnectionError("Connection refused"), ""),
        ("redis", RedisTimeoutError("Timeout connecting to server"), ""),
        ("rediss", RedisTimeoutError("Timeout connecting to server"), "redis://"),
        ("rediss", RedisConnectionError("Connection reset by peer"), ""),
    ],
)
def test_a_wrong_scheme_is_thought_of_as_long_as_no_server_has_answered(
    scheme: str, error: Exception, hint: str
) -> None:
    settings = RedisSettings(url=Secret(f"{scheme}://h:7"))
    assert "redis.url" not in describe(error, settings, "s", was_answered=True)
    text = describe(error, settings, "s", was_answered=False)
    assert f"redis.url has to begin with {hint}" in text if hint else "redis.url" not in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stream": ""}, "redis.stream: expected a name, got ''"),
        ({"group": ""}, "redis.group: expected a name, got ''"),
        ({"stream": "a\0b"}, "redis.stream: expected printable text, got 'a\\x00b'"),
        (
            {"stream": "x", "dead_letter_stream": "x"},
            "redis.dead_letter_stream: expected another stream than redis.stream, got 'x'",
        ),
        ({"ssl_cafile": "ca.pem"}, "redis.ssl_cafile: needs a redis.url that begins with rediss://"),
        ({"ssl_password": Secret("x")}, "redis.ssl_password: needs a redis.url that begins with rediss://"),
        (
            {"url": Secret("rediss://h"), "ssl_cafile": "/nowhere.pem"},
            "redis.ssl_cafile: can't be read: /nowhere.pem (No such file or directory)",
        ),
        (
            {"url": Secret("rediss://h"), "ssl_password": Secret("x")},
            "redis.ssl_certfile: needed with redis.ssl_password",
        ),
    ],
)
def test_what_can_not_be_used_is_named(changes: dict[str, object], expected: str) -> None:
    assert problems(**changes) == [expected]


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("one", "one"), authority.issue("other", "other")
    (problem,) = problems(url=Secret("rediss://h"), ssl_certfile=str(one.certificate), ssl_keyfile=str(other.key))
    assert problem.startswith("redis.ssl_keyfile: not the key of the certificate")


@given(IDS, IDS)
def test_ids_that_differ_have_offsets_that_differ_and_fit_the_tables(one: EntryId, other: EntryId) -> None:
    assert (one.offset == other.offset) == (one == other)
    assert 0 <= one.offset < 2**63
    assert EntryId.parse(str(one).encode()) == one


@given(USUAL_IDS, USUAL_IDS)
def test_usual_ids_are_in_the_order_of_their_offsets_and_can_be_read_from_them(one: EntryId, other: EntryId) -> None:
    assert (one.offset < other.offset) == (one < other)
    assert EntryId(one.offset >> 20, one.offset % 2**20) == one
    assert one.timestamp == one.milliseconds


@given(IDS, USUAL_IDS)
def test_unusual_ids_meet_no_usual_one(one: EntryId, usual: EntryId) -> None:
    assert (one.offset == usual.offset) == (one == usual)
