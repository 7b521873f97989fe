"""What more workers and more API processes bring on one PostgreSQL, with and without Redis as the broker.

    python benchmarks/scaling.py            1, 2 and 4 of each, five rounds: about ten minutes
    python benchmarks/scaling.py --quick    whether it works

Workers have one runner each, and drain a queue of no-op tasks that was filled before they might begin; the rate is from the
first start to the last end, by the server's clock. API processes share a port and take submissions over 64 connections, with no
worker there. All combinations take turns, round by round, in an order of chance. Programs, database and load share one machine, so
this shows where it has no cores left as well as what the service does with them: read it beside the number of cores.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import asyncpg
import httpx

from benchmarks import plots
from benchmarks.house import load, open_house
from benchmarks.measurements import Measurement, Table, save, show, spread, taken, versions_of
from benchmarks.servers import Missing, Servers

NAME = "scaling"
COUNTS = (1, 2, 4)
WAYS = ("PostgreSQL", "PostgreSQL, Redis")
TASK = {"task_type": "bench.nothing", "payload": {"number": 1}}
COSTS = {"wal": "write-ahead log, bytes", "versions": "row versions", "kept": "kept, bytes"}
COUNTED = """SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS wal, pg_total_relation_size('tasks') AS kept,
  (SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'tasks') AS versions,
  (SELECT max(finished_at) - min(started_at) FROM tasks) AS milliseconds"""
Rates = dict[str, dict[str, list[float]]]
"""Tasks a second of each round, by way and by number of processes (a string: JSON has no other keys)."""


async def look(database_url: str) -> dict[str, float]:
    """What the server has counted so far (about a second late), and milliseconds from the first start to the last end."""
    connection = await asyncpg.connect(database_url)
    try:
        return dict(await connection.fetchrow(COUNTED))
    finally:
        await connection.close()


def drained(settings: Mapping[str, str], workers: int, tasks: int) -> dict[str, float]:
    """Tasks a second that so many workers complete; and of one task, from submission to end: bytes of write-ahead log, row
    versions written, bytes it takes while it is kept."""
    with open_house(**settings) as house:
        _, address = house.api()
        before = asyncio.run(look(settings["DATABASE_URL"]))
        with httpx.Client(base_url=address, timeout=120) as client:
            client.patch("/queues/default", json={"paused": True}).raise_for_status()
            for start in range(0, tasks, 5000):
                body = {"tasks": [TASK] * min(5000, tasks - start)}
                client.post("/tasks/bulk", json=body).raise_for_status()
            for _ in range(workers):
                house.worker(address, "--processes", "1")
            client.patch("/queues/default", json={"paused": False}).raise_for_status()
            deadline = time.monotonic() + 600
            while client.get("/stats").json()["completed"] < tasks:
                if time.monotonic() > deadline:
                    raise RuntimeError("the queue was not drained in ten minutes")
                time.sleep(0.25)
        time.sleep(1.5)
        after = asyncio.run(look(settings["DATABASE_URL"]))
    each = {name: (after[name] - before[name]) / tasks for name in COSTS}
    return {"rate": 1000 * tasks / after["milliseconds"], **each}


def submitted(settings: Mapping[str, str], processes: int, seconds: float) -> float:
    """Submissions a second that so many API processes answer."""
    with open_house(**settings) as house:
        _, address = house.api("--workers", str(processes))
        found = load(f"{address}/tasks/", "POST", TASK, seconds=seconds)
    if found.errors:
        raise RuntimeError(f"{found.errors} submissions were not taken")
    return found.per_second


def measure(servers: Servers, rounds: int, tasks: int, seconds: float) -> dict[str, Any]:
    """Rates of each kind, and what the tasks of each drain cost."""
    rates: dict[str, Rates] = {
        kind: {way: {str(count): [] for count in COUNTS} for way in WAYS} for kind in ("drain", "submit")
    }
    costs: dict[str, list[float]] = {name: [] for name in COSTS}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds} ...", flush=True)
        turns = list(itertools.product(rates, WAYS, COUNTS))
        random.shuffle(turns)
        for kind, way, count in turns:
            settings = {"DATABASE_URL": servers.postgresql()}
            if way != WAYS[0]:
                settings["BROKER_URL"] = servers.redis()
            if kind == "submit":
                rates[kind][way][str(count)].append(submitted(settings, count, seconds))
                continue
            found = drained(settings, count, tasks)
            rates[kind][way][str(count)].append(found["rate"])
            for name, given in costs.items():
                given.append(float(found[name]))
    return {**rates, "cost": costs}


def tables(measurement: Measurement) -> list[Table]:
    """One for workers, one for API processes, one for what a task costs; in brackets the least and the most."""

    def row(way: str, counts: Mapping[str, list[float]]) -> list[str]:
        one = statistics.median(counts["1"])
        gains = [
            f" = {statistics.median(found) / one:.2f} x" if count != "1" else "" for count, found in counts.items()
        ]
        return [way, *(spread(found) + gain for found, gain in zip(counts.values(), gains, strict=True))]

    def ending(word: str) -> str:
        return "es" if word.endswith("s") else "s"

    def table(name: str, kind: str, word: str) -> Table:
        columns = ["tasks/s", *(f"{count} {word}{ending(word) if count > 1 else ''}" for count in COUNTS)]
        return Table(name, columns, [row(way, counts) for way, counts in measurement.data[kind].items()])

    costs = [[word, spread(measurement.data["cost"][name], ",.1f")] for name, word in COSTS.items()]
    return [
        table("scaling-workers", "drain", "worker"),
        table("scaling-api", "submit", "API process"),
        Table("scaling-cost", ["of one no-op task", ""], costs),
    ]


def drawings(measurement: Measurement) -> dict[str, str]:
    """Plots by file name."""

    def bars(title: str, kind: str, word: str) -> str:
        rates: dict[str, Any] = measurement.data[kind]
        given = [
            plots.Bar(f"{count} {word}, {way}", statistics.median(rates[way][str(count)]), ours=way == WAYS[0])
            for count in COUNTS
            for way in WAYS
        ]
        return plots.bars(title, given, form=",.0f")

    return {
        "scaling-workers.svg": bars("No-op tasks completed a second, by workers", "drain", "workers"),
        "scaling-api.svg": bars("Submissions stored a second, by API processes", "submit", "API processes"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of little work")
    parser.add_argument("--postgresql", help="URL of a server that runs already")
    parser.add_argument("--redis", help="URL of a server that runs already")
    parser.add_argument("--results", type=Path, help="folder to keep the figures in")
    options = parser.parse_args()
    rounds, tasks, seconds = (1, 500, 1.0) if options.quick else (5, 20_000, 5.0)
    servers = Servers(redis=options.redis, postgresql=options.postgresql)
    try:
        data = measure(servers, rounds, tasks, seconds)
    except Missing as error:
        print(f"FAILED: {error}")
        return 1
    finally:
        servers.close()
    settings = [
        f"medians of {rounds} interleaved rounds; {tasks:,} tasks to drain by workers of one runner; "
        f"{seconds:g} s of submissions over 64 connections; everything on one machine"
    ]
    versions = versions_of("sqlalchemy", "asyncpg") | servers.versions
    measurement = taken(NAME, data, quick=options.quick, versions=versions, settings=settings)
    show(measurement, tables(measurement))
    save(measurement, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
