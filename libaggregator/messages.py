"""The consumed format: from the bytes of one record to a message, or to the reason why it is unusable.

The rules are those of `docs/messages.md`, sections 1 to 5. Here they are applied in the order in which the reasons
of section 5 apply; how JSON is read is left to `raw_json`, so that `details` and `Report` keep their bytes.
"""

import enum
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from libaggregator.identifiers import InvalidClusterID, parse_cluster_id
from libaggregator.payloads import BadCompression, TooLarge, inflate
from libaggregator.raw_json import (
    InvalidJSON,
    ObjectReader,
    is_nested_deeper,
    members,
    read_array,
    read_string,
)
from libaggregator.rules import rule_fqdn, rule_selector
from libaggregator.times import parse_time

S = TypeVar("S", bound=msgspec.Struct)

MAX_ORG_ID = 4_294_967_295
MAX_VERSION = 255
MAX_REQUEST_ID_LENGTH = 200
VERSION_INFO_ID = "version_info|CLUSTER_VERSION_INFO"


class Reason(enum.StrEnum):
    """Why a message is rejected; closed list (`docs/messages.md`, section 5), in the order in which they apply."""

    TOO_LARGE = "too_large"
    BAD_COMPRESSION = "bad_compression"
    NOT_JSON = "not_json"
    MISSING_ATTRIBUTE = "missing_attribute"
    BAD_ATTRIBUTE = "bad_attribute"
    FROM_THE_FUTURE = "from_the_future"
    BAD_REPORT = "bad_report"
    NOT_STORABLE = "not_storable"
    """The database refused the values; `decode` never gives this one."""


class InvalidMessage(Exception):
    """A message that can never be stored.

    `detail` names the attribute and what was expected, in at most 1,000 characters; it never shows the payload.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Limits:
    """What a message may be at most: size as it came and inflated, nesting, and `LastChecked` ahead of the clock."""

    max_bytes: int = 10_485_760
    max_nesting: int = 500
    max_future_skew: timedelta = timedelta(days=1)


class Hit(msgspec.Struct, frozen=True, gc=False):
    """One entry of a report.

    `details_json` is its JSON text byte for byte, `null` if it had none: a part of the payload, not a copy.
    """

    component: str
    error_key: str
    details_json: msgspec.Raw

    @property
    def details(self) -> str:
        """The JSON text as a text."""
        return str(self.details_json, "utf-8")

    @property
    def rule_fqdn(self) -> str:
        """The component without one trailing `.report`."""
        return rule_fqdn(self.component)

    @property
    def rule_selector(self) -> str:
        """The rule FQDN, `|`, and the error key."""
        return rule_selector(self.rule_fqdn, self.error_key)


class Message(msgspec.Struct, frozen=True, gc=False):
    """A usable message. Times are naive UTC with microseconds, absent values are None."""

    org_id: int
    cluster: str
    """In canonical form: lower case with hyphens."""
    report_json: msgspec.Raw
    """The JSON text of `Report`, byte for byte: a part of the payload, not a copy."""
    last_checked_at: datetime
    gathered_at: datetime | None
    hits: tuple[Hit, ...]
    """One for each component and key, in the order of their first appearance; of equal ones the last."""
    cluster_version: str | None
    version: int | None
    """Of the format, 0 to 255; only 1 and 2 are known."""
    request_id: str
    """For the log, at most 200 characters, empty if there was none."""
    is_empty: bool
    """There was nothing to analyse (`docs/messages.md`, section 3): nothing to store, `hits` is empty."""

    @property
    def report(self) -> str:
        """The JSON text of `Report` as a text."""
        return str(self.report_json, "utf-8")


_ABSENT = msgspec.Raw(b"")
_NULL = msgspec.Raw(b"null")
_MISSING = (b"", b"null")


class _Envelope(msgspec.Struct):
    org_id: msgspec.Raw = msgspec.field(default=_ABSENT, name="OrgID")
    cluster_name: msgspec.Raw = msgspec.field(default=_ABSENT, name="ClusterName")
    last_checked: msgspec.Raw = msgspec.field(default=_ABSENT, name="LastChecked")
    report: msgspec.Raw = msgspec.field(default=_ABSENT, name="Report")
    version: msgspec.Raw = msgspec.field(default=_ABSENT, name="Version")
    metadata: msgspec.Raw = msgspec.field(default=_ABSENT, name="Metadata")
    request_id: msgspec.Raw = msgspec.field(default=_ABSENT, name="RequestId")


class _Metadata(msgspec.Struct):
    gathering_time: msgspec.Raw = _ABSENT


class _Report(msgspec.Struct):
    reports: msgspec.Raw = _ABSENT
    fingerprints: msgspec.Raw = _ABSENT
    system: msgspec.Raw = _ABSENT
    info: msgspec.Raw = _ABSENT


class _System(msgspec.Struct):
    hostname: msgspec.Raw = _ABSENT


class _Hit(msgspec.Struct):
    component: msgspec.Raw = _ABSENT
    key: msgspec.Raw = _ABSENT
    details: msgspec.Raw = _NULL


class _Info(msgspec.Struct):
    info_id: msgspec.Raw = _ABSENT
    details: msgspec.Raw = _ABSENT


class _VersionInfo(msgspec.Struct):
    version: msgspec.Raw = _ABSENT


class _PlainHit(msgspec.Struct, gc=False):
    component: str
    key: str
    details: msgspec.Raw = _NULL


class _PlainReport(msgspec.Struct, gc=False):
    reports: list[_PlainHit]
    fingerprints: msgspec.Raw
    system: msgspec.Raw
    info: msgspec.Raw = _ABSENT


class _PlainDetails(msgspec.Struct, gc=False):
    version: str


class _PlainInfo(msgspec.Struct, gc=False):
    info_id: str
    details: _PlainDetails


_ENVELOPE = ObjectReader(_Envelope)
_METADATA = ObjectReader(_Metadata)
_REPORT = ObjectReader(_Report)
_SYSTEM = ObjectReader(_System)
_HIT = ObjectReader(_Hit)
_INFO = ObjectReader(_Info)
_VERSION_INFO = ObjectReader(_VersionInfo)

# what nearly every report is like; whatever they refuse is looked at part by part
_PLAIN_REPORT = msgspec.json.Decoder(_PlainReport)
_PLAIN_INFO = msgspec.json.Decoder(list[_PlainInfo])

_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]{0,9})")
_EMPTY = re.compile(rb"null|\[[ \t\n\r]*\]|\{[ \t\n\r]*\}")
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")


def decode(payload: bytes | None, limits: Limits, now: datetime) -> Message:
    """Return the message in the value of a record, as it came from the topic; None is a null value.

    `now` is the consumer's clock, naive UTC. Raises InvalidMessage with the first reason of `docs/messages.md`,
    section 5, that applies.
    """
    envelope = _read_envelope(_json_text(payload, limits))
    _check_required(envelope)
    org_id = _integer("OrgID", bytes(envelope.org_id), 1, MAX_ORG_ID)
    cluster = _cluster(envelope.cluster_name)
    last_checked_at = _last_checked_at(envelope.last_checked)
    if not _starts_with(envelope.report, b"{"):
        raise InvalidMessage(Reason.BAD_ATTRIBUTE, "Report: expected an object")
    version = _version(bytes(envelope.version))
    if last_checked_at - now > limits.max_future_skew:
        expected = f"at most {limits.max_future_skew} ahead of the clock"
        raise InvalidMessage(Reason.FROM_THE_FUTURE, f"LastChecked: expected {expected}")
    hits, cluster_version, is_empty = _read_report(envelope.report)
    return Message(
        org_id=org_id,
        cluster=cluster,
        report_json=envelope.report,
        last_checked_at=last_checked_at,
        gathered_at=_gathered_at(envelope.metadata),
        hits=hits,
        cluster_version=cluster_version,
        version=version,
        request_id=_request_id(envelope.request_id),
        is_empty=is_empty,
    )


def _json_text(payload: bytes | None, limits: Limits) -> bytes:
    """Return the text in a payload: not too large, inflated, UTF-8, and not nested too deep."""
    if payload is None:
        raise InvalidMessage(Reason.NOT_JSON, "expected a JSON object, got a null value")
    try:
        text = inflate(payload, limits.max_bytes)
        text.decode()
    except TooLarge as error:
        raise InvalidMessage(Reason.TOO_LARGE, str(error)) from None
    except BadCompression as error:
        raise InvalidMessage(Reason.BAD_COMPRESSION, str(error)) from None
    except UnicodeDecodeError:
        raise InvalidMessage(Reason.NOT_JSON, "expected UTF-8") from None
    if is_nested_deeper(text, limits.max_nesting):
        raise InvalidMessage(Reason.NOT_JSON, f"expected at most {limits.max_nesting} levels of nesting")
    return text


def _read_envelope(text: bytes) -> _Envelope:
    try:
        return _ENVELOPE.read(text)
    except InvalidJSON:
        raise InvalidMessage(Reason.NOT_JSON, "expected one valid JSON object and nothing else") from None


def _check_required(envelope: _Envelope) -> None:
    required = {
        "OrgID": envelope.org_id,
        "ClusterName": envelope.cluster_name,
        "LastChecked": envelope.last_checked,
        "Report": envelope.report,
    }
    for name, value in required.items():
        if bytes(value) in _MISSING:
            raise InvalidMessage(Reason.MISSING_ATTRIBUTE, f"{name}: required, but absent or null")


def _integer(name: str, text: bytes, minimum: int, maximum: int) -> int:
    value = int(text) if _INTEGER.fullmatch(text) else None
    if value is None or not minimum <= value <= maximum:
        raise InvalidMessage(Reason.BAD_ATTRIBUTE, f"{name}: expected an integer from {minimum} to {maximum}")
    return value


def _version(text: bytes) -> int | None:
    return None if text in _MISSING else _integer("Version", text, 0, MAX_VERSION)


def _cluster(value: msgspec.Raw) -> str:
    try:
        return parse_cluster_id(_string(value) or "")
    except InvalidClusterID:
        raise InvalidMessage(Reason.BAD_ATTRIBUTE, "ClusterName: expected a UUID") from None


def _last_checked_at(value: msgspec.Raw) -> datetime:
    try:
        return parse_time(_string(value) or "")
    except ValueError:
        expected = "YYYY-MM-DDThh:mm:ss[.digits](Z|±hh:mm), in the years 1 to 9999 also in UTC"
        raise InvalidMessage(Reason.BAD_ATTRIBUTE, f"LastChecked: expected {expected}") from None


def _gathered_at(value: msgspec.Raw) -> datetime | None:
    """Return `Metadata.gathering_time` if it is a time; anything else, and the first instant of year 1, is none."""
    metadata = _object(_METADATA, value)
    if metadata is None:
        return None
    try:
        gathered_at = parse_time(_string(metadata.gathering_time) or "")
    except ValueError:
        return None
    return None if gathered_at == datetime.min else gathered_at


def _request_id(value: msgspec.Raw) -> str:
    text = bytes(value)
    if text in _MISSING:
        return ""
    string = _string(value)
    shown = text.decode() if string is None else string
    return shown[:MAX_REQUEST_ID_LENGTH].encode(errors="replace").decode()


def _read_report(value: msgspec.Raw) -> tuple[tuple[Hit, ...], str | None, bool]:
    """Return the hits, the version of the cluster, and whether the report is empty."""
    entries: Iterable[Hit]
    try:
        plain = _PLAIN_REPORT.decode(value)
    except (msgspec.DecodeError, RecursionError):
        text = bytes(value)
        report = _REPORT.read(text)
        if _is_empty_report(report, text):
            return (), None, True
        entries, info = _hits(bytes(report.reports)), bytes(report.info)
    else:
        entries = [Hit(entry.component, entry.key, entry.details) for entry in plain.reports]
        info = bytes(plain.info)
    hits: dict[tuple[str, str], Hit] = {}
    for index, hit in enumerate(entries):
        _check_hit(hit, index)
        hits[hit.component, hit.error_key] = hit
    return tuple(hits.values()), _cluster_version(info), False


def _is_empty_report(report: _Report, text: bytes) -> bool:
    """Say whether there was nothing to analyse: a required name is missing, and every attribute is empty."""
    is_there = {
        "reports": bytes(report.reports) not in _MISSING,
        "fingerprints": bytes(report.fingerprints) != b"",
        "system": bytes(report.system) != b"",
    }
    if all(is_there.values()):
        return False
    # names given twice: the last one counts, so that all have to be read before any is looked at
    attributes = dict(members(text))
    if all(_is_empty_attribute(name, value) for name, value in attributes.items()):
        return True
    missing = ", ".join(name for name in is_there if not is_there[name])
    raise InvalidMessage(Reason.BAD_REPORT, f"Report: expected also {missing}, since it is not empty")


def _is_empty_attribute(name: str, value: bytes) -> bool:
    if name == "analysis_metadata" or _EMPTY.fullmatch(value):
        return True
    if name != "system" or not value.startswith(b"{"):
        return False
    return bytes(_SYSTEM.read(value).hostname) in (*_MISSING, b'""')


def _hits(text: bytes) -> Iterator[Hit]:
    """Yield the entries of `reports`; texts that are missing are empty."""
    if not text.startswith(b"["):
        raise InvalidMessage(Reason.BAD_REPORT, "Report.reports: expected an array")
    for index, entry in enumerate(read_array(text)):
        if not entry.startswith(b"{"):
            raise InvalidMessage(Reason.BAD_REPORT, f"Report.reports[{index}]: expected an object")
        hit = _HIT.read(entry)
        yield Hit(_string(hit.component) or "", _string(hit.key) or "", hit.details)


def _check_hit(hit: Hit, index: int) -> None:
    if not hit.rule_fqdn or not _is_storable(hit.component):
        raise _bad_hit(index, "component")
    if not _is_storable(hit.error_key):
        raise _bad_hit(index, "key")


def _bad_hit(index: int, name: str) -> InvalidMessage:
    expected = "a text that is not empty, without NUL and lone surrogates"
    return InvalidMessage(Reason.BAD_REPORT, f"Report.reports[{index}].{name}: expected {expected}")


def _cluster_version(text: bytes) -> str | None:
    """Return the version in the last entry of `info` that has a usable one."""
    if text in _MISSING:
        return None
    if not text.startswith(b"["):
        raise InvalidMessage(Reason.BAD_REPORT, "Report.info: expected an array")
    try:
        plain = _PLAIN_INFO.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return _last_version(text)
    versions = [entry.details.version for entry in plain if entry.info_id == VERSION_INFO_ID]
    usable = [version for version in versions if _is_storable(version)]
    return usable[-1] if usable else None


def _last_version(text: bytes) -> str | None:
    """Do what `_cluster_version` does for an array with any entries."""
    version = None
    for entry in read_array(text):
        version = _version_of_entry(entry) or version
    return version


def _version_of_entry(entry: bytes) -> str | None:
    info = _object(_INFO, entry)
    if info is None or _string(info.info_id) != VERSION_INFO_ID:
        return None
    details = _object(_VERSION_INFO, info.details)
    version = None if details is None else _string(details.version)
    return version if version and _is_storable(version) else None


def _starts_with(value: msgspec.Raw, beginning: bytes) -> bool:
    return bytes(memoryview(value)[: len(beginning)]) == beginning


def _object(reader: ObjectReader[S], value: bytes | msgspec.Raw) -> S | None:
    """Return what is in a JSON value if it is an object."""
    text = bytes(value)
    return reader.read(text) if text.startswith(b"{") else None


def _string(value: msgspec.Raw) -> str | None:
    """Return what a JSON value says if it is a string."""
    text = bytes(value)
    return read_string(text) if text.startswith(b'"') else None


def _is_storable(text: str) -> bool:
    """Say whether a text is not empty and without what a database can't store."""
    return bool(text) and (("\0" not in text) if text.isascii() else not _NOT_STORABLE.search(text))
