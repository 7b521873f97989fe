"""Clients that are silent, drip, do not read, or are many: over real sockets, to the real server."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl

from app.api import protocol
from app.api.app import create_app
from app.api.headers import LINES
from app.core.settings import Settings
from tests.conftest import until

HEAD = b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"task_type":"echo"}'


@dataclass
class Peer:
    """A raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self, seconds: float = 20) -> bytes:
        """All that comes until the server closes."""
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""

    async def answer(self) -> bytes:
        """One answer with a content-length."""
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            return head + await self.reader.readexactly(length)


Serve = Callable[..., Any]


@pytest.fixture
async def served(settings: Settings) -> AsyncIterator[Callable[..., Any]]:
    """Starts the application in a real server; gives a way to connect to it."""
    servers: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []
    peers: list[Peer] = []

    async def start(**changes: object) -> Callable[[], Any]:
        app = create_app(settings.model_copy(update=changes))
        config = uvicorn.Config(
            app,
            port=0,
            http=protocol.PatientProtocol,
            ws="none",
            log_config=None,
            lifespan="on",
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)
        servers.append((server, asyncio.create_task(server._serve())))
        await until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]

        async def connect() -> Peer:
            peers.append(Peer(*await asyncio.open_connection("127.0.0.1", port)))
            return peers[-1]

        connect.app = app  # type: ignore[attr-defined]
        return connect

    yield start
    for peer in peers:
        peer.writer.transport.abort()
    for server, running in servers:
        server.should_exit = True  # and its store is closed
        await running


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has a tenth of the patience, and looks often."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.6)
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.9)
    monkeypatch.setattr(protocol, "STALLED_SECONDS", 0.9)
    monkeypatch.setattr(protocol, "SWEEP_SECONDS", 0.05)


def test_the_patience_of_the_service_is_as_documented() -> None:
    assert (protocol.HEAD_SECONDS, protocol.BODY_SECONDS, protocol.STALLED_SECONDS) == (10, 30, 60)


async def dripped(peer: Peer, data: bytes, pause: float = 0.05) -> tuple[float, bytes]:
    """Send byte by byte, for ever if need be; how long the server allowed it, and what it said."""
    began = time.monotonic()
    reading = asyncio.create_task(peer.rest())
    place = 0
    while not reading.done():
        with contextlib.suppress(ConnectionError):
            await peer.say(data[place % len(data) :][:1])
        place += 1
        await asyncio.wait([reading], timeout=pause)
    return time.monotonic() - began, reading.result()


async def test_a_silent_connection_is_closed_without_a_word(served: Serve, hasty: None) -> None:
    peer = await (await served())()
    began = time.monotonic()
    assert await peer.rest() == b""
    assert 0.5 < time.monotonic() - began < 5


async def test_a_head_that_drips_is_answered_408(served: Serve, hasty: None) -> None:
    seconds, said = await dripped(await (await served())(), HEAD)
    assert seconds < 5
    assert said.startswith(b"HTTP/1.1 408 ")
    document = orjson.loads(said.partition(b"\r\n\r\n")[2])
    assert document["type"] == "urn:task-service:problem:too-slow"


async def test_endless_header_lines_and_empty_lines_are_no_way_to_stay(served: Serve, hasty: None) -> None:
    connect = await served()
    seconds, said = await dripped(await connect(), b"\r\n")
    assert seconds < 5
    peer = await connect()
    await peer.say(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200 OK" in await peer.answer()
    seconds, said = await dripped(peer, b"\r\n")
    assert seconds < 5, "nor after a request"
    seconds, said = await dripped(await connect(), b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 1000)
    assert (seconds < 5, b"408" in said) == (True, True)


async def test_a_body_that_drips_is_answered_408(served: Serve, hasty: None) -> None:
    connect = await served()
    for declared in (b"Content-Length: 100000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{    \r\n"):
        peer = await connect()
        await peer.say(HEAD + declared)
        seconds, said = await dripped(peer, b"1\r\n \r\n" if b"chunked" in declared else b" ")
        assert seconds < 6
        assert said.startswith(b"HTTP/1.1 408 "), said
    peer = await connect()
    await peer.say(HEAD + b"Content-Length: 20\r\n\r\n")
    assert b"408" in await peer.rest(), "or does not come at all"


async def test_a_slow_line_may_upload_as_long_as_bytes_come(
    served: Serve, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LEAST_BYTES_A_SECOND", 2000)
    peer = await (await served())()
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 20_000 + b"\r\n--b--\r\n"
    )
    head = b"POST /files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    await peer.say(head + b"Content-Length: %d\r\n\r\n" % len(form))
    began = time.monotonic()
    for start in range(0, len(form), 1000):
        await peer.say(form[start : start + 1000])
        await asyncio.sleep(0.1)
    assert time.monotonic() - began > 1.5
    assert b"201 Created" in await peer.answer()


async def test_a_request_that_is_complete_may_wait_as_long_as_it_likes(served: Serve, hasty: None) -> None:
    peer = await (await served())()
    await peer.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    task_id = orjson.loads((await peer.answer()).partition(b"\r\n\r\n")[2])["id"]
    began = time.monotonic()
    await peer.say(b"GET /tasks/%d?wait=2 HTTP/1.1\r\nHost: localhost\r\n\r\n" % task_id)
    assert b"200 OK" in await peer.answer()
    assert time.monotonic() - began > 1.5


async def test_who_does_not_read_is_let_go(served: Serve, hasty: None, settings: Settings) -> None:
    connect = await served()
    peer = await connect()
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + b"x" * 20_000_000
        + b"\r\n--b--\r\n"
    )
    head = b"POST /files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    await peer.say(head + b"Content-Length: %d\r\n\r\n" % len(form) + form)
    file_id = orjson.loads((await peer.answer()).partition(b"\r\n\r\n")[2])["id"].encode()
    peer = await connect()
    await peer.say(b"GET /files/" + file_id + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    connections = connect.app.state.connections
    await until(lambda: any(one._stalled_at is not None for one in connections._open))
    await until(lambda: not any(one._stalled_at is not None for one in connections._open), seconds=10)


async def test_a_client_that_is_gone_already_may_be_expected_to_give_signs_of_life(served: Serve) -> None:
    """A stream's handler may run after its client hung up."""
    connect = await served()
    peer = await connect()
    connections = connect.app.state.connections
    await until(lambda: connections._open)
    (one,) = connections._open
    peer.writer.transport.abort()
    await until(lambda: not connections._open)
    one.expect_signs_of_life()


async def test_one_address_has_so_many_connections_and_gets_room_again(served: Serve) -> None:
    connect = await served(max_connections_per_address=5)
    peers = [await connect() for _ in range(5)]
    for peer in peers:
        await peer.say(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await peer.answer()
    said = await (await connect()).rest()
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5" in said
    assert orjson.loads(said.partition(b"\r\n\r\n")[2])["type"] == "urn:task-service:problem:too-many-connections"
    peers[0].writer.close()

    async def let_in() -> bool:
        peer = await connect()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await peer.say(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return b"200 OK" in await peer.answer()
        return False

    await until(let_in)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /tasks?x=" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /" + b"y" * 1_000_000, 431),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(20_000)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345", 400),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n", 400),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (HEAD + b"Content-Length: 2000000\r\n\r\n", 413),
    ],
)
async def test_what_is_no_request_is_refused_and_ended(served: Serve, request_: bytes, status: int) -> None:
    peer = await (await served())()
    with contextlib.suppress(ConnectionError):
        await peer.say(request_)
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        answer = await peer.answer()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        for line in LINES:
            assert b"\r\n%s: %s\r\n" % line in answer, "an answer of the server itself has the headers too"


async def test_a_lying_length_leaves_the_next_request_alone(served: Serve, hasty: None) -> None:
    """Too short: what is left over is another request, and a wrong one; too long: the rest is waited for, not for ever."""
    connect = await served()
    peer = await connect()
    await peer.say(HEAD + b"Content-Length: 5\r\n\r\n" + BODY)
    said = await peer.rest()
    assert said.count(b"HTTP/1.1 400 ") >= 1
    peer = await connect()
    await peer.say(HEAD + b"Content-Length: 500\r\n\r\n" + BODY)
    assert b"408" in await peer.rest()


async def test_pipelined_requests_are_answered_in_order_although_the_first_takes_long(
    served: Serve, hasty: None
) -> None:
    peer = await (await served())()
    await peer.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    task_id = orjson.loads((await peer.answer()).partition(b"\r\n\r\n")[2])["id"]
    first = b"GET /tasks/%d?wait=1.5 HTTP/1.1\r\nHost: localhost\r\n\r\n" % task_id
    await peer.say(first + b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b'"task_type"' in await peer.answer()
    assert b'"alive"' in await peer.answer()


async def test_websockets_are_not_spoken(served: Serve) -> None:
    peer = await (await served())()
    await peer.say(
        b"GET /tasks HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert not (await peer.answer()).startswith(b"HTTP/1.1 101")


LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
OFFER = b"Connection: Upgrade\r\nUpgrade: foo\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n"


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n"


def documents(said: bytes) -> Iterator[Any]:
    """The JSON of each answer."""
    for answer in said.split(b"HTTP/1.1 ")[1:]:
        yield orjson.loads(answer.partition(b"\r\n\r\n")[2])


async def test_trailers_are_no_headers_of_this_request_nor_of_the_next(served: Serve) -> None:
    connect = await served()
    for trailers in (b"Idempotency-Key: one\r\n", b"Idempotency-Key: one\r\nX: y\r\n"):
        peer = await connect()
        request = HEAD + CHUNKED + chunks(BODY, 7) + trailers + b"\r\n"
        await peer.say(request + request + HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        answers = [await peer.answer() for _ in range(3)]
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 201"] * 3
        assert len({document["id"] for answer in answers for document in documents(answer)}) == 3


ENDLESS = [
    (b"0\r\n", b"a: b\r\n" * 2000),
    (chunks(b" " * 50_000, 1000), b"a: b\r\n" * 2000),
    (b"0\r\na: ", b"b" * 10_000),
    (b"1;a=", b"b" * 10_000),
    (b"", b"1;a=" + b"b" * 1000 + b"\r\n \r\n"),
]


async def flooded(peer: Peer, block: bytes) -> bytes:
    """Send the same for as long as the server takes it, up to 30 MB; what it said. It must have closed."""
    reading = asyncio.create_task(peer.rest())
    with contextlib.suppress(ConnectionError):
        for _ in range(30_000_000 // len(block)):
            if reading.done():
                break
            await peer.say(block)
            await asyncio.sleep(0)
    assert (await asyncio.wait([reading], timeout=2))[0], "it takes more and more"
    return reading.result()


@pytest.mark.parametrize(("begin", "block"), ENDLESS)
async def test_what_surrounds_a_body_has_an_end(served: Serve, begin: bytes, block: bytes) -> None:
    connect = await served()
    peer = await connect()
    await peer.say(HEAD + CHUNKED + chunks(BODY, 7)[:-3] + begin)
    await asyncio.sleep(0.05)
    await flooded(peer, block)
    # What lies unread when the server closes may cost the answer: here all is read.
    peer = await connect()
    await peer.say(HEAD + CHUNKED + begin)
    await asyncio.sleep(0.05)
    await peer.say((block * 100_000)[: protocol.FRAMING_BYTES + 1000])
    said = await peer.rest(5)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert [document["type"] for document in documents(said)] == ["urn:task-service:problem:framing-too-large"]


async def test_a_request_that_has_its_answer_gets_no_second_one(served: Serve) -> None:
    for rest in (b"0\r\n" + b"a: b\r\n" * 12_000, b"nonsense\r\n"):
        peer = await (await served())()
        await peer.say(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\n" + CHUNKED)
        assert b"404 Not Found" in await peer.answer()
        await peer.say(rest)
        assert await peer.rest(5) == b""


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_small_chunks_are_no_offence(served: Serve, size: int) -> None:
    peer = await (await served())()
    await peer.say(HEAD + CHUNKED + chunks(BODY + b" " * 200_000, size) + b"a: b\r\n\r\n")
    assert b"201 Created" in await peer.answer()


async def test_of_endless_pipelined_requests_the_first_are_answered(served: Serve) -> None:
    peer = await (await served())()
    await peer.say(LIVE * 1000)
    said = await peer.rest()
    answers = said.split(b"HTTP/1.1 ")[1:]
    assert len(answers) == protocol.MOST_PIPELINED + 1
    assert all(answer.startswith(b"200 OK") for answer in answers)
    assert [b"connection: close" in answer for answer in answers] == [False] * protocol.MOST_PIPELINED + [True]


async def test_as_many_pipelined_requests_as_may_be_are_answered_and_more_may_follow(served: Serve) -> None:
    peer = await (await served())()
    for _ in range(3):
        await peer.say(LIVE * (protocol.MOST_PIPELINED + 1))
        for _ in range(protocol.MOST_PIPELINED + 1):
            assert b"200 OK" in await peer.answer()


async def test_nothing_is_read_while_a_request_waits_for_another(served: Serve) -> None:
    connect = await served()
    peer = await connect()
    await peer.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    (task,) = documents(await peer.answer())
    await peer.say(LIVE + b"GET /tasks/%d?wait=1 HTTP/1.1\r\nHost: localhost\r\n\r\n" % task["id"] + LIVE)
    assert b'"alive"' in await peer.answer()
    (one,) = connect.app.state.connections._open
    for _ in range(10):
        await peer.say(LIVE)
        await asyncio.sleep(0.02)
        assert len(one.pipeline) == 1
    assert b'"task_type"' in await peer.answer()
    for _ in range(11):
        assert b'"alive"' in await peer.answer()


@pytest.mark.parametrize("offer", [OFFER, H2C])
@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.parametrize("chunked", [False, True])
async def test_who_offers_another_protocol_is_answered_in_this_one(
    served: Serve, offer: bytes, pause: float, chunked: bool
) -> None:
    peer = await (await served())()
    framing = CHUNKED if chunked else b"Content-Length: %d\r\n\r\n" % len(BODY)
    body = chunks(BODY, 5) + b"\r\n" if chunked else BODY
    for part in (HEAD + b"X-Empty:\r\n" + offer[:30], offer[30:] + framing, body[:9], body[9:] + LIVE) * 2:
        await peer.say(part)
        await asyncio.sleep(pause)
    for _ in range(2):
        assert b"201 Created" in await peer.answer()
        assert b'"alive"' in await peer.answer()


async def test_the_body_of_who_offers_another_protocol_is_no_request(served: Serve) -> None:
    for framing, body in ((b"Content-Length: %d\r\n\r\n" % len(LIVE), LIVE), (CHUNKED, chunks(LIVE, 99) + b"\r\n")):
        peer = await (await served())()
        await peer.say(HEAD + OFFER + framing)
        await asyncio.sleep(0.05)
        await peer.say(body)
        assert b"400 Bad Request" in await peer.answer()
        await peer.say(LIVE)
        assert b'"alive"' in await peer.answer()
        peer.writer.write_eof()
        assert await peer.rest() == b""


async def test_addresses_of_one_ipv6_network_share_their_connections(
    served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = iter(["2001:db8:1:2::7", "2001:db8:1:2:ffff::9", "2001:db8:1:2::8", "2001:db8:1:3::7"])
    monkeypatch.setattr(httptools_impl, "get_remote_addr", lambda transport: (next(hosts), 1))
    connect = await served(max_connections_per_address=2)
    let_in = []
    for _ in range(4):
        peer = await connect()
        with contextlib.suppress(ConnectionError):
            await peer.say(LIVE)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            let_in.append(b"200 OK" in await peer.answer())
    assert let_in == [True, True, False, True]


async def test_hundreds_of_silent_connections_hold_nobody_up(served: Serve, hasty: None) -> None:
    connect = await served()
    silent = [await connect() for _ in range(300)]
    peer = await connect()
    began = time.monotonic()
    await peer.say(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200 OK" in await peer.answer()
    assert time.monotonic() - began < 2
    assert set(await asyncio.gather(*(one.rest() for one in silent))) == {b""}
