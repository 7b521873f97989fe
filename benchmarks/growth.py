"""What claims, lists and other calls cost as the table grows, through the services, the way API and worker call them.

    python benchmarks/growth.py                     up to a million rows: about two minutes
    python benchmarks/growth.py --quick             a hundredth of that
    python benchmarks/growth.py --ours postgresql

Every table has 2,000 waiting tasks, so that there is something to claim; "empty" has nothing else. The tables take turns, round
by round. A claim takes ten tasks, with all that is done beside it: promote what is due, look for the first waiting task of each
pair. Steps are those of SQLite's engine for one call: the same on every machine. SQLite runs with DURABILITY=relaxed, so that no
flush of the disk is in these figures.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sqlalchemy import text

from app.core.lifecycle import Completed
from app.core.logs import configure_logging
from app.core.settings import Settings
from app.core.task import ClaimedTask, JsonText, Status
from app.models.database import Database
from app.models.queue import Head
from app.models.sqlite import VERSION
from app.models.tasks import TaskFilter
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from benchmarks import plots
from benchmarks.counting import Counter
from benchmarks.filled import Kind, fill
from benchmarks.measurements import Measurement, Table, save, show, taken, versions_of
from benchmarks.servers import Missing, Servers

NAME = "growth"
ALWAYS = 2_000
CLAIMED = 10
KINDS: Mapping[Kind, tuple[int, ...]] = {
    "completed": (10_000, 100_000, 1_000_000),
    "pending": (10_000, 100_000),
    "scheduled": (1_000, 10_000, 100_000),
    "running": (100, 1_000, 10_000),
}
WORDS = {"completed": "finished", "pending": "waiting", "scheduled": "scheduled for later", "running": "running"}
Shape = dict[Kind, int]


def shapes(divisor: int) -> dict[str, Shape]:
    """Tables by name: nothing, more and more rows of one state, and the largest of all together."""
    found: dict[str, Shape] = {"empty": {}}
    for kind, counts in KINDS.items():
        for count in counts:
            found[f"{count // divisor:,} {WORDS[kind]}"] = {kind: count // divisor}
    found["all of the largest"] = {kind: counts[-1] // divisor for kind, counts in KINDS.items()}
    return found


class Calls:
    """The calls that are measured, on one table."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._clock = services.database.clock()
        self._claimed: Sequence[ClaimedTask] = ()

    @property
    def all(self) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            "claim 10": self.claim,
            "submit": self.submit,
            "read": self.read,
            "list the newest 50": lambda: self._search(TaskFilter()),
            "list 50 that failed": lambda: self._search(TaskFilter(statuses=(Status.FAILED,))),
            "GET /stats": self._services.insights.stats,
        }

    async def claim(self) -> None:
        exchange = await self._services.queue.exchange("bench", [], ten_of_them)
        self._claimed = exchange.claimed
        if len(self._claimed) != CLAIMED:
            raise RuntimeError(f"claimed {len(self._claimed)} instead of {CLAIMED}")

    async def settle(self) -> None:
        """End what was claimed, so that the running ones do not pile up."""
        if not self._claimed:
            return
        now = self._clock()
        ended = [Ended(task, Completed(JsonText('{"number":1}')), now, 0.001) for task in self._claimed]
        await self._services.queue.exchange("bench", ended)
        self._claimed = ()

    async def submit(self) -> None:
        submission = Submission(task_type="bench.nothing", payload={"number": 1})
        await self._services.tasks.submit(self._services.intake.prepare(submission))

    async def read(self) -> None:
        await self._services.tasks.get(1)

    async def _search(self, wanted: TaskFilter) -> None:
        await self._services.tasks.search(wanted, 51, whole_rows=False)


def ten_of_them(heads: Sequence[Head]) -> list[Wish]:
    return [Wish(tuple((head.queue, head.task_type) for head in heads), CLAIMED)]


def settings_for(url: str) -> Settings:
    return Settings(database_url=url, durability="relaxed", executor_modules=("benchmarks.executors",))


async def build(url: str, shape: Shape) -> None:
    database = Database(url)
    await database.open()
    now = database.clock()()
    async with database.write() as connection:
        await fill(connection, ALWAYS, "pending", now)
        for kind, count in shape.items():
            await fill(connection, count, kind, now)
    if url.startswith("postgresql"):  # autovacuum would have, within a minute
        async with database.write() as connection:
            await connection.execute(text("ANALYZE"))
    await database.close()


async def look(url: str, times: int) -> dict[str, float]:
    """The median milliseconds of each call on one table."""
    found = {}
    async with open_services(settings_for(url)) as services:
        calls = Calls(services)
        # One call after the other: the one that reads much would leave cold caches to those that read little.
        for name, call in calls.all.items():
            took: list[float] = []
            for _ in range(times + 3):
                began = time.perf_counter()
                await call()
                took.append((time.perf_counter() - began) * 1000)
                await calls.settle()
            found[name] = statistics.median(took[3:])  # the first ones open connections and fill caches
    return found


async def steps(url: str) -> dict[str, int]:
    """How many steps SQLite's engine takes for each call."""
    counter = Counter()
    found = {}
    with counter.watched():
        async with open_services(settings_for(url)) as services:
            calls = Calls(services)
            for name, call in calls.all.items():
                await call()  # the first call on a connection reads the schema
                await calls.settle()
                with counter.counting():
                    await call()
                found[name] = counter.cost.steps
            await calls.settle()
    return found


def measure(
    urls: Mapping[str, str], made: Mapping[str, Shape], rounds: int, times: int
) -> dict[str, dict[str, object]]:
    for name, url in urls.items():
        print(f"building {name} ...", flush=True)
        asyncio.run(build(url, made[name]))
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in urls}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds} ...", flush=True)
        for name, url in urls.items():
            for call, milliseconds in asyncio.run(look(url, times)).items():
                rows[name].setdefault(call, []).append(milliseconds)
    return {
        name: {
            "shape": dict(made[name]),
            "milliseconds": rows[name],
            "steps": asyncio.run(steps(url)) if url.startswith("sqlite") else {},
        }
        for name, url in urls.items()
    }


def tables(measurement: Measurement) -> list[Table]:
    data = measurement.data
    calls = list(data["empty"]["milliseconds"])
    rows = []
    for name, row in data.items():
        cells = [name]
        for call in calls:
            mine, base = row["milliseconds"][call], data["empty"]["milliseconds"][call]
            # Round by round, which holds when the machine's speed drifts.
            ratio = statistics.median(one / other for one, other in zip(mine, base, strict=True))
            cells.append(f"{statistics.median(mine):.2f} ms" + ("" if name == "empty" else f" ({ratio:.2f})"))
        rows.append(cells)
    columns = ["besides 2,000 waiting", *calls]
    counted = [[name, *(f"{count:,}" for count in row["steps"].values())] for name, row in data.items() if row["steps"]]
    return [Table("growth", columns, rows), Table("growth-steps", columns, counted)]


def drawings(measurement: Measurement) -> dict[str, str]:
    """Plots by file name."""

    def line(kind: str, value: Callable[[Mapping[str, object]], float]) -> list[tuple[float, float]]:
        alone = [row for row in measurement.data.values() if set(row["shape"]) <= {kind}]
        return sorted((float(row["shape"].get(kind, 0)), value(row)) for row in alone)

    return {
        "growth-claim.svg": plots.lines(
            "Claim of 10 tasks while rows of one state pile up",
            "rows",
            "ms",
            {word: line(kind, lambda row: statistics.median(row["milliseconds"]["claim 10"])) for kind, word in WORDS.items()},  # type: ignore[index]
        ),
        "growth-list.svg": plots.lines(
            "Page of the newest 50 tasks while rows of one state pile up",
            "rows",
            "ms",
            {
                word: line(kind, lambda row: statistics.median(row["milliseconds"]["list the newest 50"]))  # type: ignore[index]
                for kind, word in WORDS.items()
            },
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows, one round")
    parser.add_argument("--ours", choices=("sqlite", "postgresql"), default="sqlite", help="store of this project")
    parser.add_argument("--postgresql", help="URL of a server that runs already")
    parser.add_argument("--results", type=Path, help="folder to keep the figures in")
    options = parser.parse_args()
    configure_logging("warning", "json")  # a line for each claim is not what is measured
    made = shapes(100 if options.quick else 1)
    rounds, times = (1, 5) if options.quick else (3, 20)
    servers = Servers(postgresql=options.postgresql)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            urls = {
                name: f"sqlite:///{folder}/{place}.db" if options.ours == "sqlite" else servers.postgresql(f"_{place}")
                for place, name in enumerate(made)
            }
            data = measure(urls, made, rounds, times)
        except Missing as error:
            print(f"FAILED: {error}")
            return 1
        finally:
            servers.close()
    settings = [
        f"{rounds} rounds in which the tables take turns, medians of {times} calls; no flush in the figures (relaxed)"
    ]
    versions = versions_of("sqlalchemy") | ({"SQLite": VERSION} if options.ours == "sqlite" else servers.versions)
    measurement = taken(NAME, data, quick=options.quick, versions=versions, settings=settings)
    show(measurement, tables(measurement))
    save(measurement, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
