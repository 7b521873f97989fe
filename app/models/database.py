"""`Database`: the one way to the store, whichever it is: connections for reading, transactions for writing, the clock."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from sqlalchemy import exc

from app.core.clock import Clock
from app.core.errors import StoreContended
from app.core.settings import is_sqlite
from app.models import sqlite
from app.models.sqlite_store import SqliteStore
from app.models.store import Answer, Connection, Store

if TYPE_CHECKING:
    from app.models.line import Line

__all__ = ["Connection", "Database", "retried"]

RETRIES = 3

Parameters = ParamSpec("Parameters")


class Database:
    """One process's way to the tasks. Open it after any fork; close it at the end.

    Durable writes are on disk when `write()` returns. The others survive the death of any process, but a power cut may
    undo the last of them: right for claims and renewals, whose loss only means running again.
    """

    def __init__(
        self,
        url: str,
        *,
        durability: str = "full",
        clock: Clock | None = None,
        connections: int = 5,
        patient: bool = False,
        reserve_bytes: int = 0,
    ) -> None:
        """`connections`: most that are held to PostgreSQL. `reserve_bytes`: set aside beside a SQLite file. `patient`: for
        tools that read everything, no statement is given up because it takes long. `clock` replaces the store's own."""
        full = durability == "full"
        self._store: Store = (
            SqliteStore(url, full=full, patient=patient, reserve_bytes=reserve_bytes)
            if is_sqlite(url)
            else _postgres(url, full=full, connections=connections, patient=patient)
        )
        self._clock = clock or self._store.now

    async def open(self) -> None:
        """Create what can be created and migrate. Raises StoreError with one clear line if it cannot be."""
        await self._store.open()

    async def find(self) -> None:
        """Raise StoreError if there is no such database; unlike `open` make none."""
        await self._store.find()

    async def ensure_alone(self) -> None:
        """Raise StoreError if another process has it open, as far as can be told. This one must not: ask before the first
        statement, or after `close`."""
        await self._store.ensure_alone()

    async def close(self) -> None:
        await self._store.close()

    def clock(self) -> Clock:
        """The clock all leases and due times are measured by."""
        return self._clock

    @property
    def name(self) -> str:
        """Where it is, without any secret."""
        return self._store.name

    @property
    def whole_name(self) -> str:
        """The same, so that it means one place from whatever folder it is read."""
        return self.name if self.path is None else str(self.path.resolve())

    @property
    def path(self) -> Path | None:
        """The file, None where the store is none."""
        return self._store.path if isinstance(self._store, SqliteStore) else None

    @property
    def log_bytes(self) -> int:
        """How long the write-ahead log of a SQLite file is; 0 where there is none to look after."""
        return self._store.log_bytes if isinstance(self._store, SqliteStore) else 0

    @property
    def log_is_long(self) -> bool:
        """Whether the log has outgrown what it shrinks to by itself: whoever reads has to read ever more of it."""
        return self.log_bytes > sqlite.LOG_BYTES

    async def shorten_log(self) -> None:
        """Write the log back into the file and cut it off, as far as no reader is in it. Raises StoreUnavailable."""
        assert isinstance(self._store, SqliteStore)
        try:
            await self._store.shorten_log()
        except sqlite.LibraryError as error:
            raise self._store.told(error) from error

    def line(self) -> "Line | None":
        """A line through which processes that share the store can call each other, None where there is none."""
        return self._store.line()

    def about(self) -> dict[str, str]:
        """Which store it is and what should be seen to, for `GET /health`."""
        return self._store.about()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A connection for reading; each statement sees the newest commit. Raises StoreUnavailable."""
        try:
            async with self._store.reading() as connection:
                yield connection
        except Exception as error:
            told = self._store.told(error)
            raise told from (None if told is error else error)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A connection for reading, on which all statements see one moment. Raises StoreUnavailable.

        What others delete meanwhile cannot be cleared away before its end: for tools, not for requests.
        """
        try:
            async with self._store.snapshot() as connection:
                yield connection
        except Exception as error:
            told = self._store.told(error)
            raise told from (None if told is error else error)

    @asynccontextmanager
    async def write(self, *, durable: bool = True) -> AsyncIterator[Connection]:
        """One write transaction: committed when the block ends, undone when it raises. Raises StoreUnavailable.

        It holds locks that others wait for: no user code, no network, nothing slow inside.
        """
        try:
            async with self._store.writing(durable=durable) as connection:
                yield connection
        except Exception as error:
            told = self._store.told(error)
            raise told from (None if told is error else error)

    async def at_once(self, connection: Connection, work: Coroutine[Any, Any, Answer], *, last: bool = False) -> Answer:
        """Carry out part of a transaction as fast as the store can: `work` is a coroutine that waits for nothing but
        statements on `connection`, and looks at nothing that others change meanwhile. It may run in another thread.
        `last`: nothing comes after it, so it may be committed with it."""
        return await self._store.at_once(connection, work, last=last)

    async def write_nothing(self) -> None:
        """Write to the disk as a submission does, but nothing that anyone reads. Raises StoreUnavailable."""
        async with self.write() as connection:
            await self._store.write_nothing(connection)


def _postgres(url: str, *, full: bool, connections: int, patient: bool) -> Store:
    """Its driver and its statements are loaded where they are needed only: they are 3 MB and a thirtieth of a second."""
    from app.models.postgres_store import PostgresStore

    return PostgresStore(url, full=full, connections=connections, patient=patient)


def retried(use_case: Callable[Parameters, Awaitable[Answer]]) -> Callable[Parameters, Awaitable[Answer]]:
    """For a use case that is one transaction: do it again, up to three times, when another transaction came in between.

    That is where the store broke a deadlock, or a row that was looked for before it was written has come or gone meanwhile.
    Where there is one writer at a time (SQLite) neither happens.
    """

    @functools.wraps(use_case)
    async def tried(*arguments: Parameters.args, **options: Parameters.kwargs) -> Answer:
        for number in range(RETRIES):
            try:
                return await use_case(*arguments, **options)
            except (StoreContended, exc.IntegrityError):
                await asyncio.sleep(0.01 * (number + 1))
        return await use_case(*arguments, **options)

    return tried
