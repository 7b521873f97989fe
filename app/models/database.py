"""`Database`: opens the store, hands out connections for reading and for writing, and brings the schema up to date."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.core.clock import Clock, system_clock
from app.core.errors import SchemaError, StoreDamaged, StoreError, StoreUnavailable
from app.core.settings import sqlite_path
from app.models import migrate, sqlite

READERS = 4
UNAVAILABLE = (exc.OperationalError, exc.TimeoutError)
"""What trying again later may mend: locked, full, read-only, away. What the store will never take is raised as it is."""

Connection = AsyncConnection
"""What statements take. Named here so that services need not know the library."""


class Database:
    """One process's way to the tasks. Open it after any fork; close it at the end.

    Durable writes are on disk when `write()` returns. The others survive the death of any process, but a power cut may
    undo the last of them: right for claims and renewals, whose loss only means running again.
    """

    def __init__(self, url: str, *, durability: str = "full", clock: Clock = system_clock) -> None:
        self.path = sqlite_path(url)
        self._clock = clock
        full = "FULL" if durability == "full" else "NORMAL"
        self._reading = self._engine(READERS, query_only=True, synchronous="NORMAL")
        self._durable = self._engine(1, query_only=False, synchronous=full)
        self._relaxed = self._engine(1, query_only=False, synchronous="NORMAL")
        self._writers = (_Writer(self._durable), _Writer(self._relaxed))

    def _engine(self, connections: int, *, query_only: bool, synchronous: str) -> AsyncEngine:
        return create_async_engine(
            "sqlite+pinned:///" + str(self.path),
            connect_args=sqlite.connect_arguments(self.path, query_only=query_only, synchronous=synchronous),
            pool_size=connections,
            max_overflow=0,
            pool_timeout=sqlite.DEADLINE_SECONDS,
            # Every transaction is ended where it was begun, so there is nothing to reset when a connection goes back.
            pool_reset_on_return=None,
        )

    async def open(self) -> None:
        """Create the folder and the file if need be and migrate. Raises StoreError with one clear line if it cannot be."""
        try:
            await asyncio.to_thread(self.path.parent.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"Cannot create the folder of the database {self.path}: {error.strerror}") from error
        if not os.access(self.path if self.path.exists() else self.path.parent, os.W_OK):
            raise StoreError(f"The database {self.path} cannot be written: permission denied")
        try:
            async with migrate.locked(self.path), self._durable.connect() as connection:
                await migrate.upgrade(connection)
        except (exc.DBAPIError, exc.TimeoutError) as error:
            raise SchemaError(f"The database {self.path} cannot be opened: {_reason(error)}") from error

    async def close(self) -> None:
        for writer in self._writers:
            await writer.close()
        for engine in (self._reading, self._relaxed, self._durable):
            await engine.dispose()

    def clock(self) -> Clock:
        """The clock all leases and due times are measured by."""
        return self._clock

    @property
    def library_version(self) -> str:
        """Version of the SQLite library in use."""
        return sqlite.VERSION

    @property
    def wal_is_safe(self) -> bool:
        """False if this process has a SQLite library that must not be trusted with WAL (a rollback journal is used)."""
        return sqlite.wal_is_safe()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading; each statement sees the newest commit. Raises StoreUnavailable."""
        try:
            async with self._reading.connect() as connection:
                yield connection
        except (*UNAVAILABLE, exc.DatabaseError) as error:
            told = _told(error)
            raise told from (None if told is error else error)

    @asynccontextmanager
    async def write(self, *, durable: bool = True) -> AsyncIterator[AsyncConnection]:
        """One write transaction: committed when the block ends, undone when it raises. Raises StoreUnavailable.

        Holds the only write lock there is: no user code, no network, nothing slow inside.
        """
        try:
            async with self._writers[0 if durable else 1].turn() as connection:
                try:
                    yield connection
                    await connection.commit()
                except BaseException:
                    await asyncio.shield(_undo(connection))
                    raise
        except (*UNAVAILABLE, exc.DatabaseError) as error:
            told = _told(error)
            raise told from (None if told is error else error)


async def _undo(connection: AsyncConnection) -> None:
    """Roll back; where even that fails, throw the connection away, so that the next transaction finds a clean one."""
    try:
        await connection.rollback()
    except exc.SQLAlchemyError:
        await connection.invalidate()


class _Writer:
    """One connection for writing, kept, with a queue of those who wait for it. Taking it from the pool for every
    transaction cost a tenth of a submission."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._taken = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[AsyncConnection]:
        """The connection, with a transaction that begins at the first statement. Raises exc.TimeoutError."""
        try:
            async with asyncio.timeout(sqlite.DEADLINE_SECONDS):
                await self._taken.acquire()
        except TimeoutError:
            raise exc.TimeoutError("another transaction of this process does not end") from None
        try:
            if self._connection is None or self._connection.invalidated:
                await self.close()
                self._connection = await self._engine.connect()
            sqlite.begin_with_next(await self._connection.get_raw_connection())
            yield self._connection
        finally:
            self._taken.release()

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _told(error: Exception) -> Exception:
    """The error to raise instead: ours where the store itself is in trouble, else the same."""
    if isinstance(error, UNAVAILABLE):
        return StoreUnavailable(f"The database is not available: {_reason(error)}")
    # Its subclasses are about a statement (a constraint, a wrong name); the class itself is about the file.
    if type(error) is exc.DatabaseError:
        return StoreDamaged(f"The database is damaged: {_reason(error)}")
    return error


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).split("\n", 1)[0]
