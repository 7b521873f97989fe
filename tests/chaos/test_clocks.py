"""Wall clocks that are set while the service works: no lease is taken back early, nothing is stuck, nothing ends before it
began.

Each program has a clock of its own here (clock.c, preloaded), which is worse than what a host does to them: there all jump
together, which is one of the cases.
"""

import itertools
import shutil
import struct
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from app.models.sqlite import sqlite
from tests.chaos.conftest import amount, checked
from tests.conftest import until
from tests.walk.conftest import House, Program, ended

COMPILER = shutil.which("cc")
HOUR, DAY = 3600, 86400
SETTINGS = {
    "EXECUTOR_MODULES": "tests.chaos_executors",
    # Long enough that a worker on a busy machine keeps it: here nobody may lose a lease that lives.
    "LEASE_SECONDS": "2",
    "SWEEP_SECONDS": "0.5",
    "RETRY_BASE_SECONDS": "0.05",
    "POISON_AFTER": "1000",
    "LOG_LEVEL": "warning",
}
ROLES = ("api", "worker", "sweeper", "doomed")


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux" or COMPILER is None:
        pytest.skip("the clocks of programs are set by a preloaded library, which needs Linux and a C compiler (cc)")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).parent / "clock.c"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


class Clocks:
    """The wall clocks of the programs, one for each role."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = library
        self._folder = folder
        for role in ROLES:
            self.set(role, 0)

    def set(self, role: str, seconds: int) -> None:
        """So many seconds ahead of the true time."""
        with (self._folder / f"ahead-{role}").open("r+b" if self._file(role).exists() else "w+b") as file:
            file.write(struct.pack("=q", seconds * 10**9))  # one write of eight bytes: nobody sees half of it

    def _file(self, role: str) -> Path:
        return self._folder / f"ahead-{role}"

    def settings(self, role: str) -> dict[str, str]:
        return SETTINGS | {"LD_PRELOAD": str(self._library), "CLOCK_AHEAD": str(self._file(role))}


class Shift:
    """The programs at work, beside them workers that die with a task in their hands."""

    def __init__(self, house: House, clocks: Clocks) -> None:
        self.house = house
        self.clocks = clocks
        self.client: httpx.AsyncClient = None  # type: ignore[assignment]  # set by `begin`
        self.left: list[int] = []
        self._numbers = itertools.count()

    async def begin(self) -> tuple[int, Path]:
        """Start the programs and a task that runs until its gate is opened."""
        _, self.client = await self.house.api(**self.clocks.settings("api"))
        await self.start("worker", "work")
        await self.start("sweeper", "nobodys")
        return await self._hold("work")

    async def start(self, role: str, queue: str) -> Program:
        options = ("--processes", "1", "--name", role, "--queues", queue)
        return await self.house.start("run_worker.py", *options, **self.clocks.settings(role))

    async def _submit(self, task_type: str, queue: str, **more: Any) -> int:
        answer = await self.client.post("/tasks", json={"task_type": task_type, "queue": queue} | more)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    async def _hold(self, queue: str) -> tuple[int, Path]:
        gate = self.house.folder / f"gate-{next(self._numbers)}"
        task_id = await self._submit("held", queue, payload={"gate": str(gate)}, timeout_seconds=3600)
        await until(lambda: self.row(task_id)[0] == "running", 60)
        return task_id, gate

    def row(self, task_id: int) -> tuple[str, int, int | None]:
        """Status, attempts and end of the lease, from the file itself."""
        connection = sqlite.connect(self.house.folder / "tasks.db")
        try:
            statement = "SELECT status, attempts, lease_expires_at FROM tasks WHERE id = ?"
            found: tuple[str, int, int | None] = connection.execute(statement, (task_id,)).fetchone()
            return found
        finally:
            connection.close()

    async def lose_a_worker(self, roles: tuple[str, ...], seconds: int, *, renewed: bool) -> float:
        """Set the clocks of some; a worker dies, before or after it has renewed once more. Returns how many seconds later
        its task was taken back. What earlier ones left is done first, and one that waits for its next attempt is left.
        """
        worker = await self.start("doomed", "doomed")
        await self.finish()
        waiting = await self._submit(
            "stumbles", "doomed", retry={"policy": "fixed", "base_seconds": 1, "jitter": False}
        )
        # Whose clock is ahead may find its wait over at once; that it is not longer is what matters.
        await until(lambda: self.row(waiting)[1] == 1 and self.row(waiting)[0] != "running", 60)
        lost, _ = await self._hold("doomed")
        self.left += [waiting, lost]
        for role in roles:
            self.clocks.set(role, seconds)
        if renewed:
            before = self.row(lost)[2]
            await until(lambda: self.row(lost)[2] != before, 30)
        await worker.kill()
        killed_at = time.monotonic()
        await until(lambda: self.row(lost)[0] != "running", 60)
        return time.monotonic() - killed_at

    async def finish(self) -> None:
        for task_id in self.left:
            task = await ended(self.client, task_id, 60)
            assert (task["status"], task["result"] > 1) == ("completed", True), task
            assert datetime.fromisoformat(task["started_at"]) <= datetime.fromisoformat(task["finished_at"])
        self.left = []


CASES = [
    (roles, seconds, renewed)
    for roles in (("api",), ("worker", "doomed"), ("sweeper",), ROLES)
    for seconds in (HOUR, -HOUR, DAY, -DAY)
    for renewed in (True, False)
]
TELLING = [(("worker", "doomed"), DAY, True), (ROLES, -DAY, False)]


@pytest.mark.timeout(1800)
async def test_whoevers_clock_is_set_leases_end_in_time_and_not_before(
    house: House, preloaded: Path, tmp_path: Path, random: Random
) -> None:
    """Matrix E1. A task that runs through it all keeps its one attempt; what dead workers held is taken back each time."""
    others = [case for case in CASES if case not in TELLING]
    cases = TELLING + random.sample(others, amount(0, len(others)))
    shift = Shift(house, Clocks(preloaded, tmp_path))
    held, gate = await shift.begin()
    slowest = 0.0
    for roles, seconds, renewed in cases:
        slowest = max(slowest, await shift.lose_a_worker(roles, seconds, renewed=renewed))
        assert shift.row(held)[:2] == ("running", 1), "a lease that lived was taken back"
    await shift.start("doomed", "doomed")
    await shift.finish()
    gate.touch()
    assert (await ended(shift.client, held))["attempts"] == 1
    print(f"{len(cases)} times the clocks were set, tasks of the dead were taken back after {slowest:.1f} s at most")
    await checked(house.database_url, final=True)
