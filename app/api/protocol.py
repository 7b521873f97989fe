"""The server's HTTP protocol, with patience that ends: uvicorn's own waits for ever for a request that does not come.

One sweep a second looks at all connections of the process, so that a request costs a few assignments and no timer.
"""

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.headers import LINES

HEAD_SECONDS = 10.0
"""How long the head of a request may take, from the connection or from its first byte, and how long silence before it."""
BODY_SECONDS = 30.0
LEAST_BYTES_A_SECOND = 50_000
"""A body has 30 seconds, and one more for each so many bytes that came: slow lines may upload, dripping ones may not."""
STALLED_SECONDS = 60.0
"""How long a client may leave what was sent to it unread."""
GONE_SECONDS = 12.0
"""How long the far end of an event stream may acknowledge nothing. It is sent something four times a minute, so that a client
that vanished without a word gives its place back within half a minute; the kernel alone would try for a quarter of an hour."""
SWEEP_SECONDS = 1.0
HEAD_BYTES = 64 * 1024
TARGET_BYTES = 16 * 1024

STATE = "connections"
"""Under which name the state of the lifespan has the Connections."""
CONNECTION = "connection"
"""Under which name the state of a request has its connection."""
IDLE, HEAD, BODY = range(3)


class Connections:
    """The connections of one process: their number by address, and the sweep that ends the slow ones."""

    def __init__(self, most_an_address: int = 0) -> None:
        """`most_an_address`: connections from one address at the same time; 0 is any number."""
        self._most = most_an_address
        self._open: set[PatientProtocol] = set()
        self._by_address: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: "PatientProtocol", address: str) -> bool:
        """Count a connection. False, and it is not counted, if its address has as many as it may have."""
        if self._most and address and self._by_address[address] >= self._most:
            return False
        self._by_address[address] += 1
        self._open.add(one)
        if self._timer is None:
            self._timer = one.loop.call_later(SWEEP_SECONDS, self._sweep, one.loop)
        return True

    def discard(self, one: "PatientProtocol", address: str) -> None:
        """A connection is over."""
        if one in self._open:
            self._open.discard(one)
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for one in list(self._open):
            one.look_at_the_clock(now)
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self._open else None


class PatientProtocol(HttpToolsProtocol):
    """Closes connections that are silent, send slowly, do not read, or are too many from one address."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        # What the lifespan of the application gave to all of its connections; another application has given nothing.
        self._connections: Connections = self.app_state.setdefault(STATE, Connections())
        self._phase, self._since, self._received = HEAD, self.loop.time(), 0
        self._stalled_at: float | None = None
        if not self._connections.add(self, self._address):
            self._refuse(503, "too-many-connections", "There are too many connections from your address.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._phase is IDLE and self._is_free():
            # Not only when a request begins: empty lines before it would keep the connection open for ever.
            self._phase, self._since, self._received = HEAD, self.loop.time(), 0
        if self._phase is HEAD:
            self._received += len(data)
        super().data_received(data)
        if self._phase is HEAD and self._received > HEAD_BYTES:
            self._refuse(431, "head-too-large", f"The head of a request may have {HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][CONNECTION] = self
        if self._phase is not HEAD:
            self._phase, self._since, self._received = HEAD, self.loop.time(), 0

    def on_headers_complete(self) -> None:
        came = self._received
        self._phase, self._since, self._received = BODY, self.loop.time(), 0
        if len(self.url) > TARGET_BYTES:
            self._refuse(414, "target-too-long", f"The path and the query may have {TARGET_BYTES} bytes.")
        elif came > HEAD_BYTES and sum([len(name) + len(value) for name, value in self.headers]) > HEAD_BYTES:
            self._refuse(431, "head-too-large", f"The head of a request may have {HEAD_BYTES} bytes.")
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            self._received += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = IDLE
        if not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_at = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_at = None

    def expect_signs_of_life(self) -> None:
        """From now on let go of a client that acknowledges nothing, as far as the system can (Linux does). One that may take
        its time, over a download say, must not be told so."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
            with suppress(OSError):  # it may be closed already
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(GONE_SECONDS * 1000))

    def look_at_the_clock(self, now: float) -> None:
        """End the connection if the client has had its time."""
        spent = now - self._since
        if self._stalled_at is not None and now - self._stalled_at > STALLED_SECONDS:
            self.transport.abort()
        elif self._phase is not IDLE and self.flow.read_paused:
            self._since = now  # it is us who do not read
        elif self._phase is HEAD and spent > HEAD_SECONDS:
            self._give_up("The head of the request took too long.")
        elif self._phase is BODY and spent > BODY_SECONDS + self._received / LEAST_BYTES_A_SECOND:
            self._give_up("The body of the request took too long.")

    def send_400_response(self, msg: str) -> None:
        """As any other refusal; the server's own is plain text."""
        self._refuse(400, "malformed-request", "This is no HTTP request.")

    def _is_free(self) -> bool:
        """Whether no request waits for its answer."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _give_up(self, why: str) -> None:
        """Close. Told is who said something, unless that would be taken for another answer, or part of one."""
        if self._phase is HEAD:
            told = self._received > 0 and self._is_free()
        else:
            told = not self._is_free() and not self.cycle.response_started
        if told:
            self._refuse(408, "too-slow", why)
        else:
            self.transport.close()

    def _refuse(self, status: int, slug: str, detail: str) -> None:
        """Answer in place of the application, and close."""
        if self.transport.is_closing():
            return
        line = STATUS_LINE[status]
        title = line.decode().split(" ", 2)[2].strip()
        document: dict[str, Any] = {"type": f"urn:task-service:problem:{slug}", "title": title, "status": status}
        body = orjson.dumps(document | {"detail": detail, "instance": ""})
        head = [b"content-type: application/problem+json", b"content-length: %d" % len(body), b"connection: close"]
        head += [b"%s: %s" % line for line in LINES]
        head += [b"retry-after: 5"] if status == 503 else []
        self.transport.write(line + b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()
