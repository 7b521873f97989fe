"""The write-ahead log: it stays short, whoever reads."""

import threading
from pathlib import Path

import pytest

from app.models import sqlite, tasks
from app.models.database import Database
from tests.conftest import FrozenClock, until
from tests.models.conftest import STEP, Insert, new_task
from tests.models.test_trouble import count


@pytest.fixture
def store() -> str:
    return "sqlite"


def hold_a_snapshot(path: Path) -> "sqlite.sqlite.Connection":
    reader = sqlite.sqlite.connect(path, isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM tasks").fetchall()
    return reader


async def test_the_log_is_cut_off_once_nobody_reads_in_it(
    database: Database, insert: Insert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOG_BYTES", 100_000)
    await database.shorten_log()
    assert not database.log_is_long
    await insert()
    reader = hold_a_snapshot(database.path)
    for _ in range(20):
        await insert()
    assert database.log_is_long
    await database.shorten_log()
    assert database.log_is_long
    reader.close()
    await database.shorten_log()
    assert database.log_bytes == 0
    assert await count(database) == 21


async def test_readers_that_overlap_do_not_keep_the_log_from_being_cut_off(
    database: Database, insert: Insert, clock: FrozenClock
) -> None:
    """There is no moment without a reader, so SQLite itself never starts the log anew: it grew by 190 MB a second."""
    await insert()
    stop = threading.Event()

    def read() -> None:
        reader = hold_a_snapshot(database.path)
        while not stop.wait(0.02):
            following = hold_a_snapshot(database.path)
            reader.close()
            reader = following
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    try:

        async def is_short() -> bool:
            async with database.write(durable=False) as connection:
                await tasks.insert_new(connection, [new_task()], clock(), STEP)
            await database.shorten_log()
            return database.log_bytes == 0

        await until(is_short)
    finally:
        stop.set()
        thread.join()
