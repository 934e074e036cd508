"""How the client of Redis is set up, and what its faults are called."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from consumer_service.settings import RedisSettings
from consumer_service.tls_files import tls_file_problems
from libaggregator.settings import mask_password

CALL_TIMEOUT = 4.0
"""Seconds that a connection, or an answer beyond the time that it was asked to wait, may take: a stop waits for it."""

FAULTS = (RedisError, OSError, UnicodeError)
"""Everything by which a call can fail: the server away or unwilling, a wrong login, a name that can't be resolved."""

_DEFAULT_PORT = 6379
_MAX_TEXT = 300
_TLS, _PLAIN = "rediss", "redis"
_CUT_OFF = ("Connection reset by peer", "Connection closed by server")
"""What a server that expects TLS does without it, and one in protected mode; one without TLS waits for more of it."""


@dataclass(frozen=True, slots=True)
class _Address:
    host: str
    port: int
    database: int
    username: str | None
    password: str | None
    tls: bool


def problems_of(settings: RedisSettings) -> list[str]:
    """Return one line for each setting with which nothing could be read."""
    problems = []
    url = settings.url.reveal()
    if _address_in(url) is None:
        expected = "redis://USER:PASSWORD@HOST:PORT/DATABASE, with `#`, `/`, `?`, `@`, `%` in USER and PASSWORD encoded"
        problems.append(f"redis.url: expected {expected} (%23, %2F, %3F, %40, %25), got {mask_password(url)!r}")
    for name in ("stream", "group"):
        if not getattr(settings, name):
            problems.append(f"redis.{name}: expected a name, got ''")
    for name in ("stream", "group", "consumer", "dead_letter_stream"):
        value = getattr(settings, name)
        # the name of a stream is in `consumer_error` too
        if "\0" in value or not value.isprintable():
            problems.append(f"redis.{name}: expected printable text, got {value!r}")
    if settings.dead_letter_stream and settings.dead_letter_stream == settings.stream:
        problems.append(f"redis.dead_letter_stream: expected another stream than redis.stream, got {settings.stream!r}")
    return problems + _tls_problems(settings)


def make_client(settings: RedisSettings) -> Redis:
    """Return a client for settings without problems; it connects with the first call and tries no call again.

    A call that was tried again without a word would take further entries from the stream, and those that the first try
    took would wait until they are claimed.
    """
    address = _address_in(settings.url.reveal())
    assert address is not None, "settings with problems"  # noqa: S101
    return Redis(
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.username,
        password=address.password,
        socket_timeout=CALL_TIMEOUT,
        socket_connect_timeout=CALL_TIMEOUT,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        # the one whose answers are known here
        protocol=2,
        ssl=address.tls,
        ssl_ca_certs=settings.ssl_cafile or None,
        ssl_certfile=settings.ssl_certfile or None,
        ssl_keyfile=settings.ssl_keyfile or settings.ssl_certfile or None,
        # also if it is empty: without any, OpenSSL asks the terminal for it and waits
        ssl_password=settings.ssl_password.reveal(),
        ssl_check_hostname=True,
    )


def describe(error: Exception, settings: RedisSettings, stream: str, *, was_answered: bool) -> str:
    """Return in one line what went wrong, where, and with which stream if the server refused something.

    As long as the server has never answered, a `redis.url` with the wrong scheme may be the cause, which is told.
    """
    address = _address_in(settings.url.reveal())
    assert address is not None, "settings with problems"  # noqa: S101
    text = " ".join(str(error).split())[:_MAX_TEXT] or type(error).__name__
    if isinstance(error, RedisTimeoutError):
        text = f"no answer: {text}"
    if isinstance(error, ResponseError):
        text = f"stream {stream!r}: {text}"
    server = f"{address.host}:{address.port}"
    if server not in text:
        text = f"{server}: {text}"
    return text if was_answered else text + _scheme_hint(error, is_tls=address.tls)


def _scheme_hint(error: Exception, *, is_tls: bool) -> str:
    if is_tls and isinstance(error, RedisTimeoutError):
        return f" (if it speaks no TLS, redis.url has to begin with {_PLAIN}://)"
    if not is_tls and isinstance(error, RedisConnectionError) and any(text in str(error) for text in _CUT_OFF):
        return f" (if it expects TLS, redis.url has to begin with {_TLS}://; one in protected mode does the same)"
    return ""


def _address_in(url: str) -> _Address | None:
    """Return the parts of a URL, None if it is none of ours: options could change how answers are read."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    database = parts.path.removeprefix("/")
    is_plain = not parts.query and not parts.fragment and (not database or (database.isascii() and database.isdigit()))
    if parts.scheme not in {_PLAIN, _TLS} or not host or not is_plain:
        return None
    username, password = (unquote(part) if part else None for part in (parts.username, parts.password))
    return _Address(host, port or _DEFAULT_PORT, int(database or 0), username, password, parts.scheme == _TLS)


def _tls_problems(settings: RedisSettings) -> list[str]:
    address = _address_in(settings.url.reveal())
    if address is None:
        # nobody knows whether it is meant to be with TLS
        return []
    if address.tls:
        return tls_file_problems("redis", settings)
    values = {name: getattr(settings, name) for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile")}
    values["ssl_password"] = settings.ssl_password.reveal()
    # given for nothing: the server would be spoken to without TLS
    return [f"redis.{name}: needs a redis.url that begins with {_TLS}://" for name, value in values.items() if value]
