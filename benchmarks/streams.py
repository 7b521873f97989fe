"""What open streams of the overview cost a submission: POST /tasks with and without them, by turns.

    python benchmarks/streams.py            1,000 streams, six rounds: about three minutes
    python benchmarks/streams.py --quick    whether it works

Every submission changes what the streams show, so each of them is told once a second all the while. They are read by a process
of its own, which has its share of the machine too. Without flushes (relaxed), which would hide the difference.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvloop

from benchmarks.house import ROOT, cpu_seconds, load, open_house
from benchmarks.measurements import Measurement, Table, save, show, spread, taken, versions_of

NAME = "streams"
FIGURES = {"p50, ms": ",.2f", "p99, ms": ",.2f", "answered/s": ",.0f", "processor each, ms": ",.3f"}
CONNECTIONS = 8
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


def measure(streams: int, rounds: int, seconds: float, connections: int) -> dict[str, Any]:
    """Without and with the streams by turns: figures of each round, and how many events a second each stream was sent."""
    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    told: list[float] = []
    with open_house(MAX_STREAMS=str(streams), MAX_CONNECTIONS_PER_ADDRESS="0", DURABILITY="relaxed") as house:
        api, url = house.api()
        load(f"{url}/tasks", "POST", TASK, connections, 1.0)
        for number in range(rounds):
            for way in found if number % 2 else reversed(found):
                print(f"round {number + 1} of {rounds}, {way} ...", flush=True)
                with listening(url, streams) if way == "with" else contextlib.nullcontext([]) as heard:
                    before = cpu_seconds([api.pid])
                    run = load(f"{url}/tasks", "POST", TASK, connections, seconds)
                    spent = 1000 * (cpu_seconds([api.pid]) - before) / run.requests
                if run.errors:
                    raise RuntimeError(f"{run.errors} submissions were not taken")
                found[way].append(dict(zip(FIGURES, (run.p50_ms, run.p99_ms, run.per_second, spent), strict=True)))
                told += [events / run.seconds / streams for events in heard]
    return {"streams": streams, "told_per_second": told, **found}


def tables(measurement: Measurement) -> list[Table]:
    """Submissions without and with the streams; in brackets the least and the most."""
    data = measurement.data
    rows = []
    for name, form in FIGURES.items():
        without, with_them = ([one[name] for one in data[way]] for way in ("without", "with"))
        ratio = statistics.median(with_them) / statistics.median(without)
        rows.append([name, spread(without, form), spread(with_them, form), f"{ratio:.2f}"])
    columns = ["POST /tasks", "without", f"with {data['streams']:,} streams", "ratio"]
    return [Table(NAME, columns, rows)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fifty streams, one round")
    parser.add_argument("--results", type=Path, help="folder to keep the figures in")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument(OPTION, metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.listen:
        uvloop.run(listen(options.listen, options.streams))
        return 0
    streams, rounds, seconds = (50, 1, 1.0) if options.quick else (options.streams, 6, 5.0)
    data = measure(streams, rounds, seconds, CONNECTIONS)
    each = statistics.median(data["told_per_second"])
    measurement = taken(
        NAME,
        data,
        quick=options.quick,
        versions=versions_of("fastapi", "uvicorn"),
        settings=[
            f"{rounds} rounds of {seconds:g} s in which with and without take turns, medians; {CONNECTIONS} clients, no flush "
            f"(relaxed); each stream was sent {each:.1f} events a second"
        ],
    )
    show(measurement, tables(measurement))
    save(measurement, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
