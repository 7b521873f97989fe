"""The headers that every answer has, so that a browser does nothing with it but what it is for."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.origin import Origins

LINES = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""What an answer has that says nothing else by itself: it is data, for whoever asked and nobody else."""
NAMES = frozenset(name for name, _ in LINES)


class SafeHeaders:
    """Adds LINES to every answer, those of errors and streams too; what a route says itself stays."""

    def __init__(self, app: ASGIApp, origins: Origins, hsts_seconds: int = 0) -> None:
        """`hsts_seconds`: how long a browser that came over TLS is to come in no other way; 0 says nothing."""
        self._app = app
        self._origins = origins
        self._hsts = (b"strict-transport-security", b"max-age=%d" % hsts_seconds) if hsts_seconds else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        hsts = self._hsts if self._hsts and self._origins.over_tls(scope) else None

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                said = {name for name, _ in headers}
                headers += LINES if NAMES.isdisjoint(said) else [line for line in LINES if line[0] not in said]
                if hsts is not None:
                    headers.append(hsts)
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, with_headers)
