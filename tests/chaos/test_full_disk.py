"""The disk is full, or does not take what is written: reads go on, writes are refused, nothing is lost, all goes on alone."""

import asyncio
import errno
import json
import os
import resource
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.core.errors import StoreFull
from app.core.logs import TROUBLE_SECONDS
from app.core.settings import Settings
from app.models import reserve
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.chaos.conftest import Journal, amount, checked
from tests.chaos.test_processes import QUICK, submit_traced, traces
from tests.conftest import until
from tests.walk.conftest import House, Program

MIB = 2**20
RESUMED_SECONDS = 10
PATIENT = QUICK | {"LEASE_SECONDS": "30", "RESERVE_BYTES": str(8 * MIB)}
"""A lease that outlasts the trouble: then no attempt need run twice."""
WRITES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/tasks", {"json": {"task_type": "held", "payload": {"gate": "x" * 50_000}, "delay_seconds": 9999}}),
    ("POST", "/tasks/bulk", {"json": {"tasks": [{"task_type": "held", "payload": {"gate": "x" * 50_000}}] * 3}}),
    ("PATCH", "/tasks/{id}", {"json": {"metadata": {"text": "x" * 15_000}}}),
    ("POST", "/files", {"files": {"file": ("a", b"x" * 300_000)}}),
)
"""Requests that need room."""
DETAILS = {503: "The database is not available: disk I/O error", 507: "The disk of the database is full."}
READS = ("/tasks/{id}", "/tasks?limit=5", "/tasks/{id}/attempts", "/stats", "/queues", "/workers", "/dead-letters")


@contextmanager
def small_disk(folder: Path, mebibytes: int = 16) -> Iterator[Path]:
    """A file system of `mebibytes`."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root: a full disk was NOT tested")
    folder.mkdir()
    try:
        mount = ("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", str(folder))
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine mounts nothing: a full disk was NOT tested")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Take all the room there is, but `leave`."""
    path = disk / "filler"
    with path.open("ab", buffering=0) as stream:
        while True:
            room = os.statvfs(disk)
            try:
                os.posix_fallocate(stream.fileno(), 0, room.f_bavail * room.f_frsize - leave + path.stat().st_size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            else:  # not taken by a program on the disk since we looked
                return path


async def house_on(folder: Path, **where: str) -> House:
    folder.mkdir(exist_ok=True)
    house = House(folder)
    house.settings |= where
    house.database_url = house.settings["DATABASE_URL"]
    return house


async def ballast(client: httpx.AsyncClient, status: int) -> list[int]:
    """Store tasks that wait until tomorrow, many large ones first, until not even a small one is taken."""
    ids: list[int] = []
    for size, count in ((200_000, 10), (200_000, 1), (6_000, 1), (60, 1)):
        while (answer := await submit_large(client, size, count)).status_code == 201:
            ids += answer.json()["ids"]
        assert_refused(answer, status)
    return ids


async def stored(client: httpx.AsyncClient) -> list[int] | None:
    """The ids of ten large tasks, None if there was no room for them."""
    answer = await submit_large(client, 200_000, 10)
    if answer.status_code != 201:
        assert_refused(answer, 507)
        return None
    ids: list[int] = answer.json()["ids"]
    return ids


async def submit_large(client: httpx.AsyncClient, size: int, count: int) -> httpx.Response:
    task = {"task_type": "held", "payload": {"gate": "x" * size}, "delay_seconds": 86_400}
    return await client.post("/tasks/bulk", json={"tasks": [task] * count})


def assert_refused(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    kind = {503: "store-unavailable", 507: "insufficient-storage"}[status]
    assert answer.json()["type"].endswith(kind)
    assert 1 <= int(answer.headers["Retry-After"]) <= 300


async def refuses_to_write_and_goes_on_reading(client: httpx.AsyncClient, id_: int, status: int) -> None:
    for method, path, more in WRITES:
        answer = await client.request(method, path.format(id=id_), **more)
        while answer.is_success:  # a log that was written back since has left room for a little
            await ballast(client, status)
            answer = await client.request(method, path.format(id=id_), **more)
        assert_refused(answer, status)
    for path in READS:
        assert (await client.get(path.format(id=id_))).status_code == 200, path
    assert await until(lambda: says_of_the_store(client)) == DETAILS[status]


def assert_no_storm(programs: list[Program], seconds: float) -> Counter[str]:
    """Each process has told of each kind of trouble once in ten seconds at most, and of nothing else that went wrong."""
    total: Counter[str] = Counter()
    for program in programs:
        said = program.said()
        assert "Traceback" not in said, said
        lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        kinds = Counter(line.get("what", line["event"]) for line in lines if line["level"] in ("warning", "error"))
        assert all(count <= 1 + seconds / TROUBLE_SECONDS for count in kinds.values()), kinds
        total += kinds
    return total


async def says_of_the_store(client: httpx.AsyncClient, status: int = 503) -> str | None:
    """What readiness says, once its status is `status`."""
    answer = await client.get("/health/ready")
    return str(answer.json()["checks"]["store"]) if answer.status_code == status else None


async def completed(client: httpx.AsyncClient) -> int:
    number: int = (await client.get("/stats")).json()["completed"]
    return number


async def insist(client: httpx.AsyncClient, status: int, seconds: float) -> int:
    """Eight clients that do not take no for an answer, for some time, which is part of the experiment."""
    over = time.monotonic() + seconds
    asked = 0

    async def ask() -> None:
        nonlocal asked
        while time.monotonic() < over:
            method, path, more = WRITES[0]
            assert_refused(await client.request(method, path, **more), status)
            asked += 1

    await asyncio.gather(*(ask() for _ in range(8)))
    return asked


class Trial:
    """An API and a worker that suffer one trouble after the other and are never restarted."""

    def __init__(self, house: House, random: Random) -> None:
        self.house = house
        self.random = random
        self.journal = Journal(house.folder / "told.jsonl")
        self.trace = house.folder / "trace"
        self.ids: list[int] = []
        self.extra: list[int] = []

    async def start(self) -> None:
        self.api, self.client = await self.house.api(**PATIENT)
        self.worker = await self.house.start("run_worker.py", "--processes", "1", "--name", "w", **PATIENT)
        self.began = time.monotonic()

    async def work(self, count: int) -> None:
        """Give the worker something to do; return when it is at it."""
        before = len(self.ids)
        self.ids += await submit_traced(self.client, self.trace, count, self.random, 120)
        for id_ in self.ids[before:]:
            self.journal.told(id_)
        self.extra += (await submit_large(self.client, 60_000, 1)).json()["ids"]
        await until(lambda: self._done(before + 1))

    async def suffer(self, status: int, seconds: float) -> None:
        """While the trouble is there."""
        self.extra += await ballast(self.client, status)
        await refuses_to_write_and_goes_on_reading(self.client, self.extra[-1], status)
        asked = await insist(self.client, status, seconds)
        kinds = assert_no_storm([self.api, self.worker], time.monotonic() - self.began)
        self.done_before = await completed(self.client)
        assert self.done_before < len(self.ids), "the worker was done before the trouble began"
        print(f"{status}: {asked} refusals; lines so far: {dict(kinds)}")

    async def recover(self) -> None:
        """When the trouble is over."""
        began = time.monotonic()
        await until(lambda: self._done(self.done_before + 1), 2 * RESUMED_SECONDS)
        print(f"the worker went on after {time.monotonic() - began:.1f} s")
        await until(lambda: self._done(len(self.ids)), 60)
        assert await until(lambda: says_of_the_store(self.client, 200)) == "ok"
        starts, ends = traces(self.trace)
        assert set(starts.values()) == set(ends.values()) == {1}, "an attempt was lost, or ran twice"

    async def _done(self, least: int) -> bool:
        return await completed(self.client) >= least

    async def delete_all(self) -> None:
        for id_ in self.extra:
            answer = await self.client.delete(f"/tasks/{id_}")
            assert answer.status_code == 204, answer.text
        self.extra = []

    async def end(self) -> None:
        self.journal.close()
        for program in (self.api, self.worker):
            assert program.process.returncode is None, program.said()
        await checked(self.house.database_url, journal=self.journal.path, final=True)


def limit_files(program: Program, size: int) -> None:
    """From now on the program cannot write beyond this offset of any file."""
    _, most = resource.prlimit(program.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (size, most))


async def write_errors(trial: Trial, seconds: float) -> None:
    """What a failing disk gives: another class of errors than a full one."""
    await trial.work(40)
    for program in (trial.api, trial.worker):
        limit_files(program, 256 * 1024)
    await trial.suffer(503, seconds)
    for program in (trial.api, trial.worker):
        limit_files(program, resource.RLIM_INFINITY)
    await trial.recover()


async def full_for_a_while(trial: Trial, disk: Path, seconds: float) -> None:
    """Something else fills the disk, and goes away."""
    await trial.work(40)
    filler = fill(disk)
    await trial.suffer(507, seconds)
    late = await trial.house.start("run_worker.py", **PATIENT)
    assert await late.ended(60) == 2
    assert late.said().splitlines() == ["The disk of the database is full."]
    filler.unlink()
    await trial.recover()


async def full_of_tasks(trial: Trial, disk: Path, seconds: float) -> None:
    """Tasks fill the disk. Even deleting one needs room, and the reserve is that."""
    await trial.work(40)
    fill(disk, leave=8 * MIB)
    filling = await ballast(trial.client, 507)
    trial.extra += filling
    filler = fill(disk)
    await trial.suffer(507, seconds)
    assert_refused(await trial.client.delete(f"/tasks/{filling[0]}"), 507)
    reserve.path_of(disk / "tasks.db").unlink()
    await trial.delete_all()
    await trial.recover()
    # What was deleted has left room in the file, while the disk is as full as before. A reader may be in the log just then.
    while len(trial.extra) < 0.75 * len(filling):
        trial.extra += await until(lambda: stored(trial.client), 2 * RESUMED_SECONDS)
    filler.unlink()


@pytest.mark.timeout(1800)
async def test_a_disk_that_takes_nothing_more_loses_nothing_and_needs_no_restart(
    tmp_path: Path, random: Random
) -> None:
    """Matrix B4, for the database."""
    for number in range(amount(1, 10)):
        with small_disk(tmp_path / f"disk-{number}", 48) as disk:
            house = await house_on(tmp_path / f"round-{number}", DATABASE_URL=f"sqlite:///{disk}/tasks.db")
            trial = Trial(house, random)
            try:
                await trial.start()
                assert reserve.path_of(disk / "tasks.db").stat().st_blocks * 512 == 8 * MIB
                seconds = amount(1, 11)
                await write_errors(trial, seconds)
                await full_for_a_while(trial, disk, seconds)
                await full_of_tasks(trial, disk, seconds)
                await trial.delete_all()
                await trial.end()
            finally:
                await house.close()


async def test_a_log_that_fills_the_disk_is_written_back_where_the_database_has_room(tmp_path: Path) -> None:
    """SQLite would do so after a commit, for which there is no room until it has."""

    def large() -> Submission:
        return Submission(task_type="text_processing", payload={"text": "x" * 50_000})

    async def refused(services: Services) -> bool:
        with suppress(StoreFull):
            await services.tasks.submit(services.intake.prepare(large(), None))
            return False
        return True

    with small_disk(tmp_path / "disk") as disk:
        async with open_services(Settings(database_url=f"sqlite:///{disk}/tasks.db", reserve_bytes=0)) as services:
            stored = [services.intake.prepare(large(), None) for _ in range(20)]
            gone = [(await services.tasks.submit(one)).task.id for one in stored]
            for id_ in gone:
                await services.tasks.delete(id_)
            await services.database.shorten_log()
            async with services.database.snapshot() as reader:
                await reader.execute(text("SELECT count(*) FROM tasks"))
                for _ in range(3):
                    assert not await refused(services)
                fill(disk)
                assert await refused(services)
            for _ in gone[:-10]:
                assert not await refused(services)


async def test_a_file_that_finds_no_room_costs_one_attempt(tmp_path: Path) -> None:
    """Matrix B4, for files: the database is elsewhere and does not mind."""
    with small_disk(tmp_path / "disk") as disk:
        house = await house_on(tmp_path / "house", FILES_DIR=str(disk / "files"))
        try:
            _, client = await house.api(**PATIENT)
            await house.start("run_worker.py", "--processes", "1", **PATIENT)
            filler = fill(disk)
            assert_refused(await client.post("/files", files={"file": ("a", b"x" * 100_000)}), 507)
            task = (await client.post("/tasks", json={"task_type": "saved", "payload": {"size": 300_000}})).json()

            async def failed() -> dict[str, Any] | None:
                found: dict[str, Any] = (await client.get(f"/tasks/{task['id']}")).json()
                return found if found["error"] else None

            error = (await until(failed))["error"]
            assert (error["type"], error["message"]) == (
                "StoreFull",
                "There is no room for files: No space left on device.",
            )
            assert (await client.get("/health/ready")).status_code == 200
            filler.unlink()

            async def completes() -> bool:
                return bool((await client.get(f"/tasks/{task['id']}?wait=1")).json()["status"] == "completed")

            await until(completes)
            answer = await client.post("/files", files={"file": ("a", b"x" * 100_000)})
            assert answer.status_code == 201
            assert list((disk / "files" / "drafts").iterdir()) == []
            await checked(house.database_url, files=disk / "files", final=True)
        finally:
            await house.close()
