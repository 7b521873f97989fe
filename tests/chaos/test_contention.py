"""Many processes on one file: one that freezes with the write lock, a crowd of writers, a reader that does not let go."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from app.models import sqlite
from tests.chaos.conftest import Journal, amount, checked
from tests.chaos.test_processes import QUICK
from tests.conftest import until
from tests.walk.conftest import ROOT, House, Program

MIB = 2**20


def is_frozen(program: Program) -> bool:
    return Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def timed(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    answer = await client.request(method, path, **more)
    return answer, time.monotonic() - began


@pytest.mark.timeout(1800)
async def test_a_process_that_freezes_with_the_write_lock_makes_no_other_hang(house: House, journal: Journal) -> None:
    """Matrix A3: reads go on; each write ends within its deadline; with the frozen one gone, all is as it was."""
    _, client = await house.api(**QUICK)
    flag = house.folder / "freeze"
    body = {"task_type": "traced", "payload": {"file": str(house.folder / "trace"), "number": 1}}
    refused, again = [], []
    for _ in range(amount(1, 20)):
        program = await house.start("run_worker.py", "--processes", "1", CHAOS_FREEZE=str(flag), **QUICK)
        await until(lambda: _works(client))
        flag.touch()
        await until(lambda program=program: is_frozen(program))
        asked = [timed(client, "POST", "/tasks", json=body) for _ in range(20)]
        asked += [timed(client, method, path, json={}) for method, path in (("POST", "/tasks/1/cancel"),)]
        reads = [timed(client, "GET", path) for path in ("/tasks", "/stats", "/queues", "/workers", "/dead-letters")]
        for answer, seconds in await asyncio.gather(*reads):
            assert answer.status_code == 200
            assert seconds < sqlite.DEADLINE_SECONDS
        for answer, seconds in await asyncio.gather(*asked):
            assert answer.status_code == 503, answer.text
            assert answer.json()["detail"].startswith("The database is not available"), answer.text
            assert int(answer.headers["Retry-After"]) >= 1
            refused.append(seconds)
        await program.kill()
        answer, seconds = await timed(client, "POST", "/tasks", json=body)
        assert answer.status_code == 201, answer.text
        journal.told(answer.json()["id"])
        again.append(seconds)
    print(f"refused after {max(refused):.2f} s at most; the next write took {1000 * max(again):.0f} ms at most")
    # Nobody waited for two deadlines, one after the other.
    assert max(refused) < 1.6 * sqlite.DEADLINE_SECONDS
    assert max(again) < sqlite.DEADLINE_SECONDS
    await checked(house.database_url, journal=journal.path)


async def _works(client: httpx.AsyncClient) -> bool:
    return bool((await client.get("/workers")).json()["items"])


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system in memory, where there is one: turns are what counts, not a disk that others use too."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.timeout(1800)
async def test_a_crowd_of_writers_and_readers_never_hears_of_a_lock(in_memory: Path, journal: Journal) -> None:
    """Matrix C8."""
    url = f"sqlite:///{in_memory}/tasks.db"
    crowd: list[tuple[str, Any]] = []
    for verb in ["write"] * 8 + ["read"] * amount(2, 4):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.crowd", url, verb, str(amount(2, 60))),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 * MIB,
        )
        crowd.append((verb, process))
    try:
        for _, process in crowd:
            assert await process.stdout.readline() == b"ready\n"
        said: dict[str, list[Any]] = {"write": [], "read": []}
        answers = await asyncio.gather(*(process.communicate(b"go\n") for _, process in crowd))
        for (verb, _), (out, _) in zip(crowd, answers, strict=True):
            said[verb].append(json.loads(out))
    finally:
        for _, process in crowd:
            if process.returncode is None:
                process.kill()
                await process.wait()
    for verb, reports in said.items():
        times = sorted(took for report in reports for took in report["times"])
        counts = sorted(len(report["times"]) for report in reports)
        print(f"{verb}: {counts} calls, p99 {quantiles(times, n=100)[98]:.1f} ms, longest {times[-1]:.0f} ms")
        assert [error for report in reports for error in report["errors"]] == []
        assert times[-1] < 1000 * sqlite.DEADLINE_SECONDS
    for report in said["write"]:
        for id_ in report["ids"]:
            journal.told(id_)
    await checked(url, journal=journal.path)


@pytest.mark.timeout(1800)
async def test_the_log_is_short_again_when_a_reader_lets_go(house: House) -> None:
    """Matrix C9: somebody reads for long in the middle of many writes."""
    program, client = await house.api(**QUICK)
    path = house.folder / "tasks.db"
    reader = sqlite.sqlite.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM tasks").fetchall()
    stop = False
    written: list[int] = []

    async def write() -> None:
        tasks = [{"task_type": "held", "payload": {"gate": "x" * 200_000}, "delay_seconds": 9999}] * 20
        while not stop:
            answer = await client.post("/tasks/bulk", json={"tasks": tasks})
            assert answer.status_code == 201, answer.text
            written.extend(answer.json()["ids"])
            await asyncio.sleep(amount(0, 1))

    async def health() -> Any:
        return (await client.get("/health")).json()

    async def is_degraded() -> bool:
        return (await health())["status"] == "degraded"

    writing = asyncio.create_task(write())
    try:
        held = time.monotonic()
        await until(lambda: is_degraded() if not writing.done() else writing.result(), 60)
        assert "log_warning" in (await health())["checks"]
        await program.says("the log of the database grows")
        await asyncio.sleep(amount(0, 60))  # the experiment: the reader stays for a minute
        longest = sqlite.log_bytes(path)
        print(f"a reader held on for {time.monotonic() - held:.0f} s: the log grew to {longest / MIB:.0f} MiB")
        reader.execute("COMMIT")
        let_go = time.monotonic()
        await until(lambda: sqlite.log_bytes(path) <= sqlite.LOG_BYTES, 20)
        print(f"short again after {time.monotonic() - let_go:.1f} s")
    finally:
        stop = True
        await writing
        reader.close()
    await until(lambda: _is(is_degraded, False))
    await checked(house.database_url)


async def _is(question: Any, answer: bool) -> bool:
    return bool(await question() is answer)
