"""What is SQLite's alone: the library, the pragmas, turns to write, files that are none of ours."""

import asyncio
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

from app.core.errors import SchemaError, StoreError, StoreUnavailable
from app.models import sqlite, sqlite_store, tables, tasks
from app.models.database import Database
from tests.conftest import FrozenClock
from tests.models.conftest import STEP, new_task

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store() -> str:
    return "sqlite"


async def pragma(database: Database, name: str, engine: str) -> object:
    async with getattr(database._store, engine).connect() as connection:
        return await connection.scalar(text(f"PRAGMA {name}"))


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.45.0", False),
        ("3.50.6", False),
        ("3.50.7", True),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.53.4", True),
        ("4.0.0", True),
    ],
)
def test_which_libraries_may_share_a_write_ahead_log(version: str, safe: bool) -> None:
    assert sqlite.wal_is_safe(version) is safe


def test_only_one_module_chooses_the_library() -> None:
    """Two SQLite libraries on one file in one process drop each other's locks."""
    importing = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "app").rglob("*.py")
        if any(
            line.strip().startswith(
                ("import sqlite3", "from sqlite3", "import pysqlite3", "from pysqlite3", "import aiosqlite")
            )
            for line in path.read_text().splitlines()
        )
    ]
    assert importing == ["app/models/sqlite.py"]


async def test_an_affected_library_gets_a_rollback_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "wal_is_safe", lambda: False)
    database = Database(f"sqlite:///{tmp_path}/t.db")
    await database.open()
    assert await pragma(database, "journal_mode", "_durable") == "delete"
    assert "sqlite_warning" in database.about()
    await database.close()


async def test_pragmas_of_each_kind_of_connection(database: Database) -> None:
    assert await pragma(database, "journal_mode", "_durable") == "wal"
    assert await pragma(database, "synchronous", "_durable") == 2  # FULL
    assert await pragma(database, "synchronous", "_relaxed") == 1  # NORMAL
    for engine in ("_durable", "_relaxed", "_reading"):
        assert await pragma(database, "foreign_keys", engine) == 1
        assert await pragma(database, "trusted_schema", engine) == 0
        assert await pragma(database, "cell_size_check", engine) == 1
    assert await pragma(database, "query_only", "_reading") == 1


async def test_relaxed_durability_is_asked_for_by_name(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/t.db", durability="relaxed")
    await database.open()
    assert await pragma(database, "synchronous", "_durable") == 1
    await database.close()


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(StoreUnavailable, match="readonly"):
        async with database.read() as connection:
            await connection.execute(text("DELETE FROM tasks"))


async def test_a_connection_carried_over_a_fork_refuses_to_work(database: Database) -> None:
    async with database._store._durable.connect() as connection:
        raw = await connection.get_raw_connection()
        inner = raw.driver_connection._connection  # type: ignore[union-attr]

    def use(queue: "multiprocessing.Queue[str]") -> None:
        try:
            inner.cursor()
        except RuntimeError as error:
            queue.put(str(error))
        else:
            queue.put("it worked")

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=use, args=(queue,))
    child.start()
    assert "carried over a fork" in queue.get(timeout=20)
    child.join(20)


async def test_a_writer_that_never_ends_is_an_error_for_the_others_and_never_a_hang(
    database: Database, monkeypatch: pytest.MonkeyPatch, clock: FrozenClock
) -> None:
    monkeypatch.setattr(sqlite_store, "DEADLINE_SECONDS", 0.2)
    async with database.write() as holding:
        await holding.execute(text("SELECT 1"))
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="locked"):
            async with database.write(durable=False) as connection:
                await connection.execute(text("SELECT 1"))
        assert 0.1 < time.monotonic() - began < 5
    async with database.write(durable=False) as connection:
        await tasks.insert_new(connection, [new_task()], clock(), STEP)


async def test_a_transaction_of_this_process_that_never_ends_is_an_error_too(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "DEADLINE_SECONDS", 0.1)
    async with database.write():
        with pytest.raises(StoreUnavailable, match="does not end"):
            async with database.write():
                pass


async def test_two_writers_that_never_pause_both_get_their_turns(database: Database) -> None:
    """SQLite's own busy handler gave one of two such writers no turn for 1.5 s."""
    turns = {True: 0, False: 0}
    stop = asyncio.get_running_loop().time() + 1.0

    async def write(durable: bool) -> None:
        while asyncio.get_running_loop().time() < stop:
            async with database.write(durable=durable) as connection:
                await connection.execute(text("UPDATE sqlite_sequence SET seq = seq"))
            turns[durable] += 1

    await asyncio.gather(write(True), write(False))
    assert min(turns.values()) >= 0.1 * sum(turns.values()), turns


async def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, tables.metadata)
        return [one for one in found if "alembic_version" not in str(one)]

    async with database._store._reading.connect() as connection:
        assert await connection.run_sync(differences) == []
        migrated = set(
            await connection.scalars(text("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))
        )
        checks = await connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'tasks'"))
    fresh = create_engine("sqlite://")
    tables.metadata.create_all(fresh)
    with fresh.connect() as plain:
        wanted = set(plain.scalars(text("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")))
        for constraint in tables.tasks.constraints:
            if str(constraint.name).startswith("ck_"):
                assert str(constraint.name) in checks
    fresh.dispose()
    assert migrated == wanted


async def test_a_file_that_is_somebody_elses_is_refused(tmp_path: Path) -> None:
    theirs = create_engine(f"sqlite:///{tmp_path}/t.db")
    with theirs.begin() as connection:
        connection.execute(text("CREATE TABLE tasks (x INTEGER)"))
    theirs.dispose()
    database = Database(f"sqlite:///{tmp_path}/t.db")
    with pytest.raises(SchemaError, match="did not make"):
        await database.open()
    await database.close()


async def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_bytes(b"this is not a database" * 100)
    database = Database(f"sqlite:///{tmp_path}/t.db")
    with pytest.raises(StoreError, match=r"t\.db is damaged: file is not a database"):
        await database.open()
    await database.close()
    # A thread that ends later would answer to a loop that is closed by then.
    assert [thread for thread in threading.enumerate() if "_connection_worker_thread" in thread.name] == []


async def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    database = Database(f"sqlite:///{tmp_path}/file/t.db")
    with pytest.raises(StoreError, match="Cannot create the folder"):
        await database.open()
    await database.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_file_that_may_not_be_written_is_one_clear_error(tmp_path: Path, database: Database) -> None:
    (tmp_path / "tasks.db").chmod(0o400)
    later = Database(f"sqlite:///{tmp_path}/tasks.db")
    with pytest.raises(StoreError, match="cannot be written"):
        await later.open()
    await later.close()
