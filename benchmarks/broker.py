"""What a broker changes: the cost of idle workers, the way from submission to start, and what its loss costs.

    python benchmarks/broker.py             four minutes
    python benchmarks/broker.py --workers 8

PostgreSQL as the store, straight and through a pooler (which passes no wake-ups on), each without a broker and with Valkey.
Transactions are what the server counts; the way to the start is from before the request to the first line of the
executor. Needs the distribution's PostgreSQL, and the development requirements.
"""

import argparse
import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

sys.path.insert(0, str(Path(__file__).parents[1]))

import asyncpg
import httpx
from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.house import cpu_seconds, open_house
from benchmarks.servers import Servers
from tests.proxy import Pooler
from tests.redis_server import RedisServer

FAULT_SECONDS = 10.0


@dataclass(frozen=True)
class Figures:
    """Of one way: transactions a second and percent of a core of one idle worker; milliseconds to the start; transactions
    for one task beyond that."""

    idle_transactions: float
    idle_cpu: float
    median: float
    late: float
    task_transactions: float


@dataclass(frozen=True)
class Loss:
    """The longest way to a start while something is wrong with the broker, and how long until all is well, in seconds."""

    worst: float
    healed: float


@contextmanager
def pooled(database_url: str) -> Iterator[str]:
    """The database through a pooler in transaction mode, in a thread of its own."""
    loop = asyncio.new_event_loop()
    pooler = Pooler(database_url, servers=8)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(pooler.__aenter__(), loop).result(10)
    yield pooler.url
    asyncio.run_coroutine_threadsafe(pooler.__aexit__(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def transactions(database_url: str) -> int:
    """How many the database has ended so far, as its statistics say (about a second late)."""

    async def ask() -> int:
        connection = await asyncpg.connect(database_url)
        try:
            asked = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            return int(await connection.fetchval(asked))
        finally:
            await connection.close()

    return asyncio.run(ask())


def way_to_start(client: httpx.Client) -> float:
    """Seconds from before a submission to the first line of its executor."""
    sent = time.time_ns()
    task_id = client.post("/tasks/", json={"task_type": "bench.now", "payload": {}}).json()["id"]
    while True:
        task = client.get(f"/tasks/{task_id}", params={"wait": 20}).json()
        if task["result"]:
            return (task["result"]["began_ns"] - sent) / 1e9


def figures(database_url: str, way: str, settings: dict[str, str], workers: int, seconds: float, times: int) -> Figures:
    with open_house(DATABASE_URL=way, **settings) as house:
        _, address = house.api()
        time.sleep(2)
        alone = _rate(database_url, seconds / 2)
        working = [house.worker(address, "--processes", "1") for _ in range(workers)]
        time.sleep(3)
        before = cpu_seconds([one.pid for one in working])
        idle = _rate(database_url, seconds)
        cpu = (cpu_seconds([one.pid for one in working]) - before) / seconds / workers * 100
        with httpx.Client(base_url=address, timeout=60) as client:
            way_to_start(client)
            began, counted = time.monotonic(), transactions(database_url)
            ways = []
            for _ in range(times):
                time.sleep(random.uniform(0.02, 0.08))
                ways.append(1000 * way_to_start(client))
            time.sleep(1.5)
            for_tasks = transactions(database_url) - counted - idle * (time.monotonic() - began)
        cuts = quantiles(ways, n=100)
        return Figures((idle - alone) / workers, cpu, cuts[49], cuts[98], for_tasks / times)


def _rate(database_url: str, seconds: float) -> float:
    before = transactions(database_url)
    time.sleep(seconds)
    return (transactions(database_url) - before) / seconds


def losses(way: str, workers: int) -> dict[str, Loss]:
    """Each fault for ten seconds, with a task four times a second."""
    server = RedisServer().start()
    redis = Redis.from_url(server.url)
    try:
        with open_house(DATABASE_URL=way, BROKER_URL=server.url) as house:
            _, address = house.api()
            for _ in range(workers):
                house.worker(address, "--processes", "1")
            with httpx.Client(base_url=address, timeout=60) as client:
                way_to_start(client)
                return {
                    "emptied once a second": _loss(client, redis.flushall, lambda: None, again=True),
                    "killed": _loss(client, server.kill, server.start),
                    "frozen": _loss(client, server.freeze, server.thaw),
                }
    finally:
        with suppress(ProcessLookupError, AssertionError):
            server.thaw()
        server.remove()


def _loss(client: httpx.Client, harm: Callable[[], object], mend: Callable[[], object], *, again: bool = False) -> Loss:
    ways: list[float] = []
    began = time.monotonic()
    harm()
    threads = []
    for number in range(round(4 * FAULT_SECONDS)):
        if again and number % 4 == 0:
            harm()
        threads.append(threading.Thread(target=lambda: ways.append(way_to_start(client))))
        threads[-1].start()
        time.sleep(max(0.0, began + number / 4 - time.monotonic()))
    for thread in threads:
        thread.join()
    mended = time.monotonic()
    mend()
    while client.get("/health").json()["checks"].get("broker") != "ok":
        time.sleep(0.05)
    healed = time.monotonic() - mended
    while way_to_start(client) > 0.5:
        healed = time.monotonic() - mended
    time.sleep(6)  # what one process has seen, others may still be finding out
    return Loss(max(ways), healed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long idle workers are watched")
    parser.add_argument("--times", type=int, default=100, help="tasks whose way is measured")
    asked = parser.parse_args()
    console = Console(width=120)
    servers, valkey = Servers(), RedisServer().start()
    try:
        straight = servers.postgresql()
        with pooled(straight) as through:
            ways = {"straight": straight, "through a pooler": through}
            table = Table(
                "Way", "idle: transactions/s", "idle: CPU %", "to start: p50 ms", "p99 ms", "transactions a task"
            )
            for name, way in ways.items():
                for broker, settings in (("", {}), (", broker", {"BROKER_URL": valkey.url})):
                    one = figures(straight, way, settings, asked.workers, asked.seconds, asked.times)
                    numbers = (one.idle_transactions, one.idle_cpu, one.median, one.late, one.task_transactions)
                    table.add_row(name + broker, *(f"{number:.2f}" for number in numbers))
            console.print(table)
            table = Table("Way", "broker", "longest way to a start, s", "all well after, s")
            for name, way in ways.items():
                for fault, loss in losses(way, asked.workers).items():
                    table.add_row(name, fault, f"{loss.worst:.2f}", f"{loss.healed:.2f}")
            console.print(table)
    finally:
        valkey.remove()
        servers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
