"""The time that a call takes, over connections that are kept open.

A full HTTP library spends more time on a request than the API does, and in a measurement that would count as the API's. So
these calls, and no others, are made by hand.
"""

import asyncio
import json
import time
from collections import defaultdict
from typing import Any
from urllib.parse import urlencode, urlsplit

from examples.demo.service import expect

REQUEST_SECONDS = 30


class Stopwatch:
    """Asks one API. `latencies` has the milliseconds of each call, by its name."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host = address.netloc
        self._address = (address.hostname, address.port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.latencies: dict[str, list[float]] = defaultdict(list)

    async def time(self, name: str, method: str, path: str, expected: int, body: Any = None, **params: Any) -> Any:
        """Make a call whose latency counts; its JSON. Raises DemoFailed at another status, OSError or EOFError when there is
        no answer."""
        query = "?" + urlencode(params) if params else ""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path}{query} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        began = time.perf_counter()
        status, answer = await self._exchange(request)
        self.latencies[name].append((time.perf_counter() - began) * 1000)
        said = answer[:200].decode(errors="replace")
        expect(status == expected, f"{method} {path} answered {status}, not {expected}: {said}")
        return json.loads(answer)

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = await self._connection()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                writer.write(request)
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
                length = next(line for line in lines if line.startswith("content-length:")).partition(":")[2]
                answer = int(lines[0].split()[1]), await reader.readexactly(int(length))
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
