"""Load on one HTTP server over kept-alive connections, from a process of its own so that the server is what is measured.

Answers carry a Content-Length; anything but a 2xx is counted as an error.
"""

import asyncio
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import uvloop


@dataclass(frozen=True)
class Load:
    """What came of one run: requests answered, seconds, errors, milliseconds at the 50th and 99th percentile."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


class Connection(asyncio.Protocol):
    """Sends the same request again as soon as its answer is there."""

    def __init__(self, request: bytes, until: float, latencies: list[float], errors: list[bytes]) -> None:
        self._request, self._until, self._latencies, self._errors = request, until, latencies, errors
        self._buffer = b""
        self._sent = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's is of a class of its own
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < head_end + 4 + length:
            return
        if self._buffer[9:10] != b"2":
            self._errors.append(self._buffer[:200])
        self._buffer = b""
        now = time.perf_counter()
        self._latencies.append(now - self._sent)
        if now < self._until:
            self._send()
        else:
            self._finish()
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def run(url: str, method: str, body: str | None, connections: int, seconds: float) -> Load:
    parts = urlsplit(url)
    lines = [
        f"{method} {parts.path or '/'}{'?' + parts.query if parts.query else ''} HTTP/1.1",
        f"Host: {parts.netloc}",
    ]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
    request = "\r\n".join([*lines, "", ""]).encode() + (body or "").encode()
    latencies: list[float] = []
    errors: list[bytes] = []
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        (
            await loop.create_connection(
                lambda: Connection(request, began + seconds, latencies, errors), parts.hostname, parts.port
            )
        )[1]
        for _ in range(connections)
    ]
    _, unanswered = await asyncio.wait([one.done for one in made], timeout=seconds + 10)
    took = time.perf_counter() - began
    errors += [b"a request was never answered"] * len(unanswered)
    if errors:
        print(errors[0].decode(errors="replace"), file=sys.stderr)
    quantiles = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
    return Load(len(latencies), took, len(errors), quantiles[49] * 1000, quantiles[98] * 1000)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(asdict(uvloop.run(run(**asked)))))
