"""PostgreSQL's driver as this service uses it: how connections are made, begun, committed, and given up when in doubt.

The only module that chooses a PostgreSQL driver and opens connections. What is said through them is elsewhere.
"""

import asyncio
import math
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
from sqlalchemy import exc
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_connection,
    AsyncAdapt_asyncpg_dbapi,
    PGDialect_asyncpg,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.util.concurrency import await_

from app.models.line import DRIVER_TROUBLE
from app.models.store import DEADLINE_SECONDS, Connection, reason

TROUBLE = (*DRIVER_TROUBLE, exc.DBAPIError, exc.TimeoutError)
"""What using a connection raises, here and through SQLAlchemy."""

SETTINGS = {
    "application_name": "'task-service'",
    # What waits for a lock, computes or idles inside a transaction for longer holds others up; it is given up. The client
    # waits a little longer than the server, so that it is the server that says what was too slow.
    "lock_timeout": str(round(1000 * 0.8 * DEADLINE_SECONDS)),
    "statement_timeout": str(round(1000 * DEADLINE_SECONDS)),
    "idle_in_transaction_session_timeout": str(round(2000 * DEADLINE_SECONDS)),
    # A host that died without a word holds its locks until the server notices.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
    # Every statement of the service has an index. The statistics of a queue are always wrong (empty a minute ago, a
    # hundred thousand rows now), so plans that read whole tables are ruled out instead of hoped against.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "random_page_cost": "1.1",
    "jit": "off",
    # A claim from 24 pairs takes 0.4 ms with a plan that is kept, and 3 ms if it is planned each time.
    "plan_cache_mode": "force_generic_plan",
}
PLANS_LAST_SECONDS = 10.0
"""How long a kept plan lives: one that was made when a table had ten rows is not right for a hundred thousand, and only an
ANALYZE would have it made again."""
PATIENT_SETTINGS = {"application_name": "'task-service'", "jit": "off"}
INCARNATION = "SELECT stats_reset FROM pg_stat_bgwriter"
"""Tells apart the lives of a server between which it crashed: then its counters begin anew."""


@dataclass
class Ways:
    """How to talk to the server: the settings of every session, and whether a pooler is in between.

    A pooler refuses settings at connection and forgets those of a session, so there they go into each transaction; and it
    gives each transaction another server connection, so no prepared statement may outlive one.
    """

    settings: dict[str, str]
    pooled: bool

    def begin(self, *, durable: bool = True, isolation: str = "READ COMMITTED") -> str:
        """One message that begins a transaction."""
        said = [f"BEGIN ISOLATION LEVEL {isolation}"]
        if self.pooled:
            said += [f"SET LOCAL {name} = {value}" for name, value in self.settings.items() if name not in _OF_SESSION]
        if not durable:
            said.append("SET LOCAL synchronous_commit = off")
        return "; ".join(said)


_OF_SESSION = {name for name in SETTINGS if name.startswith("tcp_")}
"""About the connection to the server, which is the pooler's own."""


async def connect(dsn: str, ways: Ways, command_timeout: float | None = None) -> asyncpg.Connection:
    """A session with its settings; `command_timeout` is in seconds. Raises TROUBLE, ValueError for a wrong address."""
    settings = {} if ways.pooled else {name: value.strip("'") for name, value in ways.settings.items()}
    connection = await asyncpg.connect(
        dsn,
        timeout=DEADLINE_SECONDS,
        command_timeout=command_timeout,
        server_settings=settings,
        statement_cache_size=0 if ways.pooled else 100,
    )
    _keep_alive(connection)
    return connection


def _keep_alive(connection: asyncpg.Connection) -> None:
    """Have the kernel notice within 25 s that the other host is gone, whether we wait for it or not."""
    # asyncpg has no option for it; the transport is where every asyncio protocol has its socket.
    found = connection._transport.get_extra_info("socket")
    if found is None or found.family == socket.AF_UNIX:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 15_000)):
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _Transaction:
    """What SQLAlchemy's adapter ends. Its beginning is our own text, so that it is one message with all it sets."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def commit(self) -> None:
        if await self._connection.execute("COMMIT") != "COMMIT":
            # A statement in it had failed and somebody went on regardless; the server says ROLLBACK and no more.
            raise asyncpg.InFailedSQLTransactionError("the transaction had failed and was undone")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")


class Adapted(AsyncAdapt_asyncpg_connection):
    """Begins with the text it was given, at its first statement; with None each statement stands for itself."""

    __slots__ = ("begin_with", "incarnation", "plans_until")
    begin_with: str | None
    incarnation: datetime | None
    """Of the server, when the connection was made. It does not outlive it."""
    plans_until: float

    async def forget_old_plans(self) -> None:
        """Have the server plan anew what it planned long ago. Costs a message every ten seconds."""
        now = time.monotonic()
        if now > self.plans_until:
            self.plans_until = now + PLANS_LAST_SECONDS
            driver: Any = self._connection
            await driver.execute("DISCARD PLANS")

    async def _start_transaction(self) -> None:
        if self.begin_with is None:
            return
        try:
            await self._connection.execute(self.begin_with)  # type: ignore[attr-defined]  # their protocol is narrower
        except Exception as error:
            self._handle_exception(error)
        self._transaction = _Transaction(self._connection)  # type: ignore[assignment]  # it has begun already

    async def transaction_id(self) -> str | None:
        """The id of the transaction that has begun, None if it has written nothing. Raises what the driver raises."""
        if self._transaction is None:
            return None
        found: str | None = await self.asked("SELECT pg_current_xact_id_if_assigned()::text")
        return found

    def terminate_at_once(self) -> None:
        """Close it without a farewell, for which the server may not be there."""
        driver: Any = self._connection
        driver.terminate()

    async def asked(self, question: str) -> Any:
        """One value from the server, in the transaction if one has begun."""
        driver: Any = self._connection
        return await driver.fetchval(question)


class _Library(AsyncAdapt_asyncpg_dbapi):
    """asyncpg, with connections that begin and commit in our way."""

    def connect(self, *_arguments: Any, **options: Any) -> Adapted:
        ways: Ways = options.pop("ways")
        connection: Adapted = await_(
            Adapted.create(
                self,
                connect(ways=ways, **options),
                # An unnamed statement is gone with the next one, so a pooler's server connections gather none.
                prepared_statement_cache_size=0 if ways.pooled else 100,
                prepared_statement_name_func=str if ways.pooled else None,
            )
        )
        connection.begin_with = ways.begin() if ways.pooled else None
        connection.incarnation = await_(connection.asked(INCARNATION))
        # Through a pooler no plan is kept.
        connection.plans_until = math.inf if ways.pooled else time.monotonic() + PLANS_LAST_SECONDS
        return connection


class PostgresDialect(PGDialect_asyncpg):
    """SQLAlchemy's asyncpg dialect over the library above."""

    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> AsyncAdapt_asyncpg_dbapi:  # type: ignore[override]  # it is what theirs returns
        return _Library(asyncpg)  # type: ignore[no-untyped-call]

    def on_connect(self) -> None:
        """Nothing: the codecs that are set up here cost two round trips, and no column of ours is of type JSON."""


registry.register("postgresql.ways", __name__, PostgresDialect.__name__)


async def adapted_of(connection: Connection) -> Adapted:
    """What lies beneath."""
    adapted: Any = (await connection.get_raw_connection()).dbapi_connection
    return adapted  # type: ignore[no-any-return]


def refuse_closed(dbapi_connection: DBAPIConnection, record: object, proxy: object) -> None:
    """A connection that the server has closed meanwhile is replaced, instead of failing whoever gets it."""
    if dbapi_connection.driver_connection.is_closed():
        raise exc.DisconnectionError


@asynccontextmanager
async def undone(connection: Connection) -> AsyncIterator[None]:
    """Whatever the block had begun is undone if it raises."""
    adapted = await adapted_of(connection)
    try:
        yield
    except BaseException as error:
        await asyncio.shield(_undo(connection, adapted, error))
        raise


async def _undo(connection: Connection, adapted: Adapted, error: BaseException) -> None:
    """Roll back. Where the connection is in doubt, or that takes long, throw it away: the server undoes what it had begun."""
    if not _is_lost(error):
        with suppress(*TROUBLE):
            async with asyncio.timeout(1.0):
                await connection.rollback()
                return
    adapted.terminate_at_once()
    if not connection.invalidated:
        await connection.invalidate()


def _is_lost(error: BaseException) -> bool:
    """Whether the connection it happened on can be trusted no more."""
    state = state_of(error)
    return isinstance(error, TROUBLE) and (state is None or state.startswith(("08", "57P")))


def shown(url: str) -> str:
    """A database's address without its password and options."""
    return re.sub(r"(?<!:):(?!//).*@", "@", url, flags=re.DOTALL).split("?", 1)[0]


def state_of(error: BaseException) -> str | None:
    """The SQLSTATE that the server gave, None if it gave none: it was not reached, or fell silent."""
    found: str | None = getattr(getattr(error, "orig", error), "sqlstate", None)
    return found


def said(error: BaseException) -> str:
    """In one line, what is wrong."""
    if isinstance(error, TimeoutError):
        return f"no answer within {DEADLINE_SECONDS:g} s"
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    if isinstance(error, exc.TimeoutError):
        return f"no connection became free within {DEADLINE_SECONDS:g} s"
    return re.sub(r"^<class '[^']*'>: ", "", reason(error))
