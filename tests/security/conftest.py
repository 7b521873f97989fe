"""An application behind its door, with a key of every kind; and servers of the outside world: real sockets on loopback that
answer what a test says."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.keys import Scope
from app.core.settings import Settings
from app.services.outbound import Guard
from app.services.wiring import Services
from tests.api.conftest import services_of
from tests.workers.conftest import start  # noqa: F401 a fixture

SCOPES = tuple(Scope)


@dataclass
class House:
    """A client that shows no key, and keys by name: each scope's, of no tenant and of `north` and `south`."""

    client: httpx.AsyncClient
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def services(self) -> Services:
        return services_of(self.client)

    async def ask(self, method: str, path: str, key: str | None = None, **parts: Any) -> httpx.Response:
        """Call, with the key of that name, or with none."""
        headers = parts.pop("headers", {})
        if key is not None:
            headers = {"Authorization": f"Bearer {self.keys[key]}"} | headers
        return await self.client.request(method, path, headers=headers, **parts)

    async def submitted(self, key: str, **fields: Any) -> int:
        """The id of a new task, submitted with the key."""
        answer = await self.ask("POST", "/tasks", key, json={"task_type": "echo"} | fields)
        assert answer.status_code == 201, answer.text
        task_id: int = answer.json()["id"]
        return task_id

    async def uploaded(self, key: str, name: str = "a.txt", data: bytes = b"data") -> str:
        """The id of a new file, uploaded with the key."""
        answer = await self.ask("POST", "/files", key, files={"file": (name, data, "text/plain")})
        assert answer.status_code == 201, answer.text
        file_id: str = answer.json()["id"]
        return file_id


MakeHouse = Callable[..., Awaitable[House]]


@pytest.fixture
def locked(serve: Any, settings: Settings) -> MakeHouse:
    """Builds a house with keys; settings may be changed."""

    async def build(**changes: object) -> House:
        house = House(await serve(settings.model_copy(update=changes)))
        keys = house.services.keys
        for tenant in ("", "north", "south"):
            for scope in SCOPES:
                name = f"{tenant}-{scope}" if tenant else scope.value
                _, house.keys[name] = await keys.create(name, [scope], tenant)
            _, house.keys[tenant or "all"] = await keys.create(tenant or "all", list(SCOPES[:-1]), tenant)
        revoked, house.keys["revoked"] = await keys.create("revoked", [Scope.ADMIN])
        await keys.revoke(revoked.id)
        _, house.keys["expired"] = await keys.create("expired", [Scope.ADMIN], expires_in=timedelta(0))
        house.keys["wrong"] = house.keys["admin"][:-1] + ("A" if house.keys["admin"][-1] != "A" else "B")
        house.keys["unknown"] = "tk000000000000." + 43 * "x"
        await house.services.ring.load()
        return house

    return build


@pytest.fixture
async def house(locked: MakeHouse) -> House:
    """One with the default settings."""
    return await locked()


Answer = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Asked:
    """A request as it came over the wire; `headers` by lower-case name, the last one counts."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]


@dataclass
class Site:
    """A server on 127.0.0.1 and what it was asked. `connections` counts also those that asked nothing."""

    port: int
    connections: int = 0
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return Asked(head[0], headers, await reader.readexactly(int(headers.get("content-length", 0))))


@asynccontextmanager
async def serving(answer: Answer, *hosts: str) -> AsyncIterator[Site]:
    """Answer requests on one free port of these addresses (127.0.0.1 where none is named) while the block runs."""
    site = Site(0)
    busy: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        site.connections += 1
        busy.add(asyncio.current_task())
        try:
            site.asked.append(await _read(reader))
            await answer(site.asked[-1], writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client may go when it likes
        finally:
            writer.close()
            busy.discard(asyncio.current_task())

    first = await asyncio.start_server(connected, hosts[0] if hosts else "127.0.0.1", 0)
    site.port = first.sockets[0].getsockname()[1]
    others = [await asyncio.start_server(connected, host, site.port) for host in hosts[1:]]
    try:
        yield site
    finally:
        for server in (first, *others):
            server.close()
        for task in filter(None, set(busy)):
            task.cancel()
        await asyncio.gather(*filter(None, busy), return_exceptions=True)


def plain(status: str = "200 OK", body: bytes = b"hello", **headers: str) -> Answer:
    """Answer always the same. Underscores in names of headers stand for hyphens."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]).encode()

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head + body)

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    """Answer with a redirect; its Location goes out in UTF-8, as browsers would read it."""
    head = f"HTTP/1.1 {status} Elsewhere\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n".encode()

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head)

    return answer


@dataclass
class Names:
    """A DNS of our own: each name leads where it says next, the last answer for ever."""

    answers: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int, *rest: Any) -> list[Any]:
        if rest and rest[-1] & socket.AI_NUMERICHOST:
            return socket.getaddrinfo(host, port, *rest)
        self.asked.append(host)
        answers = self.answers.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        now = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in now
        ]


@pytest.fixture
def guarded() -> Callable[..., Guard]:
    """A guard by settings; `names` are the DNS, by default one that knows no name."""

    def make(names: Names | None = None, **settings: Any) -> Guard:
        values = {"outbound_timeout_seconds": 20.0, **settings}
        return Guard(Settings(_env_file=None, **values), names or Names({}))

    return make
