"""SQLite as this service uses it: which library, which pragmas, and whose turn it is to write.

The only module that chooses a SQLite library. Opening one file through two libraries in a process drops the locks of
the first when the second closes (POSIX locks belong to the process), so nothing else may import one.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_dbapi,
    SQLiteDialect_aiosqlite,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util.concurrency import await_

try:
    from pysqlite3 import dbapi2 as sqlite
except ImportError:  # no wheel for this platform: the interpreter's own library, if `wal_is_safe` trusts it
    import sqlite3 as sqlite

BEGIN = "BEGIN IMMEDIATE"
VERSION: str = sqlite.sqlite_version
_SAFE_BACKPORTS = {(3, 50): 7, (3, 44): 6}
TURN_SECONDS = 0.0005
"""Pause between two tries for the write lock. Short and even, because SQLite's own busy handler sleeps up to 100 ms
and locked one of two writers out for 1.5 s; with even tries each got 44 to 50 % of the turns."""
DEADLINE_SECONDS = 5.0
"""Longest wait for the write lock. A frozen writer must end in an error, never in a hang."""


def wal_is_safe(version: str = VERSION) -> bool:
    """False for the libraries that can corrupt a WAL file when two connections write and checkpoint at once
    (every one before 3.51.3, except the back-ports 3.50.7 and 3.44.6: sqlite.org, "The WAL-Reset Bug")."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    if (major, minor) in _SAFE_BACKPORTS:
        return patch >= _SAFE_BACKPORTS[major, minor]
    return (major, minor, patch) >= (3, 51, 3)


class PatientCursor(sqlite.Cursor):  # type: ignore[misc]  # the wheel ships no types
    """Waits for its turn to write, in the database thread, so that neither the loop nor SQLite's handler has to."""

    def execute(self, sql: str, parameters: Any = (), /) -> "PatientCursor":
        if sql != BEGIN:
            super().execute(sql, parameters)
            return self
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                super().execute(sql)
            except sqlite.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(TURN_SECONDS)
            else:
                return self


class GuardedConnection(sqlite.Connection):  # type: ignore[misc]  # the wheel ships no types
    """A connection that refuses to work in a forked child: SQLite's locks do not survive a fork."""

    begins_first = False
    """Set by `begin_with_next`: the next statement is preceded by BEGIN IMMEDIATE."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pid = os.getpid()

    def cursor(self, factory: Any = PatientCursor) -> Any:
        if os.getpid() != self._pid:
            raise RuntimeError("a SQLite connection was carried over a fork; open the database after forking")
        return super().cursor(factory)


class _OneTrip:
    """An asynchronous cursor that opens, executes, fetches and closes in one trip to the database thread.

    aiosqlite makes a trip of each: four a statement, about 45 us of CPU each on an idle loop, more on a busy one.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def execute(self, operation: str, parameters: Any = ()) -> None:
        await self._trip("execute", operation, parameters)

    async def executemany(self, operation: str, parameters: Any) -> None:
        await self._trip("executemany", operation, parameters)

    async def _trip(self, verb: str, operation: str, parameters: Any) -> None:
        # The only door into the database thread; aiosqlite has no public one for a function of one's own.
        await self._connection._execute(self._run, verb, operation, parameters)  # type: ignore[no-untyped-call]

    def _run(self, verb: str, operation: str, parameters: Any) -> None:
        connection: Any = self._connection._conn  # a GuardedConnection; aiosqlite knows the standard one alone
        cursor = connection.cursor()
        if connection.begins_first:
            connection.begins_first = False
            cursor.execute(BEGIN)
        getattr(cursor, verb)(operation, parameters)
        self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
        self._rows = cursor.fetchall() if cursor.description else []
        cursor.close()

    async def fetchall(self) -> list[Any]:
        return self._rows

    async def close(self) -> None:
        self._rows = []


class _OneTripCursor(AsyncAdapt_aiosqlite_cursor):
    __slots__ = ()

    def _make_new_cursor(self, connection: Any) -> Any:
        return _OneTrip(connection)

    def _aenter_cursor(self, cursor: Any) -> Any:
        return cursor


class _OneTripConnection(AsyncAdapt_aiosqlite_connection):
    __slots__ = ()
    _cursor_cls = _OneTripCursor


class _Library(AsyncAdapt_aiosqlite_dbapi):
    """aiosqlite over the chosen library instead of the standard one, with that library's errors."""

    def connect(self, *_arguments: Any, **options: Any) -> AsyncAdapt_aiosqlite_connection:
        return _OneTripConnection(self, await_(options["async_creator_fn"]()))

    def _init_dbapi_attributes(self) -> None:
        for name in (
            *("DatabaseError", "Error", "IntegrityError", "NotSupportedError", "OperationalError", "ProgrammingError"),
            *("sqlite_version", "sqlite_version_info", "PARSE_COLNAMES", "PARSE_DECLTYPES", "Binary"),
        ):
            setattr(self, name, getattr(self.sqlite, name))


class PinnedSqliteDialect(SQLiteDialect_aiosqlite):
    """SQLAlchemy's aiosqlite dialect over the chosen library; it ends only transactions that were begun."""

    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> AsyncAdapt_aiosqlite_dbapi:
        return _Library(aiosqlite, sqlite)

    # Reads run in autocommit. Without these two each would pay a round trip to the database thread for nothing.
    def do_rollback(self, dbapi_connection: DBAPIConnection) -> None:
        if self.get_driver_connection(dbapi_connection).in_transaction:
            dbapi_connection.rollback()

    def do_commit(self, dbapi_connection: DBAPIConnection) -> None:
        if self.get_driver_connection(dbapi_connection).in_transaction:
            dbapi_connection.commit()


def begin_with_next(connection: PoolProxiedConnection) -> None:
    """Have the next statement on `connection` take the write lock first, in the same trip to the database thread."""
    connection.driver_connection._conn.begins_first = True  # type: ignore[union-attr]


registry.register("sqlite.pinned", __name__, PinnedSqliteDialect.__name__)


def connect_arguments(path: Path, *, query_only: bool, synchronous: str) -> dict[str, Any]:
    """What SQLAlchemy passes to the driver: an opener that sets every pragma before anyone uses the connection."""
    return {"async_creator_fn": _opener(path, query_only, synchronous)}


def _opener(path: Path, query_only: bool, synchronous: str) -> Callable[..., Awaitable[aiosqlite.Connection]]:
    def connect() -> sqlite.Connection:
        # isolation_level None: we say BEGIN IMMEDIATE ourselves; a deferred transaction that turns into a writer fails
        # with SQLITE_BUSY_SNAPSHOT at once, whatever the timeout.
        connection = sqlite.connect(
            path, factory=GuardedConnection, isolation_level=None, check_same_thread=False, timeout=DEADLINE_SECONDS
        )
        try:
            _set_pragmas(connection, query_only, synchronous)
        except BaseException:
            connection.close()
            raise
        return connection

    async def open_connection(*_arguments: Any, **_options: Any) -> aiosqlite.Connection:
        connection = aiosqlite.Connection(connect, iter_chunk_size=64)
        connection._thread.daemon = True  # as SQLAlchemy does: a forgotten connection must not keep the process alive
        try:
            return await connection
        except BaseException:
            # aiosqlite has told its thread to end, and would not wait: a loop that closes first breaks the thread's answer.
            await asyncio.to_thread(connection._thread.join)
            raise

    return open_connection


def _set_pragmas(connection: sqlite.Connection, query_only: bool, synchronous: str) -> None:
    journal = "WAL" if wal_is_safe() else "DELETE"
    connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA journal_size_limit=67108864")
    connection.execute("PRAGMA temp_store=MEMORY")
    if query_only:
        connection.execute("PRAGMA query_only=ON")
    elif journal == "WAL":
        # PatientCursor does the waiting; SQLite's own handler would add its uneven sleeps. (With a rollback journal the
        # commit has to wait for readers too, so there the handler stays.)
        connection.execute("PRAGMA busy_timeout=0")
