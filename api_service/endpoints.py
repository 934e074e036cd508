"""What an endpoint is: what it takes, whom it answers, and in which order a request is checked."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import falcon
import msgspec

from api_service.auth import Authenticate
from api_service.bodies import Body
from api_service.errors import JSON_CONTENT, forbidden
from api_service.paging import PagedAnswer
from api_service.parameters import Parameter
from api_service.revalidation import send_unless_known


class Access(enum.Enum):
    """Who gets an answer where requests need an identity (`docs/rest.md`, section 3)."""

    OPEN = "everybody, also without an identity"
    ANY_IDENTITY = "every identity: nothing of an organization is shown"
    OWN_ORGANIZATION = "every identity: the resource gets its organization as `own_org_id` and shows nothing else"
    ORGANIZATION_OF_PATH = "an identity of the organization in the path"


class Tag(enum.Enum):
    """The noun under which the OpenAPI document lists an endpoint, and what it tells of it."""

    SERVICE = "The service itself"
    ORGANIZATIONS = "Organizations and their clusters"
    REPORTS = "What the rule engine found out about clusters, as a user sees it"
    RECOMMENDATIONS = "Which rules hit which clusters"
    TOGGLES = "Rules that were switched off for single clusters, and why"
    ACKNOWLEDGEMENTS = "Rules that were switched off for a whole organization"
    OPINIONS = "Votes of users and ratings of organizations"


@dataclass(frozen=True)
class Endpoint:
    """One path of `docs/rest.md`, section 4, relative to the prefix, and what is known before it is asked.

    `parameters` are in the order of their validation; a parameter of the path that is not in it is not checked.
    `query` are those that can be in the query string; all other ones there are ignored.
    `answer` is a struct, or bytes with a content type of their own. `misses` is whether it can answer 404,
    `volatile` whether hardly any answer is like the one before, so that keeping one is of no use. `headers` are those
    of its answer, besides the ones that every answer has.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    summary: str
    tag: Tag
    access: Access
    answer: type[msgspec.Struct] | type[bytes]
    parameters: Sequence[Parameter] = ()
    query: Sequence[Parameter] = ()
    body: Body | None = None
    misses: bool = False
    content_type: str = JSON_CONTENT
    headers: Mapping[str, str] = field(default_factory=dict)
    volatile: bool = False

    @property
    def can_be_kept(self) -> bool:
        """Whether clients may keep an answer and ask if it still holds."""
        return self.method == "GET" and not self.volatile


class Resource(Protocol):
    """Answers one endpoint."""

    @property
    def endpoint(self) -> Endpoint:
        """What it answers."""

    @property
    def respond(self) -> Callable[..., msgspec.Struct | PagedAnswer | bytes]:
        """Return the answer; takes the endpoint's parameters by name, and `clusters` from its body.

        A parameter of the query that a request does not have is left out.
        Raises RefusedError and OutageError.
        """


class ServedResource:
    """A resource as Falcon calls it: the checks of `docs/rest.md`, section 1.4, stand here, in their order."""

    def __init__(self, resource: Resource, authenticate: Authenticate) -> None:
        self._resource = resource
        self._authenticate = authenticate
        self.path = resource.endpoint.path
        self.method = resource.endpoint.method

    def respond(self, req: falcon.Request, resp: falcon.Response, **segments: str) -> None:
        """Answer a request; `segments` are the parameters of the path as they came, decoded."""
        endpoint = self._resource.endpoint
        own_org_id = None if endpoint.access is Access.OPEN else self._authenticate(req)
        req.context.org_id = own_org_id
        values: dict[str, Any] = {p.argument: p.parse(segments[p.name]) for p in endpoint.parameters}
        values |= {p.argument: p.parse(text) for p in endpoint.query if (text := _in_query(req, p.name)) is not None}
        if endpoint.access is Access.ORGANIZATION_OF_PATH:
            req.context.org_id = values["org_id"]
            _require_same(values["org_id"], own_org_id)
        if endpoint.access is Access.OWN_ORGANIZATION:
            values["own_org_id"] = own_org_id
        if endpoint.body:
            values["clusters"] = endpoint.body.read(req)
        answer = self._resource.respond(**values)
        if isinstance(answer, PagedAnswer):
            if link := answer.link(req.path):
                resp.set_header("Link", link)
            answer = answer.answer
        resp.set_headers(endpoint.headers)
        body = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        if endpoint.can_be_kept:
            send_unless_known(req, resp, body, endpoint.content_type)
        else:
            resp.content_type = endpoint.content_type
            resp.data = body


def _in_query(req: falcon.Request, name: str) -> str | None:
    """Return a parameter of the query string, None if it is not there; of one given twice the last one counts.

    Falcon's `get_param` leaves open which one it returns.
    """
    value = req.params.get(name)
    return value[-1] if isinstance(value, list) else value


def _require_same(org_id: int, own_org_id: int | None) -> None:
    if own_org_id not in (None, org_id):
        raise forbidden(
            f"you have no permissions to get or change info about the organization with ID {org_id};"
            f" you can access info about organization with ID {own_org_id}"
        )
