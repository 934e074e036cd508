"""What can go wrong with a request, and the answer to each (`docs/rest.md`, sections 1.2 and 1.8)."""

import json

import falcon
import structlog

from api_service.database import OutageError
from libaggregator.storage.faults import describe, is_want_of_right

JSON_CONTENT = "application/json; charset=utf-8"
TEXT_CONTENT = "text/plain; charset=utf-8"
RETRY_AFTER_SECONDS = 5

log = structlog.get_logger(__name__)


class RefusedError(Exception):
    """A request that is answered with `status` (an HTTP status of 400 or more) and `text`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def bad_request(text: str) -> RefusedError:
    """Return the refusal of a parameter or a body."""
    return RefusedError(400, text)


def unauthorized(text: str) -> RefusedError:
    """Return the refusal of a request without a usable identity."""
    return RefusedError(401, text)


def forbidden(text: str) -> RefusedError:
    """Return the refusal of an identity that may not see what it asks for."""
    return RefusedError(403, text)


def not_found(text: str) -> RefusedError:
    """Return the answer to a request for something that is not stored."""
    return RefusedError(404, text)


def item_not_found(*parts: object) -> RefusedError:
    """Return the 404 in the contract's form for the item whose id consists of `parts`."""
    return not_found(f"Item with ID {'/'.join(map(str, parts))} was not found in the storage")


def add_error_handlers(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Make an application answer every error as the contract says; the header `Accept` plays no part."""
    app.add_error_handler(Exception, _on_bug)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(falcon.HTTPRouteNotFound, _on_unknown_path)
    app.add_error_handler(RefusedError, _on_refusal)
    app.add_error_handler(OutageError, _on_outage)


def _on_refusal(req: falcon.Request, resp: falcon.Response, error: RefusedError, params: object) -> None:
    _answer(resp, error.status, error.text)


def _on_outage(req: falcon.Request, resp: falcon.Response, error: OutageError, params: object) -> None:
    # the outage itself is reported once, by the watch of the database
    log.debug("no answer from the database", problem=str(error))
    resp.set_header("Retry-After", str(RETRY_AFTER_SECONDS))
    _answer(resp, 503, "The database is not available, try again later")


def _on_bug(req: falcon.Request, resp: falcon.Response, error: Exception, params: object) -> None:
    if is_want_of_right(error):
        log.error("the database refuses a statement to the role of the API", problem=describe(error))
    else:
        log.error("a request failed for a fault of this program", exc_info=error)
    _answer(resp, 500, "Internal Server Error")


def _on_http_error(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: object) -> None:
    """Answer what Falcon itself refuses, of which 405 is the only case that is expected."""
    resp.set_headers(error.headers or {})
    _answer(resp, error.status_code, error.title or "")


def _on_unknown_path(
    req: falcon.Request, resp: falcon.Response, error: falcon.HTTPRouteNotFound, params: object
) -> None:
    resp.status = 404
    resp.content_type = TEXT_CONTENT
    resp.text = "no such path\n"


def _answer(resp: falcon.Response, status: int, text: str) -> None:
    resp.status = status
    resp.content_type = JSON_CONTENT
    # msgspec refuses lone surrogates, which the texts can quote from a body
    resp.data = json.dumps({"status": text}).encode()
