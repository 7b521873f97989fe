"""Counting: what is counted is one moment of the store."""

from datetime import timedelta

import pytest
from sqlalchemy import event

from app.core.lifecycle import Change
from app.core.task import Status
from app.models import queue, stats
from app.models.database import Database
from tests.conftest import FrozenClock
from tests.models.conftest import Claim, Insert


async def test_a_task_that_changes_its_state_while_it_is_counted_is_counted_once(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    """Statement after statement, one that stops running and waits to be retried would be in neither number."""
    await insert()
    (task,) = await claim()
    async with database.read() as reader:
        seen: list[str] = []

        def before(*arguments: object) -> None:
            seen.append(str(arguments[2]))

        event.listen(reader.sync_connection, "before_cursor_execute", before)
        (depth,) = await stats.queue_depths(reader, clock())
        assert (depth.running, depth.retrying) == (1, 0)
        assert sum("FROM tasks" in statement for statement in seen) == 1
    change = Change(
        task.id, task.lease, Status.RETRYING, 1, task.rank, clock(), scheduled_at=clock() + timedelta(seconds=1)
    )
    async with database.write() as connection:
        await queue.apply(connection, [change])
    async with database.read() as reader:
        (depth,) = await stats.queue_depths(reader, clock())
    assert (depth.running, depth.retrying, depth.ready) == (0, 1, 0)


@pytest.mark.parametrize(("seconds", "ready", "scheduled"), [(0, 1, 2), (10, 3, 0)])
async def test_what_is_due_counts_as_ready(
    database: Database, insert: Insert, clock: FrozenClock, seconds: float, ready: int, scheduled: int
) -> None:
    later = {"scheduled_at": clock() + timedelta(seconds=5)}
    await insert({}, later, later)
    clock.forward(seconds)
    async with database.read() as reader:
        (depth,) = await stats.queue_depths(reader, clock())
    assert (depth.ready, depth.scheduled) == (ready, scheduled)
    assert depth.oldest_ready_at is not None
