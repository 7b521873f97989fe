"""What an operator waits for: calls of the API and pages of the dashboard, with few rows in the table and with a million.

    python benchmarks/pages.py            a million rows: about four minutes
    python benchmarks/pages.py --quick    ten thousand, whether it works

The two tables take turns, round by round; each call is made 20 times a round over one connection. A page is timed in Chromium, with
nothing in its cache, from the address to the first numbers on it; without Chromium pages are left out. Nobody else uses the service
meanwhile.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.models.database import Database
from app.models.sqlite import VERSION
from benchmarks.caller import Caller
from benchmarks.filled import CAUSE, Kind, fill
from benchmarks.house import House, open_house
from benchmarks.measurements import Measurement, Table, save, show, taken, versions_of

NAME = "pages"
FEW: Mapping[Kind, int] = {"completed": 1_000, "failed": 100, "pending": 100, "scheduled": 100}
MANY: Mapping[Kind, int] = {"completed": 900_000, "failed": 10_000, "pending": 80_000, "scheduled": 10_000}
CALLS = {
    "one task": "/tasks/1",
    "newest 50": "/tasks?limit=50",
    "50 that failed": "/tasks?limit=50&status=failed",
    "50 of a type": "/tasks?limit=50&task_type=bench.nothing",
    "50 of a tag that nobody has": "/tasks?limit=50&tag=nobody",
    "50 with a word that all have": "/tasks?limit=50&q=number",
    "50 with a word that nobody has": "/tasks?limit=50&q=nowhere",
    "counts": "/stats",
    "counts of a day, by type": "/stats?from={day}&by=task_type",
    "queues": "/queues",
    "dead letters by cause": "/dead-letters/groups",
    "dead letters of a cause": f"/dead-letters?limit=50&fingerprint={CAUSE}",
    "why one waits": "/tasks/{waiting}/explain",
    "metrics": "/metrics",
}
PAGES = {
    "overview": "#/",
    "tasks": "#/tasks",
    "one task": "#/tasks/{waiting}",
    "dead letters": "#/dead-letters",
    "queues": "#/queues",
}
SETTLED = "main table, main .empty, main .group, main dl"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
Times = dict[str, list[float]]
"""Milliseconds of each round, by call or page."""


async def build(url: str, shape: Mapping[Kind, int]) -> None:
    database = Database(url)
    await database.open()
    now = database.clock()()
    async with database.write() as connection:
        for kind, count in shape.items():
            await fill(connection, count, kind, now)
    await database.close()


def places(house: House, address: str) -> dict[str, str]:
    """What stands in braces in paths."""
    caller = Caller(address)
    waiting = caller.get("/tasks?limit=1&status=pending")["items"][0]["id"]
    caller.close()
    day = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 86400))
    return {"waiting": str(waiting), "day": quote(day)}


def called(address: str, path: str, times: int) -> float:
    """The median milliseconds of a call."""
    caller = Caller(address)
    took = []
    for _ in range(times + 2):
        began = time.perf_counter()
        caller.text(path)
        took.append((time.perf_counter() - began) * 1000)
    caller.close()
    return statistics.median(took[2:])  # the first ones open connections and fill caches


async def shown(program: str, address: str, where: Mapping[str, str]) -> dict[str, float]:
    """Milliseconds until each page has its first numbers."""
    from playwright.async_api import async_playwright

    found = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, place in PAGES.items():
            context = await browser.new_context()
            page = await context.new_page()
            began = time.perf_counter()
            await page.goto(f"{address}/{place.format(**where)}")
            await page.locator(SETTLED).first.wait_for()
            found[name] = (time.perf_counter() - began) * 1000
            await context.close()
        await browser.close()
    return found


def measure(houses: Mapping[str, str], rounds: int, times: int) -> dict[str, dict[str, Times]]:
    """By table (`few`, `many`): times of calls, and of pages where there is a browser."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    found: dict[str, dict[str, Times]] = {name: {"calls": {}, "pages": {}} for name in houses}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds} ...", flush=True)
        for name, url in houses.items():
            with open_house(DATABASE_URL=url) as house:
                _, address = house.api()
                where = places(house, address)
                for call, path in CALLS.items():
                    took = called(address, path.format(**where), times)
                    found[name]["calls"].setdefault(call, []).append(took)
                for page, took in (asyncio.run(shown(program, address, where)) if program else {}).items():
                    found[name]["pages"].setdefault(page, []).append(took)
    return found


def tables(measurement: Measurement) -> list[Table]:
    data: dict[str, dict[str, Times]] = measurement.data

    def table(kind: str, first: str) -> Table:
        rows = []
        for what, few in data["few"][kind].items():
            many = data["many"][kind][what]
            ratio = statistics.median(more / less for more, less in zip(many, few, strict=True))
            rows.append([what, f"{statistics.median(few):.1f} ms", f"{statistics.median(many):.1f} ms", f"{ratio:.1f}"])
        return Table(f"{NAME}-{kind}", [first, "1,300 rows", "1,000,000 rows", "ratio"], rows)

    return [table("calls", "call"), table("pages", "page")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten thousand rows, one round")
    parser.add_argument("--results", type=Path, help="folder to keep the figures in")
    options = parser.parse_args()
    with open_house() as house:
        urls = {name: f"sqlite:///{house.folder}/{name}.db" for name in ("few", "many")}
        many = {kind: count // 100 for kind, count in MANY.items()} if options.quick else MANY
        for url, shape in zip(urls.values(), (FEW, many), strict=True):
            asyncio.run(build(url, shape))
        data: Any = measure(urls, 1 if options.quick else 3, 3 if options.quick else 20)
    shape = ", ".join(f"{count:,} {kind}" for kind, count in many.items())
    measurement = taken(
        NAME,
        data,
        quick=options.quick,
        versions=versions_of("fastapi", "sqlalchemy") | {"SQLite": VERSION},
        settings=[f"the large table has {shape}", "3 rounds in which the tables take turns, medians of 20 calls"],
    )
    show(measurement, tables(measurement))
    save(measurement, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
