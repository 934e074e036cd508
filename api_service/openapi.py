"""The OpenAPI document, made from the endpoints that are served and the structs that they answer with."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from api_service.endpoints import Access, Endpoint
from api_service.errors import JSON_CONTENT
from api_service.parameters import LIMIT, Parameter
from api_service.revalidation import CACHE_CONTROL

_PARAMETER = re.compile(r"\{(\w+)\}")
_IDENTITY = "identity"
_KEPT_HEADERS: Mapping[str, Any] = {
    "ETag": {"description": "A hash of the body, for `If-None-Match`", "schema": {"type": "string"}},
    "Cache-Control": {"schema": {"const": CACHE_CONTROL}},
}
_LINK = {"description": 'Where the next page is, `rel="next"`, if there is one', "schema": {"type": "string"}}


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What every error is answered with."""

    status: str


def document(endpoints: Sequence[Endpoint], prefix: str, version: str, with_identity: bool) -> bytes:
    """Return the document as JSON.

    `prefix` is the path that all endpoints are under, `version` that of the program, `with_identity` whether
    requests need one.
    """
    structs = {e.answer for e in endpoints if issubclass(e.answer, msgspec.Struct)}
    answers = sorted(structs, key=lambda struct: struct.__name__)
    _, schemas = msgspec.json.schema_components([*answers, ErrorAnswer], ref_template="#/components/schemas/{name}")
    components: dict[str, Any] = {"schemas": schemas}
    if with_identity:
        components["securitySchemes"] = {
            _IDENTITY: {"type": "apiKey", "in": "header", "name": "x-rh-identity", "description": "base64 of JSON"}
        }
    content = {
        "openapi": "3.1.0",
        "info": {
            "title": "Insights results aggregator",
            "description": "Newest results of the rule engine, by organization and cluster",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": prefix.rstrip("/") or "/"}],
        "paths": {f"/{e.path}": {e.method.lower(): _operation(e, with_identity)} for e in endpoints},
        "components": components,
    }
    return msgspec.json.encode(content)


def _operation(endpoint: Endpoint, with_identity: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": _parameters(endpoint),
        "responses": _responses(endpoint, with_identity),
    }
    if endpoint.body:
        operation["requestBody"] = {
            "required": endpoint.body.required,
            "content": {"application/json": {"schema": endpoint.body.schema}},
        }
    if with_identity and endpoint.access is not Access.OPEN:
        operation["security"] = [{_IDENTITY: []}]
    return operation


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    checked = {parameter.name: parameter for parameter in endpoint.parameters}
    names = _PARAMETER.findall(endpoint.path)
    in_path = [_parameter(checked.get(name) or Parameter(name, str, "any text, not checked")) for name in names]
    return in_path + [{**_parameter(parameter), "in": "query", "required": False} for parameter in endpoint.query]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "path",
        "required": True,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _responses(endpoint: Endpoint, with_identity: bool) -> dict[str, Any]:
    errors = {"405": "The method is not offered", "500": "A fault of this program"}
    if endpoint.parameters or endpoint.body:
        errors["400"] = "A parameter or the body is not what it must be"
    if endpoint.misses:
        errors["404"] = "There is no such item"
    if endpoint.answer is not bytes:
        errors["503"] = "The database is not available"
    if with_identity and endpoint.access is not Access.OPEN:
        errors["401"] = "The identity is missing or malformed"
    if with_identity and endpoint.access is Access.ORGANIZATION_OF_PATH:
        errors["403"] = "The identity is of another organization"
    responses = {status: _response(text, JSON_CONTENT, _reference(ErrorAnswer)) for status, text in errors.items()}
    success = _response("The answer", endpoint.content_type, _schema(endpoint.answer))
    if endpoint.can_be_kept:
        headers = {**_KEPT_HEADERS, "Link": _LINK} if LIMIT in endpoint.query else _KEPT_HEADERS
        success["headers"] = headers
        responses["304"] = {"description": "What `If-None-Match` names still holds", "headers": headers}
    return {"200": success, **dict(sorted(responses.items()))}


def _response(description: str, content_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    media_type = content_type.partition(";")[0]
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _schema(answer: type) -> dict[str, Any]:
    return _reference(answer) if issubclass(answer, msgspec.Struct) else {}


def _reference(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}
