"""HTTP over connections that are kept open, and nothing else, with the latency of each call.

A full HTTP library spends more time on a request than the API does, and in a measurement that would count as the API's.
"""

import asyncio
import json
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from examples.demo.service import expect

REQUEST_SECONDS = 30


@dataclass(frozen=True)
class Answer:
    """What came back for a request."""

    request: str
    status: int
    body: bytes

    def json(self, expected: int) -> Any:
        """The JSON of an answer that has the status it should have. Raises DemoFailed at another."""
        said = self.body[:200].decode(errors="replace")
        expect(self.status == expected, f"{self.request} answered {self.status}, not {expected}: {said}")
        return json.loads(self.body)


class Client:
    """Asks one API. `latencies` has the milliseconds of each timed call, by its name."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._address = (address.hostname, address.port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.latencies: dict[str, list[float]] = defaultdict(list)

    async def get(self, path: str, **params: Any) -> Any:
        return (await self.request("GET", path, params=params)).json(200)

    async def post(self, path: str, body: dict[str, Any] | None = None, expected: int = 201) -> Any:
        return (await self.request("POST", path, json.dumps(body).encode() if body else b"")).json(expected)

    async def timed(self, name: str, method: str, path: str, expected: int, body: Any = None, **params: Any) -> Any:
        """The JSON of a call whose latency counts."""
        content = b"" if body is None else json.dumps(body).encode()
        began = time.perf_counter()
        answer = await self.request(method, path, content, params=params)
        self.latencies[name].append((time.perf_counter() - began) * 1000)
        return answer.json(expected)

    async def upload(self, name: str, content: bytes, content_type: str) -> str:
        """Store a file; its id."""
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            f"Content-Type: {content_type}\r\n\r\n"
        )
        form = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        answer = await self.request("POST", "/files", form, f"multipart/form-data; boundary={boundary}")
        return str(answer.json(201)["id"])

    async def download(self, file_id: str) -> bytes:
        answer = await self.request("GET", f"/files/{file_id}")
        expect(answer.status == 200, f"{answer.request} answered {answer.status}")
        return answer.body

    async def request(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        content_type: str = "application/json",
        params: dict[str, Any] | None = None,
    ) -> Answer:
        """Send a request and wait for the whole answer. Raises OSError or EOFError when there is none."""
        query = "?" + urlencode(params) if params else ""
        head = f"{method} {path}{query} HTTP/1.1\r\nHost: demo\r\nContent-Type: {content_type}\r\n"
        reader, writer = await self._connection()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
                length = next(line for line in lines if line.startswith("content-length:")).partition(":")[2]
                answer = Answer(f"{method} {path}", int(lines[0].split()[1]), await reader.readexactly(int(length)))
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():  # the API closes those that were idle for long
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._address)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
