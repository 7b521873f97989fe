"""Event streams whose readers freeze, hang up before the first byte, or vanish without a word: each gives its place back."""

import asyncio
import contextlib
import ctypes
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.models.sqlite_store import READERS
from tests.chaos.conftest import amount, checked
from tests.conftest import until
from tests.walk.conftest import House

BACK_SECONDS = 30.0
"""How long a place may stay taken by a reader that is gone."""
SO_ATTACH_FILTER = 26
DROP_ALL = ctypes.create_string_buffer(
    struct.pack("HBBI", 0x06, 0, 0, 0)
)  # BPF_RET | BPF_K, 0: keep no byte of a packet
RESET = struct.pack("ii", 1, 0)
TASK = {"task_type": "echo", "delay_seconds": 3600}


class Reader:
    """One client of `GET /events`, on a socket of its own."""

    def __init__(self, address: tuple[str, int], receive_bytes: int = 0) -> None:
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.setblocking(False)
        self._address = address

    async def ask(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, self._address)
        await loop.sock_sendall(self.socket, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")

    async def read(self, most: int = 65536) -> bytes:
        async with asyncio.timeout(30):
            return await asyncio.get_running_loop().sock_recv(self.socket, most)

    async def is_let_in(self) -> bool:
        return (await self.read(12)) == b"HTTP/1.1 200"

    async def hear(self, scheduled: list[int]) -> None:
        """Read for ever, and keep how many tasks are scheduled by each event."""
        rest = b""
        while found := await asyncio.get_running_loop().sock_recv(self.socket, 65536):
            *lines, rest = (rest + found).split(b"\n")
            scheduled += [json.loads(line[5:])["stats"]["scheduled"] for line in lines if line.startswith(b"data:")]

    def reset(self) -> None:
        """Hang up so that the other side hears of it as of an error."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.close()

    def vanish(self) -> None:
        """Every packet that comes is dropped before TCP sees it: nothing is acknowledged or refused from here on."""
        drop = struct.pack("HL", 1, ctypes.addressof(DROP_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, drop)


class Crowd:
    """Readers of one API process; all of them are gone in the end."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        parts = urlsplit(str(client.base_url))
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = (parts.hostname, parts.port)
        self._readers: list[Reader] = []

    async def join(self, receive_bytes: int = 0) -> Reader:
        """One more, who has asked."""
        reader = Reader(self._address, receive_bytes)
        self._readers.append(reader)
        await reader.ask()
        return reader

    async def let_in(self, count: int) -> list[Reader]:
        """So many who were let in."""
        readers = [await self.join() for _ in range(count)]
        assert all([await reader.is_let_in() for reader in readers])
        return readers

    async def is_full(self) -> bool:
        """Whether one more is refused."""
        return not await self.has_room(1)

    async def has_room(self, count: int) -> bool:
        """Whether so many more would be let in now; none of them stays."""
        readers = [await self.join() for _ in range(count)]
        let_in = [await reader.is_let_in() for reader in readers]
        for reader in readers:
            reader.reset()
        return all(let_in)

    def leave(self) -> None:
        for reader in self._readers:
            reader.socket.close()


@pytest.fixture
async def open_crowd() -> AsyncIterator[Callable[[httpx.AsyncClient], Crowd]]:
    crowds: list[Crowd] = []

    def make(client: httpx.AsyncClient) -> Crowd:
        crowds.append(Crowd(client))
        return crowds[-1]

    yield make
    for crowd in crowds:
        crowd.leave()


def handles(pid: int, database: Path) -> int:
    """How often a process has a database open."""
    found = 0
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(one) == str(database)
    return found


@pytest.mark.timeout(300)
async def test_readers_that_freeze_hang_up_or_vanish_give_their_places_back(
    house: House, open_crowd: Callable[[httpx.AsyncClient], Crowd]
) -> None:
    """Matrix F8: two fifths read on, a fifth each hangs up before the first byte, reads nothing, and vanishes."""
    fifth = amount(20, 200)
    most = 4 * fifth  # who hangs up at once has no place to keep
    program, client = await house.api(MAX_STREAMS=str(most), MAX_CONNECTIONS_PER_ADDRESS="0")
    database = house.folder / "tasks.db"
    most_handles = 2 + READERS  # two for writing
    crowd = open_crowd(client)

    honest = await crowd.let_in(2 * fifth)
    heard: list[list[int]] = [[] for _ in honest]
    listening = [asyncio.create_task(reader.hear(found)) for reader, found in zip(honest, heard, strict=True)]
    for _ in range(fifth):
        (await crowd.join()).reset()
    frozen = [await crowd.join(receive_bytes=2048) for _ in range(fifth)]
    assert all([await reader.is_let_in() for reader in frozen])
    vanished = await crowd.let_in(fifth)
    for reader in vanished:
        reader.vanish()
    assert await crowd.is_full()
    assert handles(program.pid, database) <= most_handles

    submitted = 0

    async def room(wanted: int) -> bool:
        # Each submission changes what the streams show, so that they are told something about once a second.
        nonlocal submitted
        (await client.post("/tasks", json=TASK)).raise_for_status()
        submitted += 1
        await asyncio.sleep(0.5)
        return await crowd.has_room(wanted)

    began = time.monotonic()
    await until(lambda: room(2 * fifth), BACK_SECONDS)
    print(f"{2 * fifth} places were back after {time.monotonic() - began:.0f} s")
    assert not any(one.done() for one in listening)  # nobody has lost a place who reads
    await until(lambda: all(found[-1] == submitted for found in heard))
    for one in listening:
        one.cancel()
    crowd.leave()
    await until(lambda: room(most), BACK_SECONDS)
    assert handles(program.pid, database) <= most_handles
    await checked(house.database_url)
