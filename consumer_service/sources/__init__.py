"""Where messages come from: the interface of all sources, and everything that a plug-in imports (`docs/sources.md`).

Nothing that is not named here is meant for plug-ins, but for `consumer_service.sources.conformance`, their tests.
"""

from consumer_service.sources.interface import (
    INTERFACE_VERSION,
    DeadLetter,
    Delivery,
    MessageSource,
    Partition,
    Progress,
    Record,
    SourceFactory,
    SourceFailed,
    SourceSettings,
    SourceUnavailable,
)
from consumer_service.sources.letters import dead_letter_headers
from libaggregator.settings import Secret, SettingsError, setting

__all__ = [
    "INTERFACE_VERSION",
    "DeadLetter",
    "Delivery",
    "MessageSource",
    "Partition",
    "Progress",
    "Record",
    "Secret",
    "SettingsError",
    "SourceFactory",
    "SourceFailed",
    "SourceSettings",
    "SourceUnavailable",
    "dead_letter_headers",
    "setting",
]
