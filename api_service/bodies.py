"""The bodies of requests: lists of cluster ids in one of two forms (`docs/rest.md`, section 2.10)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import falcon

from api_service.errors import bad_request
from api_service.fields import EXAMPLE_CLUSTER
from api_service.json_values import NotJSONError, parse
from api_service.parameters import CLUSTER_SCHEMA, parse_clusters
from libaggregator.identifiers import InvalidClusterID, parse_cluster_id


@dataclass(frozen=True)
class Body:
    """A kind of body: how its bytes become a list of cluster ids, and what the OpenAPI document says of it.

    `parse` raises RefusedError (400). `required` is whether it must be there. `schema` is a JSON Schema that holds for
    exactly the JSON values that `parse` takes, and for `example`.
    """

    parse: Callable[[bytes], list[str]]
    required: bool
    description: str
    schema: Mapping[str, Any]
    example: object

    def read(self, req: falcon.Request) -> list[str]:
        """Return the cluster ids in the body of a request; its header `Content-Type` plays no part."""
        content = _content(req)
        if content:
            return self.parse(content)
        if self.required:
            raise bad_request("client didn't provide request body")
        return []


def _content(req: falcon.Request) -> bytes:
    # a chunked body has no length, where the server did not put it together
    stream = req.stream if req.get_header("Transfer-Encoding") else req.bounded_stream
    content: bytes = stream.read()
    return content


def _parse_array(content: bytes) -> list[str]:
    return _normalised(_texts(_value(content)))


def _parse_object(content: bytes) -> list[str]:
    return parse_clusters(_clusters_of(_value(content)))


def _parse_filter(content: bytes) -> list[str]:
    return _normalised(_clusters_of(_value(content)))


def _value(content: bytes) -> Any:
    try:
        return parse(content)
    except NotJSONError as error:
        raise bad_request(str(error)) from None


def _clusters_of(value: Any) -> list[str]:
    if not isinstance(value, dict):
        raise bad_request("bad type in json data")
    clusters = value.get("clusters")
    return [] if clusters is None else _texts(clusters)


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(element, str) for element in value):
        raise bad_request("bad type in json data")
    return value


def _normalised(ids: list[str]) -> list[str]:
    """Return ids in the form that is stored; a text that is no id stays, and matches nothing."""
    return [_normalise(text) for text in ids]


def _normalise(text: str) -> str:
    try:
        return parse_cluster_id(text)
    except InvalidClusterID:
        return text


def _object_of(ids: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "object", "properties": {"clusters": {"anyOf": [ids, {"type": "null"}]}}}


_TEXTS_SCHEMA: Mapping[str, Any] = {"type": "array", "items": {"type": "string"}}
_IDS_SCHEMA: Mapping[str, Any] = {"type": "array", "items": CLUSTER_SCHEMA}

CLUSTER_ARRAY = Body(
    _parse_array,
    required=True,
    description="Ids of clusters; one that is no UUID or unknown matches nothing",
    schema=_TEXTS_SCHEMA,
    example=[EXAMPLE_CLUSTER],
)
CLUSTER_OBJECT = Body(
    _parse_object,
    required=True,
    description="Ids of clusters, UUIDs in any form; without `clusters` the list is empty, other keys are ignored",
    schema=_object_of(_IDS_SCHEMA),
    example={"clusters": [EXAMPLE_CLUSTER]},
)
CLUSTER_FILTER = Body(
    _parse_filter,
    required=False,
    description="The clusters that the answer may have; all if there is no body (browsers send none) or an empty list",
    schema=_object_of(_TEXTS_SCHEMA),
    example={"clusters": [EXAMPLE_CLUSTER]},
)
