"""What open streams of the overview cost a submission: POST /tasks with and without them, by turns.

    python benchmarks/streams.py                 about two minutes
    python benchmarks/streams.py --streams 200 --rounds 3

Every submission changes what the streams show, so each of them is told once a second all the while. They are read by a process
of its own, which has its share of the machine too. Without flushes (relaxed), which would hide the difference.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvloop

from benchmarks.house import ROOT, cpu_seconds, load, open_house
from benchmarks.load import Load

TASK = {"task_type": "bench.nothing", "payload": {"number": 1}}
OPTION = "--listen"
SETTLED_SECONDS = 5.0
"""A look took long while they all came, and after it comes a rest."""


class Listener(asyncio.Protocol):
    """One stream. Counts what it is told."""

    events = 0

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.told = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        Listener.events += data.count(b"event: overview")
        if b"event: overview" in data:
            self.told.set()


async def listen(url: str, streams: int) -> None:
    """Open them, say so, and print how many events came when standard input ends."""
    parts = urlsplit(url)
    request = f"GET /events HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: Listener(request), parts.hostname, parts.port))[1] for _ in range(streams)
    ]
    for one in made:
        await one.told.wait()
    await asyncio.sleep(SETTLED_SECONDS)
    print("open", flush=True)
    Listener.events = 0
    await loop.run_in_executor(None, sys.stdin.read)
    print(Listener.events, flush=True)


@contextlib.contextmanager
def listening(url: str, streams: int) -> Iterator[list[int]]:
    """So many open streams; afterwards the list has how many events they were sent."""
    command = [sys.executable, __file__, OPTION, url, "--streams", str(streams)]
    reader = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdin is not None
    assert reader.stdout is not None
    assert reader.stdout.readline() == "open\n", "the streams could not be opened"
    told: list[int] = []
    try:
        yield told
    finally:
        reader.stdin.close()
        told.append(int(reader.stdout.read()))
        reader.wait()


def measure(streams: int, rounds: int, seconds: float, connections: int) -> None:
    runs: dict[bool, list[Load]] = {False: [], True: []}
    spent: dict[bool, list[float]] = {False: [], True: []}
    told: list[int] = []
    with open_house(MAX_STREAMS=str(streams), MAX_CONNECTIONS_PER_ADDRESS="0", DURABILITY="relaxed") as house:
        api, url = house.api()
        load(f"{url}/tasks", "POST", TASK, connections, 1.0)
        for number in range(rounds):
            for with_streams in (False, True) if number % 2 else (True, False):
                with listening(url, streams) if with_streams else contextlib.nullcontext([]) as heard:
                    before = cpu_seconds([api.pid])
                    run = load(f"{url}/tasks", "POST", TASK, connections, seconds)
                    spent[with_streams].append((cpu_seconds([api.pid]) - before) / run.requests)
                runs[with_streams].append(run)
                told += heard
                print(json.dumps({"streams": streams * with_streams, "p50_ms": round(run.p50_ms, 2)}), flush=True)
    for name, of in (
        ("p50, ms", lambda run: run.p50_ms),
        ("p99, ms", lambda run: run.p99_ms),
        ("answered/s", lambda run: run.per_second),
    ):
        row(name, [of(run) for run in runs[False]], [of(run) for run in runs[True]])
    row("processor each, ms", *([1000 * one for one in spent[key]] for key in (False, True)))
    errors = sum(run.errors for both in runs.values() for run in both)
    print(f"{statistics.median(told) / seconds / streams:.2f} events a second to each stream, {errors} errors")


def row(name: str, without: list[float], with_them: list[float]) -> None:
    one, other = statistics.median(without), statistics.median(with_them)
    print(f"{name:20} without {one:9.2f}  with {other:9.2f}  ratio {other / one:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument(OPTION, metavar="URL", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.listen:
        uvloop.run(listen(asked.listen, asked.streams))
    else:
        measure(asked.streams, asked.rounds, asked.seconds, asked.connections)
