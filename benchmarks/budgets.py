"""The budgets, measured side by side in one run: medians of interleaved rounds, ratios against a bare FastAPI application.

    python benchmarks/budgets.py            all of it, about four minutes
    python benchmarks/budgets.py --quick    shorter rounds, one minute, rougher
    python benchmarks/budgets.py --only submit,pickup
    python benchmarks/budgets.py --ours postgresql    on a PostgreSQL server that is started for it

Every figure is with full durability: an answer is sent after the commit is on disk.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from sqlalchemy import text

from app.core.task import JsonText
from app.models import chores
from app.models import queue as rows
from app.models.database import Connection, Database
from app.models.queue import Completion
from app.models.sqlite import VERSION
from benchmarks.caller import Caller
from benchmarks.filled import fill
from benchmarks.house import House, cpu_seconds, end, load, open_house, pss_mb, tree
from benchmarks.measurements import Measurement, Table, save, show, taken, versions_of
from benchmarks.servers import Servers

NAME = "budgets"
BODY = {"task_type": "bench.nothing", "payload": {"number": 12345}}


@dataclass(frozen=True)
class Row:
    """One line of the table. `met` is None where there is no budget to meet."""

    what: str
    measured: str
    budget: str
    met: bool | None


class Bench:
    def __init__(self, rounds: int, seconds: float, servers: Servers | None = None) -> None:
        """`servers`: the store is PostgreSQL; None: SQLite files."""
        self.rounds, self.seconds, self._servers = rounds, seconds, servers

    def database(self, house: House, name: str) -> str:
        """The address of an empty database."""
        return self._servers.postgresql(f"_{name}") if self._servers else f"sqlite:///{house.folder}/{name}.db"

    def compared(self, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float, float]:
        """Medians of both, and the median of the ratio pair by pair, which holds when the machine's speed drifts."""
        pairs = [(ours(), theirs()) for _ in range(self.rounds)]
        medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
        return medians[0], medians[1], statistics.median(mine / yours for mine, yours in pairs)

    def submit(self, house: House) -> list[Row]:
        _, address = house.api()
        _, bare = house.bare()
        rate = lambda url: lambda: load(f"{url}/tasks", "POST", BODY, seconds=self.seconds).per_second  # noqa: E731
        for warm in (rate(address), rate(bare)):
            warm()
        mine, yours, ratio = self.compared(rate(address), rate(bare))
        return [
            Row(
                "POST /tasks, 64 clients",
                f"{mine:,.0f}/s, {ratio:.2f} of bare ({yours:,.0f}/s)",
                ">= 0.5",
                ratio >= 0.5,
            )
        ]

    def read(self, house: House) -> list[Row]:
        _, address = house.api()
        _, bare = house.bare()
        task_id = httpx.post(f"{address}/tasks", json=BODY).json()["id"]
        rate = lambda url: lambda: load(url, seconds=self.seconds).per_second  # noqa: E731
        mine, yours, ratio = self.compared(rate(f"{address}/tasks/{task_id}"), rate(f"{bare}/tasks/1"))
        return [
            Row(
                "GET /tasks/{id}, 64 clients",
                f"{mine:,.0f}/s, {ratio:.2f} of bare ({yours:,.0f}/s)",
                ">= 0.6",
                ratio >= 0.6,
            )
        ]

    def bulk(self, house: House) -> list[Row]:
        _, address = house.api()
        caller = Caller(address)
        body = json.dumps({"tasks": [BODY] * 10_000})
        took = []
        for _ in range(self.rounds + 1):
            began = time.perf_counter()
            caller.post("/tasks/bulk", body)
            took.append(time.perf_counter() - began)
        rate = 10_000 / statistics.median(took[1:])
        return [Row("POST /tasks/bulk, 10,000 a request", f"{rate:,.0f} tasks/s", ">= 20,000/s", rate >= 20_000)]

    def drain(self, house: House) -> list[Row]:
        _, address = house.api()
        count = 20_000
        worker = house.worker(address)
        drained(address, 2000)
        rates = [drained(address, count) for _ in range(self.rounds)]
        memory = {pid: pss_mb(pid) for pid in tree(worker.pid)}
        end(worker)
        limit = asyncio.run(raw_claim_and_complete(self.database(house, "raw"), count))
        rate = statistics.median(rates)
        parent, runner = memory.pop(worker.pid), max(memory.values())
        return [
            Row(
                "drain no-op tasks, one worker",
                f"{rate:,.0f}/s, {rate / limit:.2f} of the statements alone ({limit:,.0f}/s)",
                ">= 0.4",
                rate >= 0.4 * limit,
            ),
            Row("memory of the worker parent", f"{parent:.0f} MB", "<= 70 MB", parent <= 70),
            Row("memory of a runner", f"{runner:.0f} MB", "<= 60 MB", runner <= 60),
        ]

    def pickup(self, house: House) -> list[Row]:
        _, address = house.api()
        worker = house.worker(address)
        delays = []
        caller = Caller(address)
        for number in range(220 if self.rounds > 1 else 80):
            sent = time.time_ns()
            task_id = caller.post("/tasks", '{"task_type": "bench.now", "payload": {}}')["id"]
            result = caller.completed(task_id)["result"]
            if number >= 20:
                delays.append((result["began_ns"] - sent) / 1e6)
            time.sleep(0.02)
        caller.close()
        quantiles = statistics.quantiles(delays, n=100)
        pids = tree(worker.pid)
        used, began = cpu_seconds(pids), time.perf_counter()
        time.sleep(5 if self.rounds > 1 else 3)
        share = 100 * (cpu_seconds(pids) - used) / (time.perf_counter() - began)
        return [
            Row(
                "idle pick-up, POST to first line of code",
                f"p50 {quantiles[49]:.1f} ms, p99 {quantiles[98]:.1f} ms",
                "p50 <= 5, p99 <= 15 ms",
                quantiles[49] <= 5 and quantiles[98] <= 15,
            ),
            Row("CPU of an idle worker, runners included", f"{share:.1f} %", "<= 1 %", share <= 1),
        ]

    def latency(self, house: House) -> list[Row]:
        """The seed's figures, seen by one more client while four submit and a worker drains."""
        api, address = house.api()
        house.worker(address)
        task_id = httpx.post(f"{address}/tasks", json=BODY).json()["id"]
        calls: dict[str, tuple[float, Callable[[httpx.Client], httpx.Response]]] = {
            "create": (50, lambda client: client.post("/tasks", json=BODY)),
            "status": (20, lambda client: client.get(f"/tasks/{task_id}")),
            "list": (30, lambda client: client.get("/tasks", params={"limit": 50})),
            "health": (10, lambda client: client.get("/health")),
        }
        seconds = 10 if self.rounds > 1 else 4
        took = asyncio.run(self._beside_load(address, calls, seconds))
        memory = pss_mb(api.pid)
        result = []
        for name, (goal, _) in calls.items():
            quantiles = statistics.quantiles(took[name], n=100)
            measured = f"p50 {quantiles[49]:.1f} ms, p99 {quantiles[98]:.1f} ms"
            result.append(
                Row(
                    f"{name}, while 4 clients submit and a worker drains",
                    measured,
                    f"p99 < {goal:.0f} ms",
                    quantiles[98] < goal,
                )
            )
        return [*result, Row("memory of the API", f"{memory:.0f} MB", "<= 90 MB", memory <= 90)]

    async def _beside_load(self, address: str, calls: dict[str, Any], seconds: float) -> dict[str, list[float]]:
        pressure = asyncio.create_task(asyncio.to_thread(load, f"{address}/tasks", "POST", BODY, 4, seconds))
        took: dict[str, list[float]] = {name: [] for name in calls}

        def probe() -> None:
            with httpx.Client(base_url=address) as client:
                while not pressure.done():
                    for name, (_, call) in calls.items():
                        began = time.perf_counter()
                        call(client).raise_for_status()
                        took[name].append((time.perf_counter() - began) * 1000)

        await asyncio.to_thread(probe)
        await pressure
        return took

    def growth(self, house: House) -> list[Row]:
        many = 1_000_000 if self.rounds > 1 else 200_000
        small = asyncio.run(claim_cost(self.database(house, "small"), 1_000, 0))
        found = {
            "100,000 waiting": asyncio.run(claim_cost(self.database(house, "waiting"), 100_000, 0)),
            f"{many:,} finished": asyncio.run(claim_cost(self.database(house, "finished"), 1_000, many)),
        }
        return [
            Row(
                f"claim of 10 with {what}",
                f"{cost:.2f} ms, {cost / small:.2f} of a small table",
                "<= 1.3",
                cost <= 1.3 * small,
            )
            for what, cost in found.items()
        ]


def drained(address: str, count: int) -> float:
    """Tasks a second from when all are submitted to the last one. By then the worker is awake, and the API has nothing to do."""
    caller = Caller(address)
    before = caller.get("/stats")["completed"]
    ids = caller.submit_many(BODY, count)
    began, done = time.perf_counter(), caller.get("/stats")["completed"] - before
    caller.completed(ids[-1])
    rate = (count - done) / (time.perf_counter() - began)
    caller.close()
    return float(rate)


async def raw_claim_and_complete(url: str, count: int) -> float:
    """Tasks a second of our claim and complete statements alone, 100 a transaction, with nothing around them."""
    database = Database(url)
    await database.open()
    now = database.clock()()
    async with database.write() as connection:
        await fill(connection, count, "pending", now)
    began = time.perf_counter()
    claimed: list[Any] = []
    for _ in range(count // 100 + 1):
        async with database.write() as connection:
            if claimed:
                done = [Completion(task.id, task.lease, JsonText('{"number":1}'), now) for task in claimed]
                await rows.complete(connection, done)
            until = now + timedelta(seconds=30)
            claimed = await rows.claim(connection, [("default", "bench.nothing")], 100, "raw", now, until)
    rate = count / (time.perf_counter() - began)
    await database.close()
    return rate


async def claim_cost(url: str, waiting: int, finished: int) -> float:
    """Milliseconds of one claim of ten, heads and promotion included, in a transaction that is undone; the median."""
    database = Database(url)
    await database.open()
    now = database.clock()()
    async with database.write() as connection:
        await fill(connection, finished, "completed", now)
        await fill(connection, waiting, "pending", now)
        await connection.execute(text("ANALYZE"))
    took: list[float] = []
    for _ in range(40):
        with contextlib.suppress(Undone):
            async with database.write() as connection:
                await _claim_ten(connection, now, took)
                raise Undone
    await database.close()
    return statistics.median(took)


class Undone(Exception):
    """Ends a transaction that shall leave nothing behind."""


async def _claim_ten(connection: Connection, now: datetime, took: list[float]) -> None:
    await connection.exec_driver_sql("SELECT 1")  # takes the write lock, which is not what is measured
    began = time.perf_counter()
    await chores.promote_due(connection, now, 1000)
    pairs = [(head.queue, head.task_type) for head in (await rows.front(connection)).heads]
    await rows.claim(connection, pairs, 10, "w", now, now + timedelta(seconds=30))
    took.append((time.perf_counter() - began) * 1000)


def tables(measurement: Measurement) -> list[Table]:
    lines = [
        [row["what"], row["measured"], row["budget"], {True: "yes", False: "NO", None: ""}[row["met"]]]
        for row in measurement.data
    ]
    return [Table("budgets", ["what", "measured", "budget", "met"], lines)]


NAMES = ("submit", "read", "bulk", "drain", "pickup", "latency", "growth")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter rounds")
    parser.add_argument("--only", default=",".join(NAMES), help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--ours", choices=("sqlite", "postgresql"), default="sqlite", help="store of this project")
    parser.add_argument("--results", type=Path, help="folder to keep the figures in")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(NAMES)
    if unknown:
        parser.error(f"--only takes some of {', '.join(NAMES)}, not {', '.join(sorted(unknown))}")
    with contextlib.closing(Servers()) as servers:
        return measure(options, servers if options.ours == "postgresql" else None)


def measure(options: argparse.Namespace, servers: Servers | None) -> int:
    """On SQLite files, or on a server. Returns the exit status."""
    bench = Bench(1 if options.quick else 5, 1.5 if options.quick else 3.0, servers)
    found: list[Row] = []
    for name in options.only.split(","):
        print(f"measuring {name} ...", flush=True)
        with open_house(**({"DATABASE_URL": servers.postgresql("_tasks")} if servers else {})) as house:
            house.migrate()
            found += getattr(bench, name)(house)
    durable = "PostgreSQL, synchronous_commit on" if servers else "synchronous=FULL"
    settings = [f"{durable}: an answer is sent after the commit is on disk", f"medians of {bench.rounds} rounds"]
    versions = versions_of("fastapi", "uvicorn", "pydantic", "sqlalchemy")
    versions |= servers.versions if servers else {"SQLite": VERSION}
    data = [asdict(row) for row in found]
    measurement = taken(NAME, data, quick=options.quick, versions=versions, settings=settings)
    show(measurement, tables(measurement))
    if options.results or (servers is None and options.only == ",".join(NAMES)):
        save(measurement, options.results)
    return 1 if any(row.met is False for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
