"""Settings of the consumer process."""

from dataclasses import dataclass
from typing import Literal

from libaggregator.settings import DatabaseSettings, FreeSection, LoggingSettings, MetricsSettings, Secret, setting


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Section `kafka`."""

    bootstrap_servers: tuple[str, ...] = setting(("localhost:9092",), "brokers to ask first, `HOST:PORT`")
    topic: str = setting("ccx.ocp.results", "topic that is read")
    group: str = setting("aggregator", "consumer group")
    group_instance_id: str = setting(
        "", "name of this process in the group (static membership); empty: a new one at every start"
    )
    session_timeout: float = setting(10.0, "seconds without a heartbeat after which a consumer is out", 1, 300)
    max_poll_interval: float = setting(
        300.0, "seconds between two polls after which a consumer is out; batches are kept well below it", 1, 86_400
    )
    auto_offset_reset: Literal["earliest", "latest"] = setting(
        "earliest", "where a group starts that has no offset, or one that is gone"
    )
    dead_letter_topic: str = setting("", "topic for rejected messages; empty: none, `consumer_error` has them")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = setting(
        "PLAINTEXT", "how brokers are spoken to"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = setting(
        "PLAIN", "how to log in, with a `SASL_` protocol"
    )
    sasl_username: str = setting("", "user, with a `SASL_` protocol")
    sasl_password: Secret = setting(Secret(""), "password, with a `SASL_` protocol")
    ssl_cafile: str = setting(
        "", "PEM file of the authorities that brokers are checked against, read at each connection; empty: the system's"
    )
    ssl_certfile: str = setting("", "PEM file of the client's certificate, read at each connection")
    ssl_keyfile: str = setting(
        "", "PEM file of the client's key, read at each connection; empty: `ssl_certfile` has it too"
    )
    ssl_password: Secret = setting(Secret(""), "password of the client's key, if it is encrypted")


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Section `redis`."""

    url: Secret = setting(
        Secret("redis://localhost:6379/0"),
        "server: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss://...` for TLS; `#`, `/`, `?`, `@`, `%` in user"
        " and password are written `%23`, `%2F`, `%3F`, `%40`, `%25`",
    )
    stream: str = setting("ccx.ocp.results", "stream that is read")
    group: str = setting("aggregator", "consumer group; made if it is missing, as soon as there is the stream")
    consumer: str = setting(
        "",
        "name of this process in the group, which no other may have at the same time; empty: a new one at every start",
    )
    start_at: Literal["first", "next"] = setting(
        "first", "where a group starts that has to be made: at the first entry of the stream, or at the next one"
    )
    claim_after: float = setting(
        90.0,
        "seconds after which entries that another consumer took and did not acknowledge are taken over; batches are"
        " kept well below it",
        1,
        86_400,
    )
    dead_letter_stream: str = setting("", "stream for rejected messages; empty: none, `consumer_error` has them")
    ssl_cafile: str = setting(
        "", "PEM file of the authorities that the server is checked against, with TLS; empty: the system's"
    )
    ssl_certfile: str = setting("", "PEM file of the client's certificate, with TLS")
    ssl_keyfile: str = setting("", "PEM file of the client's key, with TLS; empty: `ssl_certfile` has it too")
    ssl_password: Secret = setting(Secret(""), "password of the client's key, if it is encrypted")


@dataclass(frozen=True, slots=True)
class FileSettings:
    """Section `file`."""

    path: str = setting(
        "",
        "what the source `file` reads: a file with one message a line (`.jsonl`), a file with one message, or a"
        " folder of both, in the order of their names",
    )


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """Section `consumer`."""

    source: str = setting("kafka", "where messages come from: `kafka`, `redis`, `file`, or the name of a plug-in")
    max_batch: int = setting(1000, "most messages in one transaction", 1, 100_000)
    max_message_bytes: int = setting(
        10_485_760, "bytes that a message may have, as it comes and inflated", 1, 1_000_000_000
    )
    max_nesting: int = setting(500, "levels of `{` and `[` that a message may have", 4, 100_000)
    max_future_skew: float = setting(86_400.0, "seconds that `LastChecked` may be ahead of the clock", 0, 1_000_000_000)
    enable_org_allowlist: bool = setting(False, "store only organizations of `org_allowlist`")
    org_allowlist: str = setting("", "CSV file with a header and an organization in the first column")
    stalled_after: float = setting(
        300.0,
        "seconds that a partition with records may stand still, with nothing away, until `/readyz` tells of it",
        2,
        86_400,
    )
    max_rejected_share: float = setting(
        0.0,
        "share of the last messages, 0 to 1, that may be rejected; above it the consumer halts before it writes or"
        " commits any more, until it is restarted; 0: it never halts",
        0,
        1,
    )
    rejected_window: int = setting(1000, "how many messages `max_rejected_share` is a share of", 1, 1_000_000)
    shutdown_timeout: float = setting(25.0, "seconds for the batch in hand, when told to stop", 0, 86_400)
    admin_host: str = setting("127.0.0.1", "address of the admin port")
    admin_port: int = setting(8081, "port for `/livez`, `/readyz`, `/metrics`; 0: any free one", 0, 65535)


@dataclass(frozen=True, slots=True)
class ConsumerProcessSettings:
    """Everything that `aggregator-consumer` reads."""

    database: DatabaseSettings
    logging: LoggingSettings
    metrics: MetricsSettings
    kafka: KafkaSettings
    redis: RedisSettings
    file: FileSettings
    plugin: FreeSection
    consumer: ConsumerSettings
