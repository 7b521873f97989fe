"""Rows to try statements on."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from app.core.task import ClaimedTask, JsonText, NewTask
from app.models import queue, tasks
from app.models.database import Database
from tests.conftest import FrozenClock, both_stores

__all__ = ["both_stores"]

Insert = Callable[..., Awaitable[list[int]]]
Claim = Callable[..., Awaitable[list[ClaimedTask]]]
STEP = 60.0


def new_task(**changes: Any) -> NewTask:
    asked: dict[str, Any] = {
        "task_type": "echo",
        "payload": JsonText('{"number":1}'),
        "queue": "default",
        "priority": 0,
        "max_attempts": 3,
        "timeout_seconds": 30.0,
    }
    return NewTask(**asked | changes)


@pytest.fixture
def insert(database: Database, clock: FrozenClock) -> Insert:
    """Stores tasks, one a millisecond, so that their order is plain."""

    async def insert_tasks(*changes: dict[str, Any]) -> list[int]:
        ids = []
        async with database.write() as connection:
            for one in changes or ({},):
                given, stored = await tasks.insert_new(connection, [new_task(**one)], clock.forward(0.001), STEP)
                assert set(given) == stored
                ids += given
        return ids

    return insert_tasks


@pytest.fixture
def claim(database: Database, clock: FrozenClock) -> Claim:
    """Claims from every pair that waits, as a worker would."""

    async def claim_tasks(
        room: int = 10, worker: str = "w1", pairs: Sequence[tuple[str, str]] | None = None, seconds: float = 30
    ) -> list[ClaimedTask]:
        async with database.write() as connection:
            if pairs is None:
                pairs = [(head.queue, head.task_type) for head in (await queue.front(connection)).heads]
            until = clock() + timedelta(seconds=seconds)
            return await queue.claim(connection, pairs, room, worker, clock(), until) if pairs else []

    return claim_tasks
