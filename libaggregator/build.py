"""From what this program was built, if whoever built it left word (`libaggregator/build_command.py`)."""

from importlib import metadata, resources

import msgspec

DISTRIBUTION = "insights-results-aggregator"
RESOURCE = "build_facts.json"
UNKNOWN = "not known at build time"


class BuildFacts(msgspec.Struct, frozen=True):
    """Version, branch and commit (40 hex digits) of the sources, and when they were built.

    `time` is like `Tue Nov 24 07:33:05 UTC 2026`. What is not known is a text that says so.
    """

    version: str = UNKNOWN
    branch: str = UNKNOWN
    commit: str = UNKNOWN
    time: str = UNKNOWN


def build_facts() -> BuildFacts:
    """Return what is known about the running program; from a source tree that is hardly anything."""
    resource = resources.files("libaggregator") / RESOURCE
    facts = msgspec.json.decode(resource.read_bytes(), type=BuildFacts) if resource.is_file() else BuildFacts()
    return msgspec.structs.replace(facts, version=_version())


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return UNKNOWN
