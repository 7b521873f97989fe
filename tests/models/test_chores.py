from datetime import timedelta
from typing import Any

from app.core.task import JsonText, Status
from app.models import chores, tasks
from app.models.database import Connection, Database
from tests.conftest import FrozenClock
from tests.models.conftest import Claim, Insert
from tests.models.test_queue import complete, read


async def test_due_tasks_become_ready_in_batches_with_the_rank_of_their_moment(
    database: Database, insert: Insert, clock: FrozenClock
) -> None:
    due = clock() + timedelta(seconds=10)
    await insert(*({"scheduled_at": due + timedelta(seconds=number), "queue": "q"} for number in range(3)))
    async with database.write() as connection:
        assert await chores.next_due(connection) == due
        assert await chores.promote_due(connection, clock(), 10) == []
        clock.now = due + timedelta(seconds=1)
        assert await chores.promote_due(connection, clock(), 1) == ["q"]
        assert await chores.promote_due(connection, clock(), 10) == ["q"]
        assert await chores.promote_due(connection, clock(), 10) == []
        assert await chores.next_due(connection) == due + timedelta(seconds=2)
    assert (await read(database, 1)).status is Status.PENDING
    assert (await read(database, 1)).rank < (await read(database, 2)).rank


async def test_what_never_started_expires_and_what_runs_does_not(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    over = clock() + timedelta(seconds=5)
    await insert(
        {"expires_at": over}, {"expires_at": over, "scheduled_at": over - timedelta(seconds=1)}, {"expires_at": over}
    )
    await claim(room=1)
    async with database.write() as connection:
        assert await chores.next_expiry(connection) == over
        assert await chores.overdue(connection, over - timedelta(milliseconds=1), 10) == []
        assert sorted(await chores.overdue(connection, over, 10)) == [(2, "echo"), (3, "echo")]
        expired = await chores.expire(connection, [1, 2, 3], over, JsonText('{"type":"Expired"}'), "0" * 16)
        assert sorted(expired) == [2, 3]
    assert (await read(database, 1)).status is Status.RUNNING
    row = await read(database, 2)
    assert (row.status, row.failure_reason, row.error) == (Status.FAILED, "expired", '{"type":"Expired"}')


async def pruned(connection: Connection, *arguments: Any) -> int:
    ids = await chores.prunable(connection, *arguments)
    await chores.prune(connection, ids)
    return len(ids)


async def test_old_tasks_are_pruned_in_batches_and_keys_live_a_day(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert({}, {}, {"idempotency_key": "i"}, {})
    for task in await claim(room=3):
        await complete(database, task)
    clock.forward(3600)
    long_ago = clock() - timedelta(days=1)
    async with database.write() as connection:
        assert await pruned(connection, Status.COMPLETED, long_ago, long_ago, 10) == 0
        assert await pruned(connection, Status.FAILED, clock(), clock(), 10) == 0
        assert await pruned(connection, Status.COMPLETED, clock(), long_ago, 1) == 1
        assert await pruned(connection, Status.COMPLETED, clock(), long_ago, 10) == 1
        assert set(await tasks.get_many(connection, [1, 2, 3, 4])) == {3, 4}
        assert await pruned(connection, Status.COMPLETED, clock(), clock(), 10) == 1


async def test_expired_leases_come_oldest_first(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert({}, {}, {})
    await claim(room=1, seconds=20)
    await claim(room=1, seconds=10)
    await claim(room=1, seconds=90)
    clock.forward(30)
    async with database.write() as connection:
        assert [task.id for task in await chores.expired_leases(connection, clock(), 10)] == [2, 1]
        assert [task.id for task in await chores.expired_leases(connection, clock(), 1)] == [2]
