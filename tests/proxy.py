"""What may stand between a program and a server: a wire that is cut, goes silent, is slow or refuses, and a pooler."""

import asyncio
import contextlib
import ssl
import struct
from collections import deque
from typing import Literal, Self
from urllib.parse import urlsplit

Cut = Literal["before", "after"]


class Proxy:
    """A TCP proxy on a free port. `url` is the server's address through it. With `tls` it speaks that to its clients."""

    def __init__(self, server_url: str, tls: ssl.SSLContext | None = None) -> None:
        self._parts = urlsplit(server_url)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._wires: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._cut: Cut | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.refuses = False
        self.latency_seconds = 0.0
        self._cut_after: int | None = None
        self.connections = 0
        self.cuts = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for wire in self._wires:
            wire.cancel()
        await asyncio.gather(*self._wires, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        user, at, _ = self._parts.netloc.rpartition("@")
        return self._parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()

    def cut(self) -> None:
        """Cut every connection, now."""
        for writer in list(self._writers):
            writer.transport.abort()

    def cut_at_commit(self, when: Cut) -> None:
        """Cut the next connection that commits: before the server hears of it, or after it has done it and says so."""
        self._cut = when

    def cut_answer_after(self, size: int) -> None:
        """Cut the connection that answers next, within its answer: after so many bytes."""
        self._cut_after = size

    def freeze(self) -> None:
        """Pass nothing on, and keep every connection open."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            writer.transport.abort()
            return
        usual = 6379 if self._parts.scheme.startswith("redis") else 5432
        there, back = await asyncio.open_connection(self._parts.hostname, self._parts.port or usual)
        self._writers |= {writer, back}
        state = {"committing": False}
        for wire in (self._there(reader, back, state), self._back(there, writer, state)):
            task = asyncio.create_task(wire)
            self._wires.add(task)
            task.add_done_callback(lambda _: (writer.transport.abort(), back.transport.abort()))

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if self._cut is not None and b"COMMIT\x00" in data:
                    if self._cut == "before":
                        self._cut = None
                        self.cuts += 1
                        return
                    state["committing"] = True
                writer.write(data)
                await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if state["committing"] and b"COMMIT\x00" in data:
                    self._cut = None
                    self.cuts += 1
                    return
                await asyncio.sleep(self.latency_seconds)
                if self._cut_after is not None:
                    writer.write(data[: self._cut_after])
                    self._cut_after = None
                    self.cuts += 1
                    await writer.drain()
                    return
                writer.write(data)
                await writer.drain()


class Pooler:
    """As PgBouncer is in transaction mode, in what matters to us: it takes no settings at connection, answers with a process
    id of its own, and gives every transaction another server connection, with nothing of a session left."""

    KNOWN = ("user", "database", "client_encoding", "application_name")

    def __init__(self, database_url: str, servers: int = 3) -> None:
        self._parts = urlsplit(database_url)
        self._free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._is_free = asyncio.Semaphore(0)
        self._servers = servers
        self._greeting = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.transactions = 0

    async def __aenter__(self) -> Self:
        for _ in range(self._servers):
            self._free.append(await self._connect())
            self._is_free.release()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, writer in self._free:
            writer.transport.abort()

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._parts._replace(netloc=f"{self._parts.username}@127.0.0.1:{self._port}").geturl()

    @property
    def _port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)
        said = {"user": self._parts.username or "postgres", "database": self._parts.path.lstrip("/")}
        body = b"".join(f"{name}\0{value}\0".encode() for name, value in said.items()) + b"\0"
        writer.write(struct.pack("!ii", len(body) + 8, 196608) + body)
        greeting = b""
        while True:
            kind, message = await _message(reader)
            if kind == b"S":
                greeting += message
            if kind == b"Z":
                self._greeting = greeting
                return reader, writer
            assert kind in (b"R", b"S", b"K", b"N"), message

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            if not await self._greet(reader, writer):
                return
            asked = asyncio.create_task(_message(reader))
            while (await asked)[0] != b"X":
                await self._is_free.acquire()
                server = self._free.popleft()
                try:
                    asked = await self._transact(asked, reader, writer, *server)
                except BaseException:
                    server[1].transport.abort()  # whatever it was doing is undone
                    server = await self._connect()
                    raise
                finally:
                    self._free.append(server)
                    self._is_free.release()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while True:
            (length,) = struct.unpack("!i", await reader.readexactly(4))
            body = await reader.readexactly(length - 4)
            (code,) = struct.unpack("!i", body[:4])
            if code == 196608:
                break
            if code != 80877103:  # a request to cancel, from a connection of its own
                return False
            writer.write(b"N")  # no TLS
        names = body[4:].split(b"\0")[0:-2:2]
        unknown = [name.decode() for name in names if name.decode() not in self.KNOWN]
        if unknown:
            text = f"SFATAL\0C08P01\0Munsupported startup parameter: {unknown[0]}\0\0".encode()
            writer.write(b"E" + struct.pack("!i", len(text) + 4) + text)
            return False
        key = b"K" + struct.pack("!iii", 12, 4711, 815)
        writer.write(b"R" + struct.pack("!ii", 8, 0) + self._greeting + key + b"Z" + struct.pack("!i", 5) + b"I")
        return True

    async def _transact(
        self,
        asked: asyncio.Task[tuple[bytes, bytes]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> asyncio.Task[tuple[bytes, bytes]]:
        """Pass messages on until the server has answered everything and is in no transaction. Returns the next message."""
        self.transactions += 1
        unanswered = 0
        answered = asyncio.create_task(_message(there))
        try:
            while True:
                await asyncio.wait({asked, answered}, return_when=asyncio.FIRST_COMPLETED)
                if asked.done():
                    kind, whole = asked.result()
                    back.write(whole)
                    unanswered += kind in (b"Q", b"S")
                    asked = asyncio.create_task(_message(reader))
                if answered.done():
                    kind, whole = answered.result()
                    writer.write(whole)
                    unanswered -= kind == b"Z"
                    if kind == b"Z" and not unanswered and whole.endswith(b"I"):
                        return asked
                    answered = asyncio.create_task(_message(there))
        finally:
            answered.cancel()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!i", head[1:])
    return head[:1], head + await reader.readexactly(length - 4)
