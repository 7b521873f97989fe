"""SQLite as this service uses it: which library, which pragmas, whose turn it is to write, and what its errors mean.

The only module that chooses a SQLite library. Opening one file through two libraries in a process drops the locks of
the first when the second closes (POSIX locks belong to the process), so nothing else may import one.
"""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

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

from app.core.errors import StoreDamaged, StoreFull, StoreUnavailable
from app.models.store import DEADLINE_SECONDS

try:
    from pysqlite3 import dbapi2 as sqlite
except ImportError:  # no wheel for this platform: the interpreter's own library, if `wal_is_safe` trusts it
    import sqlite3 as sqlite

Answer = TypeVar("Answer")

BEGIN = "BEGIN IMMEDIATE"
LibraryError: type[Exception] = sqlite.Error
connect: Callable[..., Any] = sqlite.connect
"""A plain connection of the chosen library, without the pragmas and the turns of those that `connect_arguments` make."""
VERSION: str = sqlite.sqlite_version
_SAFE_BACKPORTS = {(3, 50): 7, (3, 44): 6}
TURN_SECONDS = 0.0005
"""Pause between two tries for the write lock. Short and even, because SQLite's own busy handler sleeps up to 100 ms
and locked one of two writers out for 1.5 s; with even tries each got 44 to 50 % of the turns."""
READ_SECONDS = 5.0
"""Longest that a statement reads: as long as one does, the log that all writers append to cannot start anew."""
STEPS_A_LOOK = 100_000
"""Steps of SQLite's machine between two looks at the clock: a few milliseconds."""
LOG_BYTES = 64 * 2**20
"""Length to which SQLite cuts the write-ahead log when it starts anew, and above which we write it back ourselves."""
CHECKPOINT_PATIENCE_SECONDS = 0.1
"""Longest that writers are kept out so that readers can leave the log: twice what ours read for, a fiftieth of what
writers wait."""
NO_ROOM_BYTES = 256 * 1024
"""With less than this free, an error of input or output is a full disk."""
MOVED = "its file was deleted, moved or replaced while it was open; put it back, or stop every process and start again"
NO_TEXT = "there is a text that cannot be read"
"""Said of bytes, and of texts that are no UTF-8, be they in a row or in the library's own words about a broken schema."""
_INTERRUPTED, _IO_ERROR, _DAMAGED, _FULL, _NO_DATABASE = 9, 10, 11, 13, 26


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
        if sql == BEGIN:
            self.begin(time.monotonic() + DEADLINE_SECONDS)
        else:
            super().execute(sql, parameters)
        return self

    def begin(self, deadline: float) -> None:
        """Take the write lock. Raises OperationalError if it is not to be had by `deadline` (monotonic)."""
        while True:
            try:
                super().execute(BEGIN)
            except sqlite.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(TURN_SECONDS)
            else:
                return


class Place:
    """Where the database is, and which file was found there first: a process never moves on to another one, to which the
    log of the first does not belong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode: int | None = None

    def ensure_same(self) -> None:
        """Raise OperationalError if another file, or none, is there now. SQLite itself never looks again: it would write
        on into a file that was deleted, and all that it acknowledges would be gone with the process."""
        if self._inode is not None and _inodes([str(self.path)]) != [self._inode]:
            raise sqlite.OperationalError(MOVED)

    def remember(self) -> None:
        """The file that is there now is the one."""
        if self._inode is None:
            self._inode = self.path.stat().st_ino


def _inodes(names: Sequence[str]) -> list[int]:
    """Which files these are; nothing if one is missing."""
    try:
        return [os.stat(name).st_ino for name in names]
    except OSError:
        return []


class GuardedConnection(sqlite.Connection):  # type: ignore[misc]  # the wheel ships no types
    """A connection that refuses to work in a forked child (SQLite's locks do not survive a fork) and on files that are
    no longer where it opened them."""

    begins_by: float | None = None
    """Set by `begin_with_next`: the next statement is preceded by BEGIN IMMEDIATE, which may take until then."""
    is_over: bool = False
    """Whether the transaction of this turn was committed: a statement after it would be one of its own, without the lock."""
    reads_for: float | None = None
    """Longest that one statement may read; None is no limit."""
    beside: tuple[str, ...] = ()
    """Endings of the names of files that belong to the database while it is open."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self._pid = os.getpid()
        self._names: list[str] = []
        self._files: list[int] = []
        self._reads_until = float("inf")

    def cursor(self, factory: Any = PatientCursor) -> Any:
        if os.getpid() != self._pid:
            raise RuntimeError("a SQLite connection was carried over a fork; open the database after forking")
        return super().cursor(factory)

    def stay(self, path: Path) -> None:
        """From now on work only while the database, its log and the memory they share are the files they are now."""
        # A new database gets its log with the first read.
        self.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        self._names = [str(path), *(f"{path}{end}" for end in self.beside)]
        self._files = _inodes(self._names)
        if not self._files:
            raise sqlite.OperationalError(MOVED)

    def begin_statement(self) -> None:
        """What comes before each statement outside of a transaction. Raises OperationalError if the files are others."""
        if self.is_over:
            raise sqlite.ProgrammingError("a statement after the last one of its transaction")
        if _inodes(self._names) != self._files:
            raise sqlite.OperationalError(MOVED)
        if self.reads_for is not None:
            self._reads_until = time.monotonic() + self.reads_for

    def watch_the_clock(self, seconds: float) -> None:
        """End each statement that reads for longer."""
        self.reads_for = seconds
        self.set_progress_handler(lambda: time.monotonic() > self._reads_until, STEPS_A_LOOK)


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
        if _within_trip(self._connection):
            self._run(verb, operation, parameters)
        else:
            # The only door into the database thread; aiosqlite has no public one for a function of one's own.
            await self._connection._execute(self._run, verb, operation, parameters)  # type: ignore[no-untyped-call]

    def _run(self, verb: str, operation: str, parameters: Any) -> None:
        connection: Any = self._connection._conn  # a GuardedConnection; aiosqlite knows the standard one alone
        cursor = connection.cursor()
        if not connection.in_transaction:
            connection.begin_statement()
        if connection.begins_by is not None:
            deadline, connection.begins_by = connection.begins_by, None
            cursor.begin(deadline)
        try:
            getattr(cursor, verb)(operation, parameters)
            self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
            self._rows = cursor.fetchall() if cursor.description else []
        except UnicodeDecodeError:
            raise sqlite.DatabaseError(NO_TEXT) from None
        cursor.close()
        if bytes in map(type, chain.from_iterable(self._rows)):
            raise sqlite.DatabaseError(NO_TEXT)  # no column of ours holds bytes

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
        driver: Any = self.get_driver_connection(dbapi_connection)
        if driver.in_transaction:
            (driver._conn if _within_trip(driver) else dbapi_connection).commit()


def _within_trip(connection: aiosqlite.Connection) -> bool:
    """Whether this is the database thread already, within `in_one_trip`."""
    return threading.get_ident() == connection._thread.ident


async def in_one_trip(connection: PoolProxiedConnection, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Carry out `work`, which waits for nothing but statements on `connection`, in the database thread, all of it.

    Each statement is a trip there and back otherwise: about 0.1 ms, and under load each time the turn of another thread.
    Whoever is cancelled meanwhile waits for its end: until then the connection is that thread's alone.
    """

    def drive() -> Answer:
        try:
            work.send(None)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        finally:
            work.close()
        raise RuntimeError("a transaction waited for something else than its store")

    driver: Any = connection.driver_connection
    try:
        answer: Answer = await driver._execute(drive)
    except asyncio.CancelledError:
        await _nothing_left(driver)
        raise
    return answer


async def _nothing_left(driver: Any) -> None:
    """Return when the database thread has done all that it was given, whoever cancels."""
    last = asyncio.ensure_future(driver._execute(lambda: None))
    while not last.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([last])


def begin_with_next(connection: PoolProxiedConnection, deadline: float) -> None:
    """Have the next statement on `connection` take the write lock first, in the same trip to the database thread, and
    fail if it is not to be had by `deadline` (monotonic)."""
    guarded = _guarded(connection)
    guarded.begins_by, guarded.is_over = deadline, False


def no_more(connection: PoolProxiedConnection) -> None:
    """Refuse every statement on `connection` until the next `begin_with_next`."""
    _guarded(connection).is_over = True


def _guarded(connection: PoolProxiedConnection) -> GuardedConnection:
    guarded: GuardedConnection = connection.driver_connection._conn  # type: ignore[union-attr]
    return guarded


async def end_transaction(connection: PoolProxiedConnection) -> None:
    """Roll back whatever transaction `connection` is in, or was about to begin."""
    driver: Any = connection.driver_connection
    _guarded(connection).begins_by = None
    if driver.in_transaction:
        await driver.rollback()


registry.register("sqlite.pinned", __name__, PinnedSqliteDialect.__name__)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a connection works: whether it only reads, how long one statement may then read (None is no limit), and
    whether its commits wait for the disk (FULL) or not (NORMAL)."""

    query_only: bool
    synchronous: str
    read_seconds: float | None = None


def connect_arguments(place: Place, manner: Manner) -> dict[str, Any]:
    """What SQLAlchemy passes to the driver: an opener that sets every pragma before anyone uses the connection."""
    return {"async_creator_fn": _opener(place, manner)}


def _connected(place: Place, timeout: float) -> GuardedConnection:
    place.ensure_same()
    # isolation_level None: we say BEGIN IMMEDIATE ourselves; a deferred transaction that turns into a writer fails
    # with SQLITE_BUSY_SNAPSHOT at once, whatever the timeout.
    connection: GuardedConnection = sqlite.connect(
        place.path, factory=GuardedConnection, isolation_level=None, check_same_thread=False, timeout=timeout
    )
    return connection


def _opener(place: Place, manner: Manner) -> Callable[..., Awaitable[aiosqlite.Connection]]:
    def connect() -> sqlite.Connection:
        connection = _connected(place, DEADLINE_SECONDS)
        try:
            _set_pragmas(connection, manner)
            place.remember()
            connection.stay(place.path)
        except BaseException as error:
            connection.close()
            if isinstance(error, UnicodeDecodeError):
                raise sqlite.DatabaseError(NO_TEXT) from None
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


def _set_pragmas(connection: GuardedConnection, manner: Manner) -> None:
    journal = "WAL" if wal_is_safe() else "DELETE"
    if connection.execute(f"PRAGMA journal_mode={journal}").fetchone() == ("wal",):
        connection.beside = ("-wal", "-shm")
    connection.execute(f"PRAGMA synchronous={manner.synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA cell_size_check=ON")
    if manner.query_only:
        connection.execute("PRAGMA query_only=ON")
        if manner.read_seconds is not None:
            connection.watch_the_clock(manner.read_seconds)
    elif journal == "WAL":
        # PatientCursor does the waiting; SQLite's own handler would add its uneven sleeps. (With a rollback journal the
        # commit has to wait for readers too, so there the handler stays.)
        connection.execute("PRAGMA busy_timeout=0")


def is_alone(path: Path, patience_seconds: float) -> bool:
    """Whether nobody else has the database at `path` open. With a rollback journal, whether nobody reads or writes it.

    An open database with a write-ahead log is locked for sharing as long as a connection lasts, even an idle one.
    """
    connection = connect(path, isolation_level=None, timeout=patience_seconds)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")
    except sqlite.OperationalError as error:
        if "locked" not in str(error):
            raise
        return False
    finally:
        connection.close()
    return True


def log_bytes(path: Path) -> int:
    """Length of the write-ahead log of the database at `path`; 0 if there is none."""
    try:
        return os.stat(f"{path}-wal").st_size
    except OSError:
        return 0


def shorten_log(place: Place) -> None:
    """Write the log back into the database and cut it off, as far as nobody reads in it. Blocks for as long as the disk
    takes. Raises LibraryError.

    SQLite starts the log anew only at a moment without readers in it. With readers that overlap there is none: two of
    30 and 60 ms let it grow by 190 MB a second.
    """
    # First what can be done while others write; then the rest and the cut, for which they are kept out.
    _checkpoint(place, "PASSIVE", "TRUNCATE")


def write_back_log(place: Place) -> None:
    """Write the log back into the database, as far as nobody reads in it, so that the next writer starts it anew in the
    room that it has. Raises LibraryError.

    SQLite does that only after a commit, and only once the log has 4 MB. On a full disk there may be none any more,
    however much room the database itself has.
    """
    _checkpoint(place, "RESTART")


def _checkpoint(place: Place, *modes: str) -> None:
    connection = _connected(place, CHECKPOINT_PATIENCE_SECONDS)
    try:
        for mode in modes:
            connection.execute(f"PRAGMA wal_checkpoint({mode})")
    finally:
        connection.close()


def trouble(error: BaseException, path: Path) -> tuple[type[StoreUnavailable] | None, str]:
    """What an error says of the store at `path`, None if it is about one statement alone, and why."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    reason = str(error)
    if reason.startswith("Could not decode to UTF-8"):  # what follows is the text, which is nobody's business here
        return StoreDamaged, NO_TEXT
    # Its subclasses are about a statement (a constraint, a wrong name); the class itself is about the file.
    if code in (_DAMAGED, _NO_DATABASE) or type(error) is sqlite.DatabaseError:
        return StoreDamaged, reason
    if code == _FULL or (code == _IO_ERROR and free_bytes(path) < NO_ROOM_BYTES):
        return StoreFull, "its disk is full"
    if code == _INTERRUPTED:
        return StoreUnavailable, f"this would read for more than {READ_SECONDS:g} seconds"
    return StoreUnavailable if isinstance(error, sqlite.OperationalError) else None, reason


def free_bytes(path: Path) -> int:
    """Room that the disk of `path` still has for us; 0 if that cannot be told."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize
