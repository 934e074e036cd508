"""The OpenAPI document, made from the endpoints that are served and the structs that they answer with."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from api_service.endpoints import Access, Endpoint, Tag
from api_service.errors import JSON_CONTENT, RETRY_AFTER_SECONDS
from api_service.fields import EXAMPLE_CLUSTER, EXAMPLE_ORGANIZATION
from api_service.parameters import ANY_TEXT_SCHEMA, LIMIT, Parameter
from api_service.revalidation import CACHE_CONTROL

_PARAMETER = re.compile(r"\{(\w+)\}")
_IDENTITY = "identity"
_KEPT_HEADERS: Mapping[str, Any] = {
    "ETag": {"description": "A hash of the body, for `If-None-Match`", "required": True, "schema": {"type": "string"}},
    "Cache-Control": {
        "description": "Keep the answer to yourself, and ask each time whether it still holds",
        "required": True,
        "schema": {"const": CACHE_CONTROL},
    },
}
_LINK = {
    "description": 'Where the next page is, `rel="next"`, if there is one',
    "required": False,
    "schema": {"type": "string"},
}

_INTRODUCTION = """\
The newest results of the rule engine for clusters of a container platform, and what users said about them.

- A *cluster* belongs to an *organization* and has one *report*: the rules that hit it, each with its *details*.
- A *rule* is a component (`rule_id`), usually stored with `.report` at its end, and an error key. A *rule selector* is
  both in one text, without `.report`: `component|ERROR_KEY`.
- Every answer is JSON with a `status`: `ok`, or what went wrong. `metrics` and this document alone are different.
- Times are UTC. Lists whose order is not described have none to rely on.
- A slash in a parameter separates segments of the path, however it is encoded. The headers `Accept` and `Content-Type`
  of a request play no part.
- A method that is not listed is 405, but OPTIONS, which tells the offered one; so is every method of a path on which
  another component writes. Any other path is 404.
- A request that is broken or too large for the HTTP server is refused by it: 400, 413, 414 or 431, with any body.
"""
_IDENTITY_DESCRIPTION = """\
Who asks, as the proxy in front of this API says: the base64 (standard alphabet, with padding) of a JSON text like
`{"identity": {"org_id": "1", "user": {"user_id": "11"}, "type": "User"}}`. Only `org_id` is used.
"""
_REQUEST_ID = {
    "description": "The id of the request in the log: that of its own header `X-Request-Id`, else a new one",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}
_RETRY_AFTER = {
    "description": "After how many seconds to try again",
    "required": True,
    "schema": {"type": "integer", "const": RETRY_AFTER_SECONDS},
}


@dataclass(frozen=True)
class _Error:
    """An error that endpoints answer with: its name among the components, what it means, and a text as an example."""

    name: str
    description: str
    example: str


_ERRORS = {
    "400": _Error(
        "BadRequest",
        "A parameter or the body is not what it must be",
        "Error during parsing param 'org_id' with value 'x'. Error: 'unsigned integer expected'",
    ),
    "401": _Error("Unauthorized", "The identity is missing or malformed", "Missing auth token"),
    "403": _Error(
        "Forbidden",
        "The identity is of another organization",
        "you have no permissions to get or change info about the organization with ID 2;"
        " you can access info about organization with ID 1",
    ),
    "404": _Error(
        "NotFound",
        "There is no such item",
        f"Item with ID {EXAMPLE_ORGANIZATION}/{EXAMPLE_CLUSTER} was not found in the storage",
    ),
    "500": _Error("InternalServerError", "A fault of this program", "Internal Server Error"),
    "503": _Error(
        "ServiceUnavailable",
        "The database is not available",
        "The database is not available, try again later",
    ),
}


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What every error is answered with."""

    status: Annotated[str, msgspec.Meta(description="What went wrong")]


def document(endpoints: Sequence[Endpoint], prefix: str, version: str, with_identity: bool) -> bytes:
    """Return the document as JSON.

    `prefix` is the path that all endpoints are under, `version` that of the program, `with_identity` whether
    requests need one.
    """
    statuses = {status for endpoint in endpoints for status in _statuses(endpoint, with_identity)}
    components: dict[str, Any] = {
        "schemas": _schemas(endpoints),
        "headers": {"X-Request-Id": _REQUEST_ID},
        "responses": {error.name: _error(status) for status, error in _ERRORS.items() if status in statuses},
    }
    if with_identity:
        components["securitySchemes"] = {
            _IDENTITY: {"type": "apiKey", "in": "header", "name": "x-rh-identity", "description": _IDENTITY_DESCRIPTION}
        }
    tags = {endpoint.tag for endpoint in endpoints}
    content = {
        "openapi": "3.1.0",
        "info": {
            "title": "Insights results aggregator",
            "summary": "Newest results of the rule engine, by organization and cluster",
            "description": _INTRODUCTION,
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": prefix.rstrip("/") or "/"}],
        "tags": [{"name": _name(tag), "description": tag.value} for tag in Tag if tag in tags],
        "paths": {f"/{e.path}": {e.method.lower(): _operation(e, with_identity)} for e in endpoints},
        "components": components,
    }
    return msgspec.json.encode(content)


def _operation(endpoint: Endpoint, with_identity: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [_name(endpoint.tag)],
        "parameters": _parameters(endpoint),
        "responses": _responses(endpoint, with_identity),
    }
    if endpoint.body:
        operation["requestBody"] = {
            "description": endpoint.body.description,
            "required": endpoint.body.required,
            "content": {"application/json": {"schema": endpoint.body.schema, "example": endpoint.body.example}},
        }
    if with_identity and endpoint.access is not Access.OPEN:
        operation["security"] = [{_IDENTITY: []}]
    return operation


def _name(tag: Tag) -> str:
    return tag.name.lower()


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    checked = {parameter.name: parameter for parameter in endpoint.parameters}
    in_path = [_parameter(checked.get(name) or _unchecked(name)) for name in _PARAMETER.findall(endpoint.path)]
    return in_path + [_parameter_of_query(parameter) for parameter in endpoint.query]


def _unchecked(name: str) -> Parameter:
    return Parameter(name, str, "Any text, it plays no part", ANY_TEXT_SCHEMA, "any")


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "path",
        "required": True,
        "description": parameter.description,
        "schema": parameter.schema,
        "example": parameter.example,
    }


def _parameter_of_query(parameter: Parameter) -> dict[str, Any]:
    # pages that show the document fill examples in, so that nobody could leave the parameter out
    without_example = {key: value for key, value in _parameter(parameter).items() if key != "example"}
    return {**without_example, "in": "query", "required": False}


def _responses(endpoint: Endpoint, with_identity: bool) -> dict[str, Any]:
    errors = {
        status: {"$ref": f"#/components/responses/{_ERRORS[status].name}"}
        for status in _statuses(endpoint, with_identity)
    }
    success = _success(endpoint)
    if not endpoint.can_be_kept:
        return {"200": success, **errors}
    success["headers"] |= {**_KEPT_HEADERS, "Link": _LINK} if LIMIT in endpoint.query else _KEPT_HEADERS
    not_modified = {"description": "What `If-None-Match` names still holds", "headers": success["headers"]}
    return {"200": success, "304": not_modified, **errors}


def _statuses(endpoint: Endpoint, with_identity: bool) -> list[str]:
    """Return the errors that an endpoint can answer with, in ascending order."""
    asks_database = endpoint.access in {Access.OWN_ORGANIZATION, Access.ORGANIZATION_OF_PATH}
    possible = {
        "400": bool(endpoint.parameters or endpoint.body),
        "401": with_identity and endpoint.access is not Access.OPEN,
        "403": with_identity and endpoint.access is Access.ORGANIZATION_OF_PATH,
        "404": endpoint.misses,
        "500": True,
        "503": asks_database,
    }
    return [status for status, can_occur in possible.items() if can_occur]


def _success(endpoint: Endpoint) -> dict[str, Any]:
    if issubclass(endpoint.answer, msgspec.Struct):
        return _response(inspect.getdoc(endpoint.answer) or "", endpoint.content_type, _reference(endpoint.answer))
    is_json = endpoint.content_type == "application/json"
    return _response(endpoint.summary, endpoint.content_type, {"type": "object" if is_json else "string"})


def _error(status: str) -> dict[str, Any]:
    error = _ERRORS[status]
    example = {"example": {"status": error.example}}
    response = _response(error.description, JSON_CONTENT, _reference(ErrorAnswer), example)
    if status == "503":
        response["headers"]["Retry-After"] = _RETRY_AFTER
    return response


def _response(
    description: str, content_type: str, schema: Mapping[str, Any], example: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    media_type = content_type.partition(";")[0]
    return {
        "description": description,
        "headers": {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}},
        "content": {media_type: {"schema": schema, **(example or {})}},
    }


def _schemas(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the JSON Schemas of all structs in answers, by their names."""
    structs: set[type[msgspec.Struct]] = {ErrorAnswer}
    structs.update(endpoint.answer for endpoint in endpoints if issubclass(endpoint.answer, msgspec.Struct))
    answers = sorted(structs, key=lambda struct: struct.__name__)
    _, schemas = msgspec.json.schema_components(answers, ref_template="#/components/schemas/{name}")
    return {name: _as_answered(schema) for name, schema in schemas.items()}


def _as_answered(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a struct as it is written.

    msgspec describes what it would read, where a field with a default can be missing. Nobody sets such a field here,
    and it is always written, so it is a constant.
    """
    properties = {name: _constant(field) for name, field in schema["properties"].items()}
    required = [name for name, field in properties.items() if "const" in field or name in schema["required"]]
    return {**schema, "properties": properties, "required": required}


def _constant(field: dict[str, Any]) -> dict[str, Any]:
    return {"const" if key == "default" else key: value for key, value in field.items()}


def _reference(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}
