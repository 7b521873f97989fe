"""What the hot paths cost, counted in the real service in one process, and what they cost when that was last put on record.

    python benchmarks/hot_paths.py            today's costs beside those on record
    python benchmarks/hot_paths.py --record   put today's on record (benchmarks/hot_paths.json)
    python benchmarks/hot_paths.py --only submit,read
    python benchmarks/hot_paths.py --where "wire of 100"      which functions execute most instructions

Exit status 1 says that something costs more than it did; tests/test_hot_paths.py asks for 0.

Instructions are given as a multiple of what a bare FastAPI application executes for one POST, so that a record holds for
every version of Python. Statements and steps are SQLite's. Processor time is what counts cannot see: the work of libraries
in C and Rust. It too is a multiple of the bare POST's, the least of many tries, because everything that disturbs adds to it.
"""

import argparse
import asyncio
import io
import json
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from app.api.app import create_app
from app.core.attempt_log import LogLimits
from app.core.lifecycle import Completed
from app.core.logs import configure_logging
from app.core.settings import Settings
from app.core.task import ClaimedTask, JsonText
from app.models.queue import Head
from app.models.sqlite import VERSION
from app.services import keys
from app.services.executors import RunnerSetup
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.wiring import Services
from app.workers import wire
from app.workers.attempt_logs import AttemptLogs
from app.workers.frames import FrameBuffer
from app.workers.pool import RunnerPool
from app.workers.process import RunnerProcess
from app.workers.roster import RunnerOptions
from app.workers.runner import Runner
from benchmarks.bare_app import app as bare_app
from benchmarks.counting import Cost, Counter

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_suffix(".json")
TASK = {"task_type": "bench.nothing", "payload": {"number": 12345}}
BARE = "bare"
BATCH, MANY, TOGETHER = 100, 1000, 64
SHORT = (BARE, "submit", "read", "list of 50")
TRIES, ROUNDS, PATIENCE = 4, 6, 5
COUNT_LIMIT = 1.3
"""Counts differ by up to 6 % from one version of Python to the next, from run to run by less than 1 %."""
PROCESSOR_LIMIT = 1.6
"""Measured on two cores with six busy programs: within 15 %."""
GAIN = 1.5
Operation = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Expense:
    """One operation. `of_bare` and `processor_of_bare` are multiples of a bare FastAPI application's POST."""

    of_bare: float
    statements: int
    steps: int
    processor_of_bare: float


async def ask(app: FastAPI, method: str, path: str, body: bytes = b"") -> bytes:
    """One request to `app` without a server between; the body of its answer, which must be a 2xx."""
    requests = [{"type": "http.request", "body": body, "more_body": False}]
    answer: list[dict[str, Any]] = []

    async def receive() -> Any:
        return requests.pop() if requests else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        answer.append(message)

    headers = {b"host": b"localhost", b"content-type": b"application/json", b"content-length": str(len(body)).encode()}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": list(headers.items()),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in answer[1:])
    if not 200 <= answer[0]["status"] < 300:
        raise RuntimeError(f"{method} {path}: {answer[0]['status']} {content[:200]!r}")
    return content


class HotPaths:
    """The operations, on one application with a database of its own."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._services: Services = app.state.services
        self._claimed: Sequence[ClaimedTask] = ()
        self._task = json.dumps(TASK).encode()
        self._tasks = json.dumps({"tasks": [TASK] * MANY}).encode()

    @property
    def operations(self) -> Mapping[str, Operation]:
        return {
            BARE: self.bare,
            "submit": self.submit,
            "submit 64 together": self.submit_together,
            "submit 1000 in bulk": self.submit_many,
            "read": self.read,
            "read 64 together": self.read_together,
            "list of 50": self.list,
            "exchange of 100": self.exchange,
        }

    async def bare(self) -> None:
        await ask(bare_app, "POST", "/tasks", self._task)

    async def submit(self) -> None:
        await ask(self._app, "POST", "/tasks", self._task)

    async def submit_together(self) -> None:
        await asyncio.gather(*(self.submit() for _ in range(TOGETHER)))

    async def submit_many(self) -> None:
        await ask(self._app, "POST", "/tasks/bulk", self._tasks)

    async def read(self) -> None:
        await ask(self._app, "GET", "/tasks/1")

    async def read_together(self) -> None:
        await asyncio.gather(*(self.read() for _ in range(TOGETHER)))

    async def list(self) -> None:
        await ask(self._app, "GET", "/tasks")

    async def exchange(self) -> None:
        """Settle what was claimed the last time, and claim as much again, as a worker does."""
        now = self._services.database.clock()()
        ended = [Ended(task, Completed(JsonText('{"number":12345}')), now, 0.001) for task in self._claimed]
        exchange = await self._services.queue.exchange("counter", ended, all_of_them)
        self._claimed = exchange.claimed
        if len(self._claimed) != BATCH:
            raise RuntimeError(f"claimed {len(self._claimed)} instead of {BATCH}")


def all_of_them(heads: Sequence[Head]) -> list[Wish]:
    return [Wish(tuple((head.queue, head.task_type) for head in heads), BATCH)]


class Ferry:
    """A worker's pool and a runner in one process: a hundred attempts over the wire, run, and their outcomes back."""

    def __init__(self, services: Services) -> None:
        setup = RunnerSetup(services.registry.modules)
        self._said = Said()
        self._pool = RunnerPool(
            *(RunnerOptions(1, setup, 5.0), services.registry, services.bus, services.database.clock(), "counter"),
            wake=lambda: None,
            store_checkpoint=never,
            keep_file=never,
            logs=AttemptLogs(LogLimits(500, 2**17), services.database.clock(), str, lambda: None),
        )
        self._process = RunnerProcess(self._pool)
        self._process.connection_made(self._said)
        self._process.ready = True
        self._pool.roster.runners.append(self._process)
        self._ours, theirs = socket.socketpair()
        self._runner = Runner(theirs, [])
        self._frames = FrameBuffer()
        self._runner._obey({"start": asdict(setup)})
        self._ours.recv(1 << 18)  # it is ready
        # Under a counter everything takes long, and how long must not decide in how many frames it is said.
        wire.BATCH_SECONDS = 3600.0
        self._tasks = [
            ClaimedTask(
                number, 1, "bench.nothing", "default", JsonText('{"number":12345}'), 1, 300.0, number, False, None
            )
            for number in range(BATCH)
        ]

    async def there_and_back(self) -> None:
        self._pool.place(self._tasks, {})
        while len(self._pool.ended) < BATCH:
            for message in self._frames.feed(self._said.taken()):
                self._runner._obey(message)
            while not self._runner._inbox.empty():
                self._runner._run_plain(self._runner._inbox.get())
            self._process.data_received(self._ours.recv(1 << 20))
        self._pool.ended.clear()


class Said(asyncio.WriteTransport):
    """Keeps what the worker writes until the runner reads it."""

    def __init__(self) -> None:
        super().__init__()
        self._data = b""

    def write(self, data: Any) -> None:
        self._data += data

    def taken(self) -> bytes:
        data, self._data = self._data, b""
        return data

    def is_closing(self) -> bool:
        return False


async def never(*_: Any) -> bool:
    raise RuntimeError("a task that does nothing stores nothing")


@asynccontextmanager
async def opened() -> AsyncIterator[Mapping[str, Operation]]:
    """The operations, ready to be done over and over."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = Settings(
            database_url=f"sqlite:///{folder}/tasks.db",
            executor_modules=("benchmarks.executors",),
            files_dir=Path(folder) / "files",
            # No chore may fall into what is counted: under a counter an operation may take longer than their intervals.
            poll_seconds=3600,
            sweep_seconds=3600,
        )
        keys.REFRESH_SECONDS = settings.poll_seconds
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            paths = HotPaths(app)
            for _ in range(2):
                await paths.submit_many()  # enough for every exchange
            yield {**paths.operations, "wire of 100": Ferry(app.state.services).there_and_back}


async def counted(only: Collection[str]) -> dict[str, Cost]:
    """What each operation takes, the least of a few tries: a chore that falls into one of them is none of its cost."""
    counter = Counter()
    costs = {}
    with counter.watched():
        async with opened() as operations:
            for name, operation in chosen(operations, only).items():
                await operation()
                await operation()
                tries = []
                for _ in range(TRIES):
                    with counter.counting():
                        await operation()
                    tries.append(counter.cost)
                costs[name] = Cost(
                    min(one.instructions for one in tries),
                    min(one.statements for one in tries),
                    min(one.steps for one in tries),
                )
    return costs


async def timed(only: Collection[str]) -> dict[str, float]:
    """Processor seconds of each operation, the least of some rounds in which they take turns."""
    least: dict[str, float] = {}
    async with opened() as operations:
        for number in range(ROUNDS + 1):
            for name, operation in chosen(operations, only).items():
                times = 20 if name in SHORT else 2
                began = time.process_time()
                for _ in range(times):
                    await operation()
                took = (time.process_time() - began) / times
                if number:  # the first round warms up
                    least[name] = min(took, least.get(name, took))
    return least


async def where(name: str) -> list[tuple[str, int]]:
    """Instructions of one operation by function, the most first."""
    counter = Counter()
    with counter.watched():
        async with opened() as operations:
            for _ in range(3):
                with counter.counting():
                    await operations[name]()
    return counter.where()


def chosen(operations: Mapping[str, Operation], only: Collection[str]) -> dict[str, Operation]:
    """Some of them; the yardstick always."""
    return {name: operation for name, operation in operations.items() if name in only or name == BARE or not only}


def measure(record: Mapping[str, Expense], only: Collection[str]) -> dict[str, Expense]:
    """Today's expenses. While the processor's time is over the limit it is measured again, a few times: disturbances can
    only add to it, so the least that was ever seen is nearest to the truth."""
    costs = asyncio.run(counted(only))
    bare = costs.pop(BARE)
    least: dict[str, float] = {}
    for _ in range(PATIENCE):
        times = asyncio.run(timed(only))
        base = times.pop(BARE)
        least = {name: min(took / base, least.get(name, took / base)) for name, took in times.items()}
        if all(name in record and least[name] <= record[name].processor_of_bare * PROCESSOR_LIMIT for name in least):
            break
    return {
        name: Expense(
            round(cost.instructions / bare.instructions, 2), cost.statements, cost.steps, round(least[name], 2)
        )
        for name, cost in costs.items()
    }


def findings(name: str, now: Expense, then: Expense | None, *, same_library: bool = True) -> list[str]:
    """What is wrong with one operation, in a sentence each. SQLite's steps are compared for one version of it alone."""
    if then is None:
        return [f"{name}: not on record"]
    compared = [
        ("Python instructions", now.of_bare, then.of_bare, COUNT_LIMIT),
        ("processor time", now.processor_of_bare, then.processor_of_bare, PROCESSOR_LIMIT),
    ]
    if same_library:
        compared.append(("steps of SQLite", now.steps, then.steps, COUNT_LIMIT))
    found = [
        f"{name}: {what} {after / before:.2f} times what is on record (at most {limit})"
        for what, after, before, limit in compared
        if after > before * limit
    ]
    if now.statements > then.statements:
        found.append(f"{name}: {now.statements} SQL statements, {then.statements} on record")
    # Against a record that is too high a slowdown would go unseen.
    if now.of_bare * GAIN < then.of_bare:
        found.append(f"{name}: {then.of_bare / now.of_bare:.2f} times cheaper than on record: record it")
    return found


def read_record() -> tuple[dict[str, Expense], str]:
    """What is on record, and the version of SQLite it was taken with."""
    if not RECORD.exists():
        return {}, ""
    stored = json.loads(RECORD.read_text())
    return {name: Expense(**fields) for name, fields in stored["expenses"].items()}, stored["sqlite"]


def write_record(expenses: Mapping[str, Expense]) -> None:
    stored = {"sqlite": VERSION, "expenses": {name: asdict(one) for name, one in expenses.items()}}
    RECORD.write_text(json.dumps(stored, indent=2) + "\n")


def show(now: Mapping[str, Expense], record: Mapping[str, Expense]) -> Table:
    table = Table("operation", "Python instructions", "processor time", "SQL statements", "steps of SQLite")
    for name, one in now.items():
        then = record.get(name)
        pairs = (
            (f"{one.of_bare:.2f}", then and f"{then.of_bare:.2f}"),
            (f"{one.processor_of_bare:.1f}", then and f"{then.processor_of_bare:.1f}"),
            (f"{one.statements}", then and f"{then.statements}"),
            (f"{one.steps:,}", then and f"{then.steps:,}"),
        )
        table.add_row(name, *(f"{after} ({before or 'new'})" for after, before in pairs))
    table.caption = "(on record); instructions and processor time as multiples of a bare FastAPI application's POST"
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="put today's costs on record")
    parser.add_argument("--only", default="", help="some operations, separated by commas")
    parser.add_argument("--where", metavar="OPERATION", help="the functions that execute most instructions")
    options = parser.parse_args(arguments)
    # Lines are written as the API writes them, so that what they cost is counted.
    configure_logging("info", "json", io.StringIO())
    if options.where:
        functions = asyncio.run(where(options.where))
        total = sum(count for _, count in functions)
        for function, count in functions[:25]:
            print(f"{count:9,} {count / total:4.0%}  {function.removeprefix(f'{ROOT}/')}")
        return 0
    record, library = read_record()
    now = measure(record, [name for name in options.only.split(",") if name])
    console = Console(width=120)
    console.print(show(now, record))
    if options.record:
        write_record(record | now)
        return 0
    found = [
        fault
        for name, one in now.items()
        for fault in findings(name, one, record.get(name), same_library=library == VERSION)
    ]
    for fault in found:
        console.print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
