"""What a store has to offer to `Database`. There are two: SQLite (sqlite_store.py) and PostgreSQL (postgres_store.py)."""

from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection

if TYPE_CHECKING:
    from app.models.line import Line

Answer = TypeVar("Answer")

Connection = AsyncConnection
"""What statements take. Named here so that services need not know the library."""

ALONE_SECONDS = 2.0
"""How long others may take to leave the store."""
DEADLINE_SECONDS = 5.0
"""Longest wait for a turn to write, for a connection, for a lock. What is stuck must end in an error, never in a hang."""


class Store(Protocol):
    """One process's way to one store. Its errors are the libraries' own; `told` says what they mean."""

    name: str
    """Where it is, fit to be shown to anyone: without a password."""

    def now(self) -> datetime:
        """The time all leases and due times are measured by."""
        ...

    async def open(self) -> None:
        """Make what can be made, and bring the schema up to date. Raises StoreError with one clear line."""
        ...

    async def close(self) -> None: ...

    async def find(self) -> None:
        """Raise StoreError if there is nothing to look into; make nothing."""
        ...

    async def ensure_alone(self) -> None:
        """Raise StoreError if another process has the store open, as far as can be told. This one must not."""
        ...

    def reading(self) -> AbstractAsyncContextManager[Connection]:
        """A connection on which each statement sees the newest commit."""
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Connection]:
        """A connection on which all statements see what had been committed at the first of them."""
        ...

    def writing(self, *, durable: bool) -> AbstractAsyncContextManager[Connection]:
        """One transaction, committed at the end of the block, undone when it raises."""
        ...

    async def at_once(self, connection: Connection, work: Coroutine[Any, Any, Answer], *, last: bool) -> Answer:
        """Carry out `work`, which waits for nothing but statements on `connection`. `last`: nothing of the transaction comes
        after it."""
        ...

    async def write_nothing(self, connection: Connection) -> None:
        """Within a durable transaction: write what nobody reads, but what a store that is full or read-only refuses."""
        ...

    def line(self) -> "Line | None":
        """Through which processes that share the store can call each other; None where they cannot."""
        ...

    def told(self, error: Exception) -> Exception:
        """The error to raise instead: one of ours where the store itself is in trouble, else the same."""
        ...

    def about(self) -> dict[str, str]:
        """What `GET /health` says of it; a key that ends in `_warning` is something to see to."""
        ...


def reason(error: BaseException) -> str:
    """The first line of what the library says."""
    text = str(getattr(error, "orig", None) or error).split("\n", 1)[0]
    return text or type(error).__name__


UNAVAILABLE = (exc.OperationalError, exc.TimeoutError)
"""What trying again later may mend: locked, full, read-only, away. What the store will never take is raised as it is."""
