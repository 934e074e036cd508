"""Answers that are not sent again to a client that has them (`docs/rest.md`, section 6.1; RFC 9110, section 13)."""

import hashlib

import falcon

CACHE_CONTROL = "private, no-cache"
"""A client may keep an answer for itself, and asks each time whether it still holds."""

_DIGEST_BYTES = 16


def send_unless_known(req: falcon.Request, resp: falcon.Response, body: bytes, content_type: str) -> None:
    """Answer 200 with `body`, or 304 without it if `If-None-Match` of the request says that the client has it."""
    tag = falcon.ETag(hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest())
    resp.set_header("ETag", tag.dumps())
    resp.set_header("Cache-Control", CACHE_CONTROL)
    if _is_known(req, tag):
        resp.status = falcon.HTTP_304
    else:
        resp.content_type = content_type
        resp.data = body


def _is_known(req: falcon.Request, tag: falcon.ETag) -> bool:
    # `*` stands for every tag, and is none itself: `"*"` would be
    return any(given == tag or not isinstance(given, falcon.ETag) for given in req.if_none_match or ())
