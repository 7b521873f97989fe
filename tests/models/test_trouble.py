"""What the store says and does when its file is locked, full, moved, damaged or read for too long."""

import asyncio
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import default

from app.core.errors import SchemaError, StoreDamaged, StoreError, StoreFull, StoreUnavailable
from app.models import sqlite, sqlite_store, tasks
from app.models.database import Database
from app.models.types import Names
from tests.models.conftest import Insert

COUNT = text("SELECT count(*) FROM tasks")
SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT count(*) FROM n"


@pytest.fixture
def store() -> str:
    return "sqlite"


def coded(kind: str, code: int, message: str = "told by the library") -> Exception:
    error: Exception = getattr(sqlite.sqlite, kind)(message)
    error.sqlite_errorcode = code  # type: ignore[attr-defined]
    return error


async def count(database: Database) -> int:
    async with database.read() as connection:
        return await connection.scalar(COUNT) or 0


async def refused(database: Database, *, durable: bool = True) -> str:
    """What a write is told."""
    with pytest.raises(StoreUnavailable) as raised:
        async with database.write(durable=durable) as connection:
            await connection.execute(text("UPDATE tasks SET priority = 1"))
    return str(raised.value)


# What an error means.


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (coded("OperationalError", 5, "database is locked"), StoreUnavailable, "database is locked"),
        (coded("OperationalError", 13), StoreFull, "its disk is full"),
        (coded("OperationalError", 10 | 3 << 8, "disk I/O error"), StoreUnavailable, "disk I/O error"),
        (coded("OperationalError", 8, "attempt to write a readonly database"), StoreUnavailable, "readonly"),
        (coded("OperationalError", 14, "unable to open database file"), StoreUnavailable, "unable to open"),
        (coded("DatabaseError", 11, "database disk image is malformed"), StoreDamaged, "malformed"),
        (coded("DatabaseError", 26, "file is not a database"), StoreDamaged, "not a database"),
        (coded("DatabaseError", 11 | 2 << 8), StoreDamaged, "library"),
        (coded("OperationalError", 9, "interrupted"), StoreUnavailable, "more than 5 seconds"),
        (
            coded("OperationalError", 0, "Could not decode to UTF-8 column 'payload' with text 'secret'"),
            StoreDamaged,
            "cannot be read",
        ),
        (coded("IntegrityError", 19), None, ""),
        (coded("DataError", 18, "string or blob too big"), None, ""),
    ],
)
def test_what_an_error_of_the_library_says_of_the_store(
    tmp_path: Path, error: Exception, kind: type[StoreUnavailable] | None, reason: str
) -> None:
    found = sqlite.trouble(error, tmp_path / "t.db")
    assert found[0] is kind
    assert reason in found[1]
    assert kind is None or "secret" not in found[1]


def test_an_error_of_the_disk_that_has_no_room_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log whose memory file cannot grow says no more than that."""
    monkeypatch.setattr(sqlite, "NO_ROOM_BYTES", 2**62)
    assert sqlite.trouble(coded("OperationalError", 10), tmp_path / "t.db")[0] is StoreFull


# Locked.


async def test_whoever_waits_behind_another_has_no_more_time_than_one_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of the turn and the time for the lock are one."""
    begin, deadlines = sqlite.PatientCursor.begin, []

    def recorded(self: sqlite.PatientCursor, deadline: float) -> None:
        deadlines.append(deadline)
        begin(self, deadline)

    monkeypatch.setattr(sqlite.PatientCursor, "begin", recorded)

    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(COUNT)

    async with database.write() as connection:
        await connection.execute(COUNT)
        second = asyncio.create_task(write())
        await asyncio.sleep(0)  # it is in the queue
        released_at = time.monotonic()
    await second
    assert len(deadlines) == 2
    assert deadlines[1] - sqlite.DEADLINE_SECONDS <= released_at


# Moved.


def delete(path: Path) -> None:
    path.unlink()


def put_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def lose_the_log(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


def lose_the_index_of_the_log(path: Path) -> None:
    path.with_name(path.name + "-shm").unlink()


@pytest.mark.parametrize("change", [delete, put_away, replace, lose_the_log, lose_the_index_of_the_log])
async def test_a_file_that_is_not_there_any_more_takes_nothing(
    database: Database, insert: Insert, change: Callable[[Path], None]
) -> None:
    """SQLite would go on, in a file that nobody will ever find."""
    await insert({}, {})
    assert await count(database) == 2
    there = set(database.path.parent.iterdir())
    change(database.path)
    for _ in range(2):
        assert "deleted, moved or replaced" in await refused(database)
        with pytest.raises(StoreUnavailable, match="deleted, moved or replaced"):
            await count(database)
        # A connection that is opened only now, for which SQLite itself may have found out.
        assert re.search("deleted, moved or replaced|disk I/O error", await refused(database, durable=False))
    assert not set(database.path.parent.iterdir()) - there - {database.path.with_name("elsewhere")}, "made anew"


async def test_a_file_that_is_put_back_is_used_again(database: Database, insert: Insert) -> None:
    await insert()
    put_away(database.path)
    await refused(database)
    database.path.with_name("elsewhere").rename(database.path)
    await insert()
    assert await count(database) == 2


# Damaged.


def break_pages(path: Path, kind: int) -> int:
    """Make each page of this kind after the first few one of no kind. Returns how many."""
    data = bytearray(path.read_bytes())
    pages = [at for at in range(4096 * 60, len(data), 4096) if data[at] == kind]
    for at in pages:
        data[at] = 0xEE
    path.write_bytes(data)
    return len(pages)


LEAF_OF_A_TABLE = 0x0D


async def test_damage_that_a_read_finds_stops_every_write(database: Database, insert: Insert) -> None:
    """What is written into a broken file may overwrite what is whole; what can be read still is."""
    ids = await insert(*({"idempotency_key": f"key-{number}" * 20} for number in range(500)))
    await database.shorten_log()
    broken = database.path.stat().st_ino, break_pages(database.path, LEAF_OF_A_TABLE)
    assert broken[1] > 5
    fresh = Database(f"sqlite:///{database.path}")
    with pytest.raises(StoreDamaged, match="malformed"):
        async with fresh.read() as connection:
            await tasks.get_many(connection, ids)
    async with fresh.read() as connection:
        assert await tasks.get_many(connection, ids[:1])
    for durable in (True, False):
        told = await refused(fresh, durable=durable)
        assert told.startswith("The database is damaged: ")
        assert "python -m app.check" in told
    with pytest.raises(StoreDamaged):
        await fresh.write_nothing()
    await fresh.close()


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("created_at", "'soon'", "a moment that is none"),
        ("created_at", "9e18", "a moment that is none"),
        ("status", "'lost'", "no Status 'lost'"),
        ("payload", "CAST(x'7b22ff227d' AS TEXT)", "a text that cannot be read"),
        ("payload", "x'7b7d'", "a text that cannot be read"),
        ("worker_id", "x'61'", "a text that cannot be read"),
    ],
)
async def test_a_row_that_makes_no_sense_is_damage_and_no_bug(
    database: Database, insert: Insert, column: str, value: str, says: str
) -> None:
    (id_,) = await insert()
    other = sqlite.sqlite.connect(database.path, isolation_level=None)
    other.execute("PRAGMA ignore_check_constraints = ON")
    other.execute(f"UPDATE tasks SET {column} = {value}")
    other.close()
    with pytest.raises(StoreDamaged, match=says):
        async with database.read() as connection:
            await tasks.get_many(connection, [id_])
    assert says in await refused(database)


async def test_a_schema_that_is_no_text_is_damage_and_no_bug(database: Database, insert: Insert) -> None:
    """The library quotes it in its complaint, which then cannot be read either."""
    await insert()
    assert await count(database) == 1
    other = sqlite.sqlite.connect(database.path, isolation_level=None)
    other.execute("PRAGMA writable_schema = ON")
    other.execute("UPDATE sqlite_schema SET name = CAST(x'61ff9e62' AS TEXT), sql = 'CREATE' WHERE name = 'tasks'")
    other.execute("PRAGMA schema_version = 9999")
    other.close()
    with pytest.raises(StoreDamaged, match=sqlite.NO_TEXT):
        await count(database)
    later = Database(f"sqlite:///{database.path}")
    with pytest.raises(StoreDamaged, match=sqlite.NO_TEXT):
        await later.open()
    await later.close()


def test_names_that_are_a_number_are_damage() -> None:
    """SQL cannot put one there: it would make it a text. A bit that flips can."""
    with pytest.raises(StoreDamaged, match="names that are none"):
        Names().process_result_value(3.5, default.DefaultDialect())


async def test_a_small_damaged_file_is_refused_at_the_start_and_a_large_one_is_not_looked_through(
    database: Database, insert: Insert, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert(*({"idempotency_key": f"key-{number}" * 20} for number in range(500)))
    await database.shorten_log()
    assert break_pages(database.path, LEAF_OF_A_TABLE)
    later = Database(f"sqlite:///{database.path}")
    with pytest.raises(StoreDamaged, match=r"tasks\.db is damaged: .*python -m app\.check") as raised:
        await later.open()
    await later.close()
    assert "\n" not in str(raised.value)
    monkeypatch.setattr(sqlite_store, "SMALL_BYTES", 4096)
    later = Database(f"sqlite:///{database.path}")
    await later.open()
    await later.close()


async def test_a_row_that_breaks_a_constraint_neither_keeps_the_service_from_starting_nor_hides_damage(
    database: Database, insert: Insert
) -> None:
    await insert(*({"idempotency_key": f"key-{number}" * 20} for number in range(500)))
    other = sqlite.sqlite.connect(database.path, isolation_level=None)
    other.execute("PRAGMA ignore_check_constraints = ON")
    other.execute("UPDATE tasks SET attempts = 99 WHERE id = 1")
    other.close()
    await database.shorten_log()
    later = Database(f"sqlite:///{database.path}")
    await later.open()
    await later.close()
    assert break_pages(database.path, LEAF_OF_A_TABLE)
    later = Database(f"sqlite:///{database.path}")
    with pytest.raises(StoreDamaged):
        await later.open()
    await later.close()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM alembic_version", "has 0 rows and must have one"),
        ("INSERT INTO alembic_version VALUES ('0001')", "has 2 rows and must have one"),
        ("UPDATE alembic_version SET version_num = '0002'", "says it has schema version 0002, but then"),
        ("UPDATE alembic_version SET version_num = ''", "schema version '', which this program does not know"),
        ("UPDATE alembic_version SET version_num = x'30303034'", "a text that cannot be read"),
        ("DROP TABLE alembic_version", "has a table `tasks` that this service did not make"),
    ],
)
async def test_a_broken_row_of_the_migrations_is_one_clear_error(
    database: Database, insert: Insert, statement: str, says: str
) -> None:
    await insert()
    async with database.write() as connection:
        await connection.execute(text(statement))
    later = Database(f"sqlite:///{database.path}")
    with pytest.raises((SchemaError, StoreDamaged)) as raised:
        await later.open()
    await later.close()
    assert says in str(raised.value)
    assert str(database.path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert await count(database) == 1


# Ready or not.


async def test_a_store_that_refused_a_write_is_not_said_to_take_one_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the little that a probe writes often still fits."""

    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(COUNT)
            raise sqlite_store.exc.OperationalError("INSERT", {}, coded("OperationalError", 13))

    await database.write_nothing()
    with pytest.raises(StoreFull):
        await fail()
    with pytest.raises(StoreFull, match="The disk of the database is full"):
        await database.write_nothing()
    monkeypatch.setattr(sqlite_store, "REFUSED_SECONDS", 0.0)
    await database.write_nothing()


# At the start.


async def test_a_lock_file_that_cannot_be_had_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "t.db.migrate.lock").mkdir()
    database = Database(f"sqlite:///{tmp_path}/t.db")
    with pytest.raises(StoreError, match=r"t\.db cannot be opened: .*lock: Is a directory"):
        await database.open()
    await database.close()


async def test_a_folder_in_place_of_the_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "t.db").mkdir()
    database = Database(f"sqlite:///{tmp_path}/t.db")
    with pytest.raises(StoreError, match=r"t\.db is no file"):
        await database.open()
    await database.close()


# Read for too long.


async def test_nobody_reads_for_long_but_who_is_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "READ_SECONDS", 0.1)
    database = Database(f"sqlite:///{tmp_path}/t.db")
    await database.open()
    with pytest.raises(StoreUnavailable, match=r"would read for more than 0\.1 seconds"):
        async with database.read() as connection:
            await connection.scalar(text(SLOW.format(30_000_000)))
    async with database.read() as connection:
        assert await connection.scalar(text(SLOW.format(10))) == 10
    await database.close()


async def test_a_patient_reader_is_not_stopped_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "READ_SECONDS", -1.0)  # over before it begins
    url = f"sqlite:///{tmp_path}/t.db"
    hasty, patient = Database(url), Database(url, patient=True)
    await hasty.open()
    async with patient.read() as connection:
        assert await connection.scalar(text(SLOW.format(300_000))) == 300_000
    with pytest.raises(StoreUnavailable, match="would read for more"):
        async with hasty.read() as connection:
            await connection.scalar(text(SLOW.format(300_000)))
    await patient.close()
    await hasty.close()
