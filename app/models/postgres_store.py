"""`PostgresStore`: a PostgreSQL database as the store, straight or through a pooler: its pool, its migration, what became of a
commit whose answer was lost, whose clock counts, and what its errors mean."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.core.errors import (
    OutcomeUnknown,
    SchemaError,
    StoreContended,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
)
from app.models import migrate
from app.models.line import Line
from app.models.postgres import (
    INCARNATION,
    PATIENT_SETTINGS,
    SETTINGS,
    TROUBLE,
    Adapted,
    Ways,
    adapted_of,
    connect,
    refuse_closed,
    said,
    shown,
    state_of,
    undone,
)
from app.models.server_clock import REFRESH_SECONDS, ServerClock
from app.models.store import ALONE_SECONDS, DEADLINE_SECONDS, Answer, Connection

OLDEST_SERVER = 13
MIGRATION_LOCK = 0x7461736B73  # "tasks"
_OTHERS = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'task-service'
  AND datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"""
CLIENT_DEADLINE_SECONDS = DEADLINE_SECONDS + 1.0
"""When the client gives up on a server that says nothing at all."""

# What the server says (SQLSTATE) and what that means for us. Everything else is about a statement, and raised as it is.
_CONTENDED = ("40001", "40P01")  # serialization failure, deadlock
_REFUSED_COMMIT = ("23", "25", "40")  # a constraint, a transaction that had failed, a conflict: undone for sure
_DAMAGED = ("XX001", "XX002")  # data, index corrupted
_UNAVAILABLE = (
    *("08", "53", "57", "58"),  # connection, resources, operator intervention, system error
    *("25006", "25P03", "25P04", "55P03"),  # read-only, transaction timeouts, lock not available
    *("28", "3D000", "3F000", "42501", "42P01", "42703"),  # who may what, and what is there: changed while we ran
)


class PostgresStore:
    """One process's way to a PostgreSQL database: a pool of connections and the server's clock."""

    def __init__(self, url: str, *, full: bool, connections: int, patient: bool) -> None:
        self.name = shown(url)
        self._dsn = re.sub(r"^postgres(ql)?(\+asyncpg)?:", "postgresql:", url)
        self._full = full
        self._patient = patient
        self._connections = connections
        self._ways = Ways(dict(PATIENT_SETTINGS if patient else SETTINGS), pooled=False)
        self._engine: AsyncEngine | None = None
        self._server = ""
        self._warnings: dict[str, str] = {}
        self._clock = ServerClock()
        self._keeping_time: asyncio.Task[None] | None = None

    def now(self) -> datetime:
        """The server's time."""
        return self._clock()

    async def open(self) -> None:
        """Look at the server and migrate. Raises StoreError, SchemaError with one clear line."""
        await self.find()
        await self._migrate()
        try:
            await self._ask_time()
        except TROUBLE as error:
            raise StoreError(f"The database {self.name} cannot be used: {said(error)}") from error
        self._keeping_time = asyncio.create_task(self._keep_time())

    async def find(self) -> None:
        """Learn what the server is, and whether it is reached straight. Raises StoreError for what cannot be used."""
        if self._engine is not None:
            return
        try:
            async with self._looking() as connection:
                await self._look(connection)
        except TROUBLE as error:
            raise StoreError(f"The database {self.name} cannot be used: {said(error)}") from error
        except ValueError as error:
            # What it says may show a piece of the password.
            message = "its address cannot be understood; special characters of a password are written as %XX"
            raise StoreError(f"The database {self.name} cannot be used: {message}.") from error
        self._engine = self._make_engine()

    @asynccontextmanager
    async def _looking(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection for one look, in a transaction, with nothing asked for that a pooler would refuse."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            connection = await asyncpg.connect(self._dsn, timeout=DEADLINE_SECONDS, statement_cache_size=0)
            try:
                async with connection.transaction():
                    yield connection
                await connection.close()
            finally:
                connection.terminate()

    async def _look(self, connection: asyncpg.Connection) -> None:
        version = connection.get_server_version()
        self._server = f"{version.major}.{version.micro if version.major >= 10 else version.minor}"
        if version.major < OLDEST_SERVER:
            raise StoreError(
                f"The database {self.name} is PostgreSQL {self._server}; this program needs {OLDEST_SERVER} or newer."
            )
        asked = "SELECT pg_backend_pid(), current_setting('synchronous_commit'), current_setting('fsync')"
        process, commits, syncs = await connection.fetchrow(asked)
        # A pooler answers for the server, with a process id of its own making.
        self._ways.pooled = process != connection.get_server_pid()
        if self._full and commits == "off":
            self._ways.settings["synchronous_commit"] = "on"
        if self._full and syncs == "off":
            self._warnings["postgresql_warning"] = (
                "The server has fsync off: a power cut may lose acknowledged tasks, or all of them."
            )

    def _make_engine(self) -> AsyncEngine:
        engine = create_async_engine(
            "postgresql+ways://",
            connect_args={"ways": self._ways, "dsn": self._dsn, **self._client_deadline()},
            pool_size=self._connections,
            max_overflow=0,
            pool_timeout=DEADLINE_SECONDS,
            # Every transaction is ended where it was begun, so there is nothing to reset when a connection goes back.
            pool_reset_on_return=None,
        )
        event.listen(engine.sync_engine, "checkout", refuse_closed)
        return engine

    def _client_deadline(self) -> dict[str, float]:
        return {} if self._patient else {"command_timeout": CLIENT_DEADLINE_SECONDS}

    async def _migrate(self) -> None:
        """Bring the schema up to date, one process at a time, all or nothing."""
        try:
            async with self.reading() as connection:
                if await migrate.is_current(connection, self.name):
                    return
            engine = create_async_engine(
                "postgresql+ways://",
                connect_args={"ways": Ways(dict(PATIENT_SETTINGS), self._ways.pooled), "dsn": self._dsn},
                poolclass=NullPool,
            )
            try:
                await self._migrate_alone(engine)
            finally:
                await engine.dispose()
        except TROUBLE as error:
            raise SchemaError(f"The database {self.name} cannot be brought up to date: {said(error)}") from error

    async def _migrate_alone(self, engine: AsyncEngine) -> None:
        async with engine.connect() as connection, undone(connection):
            (await adapted_of(connection)).begin_with = self._ways.begin()
            await connection.execute(text(f"SET LOCAL lock_timeout = '{migrate.LOCK_DEADLINE_SECONDS:g}s'"))
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            # Changing a table needs it alone; better to fail than to have everyone queue up behind us.
            await connection.execute(text(f"SET LOCAL lock_timeout = '{DEADLINE_SECONDS:g}s'"))
            await migrate.upgrade(connection, self.name)
            await connection.commit()

    async def ensure_alone(self) -> None:
        """Sees whoever comes straight and under the same role; not what goes through a pooler."""
        deadline = time.monotonic() + ALONE_SECONDS
        try:
            while await self._has_others():
                if time.monotonic() > deadline:
                    raise StoreError(f"The database {self.name} is open in another process.")
                await asyncio.sleep(0.1)
        except TROUBLE as error:
            raise StoreError(f"The database {self.name} cannot be used: {said(error)}") from error

    async def _has_others(self) -> bool:
        async with self._looking() as connection:  # one for each look: within a transaction the answer stays the same
            return bool(await connection.fetchval(_OTHERS))

    async def close(self) -> None:
        if self._keeping_time is not None:
            self._keeping_time.cancel()
            await asyncio.gather(self._keeping_time, return_exceptions=True)
        if self._engine is not None:
            await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        async with self._connected() as connection, undone(connection):
            # Straight, statements commit themselves, one round trip each. Through a pooler a statement outside of a
            # transaction may be prepared on one server connection and run on another.
            adapted = await adapted_of(connection)
            await adapted.forget_old_plans()
            adapted.begin_with = self._ways.begin() if self._ways.pooled else None
            yield connection
            await connection.rollback()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        async with self._connected() as connection, undone(connection):
            (await adapted_of(connection)).begin_with = self._ways.begin(isolation="REPEATABLE READ READ ONLY")
            yield connection
            await connection.rollback()

    @asynccontextmanager
    async def writing(self, *, durable: bool) -> AsyncIterator[Connection]:
        async with self._connected() as connection, undone(connection):
            adapted = await adapted_of(connection)
            await adapted.forget_old_plans()
            adapted.begin_with = self._ways.begin(durable=durable and self._full)
            yield connection
            await self._commit(connection, adapted)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        if self._engine is None:
            await self.find()
        assert self._engine is not None
        async with self._engine.connect() as connection:
            yield connection

    async def _commit(self, connection: Connection, adapted: Adapted) -> None:
        """Commit. A connection that is lost meanwhile leaves open whether it was carried out, so the server is asked."""
        transaction = await adapted.transaction_id()
        try:
            await connection.commit()
        except TROUBLE as error:
            if (state_of(error) or "").startswith(_REFUSED_COMMIT):
                raise
            # Anything else, even the server's word that it ends the connection, may come after the commit was done.
            if transaction is not None:
                await self._find_out(transaction, adapted.incarnation, error)

    async def _find_out(self, transaction: str, incarnation: datetime | None, error: Exception) -> None:
        """Return if `transaction` was committed. Raises StoreUnavailable if not, OutcomeUnknown if nobody can say."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    status, now = await self._status_of(transaction)
                    if status == "aborted":
                        raise StoreUnavailable(f"The database is not available: {said(error)}")
                    if status == "committed" and now == incarnation:
                        return
                    if status == "committed":
                        break  # that may have been somebody else: a server that crashed gives ids out again
                    await asyncio.sleep(0.05)
        message = f"The connection was lost during the commit, and what came of it is unknown: {said(error)}"
        raise OutcomeUnknown(message) from error

    async def _status_of(self, transaction: str) -> tuple[str | None, datetime | None]:
        """What became of a transaction, and the server's incarnation now."""
        try:
            # Not from the pool: all of it may be waiting for just this.
            async with self._looking() as connection:
                asked = f"SELECT pg_xact_status($1::text::xid8), ({INCARNATION})"
                status, now = await connection.fetchrow(asked, transaction)
                return status, now
        except TROUBLE as error:
            # An id that is still to be given out was never committed; otherwise the server is coming back, we hope.
            return ("aborted" if state_of(error) == "22023" else None), None

    async def at_once(self, connection: Connection, work: Coroutine[Any, Any, Answer], *, last: bool) -> Answer:
        return await work  # the server is asked statement by statement

    async def write_nothing(self, connection: Connection) -> None:
        await connection.execute(text("UPDATE alembic_version SET version_num = version_num"))

    def told(self, error: Exception) -> Exception:
        if not isinstance(error, TROUBLE):
            return error
        state = state_of(error)
        if state in _CONTENDED:
            return StoreContended(f"The database is not available: {said(error)}")
        if state in _DAMAGED:
            return StoreDamaged(f"The database is damaged: {said(error)}")
        if state is None or state.startswith(_UNAVAILABLE):
            return StoreUnavailable(f"The database is not available: {said(error)}")
        return error

    def about(self) -> dict[str, str]:
        pooled = " (through a pooler)" if self._ways.pooled else ""
        return {"postgresql": self._server + pooled, **self._warnings}

    def line(self) -> Line | None:
        """A line of its own for LISTEN and NOTIFY; None through a pooler, which cannot have one."""
        return None if self._ways.pooled else Line(self._connect_line)

    async def _connect_line(self) -> asyncpg.Connection:
        return await connect(self._dsn, Ways({**self._ways.settings, "synchronous_commit": "off"}, pooled=False))

    # The server's clock.

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self._ask_time()
            except TROUBLE:
                continue  # the clock goes on by itself

    async def _ask_time(self) -> None:
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))  # so that neither connecting nor preparing is measured
            asked = self._clock.steady()
            told = await connection.scalar(text("SELECT clock_timestamp()"))
            self._clock.learn(asked, told, self._clock.steady())
