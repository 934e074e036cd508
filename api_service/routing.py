"""Which path is whose: Falcon's router, taught what the contract wants (`docs/rest.md`, sections 1.1 and 1.3)."""

import re
from typing import Any, Protocol

import falcon
from falcon.routing import CompiledRouter

_PARAMETER = re.compile(r"\{(\w+)\}")


class Target(Protocol):
    """What stands behind a path: `path` is relative to the prefix, `method` the one that is offered, if any."""

    path: str
    method: str | None

    def respond(self, req: falcon.Request, resp: falcon.Response, **segments: str) -> None:
        """Answer a request with that method."""


class WritePath:
    """A path of `docs/rest.md`, section 5: it is known, and no method is offered on it."""

    method = None

    def __init__(self, path: str) -> None:
        self.path = path

    def respond(self, req: falcon.Request, resp: falcon.Response, **segments: str) -> None:
        """Never called: there is no method."""
        raise NotImplementedError


class Router(CompiledRouter):
    """Falcon's router, for paths whose parameters have the contract's names, and for methods that nobody knows.

    Falcon wants one name for all parameters at the same place in a path; here they are numbered for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._templates: dict[str | None, tuple[str, dict[str, str]]] = {}

    def add_route(self, uri_template: str, resource: object, **kwargs: Any) -> None:
        """Add a path; one slash at its end makes no difference."""
        names: dict[str, str] = {}
        segments = uri_template.rstrip("/").split("/")
        for place, segment in enumerate(segments):
            if parameter := _PARAMETER.fullmatch(segment):
                names[f"segment_{place}"] = parameter[1]
                segments[place] = f"{{segment_{place}}}"
        numbered = "/".join(segments) or "/"
        self._templates[numbered] = uri_template, names
        super().add_route(numbered, resource, **kwargs)

    def find(
        self, uri: str, req: falcon.Request | None = None
    ) -> tuple[object, dict[str, Any], dict[str, Any], str | None] | None:
        """Return resource, methods, parameters and template for a path, None if it is unknown."""
        found = super().find(uri, req)
        if found is None:
            return None
        resource, methods, segments, numbered = found
        template, names = self._templates[numbered]
        return resource, methods, {names[place]: value for place, value in segments.items()}, template

    def map_http_methods(self, resource: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the responder of each method that a target offers, and one for all that it does not."""
        return _Methods(resource)


class _Methods(dict[str, Any]):
    """Responders by method; any method that is not there is answered with 405."""

    def __init__(self, target: Target) -> None:
        self._allowed = sorted([target.method, "OPTIONS"]) if target.method else ["OPTIONS"]
        super().__init__({"OPTIONS": self._answer_options})
        if target.method:
            self[target.method] = target.respond

    def __missing__(self, method: str) -> Any:
        return self._refuse

    def _answer_options(self, req: falcon.Request, resp: falcon.Response, **segments: str) -> None:
        resp.set_header("Allow", ", ".join(self._allowed))

    def _refuse(self, req: falcon.Request, resp: falcon.Response, **segments: str) -> None:
        raise falcon.HTTPMethodNotAllowed(self._allowed)


class Request(falcon.Request):
    """A request whose method is never a word that Falcon keeps to itself."""

    def __init__(self, env: dict[str, Any], options: Any = None) -> None:
        super().__init__(env, options)
        if self.method == "WEBSOCKET":
            # Falcon would answer 400, on unknown paths too; servers refuse methods in lower case
            self.method = "websocket"
