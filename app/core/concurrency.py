"""Concurrency keys: which tasks of one key have a place, and which wait for one. Arithmetic only.

A task with a key is ready (pending) only while it has one of its key's places; else it is blocked. So claims need not know
of keys at all, and never look past tasks that they may not take.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.core.task import Status

LARGEST_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Contender:
    """A task that has a place of its key (running or pending), or waits for one (blocked). `limit`: it has its place beside
    at most so many less one."""

    id: int
    key: str
    status: Status
    rank: int
    limit: int


@dataclass(frozen=True, slots=True)
class Shift:
    """Whose place it is: `admitted` were blocked and become pending, by rank, `displaced` were pending and become blocked."""

    admitted: tuple[int, ...]
    displaced: tuple[int, ...]


AS_IT_IS = Shift((), ())


def shift(contenders: Sequence[Contender]) -> Shift:
    """What changes among the tasks of one key. Who runs keeps the place; of the others the lowest ranks have one, and
    nobody passes one whose own limit is reached."""
    taken = sum(one.status is Status.RUNNING for one in contenders)
    waiting = sorted(
        (one for one in contenders if one.status is not Status.RUNNING), key=lambda one: (one.rank, one.id)
    )
    placed = 0
    for one in waiting:
        if taken + placed >= one.limit:
            break
        placed += 1
    admitted = tuple(one.id for one in waiting[:placed] if one.status is Status.BLOCKED)
    displaced = tuple(one.id for one in waiting[placed:] if one.status is Status.PENDING)
    return Shift(admitted, displaced)


def stored_key(tenant: str, key: str) -> str:
    """A key as the store has it. No tenant's name has a slash."""
    return f"{tenant}/{key}" if tenant else key


def shown_key(tenant: str, stored: str) -> str:
    """The key as it was given."""
    return stored.removeprefix(f"{tenant}/") if tenant else stored
