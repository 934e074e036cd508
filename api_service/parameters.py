"""The parameters of requests: what each may be, and the answer if it is not (`docs/rest.md`, sections 2 and 6.2)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from api_service.errors import RefusedError, bad_request
from api_service.fields import (
    EXAMPLE_CLUSTER,
    EXAMPLE_COMPONENT,
    EXAMPLE_ERROR_KEY,
    EXAMPLE_ORGANIZATION,
    EXAMPLE_SELECTOR,
    EXAMPLE_USER,
)
from api_service.numbers import MAX_ORGANIZATION, MAX_UINT32, natural_number
from libaggregator.identifiers import InvalidClusterID, parse_cluster_id

# White_Space of Unicode; `str.strip()` alone would cut off four control characters more
_WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
_WHITE_SPACE += "\u2028\u2029\u202f\u205f\u3000"
_RULE_ID = re.compile("[a-zA-Z_0-9.]+")
_RULE_SELECTOR = re.compile(r"[a-zA-Z_0-9]+\.[a-zA-Z_0-9.]+\|[a-zA-Z_0-9]+")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a path or a query: its name there, how its text becomes a value, and what is documented of it.

    `parse` takes the decoded text and raises RefusedError (400). `schema` is a JSON Schema that holds for exactly
    the texts that `parse` takes, and for `example`. The resource gets the value as `keyword`.
    """

    name: str
    parse: Callable[[str], Any]
    description: str
    schema: Mapping[str, Any]
    example: object
    keyword: str = ""

    @property
    def argument(self) -> str:
        """The name under which a resource gets the value."""
        return self.keyword or self.name


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a cluster's report: the component as given, and the error key."""

    component: str
    error_key: str


@dataclass(frozen=True, slots=True)
class GivenCluster:
    """A cluster id of a request: as it was written, and in canonical form."""

    written: str
    canonical: str


def parse_clusters(elements: list[str]) -> list[str]:
    """Return cluster ids in canonical form, in their order; raises RefusedError for the first that is none."""
    clusters = []
    for element in elements:
        try:
            clusters.append(parse_cluster_id(element))
        except InvalidClusterID as reason:
            raise bad_request(f"invalid cluster ID: '{element}'. Error: {reason}") from None
    return clusters


def _uint32(name: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = natural_number(text)
        if number is None:
            raise _broken(name, text, "unsigned integer expected")
        if number == 0:
            raise _broken(name, text, "positive value expected")
        if number > MAX_UINT32:
            raise bad_request(f"value {number} out of range for uint32")
        return number

    return parse


def _cluster(text: str) -> str:
    return _cluster_id("cluster", text)


def _after(text: str) -> GivenCluster:
    return GivenCluster(text, _cluster_id("after", text))


def _cluster_id(name: str, text: str) -> str:
    try:
        return parse_cluster_id(text)
    except InvalidClusterID as reason:
        raise _broken(name, text, str(reason)) from None


def _user(text: str) -> str:
    user = text.strip(_WHITE_SPACE)
    if not user:
        raise bad_request("Missing required param from request: user_id")
    return user


def _rule_id(text: str) -> str:
    if not _RULE_ID.fullmatch(text):
        reason = "invalid rule ID, it must contain only from latin characters, number, underscores or dots"
        raise _broken("rule_id", text, reason)
    return text


def _rule_with_key(text: str) -> Rule:
    parts = text.split("|")
    if len(parts) != 2:  # noqa: PLR2004 - a component and an error key
        reason = "invalid rule ID, it must contain only rule ID and error key separated by |"
        raise _broken_rule(text, reason)
    if not all(_RULE_ID.fullmatch(part) for part in parts):
        reason = "invalid rule ID, each part of ID must contain only latin characters, numbers, underscores or dots"
        raise _broken_rule(text, reason)
    return Rule(*parts)


def _rule_selector(text: str) -> str:
    if not _RULE_SELECTOR.fullmatch(text):
        reason = "Param rule_selector is not a valid rule selector (plugin_name|error_key)"
        raise _broken("rule_selector", text, reason)
    return text


def _broken(name: str, text: str, reason: str) -> RefusedError:
    return bad_request(f"Error during parsing param '{name}' with value '{text}'. Error: '{reason}'")


def _broken_rule(text: str, reason: str) -> RefusedError:
    nested = f"Error during validating param 'rule' with value '{text}'. Error: '{reason}'"
    return _broken("rule_id", text, nested)


# JSON Schemas say the same as the parsers above, in the regular expressions that Python and ECMA-262 share. A segment
# of a path is never empty and has no slash, however it is encoded (`docs/rest.md`, section 1.1).
_UUID = "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_ANY_UUID = rf"^({_UUID}|[0-9A-Fa-f]{{32}}|\{{{_UUID}\}}|[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:{_UUID})$"
_NOT_BLANK = r"^[^/]*[^/\u0009-\u000d\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^/]*$"
CLUSTER_SCHEMA: Mapping[str, Any] = {"type": "string", "pattern": _ANY_UUID}
ANY_TEXT_SCHEMA: Mapping[str, Any] = {"type": "string", "pattern": "^[^/]+$"}
_ORGANIZATION_SCHEMA: Mapping[str, Any] = {"type": "integer", "minimum": 1, "maximum": MAX_ORGANIZATION}

ORG_ID = Parameter(
    "org_id",
    _uint32("org_id"),
    "The organization that the answer is about",
    _ORGANIZATION_SCHEMA,
    EXAMPLE_ORGANIZATION,
)
ORGANIZATION = replace(ORG_ID, name="organization", parse=_uint32("organization"), keyword="org_id")
CLUSTER = Parameter(
    "cluster",
    _cluster,
    "The cluster: a UUID in any case, with or without dashes, in braces, or after `urn:uuid:`",
    CLUSTER_SCHEMA,
    EXAMPLE_CLUSTER,
)
CLUSTER_LIST = Parameter(
    "cluster_list",
    lambda text: parse_clusters(text.split(",")),
    "The clusters, separated by commas, in any of the forms of a UUID",
    {"type": "array", "items": CLUSTER_SCHEMA, "minItems": 1},
    [EXAMPLE_CLUSTER],
    keyword="clusters",
)
USER_ID = Parameter(
    "user_id",
    _user,
    "The user: any text that is not blank; white space around it does not count",
    {"type": "string", "pattern": _NOT_BLANK},
    EXAMPLE_USER,
)
RULE_ID = Parameter(
    "rule_id",
    _rule_id,
    "The component of the rule as it was stored, so usually with `.report`",
    {"type": "string", "pattern": f"^{_RULE_ID.pattern}$"},
    EXAMPLE_COMPONENT,
)
RULE_WITH_KEY = Parameter(
    "rule_id",
    _rule_with_key,
    "The rule: its component as it was stored, so usually with `.report`, then `|` and its error key",
    {"type": "string", "pattern": rf"^{_RULE_ID.pattern}\|{_RULE_ID.pattern}$"},
    f"{EXAMPLE_COMPONENT}|{EXAMPLE_ERROR_KEY}",
    keyword="rule",
)
ERROR_KEY = Parameter("error_key", str, "The error key of the rule, any text", ANY_TEXT_SCHEMA, EXAMPLE_ERROR_KEY)
RULE_SELECTOR = Parameter(
    "rule_selector",
    _rule_selector,
    "The rule: its component without `.report`, then `|` and its error key",
    {"type": "string", "pattern": f"^{_RULE_SELECTOR.pattern}$"},
    EXAMPLE_SELECTOR,
)
LIMIT = Parameter(
    "limit",
    _uint32("limit"),
    "How many clusters the answer has at most; without it, all",
    {"type": "integer", "minimum": 1, "maximum": MAX_UINT32},
    "100",
)
AFTER = Parameter(
    "after",
    _after,
    "The last cluster of the page before; without it, the list begins with its first one",
    CLUSTER_SCHEMA,
    EXAMPLE_CLUSTER,
)
