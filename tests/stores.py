"""Fresh stores for tests: a copied file on SQLite, an emptied database on PostgreSQL, straight or through PgBouncer.

PostgreSQL is the server of TEST_POSTGRES_URL (a user who may create databases), else a private one, started once for all
processes of a test run. No test is skipped for want of a server: where there is none, it fails. (For want of PgBouncer, which
no wheel has, it is skipped where CI is not set.)
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from app.models import migrate, tables
from app.models.database import Database
from tests.pgbouncer_server import PgBouncer

PREFIX = "task_service_test_"


def temporary_postgres(folder: Path) -> str:
    """The address of the server that all processes of this test run share; it ends when the last of them has."""
    folder.mkdir(exist_ok=True)
    users = os.open(folder / "users", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(users, fcntl.LOCK_SH)  # until this process ends
    with (folder / "starting").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        if not (folder / "url").exists():
            _start(folder)
        return (folder / "url").read_text()


def _start(folder: Path) -> None:
    log = folder / "log"
    program = [sys.executable, str(Path(__file__).with_name("postgres_server.py")), str(folder)]
    with log.open("wb") as output:
        started = subprocess.run(program, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if started.returncode != 0:
        raise RuntimeError(f"No PostgreSQL for the tests (set TEST_POSTGRES_URL to use another): {log.read_text()}")


class PostgresDatabases:
    """Databases of one test process on one server. They are made once and emptied for each test, which takes 2 ms; to make
    one from a template takes 40, to drop it 100."""

    def __init__(self, server_url: str, pooler_url: str | None = None) -> None:
        """`pooler_url`: tests go through a pooler of any of the server's databases. They are made and emptied straight."""
        self.server_url = server_url
        self._given_url = pooler_url or server_url
        self._name = PREFIX + secrets.token_hex(4)
        self._template: str | None = None
        self._made: list[str] = []

    def url(self, name: str) -> str:
        """What a test is given."""
        return urlsplit(self._given_url)._replace(path=f"/{name}").geturl()

    def straight(self, name: str) -> str:
        """The same, past any pooler."""
        return urlsplit(self.server_url)._replace(path=f"/{name}").geturl()

    async def empty(self, number: int = 0) -> str:
        """The address of a migrated, empty database; `number` tells those apart that one test uses at the same time."""
        while len(self._made) <= number:
            self._made.append(await self._create(await self._migrated()))
        await _emptied(self.straight(self._made[number]))
        return self.url(self._made[number])

    def spoilt(self) -> None:
        """A test changed the tables themselves: the next one gets others."""
        self._made.clear()

    async def bare(self) -> str:
        """A database with nothing in it."""
        return self.url(await self._create("template1"))

    async def _create(self, template: str) -> str:
        name = f"{self._name}_{secrets.token_hex(4)}"
        server = await asyncpg.connect(self.server_url)
        try:
            await server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        finally:
            await server.close()
        return name

    async def _migrated(self) -> str:
        if self._template is None:
            name = await self._create("template1")
            database = Database(self.straight(name))
            await database.open()
            await database.close()
            self._template = name
        return self._template

    async def remove(self) -> None:
        server = await asyncpg.connect(self.server_url)
        try:
            names = await server.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", self._name)
            for (name,) in names:
                await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        finally:
            await server.close()


async def _emptied(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        # Whoever a test left behind in a transaction would hold locks. A pooler's connections are idle and stay.
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        names = [table.name for table in reversed(tables.metadata.sorted_tables)]
        await connection.execute("; ".join(f"DELETE FROM {name}" for name in names))
        await connection.execute("SELECT setval('tasks_id_seq', 1, false)")
        await connection.execute(f"UPDATE alembic_version SET version_num = '{migrate.HEAD}'")
    finally:
        await connection.close()


class Stores:
    """Gives a test the address of a fresh store of one kind."""

    def __init__(self, kind: str, folder: Path, migrated: Path, postgres: PostgresDatabases | None) -> None:
        self.kind = kind
        self._folder = folder
        self._migrated = migrated
        self._postgres = postgres
        self._given = 0

    async def fresh(self) -> str:
        """One that is migrated and empty."""
        if self._postgres is not None:
            self._given += 1
            return await self._postgres.empty(self._given - 1)
        folder = self._folder / f"store-{self._given}" if self._given else self._folder
        self._given += 1
        folder.mkdir(exist_ok=True)
        shutil.copy(self._migrated, folder / "tasks.db")
        return f"sqlite:///{folder}/tasks.db"

    async def bare(self) -> str:
        """One in which nothing has been made yet."""
        if self._postgres is not None:
            return await self._postgres.bare()
        self._given += 1
        return f"sqlite:///{self._folder}/bare-{self._given}.db"

    async def nowhere(self) -> str:
        """The address of a store that is not there."""
        return self._postgres.url("no_such_database") if self._postgres else f"sqlite:///{self._folder}/none.db"

    def straight(self, url: str) -> str:
        """The address of one of them past any pooler, for a test that needs a session."""
        return self._postgres.straight(urlsplit(url).path.lstrip("/")) if self._postgres else url

    def spoilt(self) -> None:
        """Say that a store was changed in a way that emptying does not mend."""
        if self._postgres is not None:
            self._postgres.spoilt()
            self._given = 0

    def again_now(self, folder: Path) -> str:
        """For tests that run loops of their own, one after the other: a fresh store, for which the one before is given up."""
        self._folder, self._given = folder, 0
        return asyncio.run(self.fresh())


@contextmanager
def postgres_databases(folder: Path, *, pooled: bool = False) -> Iterator[PostgresDatabases]:
    """Databases on the server of this test run, if `pooled` through a PgBouncer of this process's own."""
    server_url = os.environ.get("TEST_POSTGRES_URL") or temporary_postgres(folder)
    pooler = PgBouncer(server_url).start() if pooled else None
    databases = PostgresDatabases(server_url, pooler.url if pooler else None)
    try:
        yield databases
        asyncio.run(databases.remove())
    finally:
        if pooler:
            pooler.remove()
