"""What the HTTP tests share: submit, claim and settle in a line, and requests that no polite client would send."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import httpx
import orjson
from sqlalchemy import event, text

from app.core.lifecycle import Completed, Errored, Outcome
from app.core.task import ClaimedTask, JsonText
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.wiring import Services
from tests.conftest import engines_of

WORKER = "worker-1"
JSON = {"Content-Type": "application/json"}


def services_of(client: httpx.AsyncClient) -> Services:
    """The services behind the client's application."""
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    return services


async def submit(client: httpx.AsyncClient, task_type: str = "echo", **fields: Any) -> dict[str, Any]:
    """Submit a task that must be taken; returns the answer."""
    answer = await client.post("/tasks", json={"task_type": task_type, **fields})
    assert answer.status_code == 201, answer.text
    task: dict[str, Any] = answer.json()
    return task


async def read(client: httpx.AsyncClient, task_id: int) -> dict[str, Any]:
    """The task as it is now."""
    answer = await client.get(f"/tasks/{task_id}")
    assert answer.status_code == 200, answer.text
    task: dict[str, Any] = answer.json()
    return task


async def claim(client: httpx.AsyncClient, room: int = 10) -> Sequence[ClaimedTask]:
    """Claim as a worker would, up to `room` tasks of any kind."""
    exchange = await services_of(client).queue.exchange(
        WORKER, [], choose=lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), room)]
    )
    return exchange.claimed


async def settle(client: httpx.AsyncClient, tasks: Iterable[ClaimedTask], outcome: Outcome) -> None:
    """End the attempts of claimed tasks, each with the same outcome."""
    ended = [Ended(task, outcome, datetime.now(UTC)) for task in tasks]
    await services_of(client).queue.exchange(WORKER, ended)


async def run(client: httpx.AsyncClient, outcome: Outcome) -> Sequence[ClaimedTask]:
    """Claim all that waits and end it with `outcome`."""
    claimed = await claim(client)
    assert claimed, "nothing waits"
    await settle(client, claimed, outcome)
    return claimed


def completed(result: Any = None) -> Completed:
    """The outcome of an executor that returned `result`."""
    return Completed(JsonText(orjson.dumps(result).decode()))


def errored(*, retryable: bool = True, after_seconds: float | None = None) -> Errored:
    """The outcome of an executor that raised."""
    return Errored("ValueError", "no good", "Traceback ...", retryable, after_seconds)


async def finished(client: httpx.AsyncClient, status: str, **fields: Any) -> dict[str, Any]:
    """A task that has ended as `status`."""
    task = await submit(client, **fields)
    match status:
        case "completed":
            await run(client, completed({"number": 1}))
        case "failed":
            await run(client, errored(retryable=False))
        case "cancelled":
            assert (await client.post(f"/tasks/{task['id']}/cancel")).status_code == 200
    task = await read(client, task["id"])
    assert task["status"] == status
    return task


async def row_count(client: httpx.AsyncClient, table: str = "tasks") -> int:
    """Rows in a table of the store."""
    async with services_of(client).database.read() as connection:
        return await connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0


def count_lookups(client: httpx.AsyncClient) -> list[str]:
    """Every statement from now on that looks tasks up by their ids, as it is executed."""
    statements: list[str] = []

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "given_rows" in statement:
            statements.append(statement)

    for engine in engines_of(services_of(client).database):
        event.listen(engine.sync_engine, "before_cursor_execute", executed)
    return statements


def assert_problem(answer: httpx.Response, status: int, slug: str | None = None) -> dict[str, Any]:
    """The answer is an RFC 9457 problem of this status; returns it."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:300]}"
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance"} <= problem.keys()
    assert problem["type"].startswith("urn:task-service:problem:")
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert unquote(problem["instance"]).rstrip("/") == answer.request.url.path.rstrip("/")
    for fault in problem.get("errors", []):
        assert {"location", "message", "type"} <= fault.keys()
    if slug is not None:
        assert problem["type"] == f"urn:task-service:problem:{slug}"
    return problem


def locations(problem: dict[str, Any]) -> set[str]:
    """Where the faults are, each as a dotted path."""
    return {".".join(str(part) for part in fault["location"]) for fault in problem["errors"]}


class Call:
    """One request, made of raw bytes past every client library; its answer comes piece by piece.

    Enter it to send the request. `hang_up()` is the client going away; more of an `unfinished` body never comes.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        *,
        query: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: Iterable[bytes] = (),
        unfinished: bool = False,
    ) -> None:
        self._app = client.app  # type: ignore[attr-defined]
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", b"test"), *headers],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }
        self._body = list(body) or [b""]
        self._unfinished = unfinished
        self.chunks_taken = 0
        self._gone = asyncio.Event()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._started = asyncio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}

    async def __aenter__(self) -> "Call":
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        self._running.cancel()
        (ended,) = await asyncio.gather(self._running, return_exceptions=True)
        if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
            raise ended

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception:
            if self.status != 500:  # a bug is answered with 500 first and raised after
                raise
        finally:
            self._started.set()
            self._pieces.put_nowait(None)

    async def _receive(self) -> dict[str, Any]:
        if self.chunks_taken < len(self._body):
            self.chunks_taken += 1
            more = self._unfinished or self.chunks_taken < len(self._body)
            return {"type": "http.request", "body": self._body[self.chunks_taken - 1], "more_body": more}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
            self._started.set()
        elif message.get("body"):
            self._pieces.put_nowait(message["body"])

    async def started(self) -> int:
        """The status, as soon as it is there."""
        async with asyncio.timeout(20):
            await self._started.wait()
        return self.status

    async def piece(self, seconds: float = 20) -> bytes | None:
        """The next piece of the answer; None at its end."""
        async with asyncio.timeout(seconds):
            return await self._pieces.get()

    async def content(self) -> bytes:
        """All of the answer, from here to its end."""
        pieces = []
        while (piece := await self.piece()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    async def event(self) -> tuple[str, dict[str, Any]] | None:
        """The next server-sent event as (name, data); None when the stream has ended."""
        while (piece := await self.piece()) is not None:
            fields = dict(line.split(": ", 1) for line in piece.decode().splitlines() if ": " in line)
            if "data" in fields:
                return fields.get("event", "message"), orjson.loads(fields["data"])
        return None

    def silent(self) -> bool:
        """True if nothing has come that was not read."""
        return self._pieces.empty()

    def hang_up(self) -> None:
        """The client goes away."""
        self._gone.set()

    async def over(self) -> None:
        """Return when the application is done with the request."""
        async with asyncio.timeout(20):
            await asyncio.wait([self._running])


async def raw(client: httpx.AsyncClient, method: str, path: str, **parts: Any) -> tuple[int, dict[str, str], bytes]:
    """Make a raw request to its end: status, headers, content."""
    async with Call(client, method, path, **parts) as call:
        content = await call.content()
        return call.status, call.headers, content


@asynccontextmanager
async def streaming(
    client: httpx.AsyncClient, task_id: int, query: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = ()
) -> AsyncIterator[Call]:
    """An open event stream of a task."""
    async with Call(client, "GET", f"/tasks/{task_id}/events", query=query, headers=headers) as call:
        assert await call.started() == 200
        yield call
