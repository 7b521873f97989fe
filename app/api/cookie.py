"""The cookie of who signed in."""

from starlette.types import Message, Scope, Send

NAME = b"task-service"
SECURE_NAME = b"__Host-" + NAME
"""Over TLS: browsers take this name from the very host alone, with `Secure`, for all of its paths."""
ATTRIBUTES = b"; Path=/; HttpOnly; SameSite=Strict"
LONGEST = 4096


def shown(scope: Scope, secure: bool) -> str | None:
    """The token in the cookie; None where there is none. Over TLS the plain name is somebody else's."""
    wanted = (SECURE_NAME if secure else NAME) + b"="
    for name, value in scope["headers"]:
        if name == b"cookie" and len(value) <= LONGEST:
            for part in value.split(b";"):
                if part.strip().startswith(wanted):
                    return str(part.strip()[len(wanted) :].decode("latin-1"))
    return None


def line(token: str, seconds: float, secure: bool) -> tuple[bytes, bytes]:
    """The header that gives a browser the token, for so long; an empty one takes it away."""
    name, ending = (SECURE_NAME, ATTRIBUTES + b"; Secure") if secure else (NAME, ATTRIBUTES)
    return b"set-cookie", b"%s=%s; Max-Age=%d%s" % (name, token.encode(), seconds, ending)


def given(send: Send, header: tuple[bytes, bytes]) -> Send:
    """`send`, with the header in the answer."""

    async def with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], header]}
        await send(message)

    return with_cookie
