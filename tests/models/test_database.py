import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from app.core.errors import SchemaError, StoreError, StoreUnavailable
from app.models import migrate, sqlite, tables, tasks
from app.models.database import Database
from tests.conftest import FrozenClock
from tests.models.conftest import STEP, Insert, new_task

ROOT = Path(__file__).parents[2]


async def pragma(database: Database, name: str, engine: str) -> object:
    async with getattr(database, engine).connect() as connection:
        return await connection.scalar(text(f"PRAGMA {name}"))


# The library.


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
    assert not database.wal_is_safe
    await database.close()


async def test_pragmas_of_each_kind_of_connection(database: Database) -> None:
    assert await pragma(database, "journal_mode", "_durable") == "wal"
    assert await pragma(database, "synchronous", "_durable") == 2  # FULL
    assert await pragma(database, "synchronous", "_relaxed") == 1  # NORMAL
    for engine in ("_durable", "_relaxed", "_reading"):
        assert await pragma(database, "foreign_keys", engine) == 1
        assert await pragma(database, "trusted_schema", engine) == 0
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
    async with database._durable.connect() as connection:
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


# Transactions.


async def test_a_write_that_raises_leaves_nothing_behind(database: Database, clock: FrozenClock) -> None:
    async def fail() -> None:
        async with database.write() as connection:
            await tasks.insert_new(connection, [new_task()], clock(), STEP)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM tasks")) == 0


async def test_a_reader_does_not_wait_for_a_writer_and_does_not_see_what_is_not_committed(
    database: Database, clock: FrozenClock
) -> None:
    async with database.write() as writing:
        await tasks.insert_new(writing, [new_task()], clock(), STEP)
        async with database.read() as reading:
            assert await reading.scalar(text("SELECT count(*) FROM tasks")) == 0
    async with database.read() as reading:
        assert await reading.scalar(text("SELECT count(*) FROM tasks")) == 1


async def test_a_writer_that_never_ends_is_an_error_for_the_others_and_never_a_hang(
    database: Database, monkeypatch: pytest.MonkeyPatch, clock: FrozenClock
) -> None:
    monkeypatch.setattr(sqlite, "DEADLINE_SECONDS", 0.2)
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
    monkeypatch.setattr(sqlite, "DEADLINE_SECONDS", 0.1)
    async with database.write():
        with pytest.raises(StoreUnavailable, match="does not end"):
            async with database.write():
                pass


async def test_a_write_takes_the_lock_before_it_reads(database: Database, insert: Insert) -> None:
    """A transaction that reads first and writes later would fail at once when somebody else wrote in between."""
    await insert()
    async with database.write() as first:
        await first.execute(text("SELECT * FROM tasks"))
        other = asyncio.create_task(_add_one(database))
        await first.execute(text("UPDATE tasks SET priority = priority + 1"))
    await other
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT priority FROM tasks")) == 11


async def _add_one(database: Database) -> None:
    async with database.write(durable=False) as connection:
        await connection.execute(text("UPDATE tasks SET priority = priority + 10"))


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


async def test_a_cancelled_writer_gives_the_lock_back(database: Database) -> None:
    inside = asyncio.Event()

    async def hold() -> None:
        async with database.write() as connection:
            await connection.execute(text("SELECT 1"))
            inside.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    await inside.wait()
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    async with database.write() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1


# Migrations.


def test_the_head_that_start_up_trusts_is_the_newest_migration() -> None:
    scripts = ScriptDirectory(str(ROOT / "app/models/migrations"))
    assert scripts.get_current_head() == migrate.HEAD


async def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, tables.metadata)
        return [one for one in found if "alembic_version" not in str(one)]

    async with database._reading.connect() as connection:
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


def test_opening_again_changes_nothing_and_needs_no_alembic(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from app.models.database import Database\n"
        "async def main():\n"
        f"    database = Database('sqlite:///{tmp_path}/t.db')\n"
        "    await database.open()\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules)\n"
    )
    said = [
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert said == ["True\n", "False\n"]


async def test_processes_that_start_at_once_all_find_the_schema_ready(tmp_path: Path) -> None:
    program = (
        "import asyncio\n"
        "from app.models.database import Database\n"
        "from sqlalchemy import text\n"
        "async def main():\n"
        f"    database = Database('sqlite:///{tmp_path}/t.db')\n"
        "    await database.open()\n"
        "    async with database.read() as connection:\n"
        "        print(await connection.scalar(text('SELECT count(*) FROM tasks')))\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
    )
    started = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(5)
    ]
    for process in started:
        out, err = await process.communicate()
        assert (process.returncode, out) == (0, b"0\n"), err.decode()


async def test_a_schema_from_the_future_is_refused_by_name(database: Database, tmp_path: Path) -> None:
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    later = Database(f"sqlite:///{tmp_path}/tasks.db")
    with pytest.raises(SchemaError, match=r"9999.*newer program"):
        await later.open()
    await later.close()


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
    with pytest.raises(StoreError, match=r"t\.db cannot be opened"):
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


async def test_what_was_committed_is_there_after_a_kill(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, signal\n"
        "from app.models.database import Database\n"
        "from app.models import tasks\n"
        "from tests.models.conftest import new_task\n"
        "async def main():\n"
        f"    database = Database('sqlite:///{tmp_path}/t.db')\n"
        "    await database.open()\n"
        "    for number in range(20):\n"
        "        async with database.write() as connection:\n"
        "            await tasks.insert_new(connection, [new_task()], database.clock()(), 60)\n"
        "        print(number + 1, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, err = await writer.communicate()
    assert writer.returncode == -9, err.decode()
    database = Database(f"sqlite:///{tmp_path}/t.db")
    await database.open()
    async with database.read() as connection:
        found = set(await tasks.get_many(connection, range(1, 100)))
    await database.close()
    assert found == set(range(1, 21))


async def test_rows_written_through_another_connection_are_seen_at_once(database: Database, insert: Insert) -> None:
    for count in range(1, 30):
        await insert()
        async with database.read() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM tasks")) == count
