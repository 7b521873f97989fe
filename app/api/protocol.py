"""The server's HTTP protocol, with patience that ends: uvicorn's own waits for ever for a request that does not come, and
keeps whatever comes.

One sweep a second looks at all connections of the process, so that a request costs a few assignments and no timer.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Sized
from contextlib import suppress
from typing import Any

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.headers import LINES
from app.api.limits import network

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
FRAMING_BYTES = 64 * 1024
FRAMING_A_BYTE = 8
"""What may come around a body: sizes and extensions of chunks, trailers. Each byte of the body pays for so many of it, which is
enough for chunks of one byte; what is not paid for may be FRAMING_BYTES."""
MOST_PIPELINED = 16
"""How many requests may wait on one connection for the answers before theirs."""
INVALID = "Invalid HTTP request received."
OFFERS = frozenset({b"upgrade", b"http2-settings"})
"""The headers by which a client offers to speak another protocol."""

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


class Flow(FlowControl):
    """Reads nothing while requests wait in the pipeline, whoever asks for it: each request under way does."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class Enough(Exception):
    """Ends the parsing of what came."""


class PatientProtocol(HttpToolsProtocol):
    """Closes connections that are silent, send slowly or what nobody wants, do not read, or are too many from one address."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        self._address = network(self.client[0]) if self.client else ""
        # What the lifespan of the application gave to all of its connections; another application has given nothing.
        self._connections: Connections = self.app_state.setdefault(STATE, Connections())
        self._phase, self._since, self._received = HEAD, self.loop.time(), 0
        self._framing = 0
        self._is_full = False
        self._stalled_at: float | None = None
        if not self._connections.add(self, self._address):
            self._refuse(503, "too-many-connections", "There are too many connections from your address.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._is_full:
            return
        if self._phase is IDLE and self._is_free():
            # Not only when a request begins: empty lines before it would keep the connection open for ever.
            self._phase, self._since, self._received = HEAD, self.loop.time(), 0
        if self._phase is HEAD:
            self._received += len(data)
        elif self._phase is BODY:
            self._framing += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._phase is HEAD and self._received > HEAD_BYTES:
            self._refuse(431, "head-too-large", f"The head of a request may have {HEAD_BYTES} bytes.")
        elif self._phase is BODY and self._framing > FRAMING_BYTES:
            self._refuse(431, "framing-too-large", f"Chunk sizes and trailers may have {FRAMING_BYTES} bytes.")

    def _parse(self, data: bytes) -> None:
        """Feed the parser. It stops behind the head of a request that offers another protocol, and would skip the body."""
        while not self.transport.is_closing():
            try:
                self.parser.feed_data(data)
                break
            except HttpParserUpgrade as stopped:
                data = self._declined() + data[stopped.args[0] :]
            except HttpParserError:
                if not self._is_full:
                    self.logger.warning(INVALID)
                    self.send_400_response(INVALID)
                break

    def _declined(self) -> bytes:
        """The head that just came, without its offer (RFC 9110, 7.8: a server may ignore it), for a parser that is new."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name not in OFFERS]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][CONNECTION] = self
        if self._phase is not HEAD:
            self._phase, self._since, self._received = HEAD, self.loop.time(), 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is not BODY:  # a trailer is no header: it comes after all that was decided by those
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.transport.is_closing():
            raise Enough
        if len(self.url) > TARGET_BYTES:
            self._refuse(414, "target-too-long", f"The path and the query may have {TARGET_BYTES} bytes.")
        elif self._received > HEAD_BYTES and self._has_long_head():
            self._refuse(431, "head-too-large", f"The head of a request may have {HEAD_BYTES} bytes.")
        elif self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":  # which is for proxies; the others come again, see _declined
                self.send_400_response("CONNECT is for proxies.")
        elif len(self.pipeline) >= MOST_PIPELINED:
            self._end_after_those_that_wait()
        else:
            super().on_headers_complete()
            self._phase, self._since, self._received, self._framing = BODY, self.loop.time(), 0, 0

    def _has_long_head(self) -> bool:
        return sum([len(name) + len(value) for name, value in self.headers]) > HEAD_BYTES

    def _end_after_those_that_wait(self) -> None:
        """Answer the requests that wait, listen to nothing more, and close: the client knows which to send again."""
        self._is_full, self._phase = True, IDLE
        self.cycle.keep_alive = False
        raise Enough

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            self._received += len(body)
            self._framing = max(0, self._framing - FRAMING_A_BYTE * len(body))
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # only its head is, and comes again
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
        """Close. Told is who said something."""
        if self._phase is HEAD and not (self._received > 0 and self._is_free()):
            self.transport.close()
        else:
            self._refuse(408, "too-slow", why)

    def _would_mix(self) -> bool:
        """Whether an answer now would be taken for a part of another one, or for a second one to the same request."""
        if self.pipeline:
            return True
        started = self.cycle is not None and self.cycle.response_started
        return started and (self._phase is BODY or not self.cycle.response_complete)

    def _refuse(self, status: int, slug: str, detail: str) -> None:
        """Answer in place of the application if that can be understood, and close."""
        if self.transport.is_closing():
            return
        if self._would_mix():
            self.transport.close()
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
