"""Real processes: an API and workers on a database of the test's own, on a port the kernel picks."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.models.sqlite import sqlite
from tests.conftest import SAMPLES, until
from tests.stores import Stores

ROOT = Path(__file__).parents[2]


class Program:
    """One of our programs, running. Its log is a file; it is ended with the test, whatever happens."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait until the log has `pattern`; fail at once when the program has ended without it."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.said())
            if found is None and self.process.returncode is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.said()}")
            return found

        found: re.Match[str] = await until(look, 40)
        return found

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 30) -> int:
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class House:
    """Where the programs of one test live; `root` is the checkout that they are from."""

    def __init__(self, folder: Path, database_url: str | None = None, root: Path = ROOT) -> None:
        self.folder = folder
        self._root = root
        self.database_url = database_url or f"sqlite:///{folder}/tasks.db"
        self.settings: dict[str, str] = {
            "DATABASE_URL": self.database_url,
            "FILES_DIR": str(self.folder / "files"),
            "EXECUTOR_MODULES": SAMPLES,
            "LOG_FORMAT": "json",
            "RESERVE_BYTES": "0",
            "PYTHONPATH": str(root),
        }
        self._programs: list[Program] = []
        self._clients: list[httpx.AsyncClient] = []

    async def start(self, script: str, *arguments: str, **settings: str) -> Program:
        log = self.folder / f"{len(self._programs)}-{Path(script).name}.log"
        clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(self._root / script), *arguments),
                cwd=self.folder,
                env=clean | self.settings | settings,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        program = Program(process, log)
        self._programs.append(program)
        return program

    async def api(self, *arguments: str, port: int = 0, **settings: str) -> tuple[Program, httpx.AsyncClient]:
        program = await self.start("run_api.py", "--port", str(port), *arguments, **settings)
        address = (await program.says(r"Listening on (http://\S+)"))[1]
        client = httpx.AsyncClient(base_url=address, timeout=30, limits=httpx.Limits(max_connections=200))
        self._clients.append(client)

        async def answers() -> bool:
            try:
                return (await client.get("/health/ready")).status_code == 200
            except httpx.TransportError:
                return False

        await until(answers, 40)
        return program, client

    async def worker(self, *arguments: str, **settings: str) -> Program:
        program = await self.start("run_worker.py", "--processes", "1", *arguments, **settings)
        await program.says("worker started")
        return program

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        for program in self._programs:
            if program.process.returncode is None:
                program.signal(signal.SIGCONT)
            await program.kill()


@pytest.fixture
async def house(tmp_path: Path, stores: Stores) -> AsyncIterator[House]:
    """Where nothing has been started yet, on the kind of store that the test is run for."""
    house = House(tmp_path, None if stores.kind == "sqlite" else await stores.fresh())
    yield house
    await house.close()


async def ended(client: httpx.AsyncClient, task_id: int, seconds: float = 40) -> dict[str, Any]:
    """The task once it has ended, by long polls."""

    async def look() -> dict[str, Any] | None:
        task: dict[str, Any] = (await client.get(f"/tasks/{task_id}", params={"wait": 5})).json()
        return task if task["finished_at"] else None

    found: dict[str, Any] = await until(look, seconds)
    return found


async def freeze(program: Program, house: House) -> None:
    """Stop it, but not while it writes: whoever holds SQLite's one write lock and sleeps keeps everybody out."""
    database = house.folder / "tasks.db"
    while True:
        program.signal(signal.SIGSTOP)
        await until(lambda: is_stopped(program.pid))  # until then a thread inside a call may still get the lock
        if not database.exists():
            return
        connection = sqlite.connect(database, isolation_level=None, timeout=0.5)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite.OperationalError:
            program.signal(signal.SIGCONT)
        else:
            return
        finally:
            connection.close()


def is_stopped(pid: int) -> bool:
    """Whether every thread of the process has come to its stop."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
        threads = Path(f"/proc/{pid}/task").glob("*/stat")
        return all(thread.read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)
    return False


def children_of(pid: int) -> list[int]:
    """Pids of the live children of a process."""
    return [child for child, (parent, state) in _processes().items() if parent == pid and state != "Z"]


def is_alive(pid: int) -> bool:
    """False for a process that is gone or only waits to be reaped."""
    return _processes().get(pid, (0, "Z"))[1] != "Z"


def _processes() -> dict[int, tuple[int, str]]:
    """(parent, state) of every process, from /proc: a bare machine has no `ps`."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found[int(entry.name)] = (int(fields[1]), fields[0])
    return found
