"""How settings are read, and the sections that both processes have.

Sources, later ones win: defaults, the file of Clowder (`ACG_CONFIG`), the TOML file (`--config` or
`AGGREGATOR_CONFIG`), files in `AGGREGATOR_SECRETS_DIR` (one file a setting, named like `database.url`), environment
variables (`AGGREGATOR_DATABASE__URL`). One file can serve both processes, so a section that belongs to the other
process is passed over unread; every other unknown key is an error. Wherever the name of a topic is from, the file of
Clowder, if it has a Kafka, says which topic that is.
"""

import dataclasses
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import unquote

import msgspec

from libaggregator import clowder
from libaggregator.clowder import ClowderError, ClowderFile

T = TypeVar("T")

_SHOWN_OPTIONS = frozenset(
    [
        "application_name",
        "channel_binding",
        "connect_timeout",
        "dbname",
        "fallback_application_name",
        "gssencmode",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "options",
        "passfile",
        "port",
        "require_auth",
        "requirepeer",
        "service",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    ]
)
"""What libpq takes in a URL and what is no secret."""

ENVIRONMENT_PREFIX = "AGGREGATOR_"
CONFIG_VARIABLE = "AGGREGATOR_CONFIG"
SECRETS_VARIABLE = "AGGREGATOR_SECRETS_DIR"
SECTIONS = frozenset({"database", "logging", "metrics", "kafka", "redis", "file", "plugin", "consumer", "api"})

_TOPICS = ("kafka.topic", "kafka.dead_letter_topic")


class SettingsError(Exception):
    """Settings that can't be used; `problems` has one line for each, naming the setting and the value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Secret:
    """A text that is shown neither by `str` nor by `repr`; `reveal()` gives it out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself."""
        return self._value

    def __repr__(self) -> str:
        return "'***'" if self._value else "''"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class FreeSection(Mapping[str, object]):
    """A section whose keys only somebody else knows, given on unread; not shown, because it can have secrets."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, key: str) -> object:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"FreeSection({', '.join(self)})"


def setting(default: Any, description: str, minimum: float | None = None, maximum: float | None = None) -> Any:
    """Declare one setting of a section: its default, what it means (with its unit), and its range."""
    return dataclasses.field(
        default=default, metadata={"description": description, "minimum": minimum, "maximum": maximum}
    )


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Section `database`."""

    url: Secret = setting(
        Secret("sqlite:///aggregator.db"),
        "where results are stored: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST:PORT/NAME?OPTION=VALUE`"
        " (any option of libpq)",
    )
    read_url: Secret = setting(
        Secret(""),
        "a replica of it that the API reads from, in the same form; empty: the API reads from `url`",
    )
    connect_timeout: float = setting(5.0, "seconds to wait for a connection", 1, 3600)
    statement_timeout: float = setting(
        60.0, "seconds that one statement of the consumer may take before the database ends it; 0: no limit", 0, 86_400
    )
    read_timeout: float = setting(10.0, "seconds that the API waits for one statement, then it answers 503", 0.1, 3600)
    prepare: bool = setting(
        True, "prepare the API's statements once a connection; `false` for a pooler in transaction mode"
    )


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """Section `logging`."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "least severe level that is logged")
    format: Literal["console", "json"] = setting("console", "for people, or one JSON object a line")


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Section `metrics`."""

    legacy_names: bool = setting(False, "show metrics under the names of existing deployments too")
    namespace: str = setting("", "what those names begin with, followed by `_`; empty: nothing")


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: its name (`kafka.topic`), type, default, description and range."""

    name: str
    type: Any
    default: Any
    description: str
    minimum: float | None
    maximum: float | None

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace(".", "__")

    @property
    def is_secret(self) -> bool:
        """Whether the value must not be shown."""
        return self.type is Secret

    def convert(self, value: object) -> Any:
        """Return `value`, as read from a file or the environment, in the type of this setting.

        Raises ValueError if it is not of the type or out of range; the text shows no secret.
        """
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()] if self._is_list else value
        try:
            converted = msgspec.convert(value, self.type, strict=not isinstance(value, str), dec_hook=_decode_secret)
        except msgspec.ValidationError:
            shown = "a value of another type" if self.is_secret else repr(value)
            raise ValueError(f"{self.name}: expected {self.expected}, got {shown}") from None
        # written so that NaN is out of every range
        at_least = self.minimum is None or converted >= self.minimum
        at_most = self.maximum is None or converted <= self.maximum
        if not (at_least and at_most):
            raise ValueError(f"{self.name}: expected {self.expected}, got {converted!r}")
        return converted

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if typing.get_origin(self.type) is Literal:
            return "one of " + ", ".join(map(repr, typing.get_args(self.type)))
        words = {bool: "true or false", int: "an integer", float: "a number"}.get(self.type)
        if words is None:
            return "a list of texts" if self._is_list else "a text"
        if self.maximum is not None:
            return f"{words} from {self.minimum} to {self.maximum}"
        return words if self.minimum is None else f"{words}, at least {self.minimum}"

    @property
    def _is_list(self) -> bool:
        return typing.get_origin(self.type) is tuple


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """Settings in force, and for each setting's name where its value came from."""

    settings: T
    origins: Mapping[str, str]


def options_of(settings_class: type) -> dict[str, Option]:
    """Return all settings of a class of sections, by name, in the order of their declaration."""
    options: dict[str, Option] = {}
    for section, section_class in typing.get_type_hints(settings_class).items():
        if section_class is not FreeSection:
            options |= _options_of_section(section, section_class)
    return options


def free_sections_of(settings_class: type) -> list[str]:
    """Return the names of the sections that are given on unread."""
    return [name for name, hint in typing.get_type_hints(settings_class).items() if hint is FreeSection]


def read_section(section: str, section_class: type[T], values: Mapping[str, object]) -> T:
    """Return a section as a dataclass whose fields are declared with `setting`, from values of any of their sources.

    Raises SettingsError, with one line for each unknown name and each value that can't be used.
    """
    options = _options_of_section(section, section_class)
    content = {name.partition(".")[2]: option.default for name, option in options.items()}
    problems = []
    for key, value in values.items():
        option = options.get(f"{section}.{key}")
        if option is None:
            problems.append(f"{section}.{key}: unknown setting")
            continue
        try:
            content[key] = option.convert(value)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise SettingsError(problems)
    return section_class(**content)


def _options_of_section(section: str, section_class: type) -> dict[str, Option]:
    hints = typing.get_type_hints(section_class)
    names = {field: f"{section}.{field.name}" for field in dataclasses.fields(section_class)}
    return {name: Option(name, hints[field.name], field.default, **field.metadata) for field, name in names.items()}


def load(settings_class: type[T], config_file: Path | None, environment: Mapping[str, str]) -> Loaded[T]:
    """Read the settings of one process.

    `settings_class` is a dataclass whose fields are sections, `config_file` overrides `AGGREGATOR_CONFIG`.
    Raises SettingsError, with one line for each unknown name and each value that can't be used.
    """
    options = options_of(settings_class)
    free = free_sections_of(settings_class)
    own_sections = {name.partition(".")[0] for name in options} | set(free)
    values: dict[str, Any] = {name: option.default for name, option in options.items()}
    origins = dict.fromkeys(options, "default")
    problems = _misspelt_variables(options, environment)
    clowder_file = _clowder_file(environment)
    for name, value, origin in _given(clowder_file, config_file, environment):
        section, point, _ = name.partition(".")
        if section in SECTIONS - own_sections:
            continue
        if section in free and point:
            values[name], origins[name] = value, origin
            continue
        if name not in options:
            problems.append(f"{name}: unknown setting ({origin})")
            continue
        try:
            values[name] = options[name].convert(value)
        except ValueError as error:
            problems.append(f"{error} ({origin})")
        origins[name] = origin
    if clowder_file and clowder_file.has_kafka:
        problems += _find_topics(clowder_file, values, origins)
    if problems:
        raise SettingsError(problems)
    return Loaded(_assemble(settings_class, values), origins)


def shown(option: Option, value: Any) -> str:
    """Return a value as `config` prints it: TOML, secrets masked but for what is no secret in a URL."""
    if isinstance(value, Secret):
        return f'"{mask_password(value.reveal())}"' if option.name.endswith("url") else str(value)
    return msgspec.json.encode(value).decode()


_HOST = r"(?:\[[^\]/@]*\]|[^/@:,\[\]]*)(?::\d*)?"
_ADDRESS = re.compile(rf"[a-z]+://(?:[^/@:]*(?::\*\*\*)?@)?{_HOST}(?:,{_HOST})*(?:/[^@:/]*)?")


def mask_password(url: str) -> str:
    """Return a URL with its password replaced by `***`, in the place of the user and as an option.

    What is not of the form of a URL is masked as a whole, since nobody knows which part of it is the password.
    """
    if not re.match(r"[a-z]+://", url):
        return "***" if url else ""
    masked = re.sub(r"(?s)(?<=://)([^/@:]*):.*(?=@)", r"\1:***", url)
    address, mark, options = masked.partition("?")
    if not (url.startswith("sqlite:") or _ADDRESS.fullmatch(address)):
        # a password with a character that has a meaning in a URL can be in the place of anything
        return "***"
    return address + mark + "&".join(map(_mask_option, options.split("&")))


def _mask_option(option: str) -> str:
    """Mask what has no known name too: a password whose name is misspelt, or the rest of one that has a `&`."""
    name, sign, _ = option.partition("=")
    if not option or (sign and unquote(name) in _SHOWN_OPTIONS):
        return option
    return f"{name}=***" if sign else "***"


def _given(
    clowder_file: ClowderFile | None, config_file: Path | None, environment: Mapping[str, str]
) -> Iterator[tuple[str, object, str]]:
    """Yield name, value and origin of everything that was set, the least important source first."""
    if clowder_file:
        yield from _from_clowder(clowder_file)
    path = config_file or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    if path:
        yield from _from_file(path)
    if environment.get(SECRETS_VARIABLE):
        yield from _from_secret_files(Path(environment[SECRETS_VARIABLE]))
    for variable, value in sorted(environment.items()):
        name = _setting_name(variable)
        if variable.startswith(ENVIRONMENT_PREFIX) and "." in name:
            yield name, value, f"environment {variable}"


def _clowder_file(environment: Mapping[str, str]) -> ClowderFile | None:
    try:
        return clowder.read(Path(environment[clowder.VARIABLE])) if environment.get(clowder.VARIABLE) else None
    except ClowderError as error:
        raise SettingsError([str(error)]) from None


def _from_clowder(file: ClowderFile) -> Iterator[tuple[str, object, str]]:
    try:
        for name, value in file.values():
            yield name, value, f"Clowder {file.path}"
    except ClowderError as error:
        raise SettingsError([str(error)]) from None


def _find_topics(file: ClowderFile, values: dict[str, Any], origins: dict[str, str]) -> list[str]:
    """Put the real names of topics in the place of those they are asked for by; return a line for each unknown one."""
    problems = []
    for name in _TOPICS:
        # the API has none, and without a name there are no dead letters
        if requested := values.get(name):
            try:
                values[name] = file.topic_name(requested)
            except ClowderError as error:
                problems.append(f"{name}: {error} ({origins[name]})")
            origins[name] = f"Clowder {file.path}, for {requested!r} ({origins[name]})"
    return problems


def _misspelt_variables(options: Mapping[str, Option], environment: Mapping[str, str]) -> list[str]:
    """Return a line for each variable that has one underscore where a setting's has two."""
    right = {option.variable.replace("__", "_"): option.variable for option in options.values()}
    return [
        f"{variable}: unknown variable, expected {right[variable]}"
        for variable, value in sorted(environment.items())
        # what an orchestrator puts there for a service that is called `aggregator-api` is not ours
        if variable in right and not value.startswith(("tcp://", "udp://"))
    ]


def _from_file(path: Path) -> Iterator[tuple[str, object, str]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror}"]) from None
    except ValueError as error:
        raise SettingsError([f"{path}: not TOML: {error}"]) from None
    for section, content in document.items():
        if not isinstance(content, dict):
            yield section, content, str(path)
            continue
        for key, value in content.items():
            yield f"{section}.{key}", value, str(path)


def _from_secret_files(folder: Path) -> Iterator[tuple[str, object, str]]:
    """Read the files that are named like a setting of a known section; others are not ours."""
    seen: dict[str, Path] = {}
    try:
        for path in sorted(folder.iterdir()):
            name = _setting_name(path.name)
            section, point, _ = name.partition(".")
            if section not in SECTIONS or not point:
                continue
            if name in seen:
                raise SettingsError([f"{path}: {seen[name]} is the same setting (from {SECRETS_VARIABLE})"])
            seen[name] = path
            yield name, path.read_text(encoding="utf-8").rstrip("\r\n"), str(path)
    except OSError as error:
        raise SettingsError([f"{error.filename}: {error.strerror} (from {SECRETS_VARIABLE})"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{path}: not UTF-8 (from {SECRETS_VARIABLE})"]) from None


def _setting_name(name: str) -> str:
    """`AGGREGATOR_DATABASE__URL`, `database__url` and `database.url` all name one setting."""
    return name.lower().removeprefix(ENVIRONMENT_PREFIX.lower()).replace("__", ".")


def _assemble(settings_class: type[T], values: Mapping[str, Any]) -> T:
    sections: dict[str, dict[str, Any]] = {name: {} for name in free_sections_of(settings_class)}
    for name, value in values.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    hints = typing.get_type_hints(settings_class)
    return settings_class(
        **{
            section: FreeSection(content) if hints[section] is FreeSection else hints[section](**content)
            for section, content in sections.items()
        }
    )


def _decode_secret(expected: type, value: object) -> object:
    if expected is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError("Expected `str`")
