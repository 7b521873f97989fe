"""What `Database` promises on every store: transactions, a clock, migrations."""

import asyncio
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import exc, text

from app.core.errors import SchemaError, StoreError
from app.models import migrate, tasks
from app.models.database import Connection, Database
from app.models.sqlite import sqlite
from tests.conftest import FrozenClock, straight
from tests.models.conftest import STEP, Insert, new_task
from tests.stores import Stores

ROOT = Path(__file__).parents[2]


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


async def test_a_snapshot_is_one_moment_and_keeps_nobody_from_writing(database: Database, insert: Insert) -> None:
    await insert()
    count = text("SELECT count(*) FROM tasks")
    async with database.snapshot() as snapshot:
        assert await snapshot.scalar(count) == 1
        await insert()
        assert await snapshot.scalar(count) == 1
        async with database.read() as reading:
            assert await reading.scalar(count) == 2
    async with database.snapshot() as snapshot:
        assert await snapshot.scalar(count) == 2


@straight
async def test_whoever_else_has_it_open_is_seen(database_url: str) -> None:
    one, other = Database(database_url), Database(database_url)
    await one.ensure_alone()
    await one.open()
    with pytest.raises(StoreError, match="is open in another process"):
        await other.ensure_alone()
    await one.close()
    await other.ensure_alone()


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


async def test_a_part_that_is_cancelled_has_ended_before_its_caller_goes_on(database: Database) -> None:
    """It waits for the lock in another thread, and gets it: nobody may be left who holds it."""

    async def change(connection: Connection) -> None:
        await connection.execute(text("UPDATE tasks SET priority = priority + 10"))

    async def change_at_once() -> None:
        async with database.write() as connection:
            await database.at_once(connection, change(connection), last=True)

    if database.path is None:
        pytest.skip("where the server is asked statement by statement there is no other thread")
    other = sqlite.connect(database.path, isolation_level=None, check_same_thread=False)
    with closing(other):
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(change_at_once())
        await asyncio.sleep(0.1)
        waiting.cancel()
        asyncio.get_running_loop().call_later(0.1, other.execute, "ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await waiting
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    async with database.write(durable=False) as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await change_at_once()


async def test_nothing_comes_after_the_part_that_was_the_last(database: Database) -> None:
    """On SQLite it would be a transaction of its own, without the lock, and nobody would notice."""
    if database.path is None:
        pytest.skip("a server is told to commit at the end of the block")
    for durable in (True, False):
        async with database.write(durable=durable) as connection:
            await database.at_once(connection, _answer(connection), last=True)
            with pytest.raises(exc.ProgrammingError, match="after the last one"):
                await connection.execute(text("SELECT 1"))
    async with database.write() as connection:
        assert await database.at_once(connection, _answer(connection)) == 1
        assert await _answer(connection) == 1


async def _answer(connection: Connection) -> int | None:
    return await connection.scalar(text("SELECT 1"))


# Migrations.


def test_the_head_that_start_up_trusts_is_the_newest_migration() -> None:
    scripts = ScriptDirectory(str(ROOT / "app/models/migrations"))
    assert scripts.get_current_head() == migrate.HEAD


async def test_opening_again_changes_nothing_and_needs_no_alembic(stores: Stores) -> None:
    url = await stores.bare()
    program = (
        "import asyncio, sys\n"
        "from app.models.database import Database\n"
        "async def main():\n"
        f"    database = Database({url!r})\n"
        "    await database.open()\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules)\n"
    )
    said = [(await run(program)) for _ in range(2)]
    assert said == [(0, "True\n", ""), (0, "False\n", "")]


async def run(program: str) -> tuple[int | None, str, str]:
    """Exit status and what was said by a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_processes_that_start_at_once_all_find_the_schema_ready(stores: Stores) -> None:
    url = await stores.bare()
    program = (
        "import asyncio\n"
        "from app.models.database import Database\n"
        "from sqlalchemy import exc, text\n"
        "async def main():\n"
        f"    database = Database({url!r})\n"
        "    await database.open()\n"
        "    async with database.read() as connection:\n"
        "        print(await connection.scalar(text('SELECT count(*) FROM tasks')))\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
    )
    assert await asyncio.gather(*(run(program) for _ in range(5))) == [(0, "0\n", "")] * 5


async def test_a_schema_from_the_future_is_refused_by_name(database: Database, database_url: str) -> None:
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    later = Database(database_url)
    with pytest.raises(SchemaError, match=r"9999.*newer program"):
        await later.open()
    await later.close()


async def test_what_was_committed_is_there_after_a_kill(database_url: str) -> None:
    program = (
        "import asyncio, os, signal\n"
        "from app.models.database import Database\n"
        "from app.models import tasks\n"
        "from tests.models.conftest import new_task\n"
        "async def main():\n"
        f"    database = Database({database_url!r})\n"
        "    await database.open()\n"
        "    for number in range(20):\n"
        "        async with database.write() as connection:\n"
        "            await tasks.insert_new(connection, [new_task()], database.clock()(), 60)\n"
        "        print(number + 1, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    status, _, err = await run(program)
    assert status == -9, err
    database = Database(database_url)
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
