"""The OpenAPI document as a judge: which operation a request is for, and whether an answer is what it describes."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jsonschema import Draft202012Validator

_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Operation:
    """One method of one path; `path` begins with a slash, `description` is what the document says."""

    method: str
    path: str
    description: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What makes it one of a kind."""
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[Mapping[str, Any]]:
        """Its parameters in the path."""
        return [parameter for parameter in self.description["parameters"] if parameter["in"] == "path"]

    @property
    def statuses(self) -> set[int]:
        """The statuses that it can answer with."""
        return {int(status) for status in self.description["responses"]}

    @property
    def example(self) -> str:
        """The path of a request with the examples of all parameters, relative to the prefix."""
        return self.filled({parameter["name"]: parameter["example"] for parameter in self.parameters})

    @property
    def example_body(self) -> bytes:
        """The example of its body; empty if it takes none."""
        body = self.description.get("requestBody")
        return json.dumps(body["content"]["application/json"]["example"]).encode() if body else b""

    def filled(self, values: Mapping[str, Any]) -> str:
        """Return the path with these values, relative to the prefix."""
        return _PARAMETER.sub(lambda name: _segment(values[name[1]]), self.path).removeprefix("/")

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is for it; `path` is relative to the prefix and may end in a slash."""
        pattern = _PARAMETER.sub("[^/]+", re.escape(self.path.strip("/")).replace(r"\{", "{").replace(r"\}", "}"))
        return method == self.method and re.fullmatch(f"{pattern}/?", path) is not None


class Document:
    """An OpenAPI document."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self._components = _closed(content["components"])

    def operations(self) -> Iterator[Operation]:
        """Yield all that is described."""
        for path, item in self.content["paths"].items():
            for method, description in item.items():
                yield Operation(method.upper(), path, description)

    def operation_of(self, method: str, path: str) -> Operation | None:
        """Return the operation that a request is for, the one with the fewest parameters if several match."""
        found = [operation for operation in self.operations() if operation.matches(method, path)]
        return min(found, key=lambda operation: len(operation.parameters), default=None)

    def problems(self, operation: Operation, status: int, headers: Mapping[str, str], body: bytes) -> list[str]:
        """Say in what an answer is not as described: status, headers, content type, and body.

        A field that is not described is a problem too.
        """
        if status not in operation.statuses:
            return [f"status {status} is not described"]
        response = self._resolved(operation.description["responses"][str(status)])
        found = [
            f"header {name} is missing"
            for name, header in response["headers"].items()
            if self._resolved(header)["required"] and name not in headers
        ]
        if "content" not in response:
            return [*found, "a body is not described"] if body else found
        content_type = headers["Content-Type"].partition(";")[0]
        if content_type not in response["content"]:
            return [*found, f"content type {content_type} is not described"]
        value = json.loads(body) if content_type == "application/json" else body.decode()
        schema = {**_closed(response["content"][content_type]["schema"]), "components": self._components}
        return [*found, *(error.message for error in Draft202012Validator(schema).iter_errors(value))]

    def _resolved(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        reference = part.get("$ref")
        if reference is None:
            return part
        found = self.content
        for key in reference.removeprefix("#/").split("/"):
            found = found[key]
        return found


def _segment(value: Any) -> str:
    return ",".join(map(_segment, value)) if isinstance(value, list) else quote(str(value), safe="")


def _closed(part: Any) -> Any:
    """Return a part of a document in which objects have no other properties than the described ones."""
    if isinstance(part, list):
        return [_closed(element) for element in part]
    if not isinstance(part, dict):
        return part
    closed = {key: _closed(value) for key, value in part.items()}
    return (
        {"additionalProperties": False, **closed} if "properties" in part and part.get("type") == "object" else closed
    )
