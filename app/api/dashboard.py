"""The dashboard: one HTML page with its scripts and styles, which asks the public API like anybody's client.

The files are our own, in `assets/`, and are kept in memory. No script and no style runs but these, whatever a payload or a
result holds.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from app.api.access import public
from app.api.body import header
from app.api.routes import DirectRoute

router = APIRouter()

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",
}
_NUMBER = re.compile(r"[01](\.[0-9]{0,3})?")


def wants_page(request: Request) -> bool:
    """Whether the client asks for HTML by name, and not rather for JSON: browsers do, curl and HTTP libraries do not."""
    accepted = (header(request, b"accept") or b"").decode("latin-1").lower()
    page = _quality(accepted, "text/html")
    return page > 0 and page >= _quality(accepted, "application/json")


def _quality(accepted: str, kind: str) -> float:
    """How much a client likes a media type that it names; 0 where it does not name it."""
    for part in accepted.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name == kind:
            given = next((one[2:] for one in parameters if one.startswith("q=")), "1")
            return float(given) if _NUMBER.fullmatch(given) else 0.0
    return 0.0


def page(request: Request) -> Response:
    """The page itself."""
    return _answer(request, "index.html", {"Vary": "Accept"})


def _answer(request: Request, name: str, more: dict[str, str]) -> Response:
    content, tag = ASSETS[name]
    headers = HEADERS | more | {"ETag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=TYPES[name.rsplit(".", 1)[1]])


def _asset(name: str) -> Callable[[Request], Awaitable[Response]]:
    @public
    async def read_asset(request: Request) -> Response:
        return _answer(request, name, {})

    return read_asset


def _tagged(content: bytes) -> tuple[bytes, str]:
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


ASSETS = {file.name: _tagged(file.read_bytes()) for file in (files("app.api") / "assets").iterdir()}
"""The bytes of each file, and their entity tag."""
# A path for each, not one with a parameter: whoever guards the door can tell by the path alone what is no secret.
router.routes.extend(DirectRoute(f"/dashboard/{name}", _asset(name), include_in_schema=False) for name in ASSETS)
