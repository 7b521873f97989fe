"""`JsonAnswer`: JSON bytes on their way out."""

from starlette.responses import Response


class JsonAnswer(Response):
    """An answer whose body is JSON already. Starlette's own way of putting headers together costs several times as much,
    for each request."""

    media_type = "application/json"

    def __init__(self, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json"), *headers]
