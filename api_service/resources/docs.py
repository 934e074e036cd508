"""The page that shows this API to people: Swagger UI of the package `offapi` (`docs/rest.md`, section 1.9)."""

import base64
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from api_service.endpoints import Access, Endpoint, Tag

_SCRIPT = "swagger_bundle.js"
_STYLE = "swagger_style.css"

# The page takes the address of the API from its own: `docs` and `docs/` answer alike, and a proxy can show the API
# under another prefix than the document names. The package's own page does neither, and it has a badge that asks a
# host of Swagger UI's makers whether the document is valid.
_START = b"""
const base = new URL(location.pathname.endsWith("/") ? ".." : ".", location.href).pathname;

function shown(spec) {
  for (const { get } of Object.values(spec.paths ?? {})) {
    if (get?.requestBody) get.requestBody.description = "Not sent from this page: browsers send no body with a GET.";
  }
  return { ...spec, servers: [{ url: base.slice(0, -1) || "/" }] };
}

SwaggerUIBundle({
  url: `${base}openapi.json`,
  dom_id: "#api",
  deepLinking: true,
  requestInterceptor: (request) => (request.method === "GET" ? { ...request, body: undefined } : request),
  plugins: [{ statePlugins: { spec: { wrapActions: { updateJsonSpec: (update) => (spec) => update(shown(spec)) } } } }],
});
"""

_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Insights results aggregator</title>
<link rel="icon" href="data:,">
<style>%(style)b</style>
</head>
<body>
<div id="api"></div>
<script>%(script)b</script>
<script>%(start)b</script>
</body>
</html>
"""


def find_swagger_ui() -> Path | None:
    """Return the folder with the files of Swagger UI, None if the extra `docs` is not installed."""
    # importing the package would read the pages of two other programs too: 40 MB of memory
    package = importlib.util.find_spec("offapi")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent
    return folder if (folder / _SCRIPT).is_file() and (folder / _STYLE).is_file() else None


class Docs:
    """The page, in one piece; `swagger_ui` is the folder with the files of Swagger UI."""

    def __init__(self, swagger_ui: Path) -> None:
        script = (swagger_ui / _SCRIPT).read_bytes()
        style = (swagger_ui / _STYLE).read_bytes()
        self._page = _PAGE % {b"style": style, b"script": script, b"start": _START}
        self.endpoint = Endpoint(
            "docs",
            "GET",
            "docs",
            "This API, for people to look at and to try",
            Tag.SERVICE,
            Access.OPEN,
            bytes,
            content_type="text/html; charset=utf-8",
            headers=_headers(scripts=[script, _START], style=style),
        )

    def respond(self) -> bytes:
        """Return the page."""
        return self._page


def _headers(scripts: list[bytes], style: bytes) -> Mapping[str, str]:
    """Return headers that let the page run these scripts and ask this API, and nothing else."""
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(map(_source, scripts)),
        "style-src": _source(style),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def _source(content: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
