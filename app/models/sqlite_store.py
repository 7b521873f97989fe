"""`SqliteStore`: a SQLite file as a store. How it is opened, whose turn it is to write, and what becomes of one in trouble."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import PoolProxiedConnection

from app.core.clock import system_clock
from app.core.errors import SchemaError, StoreDamaged, StoreError, StoreFull, StoreUnavailable
from app.core.settings import sqlite_path
from app.models import migrate, reserve, sqlite
from app.models.sqlite import Manner
from app.models.store import ALONE_SECONDS, DEADLINE_SECONDS, Answer, Connection, reason

READERS = 4
REFUSED_SECONDS = 5.0
"""A store that refused a write is not said to take one for so long: what one tries may be smaller than what was refused."""
SMALL_BYTES = 64 * 2**20
"""A file up to this size is looked through at the start: at most a second, where one of 1 GB took 13 from a cold disk."""
FULL = "The disk of the database is full."
HELP = "`python -m app.check` says more; stop every process, put a backup in its place and start again."


class SqliteStore:
    """A SQLite file: connections that read, one that writes durably and one that writes and does not wait for the disk."""

    def __init__(self, url: str, *, full: bool, patient: bool, reserve_bytes: int) -> None:
        self.path = sqlite_path(url)
        self.name = str(self.path)
        self._reserve_bytes = reserve_bytes
        self._place = sqlite.Place(self.path)
        self._damage: str | None = None
        self._refused: tuple[float, type[StoreUnavailable], str] | None = None
        self._lacked_room = False
        self._nothings = os.getpid() % 1000  # so that processes which take turns do not write the same
        reads_for = None if patient else sqlite.READ_SECONDS
        self._reading = self._engine(READERS, Manner(query_only=True, synchronous="NORMAL", read_seconds=reads_for))
        self._durable = self._engine(1, Manner(query_only=False, synchronous="FULL" if full else "NORMAL"))
        self._relaxed = self._engine(1, Manner(query_only=False, synchronous="NORMAL"))
        self._writers = (_Writer(self._durable), _Writer(self._relaxed))

    def _engine(self, connections: int, manner: Manner) -> AsyncEngine:
        return create_async_engine(
            "sqlite+pinned:///" + str(self.path),
            connect_args=sqlite.connect_arguments(self._place, manner),
            pool_size=connections,
            max_overflow=0,
            pool_timeout=DEADLINE_SECONDS,
            # Every transaction is ended where it was begun, so there is nothing to reset when a connection goes back.
            pool_reset_on_return=None,
        )

    def now(self) -> datetime:
        """This host's wall clock: whoever shares the file is on the same host."""
        return system_clock()

    async def open(self) -> None:
        """Create the folder and the file if need be and migrate. Raises StoreError with one clear line if it cannot be."""
        try:
            await asyncio.to_thread(self.path.parent.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"Cannot create the folder of the database {self.path}: {error.strerror}") from error
        await asyncio.to_thread(_ensure_writable, self.path)
        try:
            async with _right_to_migrate(self.path), self._durable.connect() as connection:
                await self._ensure_sound(connection)
                await self._migrate(connection)
                await asyncio.to_thread(reserve.make, self.path, self._reserve_bytes)
        except (exc.SQLAlchemyError, OSError) as error:
            kind, why = self._trouble(error)
            if kind is StoreDamaged:
                raise self._damaged(why) from error
            raise (kind or StoreError)(f"The database {self.path} cannot be opened: {why}") from error

    async def _migrate(self, connection: Connection) -> None:
        if not await migrate.is_current(connection, self.name):
            deadline = time.monotonic() + DEADLINE_SECONDS
            sqlite.begin_with_next(await connection.get_raw_connection(), deadline)
            async with _ended(connection):
                await migrate.upgrade(connection, self.name)

    def _damaged(self, why: str) -> StoreDamaged:
        return StoreDamaged(f"The database {self.path} is damaged: {why}. {HELP}")

    async def _ensure_sound(self, connection: Connection) -> None:
        if self.path.stat().st_size <= SMALL_BYTES:
            found = [str(row).splitlines()[-1] for row in await connection.scalars(text("PRAGMA quick_check"))]
            # Which rows break a constraint, the checker tells.
            damage = [line for line in found if line != "ok" and "constraint failed" not in line]
            if damage:
                raise self._damaged(damage[0])

    async def find(self) -> None:
        if not self.path.exists():
            raise StoreError(f"There is no database at {self.path}.")

    async def ensure_alone(self) -> None:
        try:
            alone = not self.path.exists() or await asyncio.to_thread(sqlite.is_alone, self.path, ALONE_SECONDS)
        except sqlite.LibraryError as error:
            kind, why = self._trouble(error)
            raise (kind or StoreError)(f"The database {self.path} cannot be opened: {why}") from error
        if not alone:
            raise StoreError(f"The database {self.path} is open in another process.")

    async def close(self) -> None:
        for writer in self._writers:
            await writer.close()
        for engine in (self._reading, self._relaxed, self._durable):
            await engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        async with self._reading.connect() as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        async with self._reading.connect() as connection:
            await connection.execute(text("BEGIN"))
            try:
                yield connection
            finally:
                await asyncio.shield(_undo(connection))

    @asynccontextmanager
    async def writing(self, *, durable: bool) -> AsyncIterator[Connection]:
        """A transaction that holds the only write lock there is. Once damage was found every one is refused: what is
        written into a broken file may overwrite what is whole."""
        if self._damage is not None:
            raise StoreDamaged(self._damage)
        first = self._make_room if self._lacked_room else None
        try:
            async with self._writers[0 if durable else 1].turn(first) as connection, _ended(connection):
                yield connection
        except (exc.SQLAlchemyError, StoreDamaged) as error:
            told = self.told(error)
            if isinstance(told, StoreUnavailable):
                self._refused = time.monotonic(), type(told), str(told)
                self._lacked_room = self._lacked_room or isinstance(told, StoreFull)
            raise

    async def _make_room(self) -> None:
        """On a full disk: let the log start anew in the room that it has, before every write until there is more."""
        if not self._lacked_room:  # whoever had the turn before has found some
            return
        with suppress(sqlite.LibraryError):  # the write will tell
            await asyncio.to_thread(sqlite.write_back_log, self._place)
        self._lacked_room = sqlite.free_bytes(self.path) < sqlite.NO_ROOM_BYTES

    async def at_once(self, connection: Connection, work: Coroutine[Any, Any, Answer], *, last: bool) -> Answer:
        steps = _committed(connection, work) if last else work
        return await sqlite.in_one_trip(_raw(connection), steps)

    async def write_nothing(self, connection: Connection) -> None:
        """What a probe writes may fit where a task does not: so it is refused also where another write was just refused."""
        # SQLite skips a page that does not change, so the number does.
        self._nothings = (self._nothings + 1) % 1000
        await connection.exec_driver_sql(f"PRAGMA user_version = {self._nothings}")
        if self._refused is not None and time.monotonic() - self._refused[0] < REFUSED_SECONDS:
            raise self._refused[1](self._refused[2])

    @property
    def log_bytes(self) -> int:
        """How long the write-ahead log is."""
        return sqlite.log_bytes(self.path)

    async def shorten_log(self) -> None:
        """Write the log back into the database and cut it off, as far as no reader is in it. Raises LibraryError."""
        await asyncio.to_thread(sqlite.shorten_log, self._place)

    def _trouble(self, error: BaseException) -> tuple[type[StoreUnavailable] | None, str]:
        """What an error says of the store, None if nothing, and why."""
        if isinstance(error, exc.TimeoutError):
            return StoreUnavailable, reason(error)
        if isinstance(error, OSError):
            return StoreUnavailable, f"{error.filename}: {error.strerror}"
        return sqlite.trouble(getattr(error, "orig", error), self.path)

    def told(self, error: Exception) -> Exception:
        if not isinstance(error, exc.SQLAlchemyError | StoreDamaged | sqlite.LibraryError):
            return error
        kind, why = (StoreDamaged, str(error)) if isinstance(error, StoreDamaged) else self._trouble(error)
        if kind is StoreDamaged:
            self._damage = self._damage or f"The database is damaged: {why}. Nothing more is written to it. {HELP}"
            return StoreDamaged(self._damage)
        if kind is StoreFull:
            return StoreFull(FULL)
        return error if kind is None else kind(f"The database is not available: {why}")

    def line(self) -> None:
        """None: a file calls nobody."""

    def about(self) -> dict[str, str]:
        if sqlite.wal_is_safe():
            return {"sqlite": sqlite.VERSION}
        return {
            "sqlite": sqlite.VERSION,
            "sqlite_warning": "This SQLite library can corrupt a write-ahead log that two processes share, so a rollback"
            " journal is used, which is slower. Install the pysqlite3 wheel, or Python with SQLite 3.51.3 or later.",
        }


def _raw(connection: Connection) -> PoolProxiedConnection:
    """As `get_raw_connection`, which takes a detour for connections that still have to be made."""
    assert connection.sync_connection is not None
    return connection.sync_connection.connection


@asynccontextmanager
async def _ended(connection: Connection) -> AsyncIterator[None]:
    """Commit what the block has done, unless it has, or undo it."""
    try:
        yield
        if connection.in_transaction():
            await connection.commit()
    except BaseException:
        await asyncio.shield(_undo(connection))
        raise


async def _committed(connection: Connection, work: Coroutine[Any, Any, Answer]) -> Answer:
    answer = await work
    await connection.commit()
    sqlite.no_more(_raw(connection))
    return answer


async def _undo(connection: Connection) -> None:
    """Roll back; where even that fails, throw the connection away, so that the next transaction finds a clean one."""
    try:
        await connection.rollback()
        # After a commit that failed SQLAlchemy has no transaction to roll back, but SQLite may have, and the write lock.
        await sqlite.end_transaction(await connection.get_raw_connection())
    except (exc.SQLAlchemyError, sqlite.LibraryError):
        await connection.invalidate()


class _Writer:
    """One connection for writing, kept, with a queue of those who wait for it. Taking it from the pool for every
    transaction cost a tenth of a submission."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._taken = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, first: Callable[[], Awaitable[None]] | None = None) -> AsyncIterator[Connection]:
        """The connection, with a transaction that begins at the first statement, before which `first` is done. All together may
        take as long as one may wait for the lock. Raises exc.TimeoutError."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._taken.acquire()
        except TimeoutError:
            raise exc.TimeoutError("another transaction of this process does not end") from None
        try:
            if first is not None:
                await first()
            if self._connection is None or self._connection.invalidated:
                await self.close()
                self._connection = await self._engine.connect()
            sqlite.begin_with_next(_raw(self._connection), deadline)
            yield self._connection
        finally:
            self._taken.release()

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _ensure_writable(path: Path) -> None:
    """Raise StoreError where the file, or the folder for its log, cannot be written: SQLite would open it to read."""
    if path.exists() and not path.is_file():
        raise StoreError(f"The database {path} is no file")
    for one in (path, path.parent):
        if one.exists() and not os.access(one, os.W_OK):
            read_only = os.statvfs(one).f_flag & os.ST_RDONLY
            why = "the file system is read-only" if read_only else "permission denied"
            raise StoreError(f"The database {path} cannot be written: {why}")


@asynccontextmanager
async def _right_to_migrate(path: Path) -> AsyncIterator[None]:
    """Hold the right to migrate the database at `path`. Raises SchemaError if another process keeps it for a minute."""
    handle = os.open(f"{path}.migrate.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await asyncio.to_thread(_take, handle, path)
        yield
    finally:
        os.close(handle)


def _take(handle: int, path: Path) -> None:
    deadline = time.monotonic() + migrate.LOCK_DEADLINE_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SchemaError(f"Another process has been migrating {path} for a minute.") from None
            time.sleep(0.02)
