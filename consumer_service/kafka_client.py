"""How the clients of Kafka are set up and ended: shared by the source and the producer of dead letters."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import structlog
from kafka.cluster import collect_hosts  # type: ignore[import-untyped]
from kafka.errors import KafkaError, KafkaTimeoutError  # type: ignore[import-untyped]
from kafka.net.compat import KafkaNetClient  # type: ignore[import-untyped]
from kafka.util import ensure_valid_topic_name  # type: ignore[import-untyped]

from consumer_service.settings import KafkaSettings

CONNECT_TIMEOUT = 3.0
"""Seconds that one attempt to reach a broker for the first time may take: a stop has to wait for it."""

CLIENT_FAULTS = (KafkaError, OSError, RuntimeError, ValueError)
"""What a client raises: its own errors, and others where a connection, a record or its IO thread broke."""

# A frame is as large as the largest record; the default of 100 MB is less than what brokers take by default.
_LARGEST_FRAME = 2**31 - 1

log = structlog.get_logger(__name__)


def problems_of(settings: KafkaSettings) -> list[str]:
    """Return one line for each setting that no client could be made with."""
    problems = []
    try:
        collect_hosts(settings.bootstrap_servers)
    except ValueError:
        problems.append(f"kafka.bootstrap_servers: expected HOST:PORT, got {list(settings.bootstrap_servers)!r}")
    if not settings.bootstrap_servers:
        problems.append("kafka.bootstrap_servers: expected at least one HOST:PORT")
    if not settings.group:
        problems.append("kafka.group: expected a name, got ''")
    problems += _topic_problems("kafka.topic", settings.topic)
    if settings.dead_letter_topic:
        problems += _topic_problems("kafka.dead_letter_topic", settings.dead_letter_topic)
    if settings.security_protocol.startswith("SASL") and not settings.sasl_username:
        problems.append(f"kafka.sasl_username: needed with {settings.security_protocol}")
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        file = getattr(settings, name)
        if file and not os.access(file, os.R_OK):
            problems.append(f"kafka.{name}: can't be read: {file}")
    return problems


def _topic_problems(name: str, topic: str) -> list[str]:
    try:
        ensure_valid_topic_name(topic)
    except (ValueError, TypeError):
        return [f"{name}: not a name of a topic: {topic!r}"]
    return []


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return what consumer and producer are told alike: brokers, security, and how they wait for a broker."""
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "bootstrap_timeout_ms": round(CONNECT_TIMEOUT * 1000),
        # a broker that is back is noticed within a second
        "reconnect_backoff_max_ms": 1000,
        "receive_message_max_bytes": _LARGEST_FRAME,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
        **_security_options(settings),
    }


def _security_options(settings: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol.endswith("SSL"):
        options |= {
            "ssl_cafile": settings.ssl_cafile or None,
            "ssl_certfile": settings.ssl_certfile or None,
            "ssl_keyfile": settings.ssl_keyfile or None,
        }
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.reveal(),
        }
    return options


@dataclass
class ClientFactory:
    """Makes the network client of a consumer or producer, and keeps hold of it.

    Given as `kafka_client` to the constructor, which leaves the network client open if it fails itself.
    """

    made: list[KafkaNetClient] = field(default_factory=list)

    def __call__(self, **options: Any) -> KafkaNetClient:
        """Return a network client that makes no topic by asking for it."""
        client = KafkaNetClient(**options)
        self.made.append(client)
        # kafka-python 3.0.12 takes the option, but does not hand it on to the part that asks
        client.cluster.config["allow_auto_create_topics"] = options["allow_auto_create_topics"]
        return client

    @property
    def client(self) -> KafkaNetClient:
        """The client that was made."""
        return self.made[0]

    def close(self) -> None:
        """Close the network client; closing it twice does nothing."""
        for client in self.made:
            client.close()


def describe(error: Exception, settings: KafkaSettings) -> str:
    """Return one line for a fault of a client."""
    text = " ".join(str(error).split())
    if isinstance(error, KafkaTimeoutError):
        what = "can't connect to" if "bootstrap" in text else "no answer in time from"
        return f"{what} {', '.join(settings.bootstrap_servers)}"
    name = type(error).__name__
    return text if name in text else f"{name}: {text}"


def end_within(seconds: float, what: str, end: Callable[[], None]) -> None:
    """Call `end` and return when it is done, failed or took longer than `seconds`; never raises.

    It may take longer because a client looks up names while nothing else can happen in it.
    """

    def ended() -> None:
        try:
            end()
        except Exception as error:
            log.warning("Kafka client did not close cleanly", part=what, problem=f"{type(error).__name__}: {error}")

    thread = Thread(target=ended, name=f"close-{what}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        log.warning("Kafka client did not close in time", part=what, waited_seconds=seconds)
