"""Finds the source that the setting `consumer.source` names, built in or installed."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from consumer_service.settings import ConsumerProcessSettings
from consumer_service.sources.checked import CheckedSource
from consumer_service.sources.interface import INTERFACE_VERSION, MessageSource, SourceSettings
from libaggregator.build import DISTRIBUTION
from libaggregator.settings import SettingsError

ENTRY_POINT_GROUP = "aggregator.sources"
"""Where installed distributions offer sources; each entry is a `SourceFactory`."""

MAX_ERROR = 300
"""Characters of an error of a plug-in that are shown."""

_METHODS = ("poll", "keep_alive", "commit", "send_dead_letters", "progress", "problem", "close")

# loaded only when they are used: each works without the client of another
_BUILT_IN = {"file": "consumer", "kafka": "consumer", "redis": "redis"}
"""Each with the extra that it needs."""

OpenSource = Callable[[ConsumerProcessSettings], MessageSource]


def find_source(name: str) -> OpenSource:
    """Return what makes the source with this name; a built-in one can't be replaced.

    It raises SettingsError if the source can't be made with the settings that it is given. So does this if there is no
    such source, with the names that there are, or if it can't be loaded.
    """
    if name in _BUILT_IN:
        return _load_built_in(name)
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        names = ", ".join(sorted({*found, *_BUILT_IN}))
        raise SettingsError([f"consumer.source: no source named {name!r}; installed: {names}"])
    return _load_plugin(found[name])


def _load_built_in(name: str) -> OpenSource:
    entry = EntryPoint(name, f"consumer_service.sources.{name}:create", ENTRY_POINT_GROUP)
    try:
        create: OpenSource = entry.load()
    except ModuleNotFoundError as error:
        extra = _BUILT_IN[name]
        hint = f"{error.name} is missing, install the extra: pip install '{DISTRIBUTION}[{extra}]'"
        raise SettingsError([f"consumer.source: {name!r} can't be loaded: {hint}"]) from error
    return create


def _load_plugin(entry: EntryPoint) -> OpenSource:
    who = _described(entry)
    try:
        factory = entry.load()
    except (Exception, SystemExit) as error:
        raise SettingsError([f"consumer.source: {who} can't be loaded: {_in_one_line(error)}"]) from error
    version = getattr(factory, "interface_version", None)
    if version != INTERFACE_VERSION:
        written_for = "no version" if version is None else f"version {version!r}"
        raise SettingsError(
            [f"consumer.source: {who} is for {written_for} of the interface, expected {INTERFACE_VERSION}"]
        )

    def create(settings: ConsumerProcessSettings) -> MessageSource:
        try:
            source: MessageSource = factory(SourceSettings(settings.consumer.max_message_bytes, settings.plugin))
            missing = [method for method in _METHODS if not callable(getattr(source, method, None))]
            # a method would always be true, and the process would end at once
            has_end = hasattr(source, "exhausted") and not callable(source.exhausted)
        except SettingsError:
            raise
        except (Exception, SystemExit) as error:
            raise SettingsError([f"consumer.source: {who} can't be made: {_in_one_line(error)}"]) from error
        if missing:
            raise SettingsError([f"consumer.source: {who} lacks the methods {', '.join(missing)}"])
        if not has_end:
            raise SettingsError([f"consumer.source: {who} lacks exhausted, which is no method"])
        return CheckedSource(source, who)

    return create


def _described(entry: EntryPoint) -> str:
    return f"{entry.name!r} of {entry.dist.name} {entry.dist.version}" if entry.dist else repr(entry.name)


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MAX_ERROR]
