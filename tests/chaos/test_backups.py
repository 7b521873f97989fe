"""Copies of the database, made while clients write and workers drain, have all that was acknowledged before they began."""

import asyncio
import itertools
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import httpx
import pytest

from app.models.sqlite import connect, wal_is_safe
from tests.chaos.conftest import Journal, amount, checked
from tests.conftest import until
from tests.walk.conftest import ROOT, House, Program, is_stopped

SETTINGS = {
    "EXECUTOR_MODULES": "tests.chaos_executors",
    "LEASE_SECONDS": "2",
    "SWEEP_SECONDS": "0.5",
    "POISON_AFTER": "1000",
    "LOG_LEVEL": "warning",
}


@asynccontextmanager
async def busy(house: House, journal: Journal, clients: int, workers: int) -> AsyncIterator[list[Program]]:
    """The programs at work: clients that write and write down what they were told, workers that drain."""
    program, client = await house.api(**SETTINGS)
    programs = [program, *[await house.start("run_worker.py", "--processes", "1", **SETTINGS) for _ in range(workers)]]
    address = client.base_url

    async def write(number: int) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=60) as http:
            for count in itertools.count():
                body = {"task_type": "traced", "payload": {"file": "/dev/null", "number": count}}
                answer = await http.post("/tasks", json=body, headers={"Idempotency-Key": f"{number}-{count}"})
                assert answer.status_code == 201, answer.text
                journal.told(answer.json()["id"], f"{number}-{count}")

    crowd = [asyncio.create_task(write(number)) for number in range(clients)]
    try:
        yield programs
        for one in crowd:
            assert not one.done(), one.exception()
    finally:
        for one in crowd:
            one.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)


async def copy_frozen(programs: list[Program], source: Path, target: Path) -> None:
    """cp of the file and its log, while nobody moves. Not all stop at once, but all have before the first byte is read."""
    for program in programs:
        program.signal(signal.SIGSTOP)
    try:
        await until(lambda: all(is_stopped(program.pid) for program in programs))
        for ending in ("", "-wal", "-journal"):
            if Path(f"{source}{ending}").exists():
                shutil.copy(f"{source}{ending}", f"{target}{ending}")
    finally:
        for program in programs:
            program.signal(signal.SIGCONT)


async def copy_online(programs: list[Program], source: Path, target: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.backup", f"sqlite:///{source}", str(target), "--quiet"), cwd=ROOT
    )
    assert await process.wait() == 0


async def vacuum_into(programs: list[Program], source: Path, target: Path) -> None:
    def run() -> None:
        connection = connect(source, isolation_level=None)
        connection.execute("VACUUM INTO ?", (str(target),))
        connection.close()

    await asyncio.to_thread(run)


async def drained(house: House) -> None:
    """The service starts on the copy, and all that waited or ran there completes."""
    _, client = await house.api(**SETTINGS)
    await house.start("run_worker.py", "--processes", "1", **SETTINGS)

    async def is_empty() -> bool:
        stats = (await client.get("/stats")).json()
        return not any(stats[name] for name in ("ready", "scheduled", "retrying", "running"))

    await until(is_empty, 120)
    await house.close()
    await checked(house.database_url, final=True)


@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="whether a process has stopped is read from /proc")
async def test_a_copy_has_all_that_was_acknowledged_before_it_began(
    house: House, journal: Journal, tmp_path: Path, random: Random
) -> None:
    """Matrix B2."""
    ways = [copy_frozen, copy_online] * amount(1, 50)
    if wal_is_safe():  # with a rollback journal it would keep all writers waiting
        ways += [vacuum_into] * amount(0, 50)
    random.shuffle(ways)
    longest, copies = 0.0, []
    async with busy(house, journal, amount(16, 64), amount(1, 2)) as programs:
        for number, way in enumerate(ways):
            size = journal.path.stat().st_size + random.randint(1_000, 10_000)
            await until(lambda size=size: journal.path.stat().st_size > size, 60)
            folder = tmp_path / f"copy-{number}"
            folder.mkdir()
            before = journal.path.read_bytes()
            (folder / "told.jsonl").write_bytes(before[: before.rfind(b"\n") + 1])
            began = time.monotonic()
            await way(programs, house.folder / "tasks.db", folder / "tasks.db")
            longest = max(longest, time.monotonic() - began)
            copies.append(folder)
    for folder in copies:
        await checked(f"sqlite:///{folder}/tasks.db", journal=folder / "told.jsonl")
    await house.close()
    for folder in random.sample(copies, amount(1, 5)):
        await drained(House(folder))
    print(f"{len(copies)} copies while {len(journal.lines())} tasks were acknowledged, the slowest in {longest:.1f} s")
