"""An endpoint of our own, for what no well-behaved server does: it sends exactly the bytes a test gives it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from app.services.executors import Context, RecordedReports, RunnerSetup

KEY = "sk-secret/Key+0123456789"
SILENT = b"silent"
"""In an answer: say nothing more until the client has gone."""
CUT = b"cut"
"""In an answer: break the connection."""


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    target: str
    headers: dict[str, str]
    body: dict[str, Any]


class Endpoint:
    """Answers the n-th request with the n-th of `answers`, the last one for ever. Each is a list of raw pieces."""

    def __init__(self) -> None:
        self.answers: list[list[bytes]] = []
        self.asked: list[Asked] = []
        self.gone = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.asked.append(Asked(line.split()[1], headers, body))
        for piece in self.answers[min(len(self.asked), len(self.answers)) - 1]:
            if piece is SILENT:
                await reader.read()
                self.gone.set()
            elif piece is CUT:
                writer.transport.abort()
            else:
                writer.write(piece)
        writer.close()


@pytest.fixture
async def endpoint(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Endpoint]:
    """A raw endpoint, and settings that name it."""
    endpoint = Endpoint()
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    endpoint.port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("AI_BASE_URL", f"http://127.0.0.1:{endpoint.port}/v1")
    monkeypatch.setenv("AI_API_KEY", KEY)
    monkeypatch.setenv("AI_MODEL", "the-model")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    async with server:
        yield endpoint


@pytest.fixture
def reports() -> RecordedReports:
    return RecordedReports()


@pytest.fixture
def context(reports: RecordedReports) -> Context:
    return Context(reports=reports, setup=RunnerSetup(max_result_bytes=10_000))


def chunked(*pieces: bytes, kind: str = "text/event-stream", end: bytes = b"0\r\n\r\n") -> list[bytes]:
    """A 200 whose body has these pieces, each a chunk that the client sees by itself; `end` b"" leaves it unfinished."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return [head, *(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces if piece), end]


def plain(status: str, body: bytes, *fields: str, kind: str = "application/json") -> list[bytes]:
    """An answer in one piece."""
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *fields]
    return ["\r\n".join([*head, "", ""]).encode() + body]


def delta(content: Any, finish_reason: str | None = None, **more: Any) -> bytes:
    """One event with a piece of text."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return event({"object": "chat.completion.chunk", "model": "told-model", "choices": [choice], **more})


def event(value: Any) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
STOP = delta("", "stop")
