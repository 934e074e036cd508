"""What Clowder (https://github.com/RedHatInsights/clowder) has set up for a process: brokers, topics, database, ports.

Clowder writes it into a JSON file and names that in `ACG_CONFIG`. The library `app-common-python` knows the file's
form (extra `clowder`); it reads the file when it is imported, so that is done only where there is one.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from libaggregator.build import DISTRIBUTION

VARIABLE = "ACG_CONFIG"

_METRICS_PATH = "/metrics"
_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - the ports are for the pod's service


class ClowderError(Exception):
    """A file that can't be used; the text is one line that names the file and the field, and shows no secret."""


class _Sasl(msgspec.Struct):
    username: str
    password: str
    saslMechanism: str | None = None  # noqa: N815 - names of the file
    securityProtocol: str | None = None  # noqa: N815


class _Broker(msgspec.Struct):
    hostname: str
    port: int | None = None
    cacert: str | None = None
    sasl: _Sasl | None = None
    securityProtocol: str | None = None  # noqa: N815

    @property
    def protocol(self) -> str:
        """How it is spoken to; without a word on it, never with less than what the other fields are for."""
        if given := self.securityProtocol or (self.sasl and self.sasl.securityProtocol):
            return given
        if self.sasl:
            return "SASL_SSL"
        return "SSL" if self.cacert else "PLAINTEXT"


class _Topic(msgspec.Struct):
    requestedName: str  # noqa: N815
    name: str


class _Kafka(msgspec.Struct):
    brokers: list[_Broker]
    topics: list[_Topic]


class _Database(msgspec.Struct):
    hostname: str
    port: int
    name: str
    username: str
    password: str
    sslMode: str | None = None  # noqa: N815
    rdsCa: str | None = None  # noqa: N815


class _Config(msgspec.Struct):
    """The part of the file that is used."""

    publicPort: int | None = None  # noqa: N815
    metricsPort: int | None = None  # noqa: N815
    metricsPath: str | None = None  # noqa: N815
    kafka: _Kafka | None = None
    database: _Database | None = None


@dataclass(frozen=True, slots=True)
class ClowderFile:
    """The file of a process, read."""

    path: Path
    config: _Config

    def values(self) -> Iterator[tuple[str, object]]:
        """Yield names of settings and their values.

        Certificates, which are texts here, are put into files. Raises ClowderError if that can't be done, if there are
        no brokers or they do not agree in how they are spoken to, or if metrics are looked for where they are not.
        """
        if self.config.metricsPath not in (None, "", _METRICS_PATH):
            problem = f"expected {_METRICS_PATH!r}, where metrics are, got {self.config.metricsPath!r}"
            raise ClowderError(f"{self.path}: metricsPath: {problem}")
        if self.config.database:
            yield "database.url", self._url(self.config.database)
        if self.config.kafka:
            yield from self._of_brokers(self.config.kafka.brokers)
        if self.config.publicPort is not None:
            yield from {"api.host": _ALL_ADDRESSES, "api.port": self.config.publicPort}.items()
        if self.config.metricsPort is not None:
            for section in ("api", "consumer"):
                yield f"{section}.admin_host", _ALL_ADDRESSES
                yield f"{section}.admin_port", self.config.metricsPort

    def topic_name(self, requested: str) -> str:
        """Return the name that a topic really has; ClowderError if the file has no such topic."""
        names = {topic.requestedName: topic.name for topic in self.config.kafka.topics} if self.config.kafka else {}
        if requested not in names:
            known = ", ".join(map(repr, names)) or "none"
            raise ClowderError(f"no topic {requested!r} in {self.path}, kafka.topics has: {known}")
        return names[requested]

    @property
    def has_kafka(self) -> bool:
        """Whether the file has a Kafka, so that topics are asked for by names that need not be the real ones."""
        return self.config.kafka is not None

    def _url(self, database: _Database) -> str:
        host = f"[{database.hostname}]" if ":" in database.hostname else database.hostname
        user, password, name = (quote(part, safe="") for part in (database.username, database.password, database.name))
        options = {"sslmode": database.sslMode} if database.sslMode else {}
        if database.rdsCa:
            options["sslrootcert"] = self._file_with("database.rdsCa", database.rdsCa)
        query = f"?{urlencode(options, safe='/', quote_via=quote)}" if options else ""
        return f"postgresql://{user}:{password}@{host}:{database.port}/{name}{query}"

    def _of_brokers(self, brokers: Sequence[_Broker]) -> Iterator[tuple[str, object]]:
        if not brokers:
            raise ClowderError(f"{self.path}: kafka.brokers: expected at least one, got none")
        first = brokers[0]
        for number, broker in enumerate(brokers):
            if (broker.protocol, broker.sasl, broker.cacert) != (first.protocol, first.sasl, first.cacert):
                raise ClowderError(f"{self.path}: kafka.brokers[{number}]: not spoken to like kafka.brokers[0]")
        yield "kafka.bootstrap_servers", [_address(broker) for broker in brokers]
        yield "kafka.security_protocol", first.protocol
        if first.sasl and first.protocol.startswith("SASL"):
            yield "kafka.sasl_username", first.sasl.username
            yield "kafka.sasl_password", first.sasl.password
            if first.sasl.saslMechanism:
                yield "kafka.sasl_mechanism", first.sasl.saslMechanism
        if first.cacert and first.protocol.endswith("SSL"):
            yield "kafka.ssl_cafile", self._file_with("kafka.brokers[0].cacert", first.cacert)

    def _file_with(self, field: str, certificate: str) -> str:
        try:
            return str(_own_file(certificate))
        except OSError as error:
            problem = f"can't be put into a file: {error.filename}: {error.strerror}; see TMPDIR"
            raise ClowderError(f"{self.path}: {field}: {problem}") from None


def read(path: Path) -> ClowderFile:
    """Read the file that `ACG_CONFIG` names.

    Raises ClowderError if it can't be read, is not of Clowder's form, or the extra `clowder` is not installed.
    """
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ClowderError(f"{path}: {error.strerror} (from {VARIABLE})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # the end of its text is where, with nothing of what is there
        raise ClowderError(
            f"{path}: not JSON: {str(error).removeprefix('JSON is malformed: ')} (from {VARIABLE})"
        ) from None
    try:
        config = msgspec.convert(_parse(document), _Config, from_attributes=True)
    except ModuleNotFoundError as error:
        install = f"install the extra: pip install '{DISTRIBUTION}[clowder]'"
        raise ClowderError(f"{VARIABLE} is set, but {error.name} is missing, {install}") from None
    except msgspec.ValidationError as error:
        raise ClowderError(f"{path}: {_described(error)} (from {VARIABLE})") from None
    except (AttributeError, TypeError):
        raise ClowderError(f"{path}: not a configuration of Clowder (from {VARIABLE})") from None
    return ClowderFile(path, config)


def _parse(document: Any) -> Any:
    from app_common_python.types import AppConfig  # noqa: PLC0415 - it reads the file when it is imported

    if not isinstance(document, dict):
        raise TypeError
    return AppConfig.dictToObject(document)


def _described(error: msgspec.ValidationError) -> str:
    """Put the field first: `Expected `int`, got `str` - at `$.database.port`` is how msgspec says it."""
    problem, _, place = str(error).partition(" - at ")
    return f"{place.strip('`').removeprefix('$.')}: {problem[0].lower()}{problem[1:]}".replace("`", "")


def _address(broker: _Broker) -> str:
    host = f"[{broker.hostname}]" if ":" in broker.hostname else broker.hostname
    return host if broker.port is None else f"{host}:{broker.port}"


def _own_file(text: str) -> Path:
    """Return a file with this text that no other user can change, the same one at each start.

    It is for public certificates, but who could change them could make the process trust somebody else.
    """
    folder = Path(tempfile.gettempdir()) / f"aggregator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(0, "not a folder that this user alone can use", str(folder))
    content = text.encode()
    file = folder / f"{hashlib.sha256(content).hexdigest()}.pem"
    if not file.exists():
        # whole or not at all: others may begin at the same moment
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as part:
            part.write(content)
        Path(part.name).replace(file)
    return file
