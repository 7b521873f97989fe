"""A server that means harm costs a bounded time and a bounded memory: bombs, endless answers, slow ones, broken ones."""

import asyncio
import contextlib
import gzip
import resource
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.errors import OutboundFailed
from app.services.outbound import Guard, Outgoing
from tests.certificate import new_certificate
from tests.security.conftest import Answer, Asked, Names, plain, serving

MEBIBYTE = 2**20
OK = b"HTTP/1.1 200 OK\r\n"


def _raw(*parts: bytes, again: bytes | None = None) -> Answer:
    """Write these parts, then (where given) `again` until the client goes."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        while again is not None:
            writer.write(again)
            await writer.drain()

    return answer


def _bomb(size: int) -> bytes:
    return gzip.compress(b"\0" * size, 9)


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_a_decompression_bomb_is_cut_at_the_cap(guarded: Callable[..., Guard]) -> None:
    """500 MiB that come as 500 KiB. Never more than the cap is unpacked."""
    bomb = _bomb(500 * MEBIBYTE)
    async with serving(plain(body=bomb, Content_Encoding="gzip")) as site:
        guard = guarded(outbound_allow=(f"127.0.0.1:{site.port}",))
        before = _most_memory()
        answer = await guard.send(Outgoing(site.url, most_bytes=MEBIBYTE))
        assert (len(answer.body), answer.truncated) == (MEBIBYTE, True)
        assert _most_memory() - before < 64 * MEBIBYTE


async def test_what_is_compressed_and_fits_is_unpacked(guarded: Callable[..., Guard]) -> None:
    async with serving(plain(body=gzip.compress(b"hello" * 100), Content_Encoding="gzip")) as site:
        answer = await guarded(outbound_allow=(f"127.0.0.1:{site.port}",)).send(Outgoing(site.url, most_bytes=500))
        assert (answer.body, answer.truncated) == (b"hello" * 100, False)
        assert site.asked[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "compress"])
async def test_an_encoding_that_nobody_asked_for_is_refused(encoding: str, guarded: Callable[..., Guard]) -> None:
    async with serving(plain(Content_Encoding=encoding)) as site:
        with pytest.raises(OutboundFailed, match="encoding"):
            await guarded(outbound_allow=(f"127.0.0.1:{site.port}",)).send(Outgoing(site.url))


ENDLESS = {
    "body": _raw(OK, b"Transfer-Encoding: chunked\r\n\r\n", again=b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    "body until it closes": _raw(OK, b"\r\n", again=b"x" * 65536),
    "body longer than said": _raw(OK, b"Content-Length: 99999999999\r\n\r\n", again=b"x" * 65536),
    "empty gzip": _raw(OK, b"Content-Encoding: gzip\r\n\r\n", _bomb(10)[:10], again=b"\x00\x00\x00\xff\xff" * 10000),
}
BROKEN = {
    "headers": _raw(OK, again=b"X-More: " + b"x" * 1000 + b"\r\n"),
    "one header": _raw(OK, b"X-More: ", again=b"x" * 65536),
    "status line": _raw(b"HTTP/1.1 200 ", again=b"x" * 65536),
    "many headers": _raw(OK, b"X: y\r\n" * 5000, b"\r\n"),
    "a large header": _raw(OK, b"X: " + b"y" * 50_000, b"\r\n\r\n"),
    "no HTTP": _raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "nothing": _raw(),
    "two lengths": _raw(OK, b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    "length and chunks": _raw(OK, b"Content-Length: -5\r\n\r\nhello!"),
    "wrong chunks": _raw(OK, b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello"),
    "too little": _raw(OK, b"Content-Length: 50\r\n\r\nhello"),
    "no gzip": _raw(OK, b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"),
    "endless chunk line": _raw(OK, b"Transfer-Encoding: chunked\r\n\r\n", again=b"0" * 65536),
    "endless trailers": _raw(OK, b"Transfer-Encoding: chunked\r\n\r\n0\r\n", again=b"X: y\r\n" * 1000),
}


@pytest.mark.parametrize("answer", ENDLESS.values(), ids=ENDLESS)
async def test_an_endless_answer_is_read_to_the_cap(answer: Answer, guarded: Callable[..., Guard]) -> None:
    async with serving(answer) as site:
        before = _most_memory()
        incoming = await guarded(outbound_allow=(f"127.0.0.1:{site.port}",)).send(
            Outgoing(site.url, most_bytes=100_000)
        )
        assert incoming.truncated
        assert len(incoming.body) <= 100_000
        assert _most_memory() - before < 64 * MEBIBYTE


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_broken_answer_is_a_failure(answer: Answer, guarded: Callable[..., Guard]) -> None:
    async with serving(answer) as site:
        before = _most_memory()
        with pytest.raises(OutboundFailed):
            await guarded(outbound_allow=(f"127.0.0.1:{site.port}",)).send(Outgoing(site.url, most_bytes=100_000))
        assert _most_memory() - before < 64 * MEBIBYTE


def _dripping(*parts: bytes, drop: bytes) -> Answer:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.02)

    return answer


SLOW = {
    "headers": _dripping(OK, b"X: ", drop=b"y"),
    "body": _dripping(OK, b"Content-Length: 100000\r\n\r\n", drop=b"y"),
    "chunks": _dripping(OK, b"Transfer-Encoding: chunked\r\n\r\n", drop=b"1\r\ny\r\n"),
    "not yet": _dripping(drop=b"HTTP/1.1 102 Processing\r\n\r\n"),
}


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW)
async def test_a_server_that_drips_is_left_at_the_deadline(answer: Answer, guarded: Callable[..., Guard]) -> None:
    async with serving(answer) as site:
        guard = guarded(outbound_allow=(f"127.0.0.1:{site.port}",), outbound_timeout_seconds=0.5)
        started = time.monotonic()
        with pytest.raises(OutboundFailed, match=r"within 0\.5 seconds"):
            await guard.send(Outgoing(site.url))
        assert time.monotonic() - started < 5


async def test_a_server_that_says_nothing_is_left_at_the_deadline(guarded: Callable[..., Guard]) -> None:
    """It waits for a request in the clear, we for its part of the TLS handshake."""
    async with serving(plain()) as site:
        guard = guarded(outbound_allow=(f"127.0.0.1:{site.port}",), outbound_timeout_seconds=0.5)
        with pytest.raises(OutboundFailed, match=r"within 0\.5 seconds"):
            await guard.send(Outgoing(f"https://127.0.0.1:{site.port}/"))


async def test_tls_is_about_the_name_and_not_about_the_address(guarded: Callable[..., Guard], tmp_path: Path) -> None:
    """The connection goes to the address that was judged; the server is told the name, and its certificate is checked."""
    certificate, key = new_certificate(tmp_path, "hooks.test")
    names: list[str] = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        served = asyncio.create_task(asyncio.to_thread(_refused_handshake, listening, tls))
        guard = guarded(Names({"hooks.test": [["127.0.0.1"]]}), outbound_allow=(f"hooks.test:{port}",))
        with pytest.raises(OutboundFailed, match="its certificate is not trusted"):
            await guard.send(Outgoing(f"https://hooks.test:{port}/"))
        await served
    assert names == ["hooks.test"]


def _refused_handshake(listening: socket.socket, tls: ssl.SSLContext) -> None:
    connection, _ = listening.accept()
    with connection, contextlib.suppress(OSError), tls.wrap_socket(connection, server_side=True) as secured:
        secured.recv(1)
