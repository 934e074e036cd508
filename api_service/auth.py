"""Who asks: the identity that a proxy puts into the header `x-rh-identity` (`docs/rest.md`, section 3)."""

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import falcon

from api_service.errors import RefusedError, unauthorized
from api_service.json_values import NotJSONError, parse
from api_service.numbers import MAX_ORGANIZATION, natural_number

Authenticate = Callable[[falcon.Request], int | None]
"""Returns the organization of a request's identity, None if identities are not asked for; raises RefusedError."""

_HEADER = "x-rh-identity"
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_TEXT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "username", "email"),
    "service_account": ("client_id", "username"),
}


def authenticator(mode: Literal["none", "xrh"]) -> Authenticate:
    """Return what `api.auth` stands for."""
    return {"none": anybody, "xrh": organization_of_identity}[mode]


def anybody(req: falcon.Request) -> None:
    """Take every request; the header is not looked at."""


def organization_of_identity(req: falcon.Request) -> int:
    """Return the organization in the identity of a request; raises RefusedError (401) if there is none."""
    header = req.get_header(_HEADER)
    if not header:
        raise unauthorized("Missing auth token")
    organization = _organization(_decoded(header))
    if not organization:
        raise unauthorized("Missing organization in the identity")
    return organization


def _decoded(header: str) -> Any:
    # a header that was sent twice has a comma in it
    if len(header) % 4 or not _BASE64.fullmatch(header):
        raise _malformed()
    try:
        return parse(base64.b64decode(header))
    except NotJSONError:
        raise _malformed() from None


def _organization(token: Any) -> int | None:
    """Return the organization, None if there is none; raises RefusedError if any known field has a wrong type."""
    identity = _object(_object(token).get("identity"))
    for name in ("account_number", "type"):
        _text(identity.get(name))
    for name, fields in _TEXT_FIELDS.items():
        part = _object(identity.get(name))
        for field in fields:
            _text(part.get(field))
    org_id = _text(identity.get("org_id"))
    if org_id is None:
        return None
    number = natural_number(org_id)
    if number is None or number > MAX_ORGANIZATION:
        raise _malformed()
    return number


def _object(value: Any) -> dict[str, Any]:
    """Return an object; a missing one or `null` counts as empty."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _malformed()
    return value


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _malformed()
    return value


def _malformed() -> RefusedError:
    return unauthorized("Malformed authentication token")
