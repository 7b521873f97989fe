from datetime import timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from app.core.task import JsonText, Status
from app.models import tables, tasks
from app.models.database import Database
from app.models.tasks import TaskFilter
from tests.conftest import FrozenClock
from tests.models.conftest import STEP, Claim, Insert, new_task


async def test_a_row_comes_back_as_it_was_asked_for(database: Database, clock: FrozenClock) -> None:
    asked = new_task(
        payload=JsonText('{"text":"\\"é\\" 🙂 \\\\ {}"}'),
        priority=-7,
        scheduled_at=clock() + timedelta(seconds=5),
        expires_at=clock() + timedelta(seconds=50),
        unique_key="u",
        idempotency_key="i",
        request_hash="h",
        tags=("a.b", "c:d"),
        metadata=JsonText('{"k":[1,2]}'),
        traceparent="00-1",
    )
    async with database.write() as connection:
        (task_id,), _ = await tasks.insert_new(connection, [asked], clock(), STEP)
    async with database.read() as connection:
        found = (await tasks.get_many(connection, [task_id]))[task_id]
    assert found == tasks.stored_task(asked, task_id, clock(), STEP)
    assert found.status is Status.SCHEDULED


async def test_ids_follow_the_order_of_the_tasks(database: Database, clock: FrozenClock) -> None:
    asked = [new_task(payload=JsonText(f'{{"number":{number}}}')) for number in range(300)]
    async with database.write() as connection:
        ids, stored = await tasks.insert_new(connection, asked, clock(), STEP)
    assert ids == list(range(1, 301))
    assert stored == set(ids)
    async with database.read() as connection:
        found = await tasks.get_many(connection, ids)
    assert [found[id_].payload for id_ in ids] == [one.payload for one in asked]


async def test_one_that_comes_alone_gets_the_next_id_or_none(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        several, _ = await tasks.insert_new(connection, [new_task(), new_task(unique_key="u")], clock(), STEP)
        (alone,), stored = await tasks.insert_new(connection, [new_task()], clock(), STEP)
        refused = await tasks.insert_new(connection, [new_task(unique_key="u")], clock(), STEP)
        others, _ = await tasks.insert_new(connection, [new_task(), new_task()], clock(), STEP)
    assert stored == {alone}
    assert refused == ([0], set())
    assert several[-1] < alone < others[0]


async def test_an_id_is_never_given_out_twice(database: Database, insert: Insert) -> None:
    (first,) = await insert()
    async with database.write() as connection:
        assert await tasks.delete_idle(connection, first)
    (second,) = await insert()
    assert second > first


async def test_what_collides_is_not_stored_and_the_rest_is(database: Database, clock: FrozenClock) -> None:
    asked = [
        new_task(unique_key="u"),
        new_task(unique_key="u"),
        new_task(idempotency_key="i"),
        new_task(idempotency_key="i"),
        new_task(),
    ]
    async with database.write() as connection:
        ids, stored = await tasks.insert_new(connection, asked, clock(), STEP)
    assert stored == {ids[0], ids[2], ids[4]}
    async with database.read() as connection:
        owners = await tasks.find_by_keys(connection, ["i"], ["u"])
    assert {owner.id for owner in owners} == {ids[0], ids[2]}


async def test_a_finished_task_frees_its_unique_key_and_keeps_its_idempotency_key(
    database: Database, insert: Insert, clock: FrozenClock
) -> None:
    (task_id,) = await insert({"unique_key": "u", "idempotency_key": "i"})
    async with database.write() as connection:
        assert await tasks.cancel_waiting(connection, task_id, clock())
    async with database.write() as connection:
        ids, stored = await tasks.insert_new(
            connection, [new_task(unique_key="u"), new_task(idempotency_key="i")], clock(), STEP
        )
    assert stored == {ids[0]}


async def test_lists_are_newest_first_and_filtered(database: Database, insert: Insert, clock: FrozenClock) -> None:
    ids = await insert(
        {"task_type": "echo", "queue": "a", "tags": ("red",)},
        {"task_type": "greet", "queue": "a", "tags": ("red", "blue")},
        {"task_type": "greet", "queue": "b", "tags": ("re_d",)},
        {"task_type": "greet", "queue": "b", "parent_id": 1},
    )

    async def found(**wanted: object) -> list[int]:
        async with database.read() as connection:
            rows = await tasks.search(connection, TaskFilter(**wanted), 10, whole_rows=False)  # type: ignore[arg-type]
        return [row.id for row in rows]

    assert await found() == [4, 3, 2, 1]
    assert await found(task_type="greet", queue="b") == [4, 3]
    assert await found(tag="red") == [2, 1]
    assert await found(tag="re_d") == [3]
    assert await found(tag="blu") == []
    assert await found(parent_id=1) == [4]
    assert await found(before_id=3) == [2, 1]
    assert await found(statuses=(Status.PENDING, Status.FAILED)) == [4, 3, 2, 1]
    assert await found(statuses=(Status.FAILED,)) == []
    created = clock() - timedelta(milliseconds=2)
    assert await found(created_after=created) == [ids[3], ids[2]]
    assert await found(created_before=created) == [ids[0]]


async def test_a_summary_reads_no_payload_and_no_result(database: Database, insert: Insert) -> None:
    await insert()
    async with database.read() as connection:
        (summary,) = await tasks.search(connection, TaskFilter(), 1, whole_rows=False)
        (whole,) = await tasks.search(connection, TaskFilter(), 1, whole_rows=True)
    assert summary.payload is None
    assert whole.payload == '{"number":1}'


async def test_only_a_waiting_task_can_be_changed_or_cancelled_directly(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    (task_id,) = await insert()
    await claim()
    async with database.write() as connection:
        assert not await tasks.edit_waiting(connection, task_id, {"priority": 5})
        assert not await tasks.cancel_waiting(connection, task_id, clock())
        assert not await tasks.delete_idle(connection, task_id)
        assert not await tasks.request_cancel(connection, task_id, 99, clock())
        assert await tasks.request_cancel(connection, task_id, 1, clock())


async def test_deleting_a_task_takes_its_history_along_and_leaves_its_children(
    database: Database, insert: Insert
) -> None:
    parent, child = await insert({}, {"parent_id": 1})
    async with database.write() as connection:
        await connection.execute(
            tables.task_attempts.insert().values(
                task_id=parent,
                lease=1,
                attempt=1,
                outcome="error",
                started_at=database.clock()(),
                finished_at=database.clock()(),
            )
        )
        await connection.execute(tables.checkpoints.insert().values(task_id=parent, seq=1, data="1"))
        assert await tasks.delete_idle(connection, parent)
    async with database.read() as connection:
        assert (await tasks.get_many(connection, [child]))[child].parent_id is None
        assert (await connection.execute(select(tables.task_attempts))).all() == []
        assert (await connection.execute(select(tables.checkpoints))).all() == []


@pytest.mark.parametrize(
    "wrong",
    [
        "status = 'done'",
        "status = 'running'",
        "lease_expires_at = 5",
        "status = 'completed', finished_at = 5",
        "status = 'completed', result = '1'",
        "status = 'failed', finished_at = 5",
        "failure_reason = 'error'",
        "status = 'scheduled'",
        "attempts = 4",
        "attempts = -1",
        "finished_at = 5",
        "payload = NULL",
    ],
)
async def test_the_store_itself_refuses_rows_that_make_no_sense(database: Database, insert: Insert, wrong: str) -> None:
    await insert()
    with pytest.raises(IntegrityError):
        async with database.write() as connection:
            await connection.execute(text(f"UPDATE tasks SET {wrong} WHERE id = 1"))


async def test_only_a_running_task_under_that_lease_is_asked_to_stop(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    (waiting,) = await insert()
    async with database.write() as connection:
        assert not await tasks.request_cancel(connection, waiting, 0, clock())
    (task,) = await claim()
    async with database.write() as connection:
        assert not await tasks.request_cancel(connection, task.id, task.lease - 1, clock())
        assert not await tasks.request_cancel(connection, task.id + 1, task.lease, clock())
        assert await tasks.request_cancel(connection, task.id, task.lease, clock())


async def test_a_person_retries_only_what_is_still_as_it_was_seen(
    database: Database, insert: Insert, clock: FrozenClock
) -> None:
    (task_id,) = await insert()
    async with database.write() as connection:
        assert await tasks.cancel_waiting(connection, task_id, clock())
        seen = await tasks.get_for_change(connection, task_id)
        assert seen is not None
        assert await tasks.make_ready_again(connection, seen, clock(), 0)
        assert not await tasks.make_ready_again(connection, seen, clock(), 0)
