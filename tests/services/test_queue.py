import asyncio
from datetime import timedelta

import pytest

from app.core.errors import StoreUnavailable
from app.core.events import LeasesRefused, TasksSettled
from app.core.lifecycle import Cancelled, Completed, Errored, Lost, Outcome, Released, Snoozed, TimedOut
from app.core.task import JsonText, Status
from app.models import queue as rows
from app.services.queue import Ended, Wish
from app.services.wiring import Services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle, Submit

DONE = Completed(JsonText("1"))


async def test_settling_and_claiming_share_one_exchange(services: Services, submit: Submit, claim: Claim) -> None:
    first, second = await submit(), await submit()
    (task,) = await claim(room=1)
    exchange = await services.queue.exchange(
        "w1",
        [Ended(task, DONE, services.database.clock()())],
        lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 1)],
    )
    assert [one.id for one in exchange.claimed] == [second]
    assert (await services.tasks.get(first)).status is Status.COMPLETED


async def test_a_batch_of_many_endings_settles_each_by_its_own(
    services: Services, submit: Submit, claim: Claim
) -> None:
    outcomes = [
        DONE,
        Errored("ValueError", "no good"),
        TimedOut(3),
        Lost("killed by SIGKILL"),
        Released("stopped"),
        Snoozed(60),
        Cancelled(),
        Errored("Fail", "no use", retryable=False),
    ]
    for _ in outcomes:
        await submit()
    claimed = await claim()
    now = services.database.clock()()
    heard: list[TasksSettled] = []
    services.bus.subscribe(TasksSettled, heard.append)
    await services.queue.exchange(
        "w1", [Ended(task, out, now, 0.5) for task, out in zip(claimed, outcomes, strict=True)]
    )
    tasks = [await services.tasks.get(task.id) for task in claimed]
    assert [str(task.status) for task in tasks] == [
        *("completed", "retrying", "retrying", "retrying", "pending", "scheduled", "cancelled", "failed")
    ]
    assert [task.attempts for task in tasks] == [1, 1, 1, 1, 0, 0, 1, 1]
    assert sorted(one.outcome for event in heard for one in event.settlements) == sorted(one.word for one in outcomes)
    for task, outcome in zip(tasks[1:], outcomes[1:], strict=True):
        assert [attempt.outcome for attempt in await services.tasks.attempts(task.id)] == [outcome.word]


async def test_a_worker_that_lost_its_lease_changes_nothing_and_is_told(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    task_id = await submit()
    (stale,) = await claim(worker="frozen")
    clock.forward(31)
    await services.chores.sweep()
    clock.forward(3600)
    (current,) = await claim(worker="other")
    refused: list[LeasesRefused] = []
    services.bus.subscribe(LeasesRefused, refused.append)
    for outcome in (Completed(JsonText('"stale"')), Errored("E", "stale"), Released("stale"), Lost("stale")):
        await settle(stale, outcome, worker="frozen")
    assert [event.ids for event in refused] == [(task_id,)] * 4
    row = await services.tasks.get(task_id)
    assert (row.status, row.lease, row.worker_id) == (Status.RUNNING, current.lease, "other")
    assert not await services.queue.add_checkpoint(task_id, stale.lease, JsonText("1"))
    assert await services.queue.renew([(task_id, stale.lease)]) == []


async def test_due_tasks_are_claimed_although_nobody_promoted_them(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    task_id = await submit(delay_seconds=60)
    assert await claim() == []
    clock.forward(60)
    assert (await services.insights.stats()).ready == 1
    assert [task.id for task in await claim()] == [task_id]


async def test_a_worker_takes_only_its_queues_and_the_types_it_knows(
    services: Services, submit: Submit, claim: Claim
) -> None:
    here, there = await submit(queue="here"), await submit(queue="there")
    assert [task.id for task in await claim(queues=("here", "nowhere"))] == [here]
    async with services.database.write() as connection:
        await connection.exec_driver_sql(f"UPDATE tasks SET task_type = 'foreign' WHERE id = {there}")
    assert await claim() == []


async def test_checkpoints_of_earlier_attempts_come_with_the_claim_and_go_with_the_end(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit()
    (task,) = await claim()
    assert await services.queue.add_checkpoint(task.id, task.lease, JsonText('{"step":1}'))
    await settle(task, Released("stopped"), checkpointed=True)
    exchange = await services.queue.exchange(
        "w1", [], lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 1)]
    )
    assert exchange.checkpoints == {task_id: ['{"step":1}']}
    await settle(exchange.claimed[0], DONE, checkpointed=True)
    async with services.database.read() as connection:
        assert await rows.checkpoints_of(connection, [task_id]) == {}


async def test_low_priority_waits_a_bounded_time_longer_whatever_arrives(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    """Critical tasks arrive all the time; one low task of the same moment runs after (50 + 100) x 60 s at the latest."""
    low = await submit(priority="low")
    began = clock()
    for _ in range(200):
        clock.forward(60)
        await submit(priority="critical")
        (task,) = await claim(room=1)
        await settle(task, DONE)
        if task.id == low:
            break
    assert task.id == low
    assert timedelta(minutes=149) <= clock() - began <= timedelta(minutes=151)


async def test_progress_is_stored_while_the_lease_holds_and_ends_with_its_attempt(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit()
    (task,) = await claim()
    await services.queue.save_progress([(task.id, task.lease, JsonText('{"percent":5}'))])
    assert (await services.tasks.get(task_id)).progress == '{"percent":5}'
    await settle(task, Errored("E", "again"))
    await services.queue.save_progress([(task.id, task.lease, JsonText('{"percent":99}'))])
    assert (await services.tasks.get(task_id)).progress is None


@pytest.mark.parametrize("outcome", [DONE, Errored("E", "for good", retryable=False)])
async def test_the_last_word_of_an_attempt_is_stored_with_its_end(
    services: Services, submit: Submit, claim: Claim, settle: Settle, outcome: Outcome
) -> None:
    """Saved by a statement of its own it came too late now and then, and was lost."""
    task_id = await submit()
    (task,) = await claim()
    await services.queue.save_progress([(task.id, task.lease, JsonText('{"percent":5}'))])
    await settle(task, outcome, progress=JsonText('{"percent":50}'))
    assert (await services.tasks.get(task_id)).progress == '{"percent":50}'


async def test_two_workers_never_get_the_same_task(services: Services, submit: Submit, claim: Claim) -> None:
    await asyncio.gather(*(submit() for _ in range(200)))
    taken = await asyncio.gather(*(claim(room=7, worker=f"w{number}") for number in range(40)))
    ids = [task.id for batch in taken for task in batch]
    assert len(ids) == len(set(ids)) == 200


async def test_a_store_that_cannot_be_written_is_said_and_changes_nothing(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit()
    (task,) = await claim()
    async with services.database.write() as connection:
        await connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(StoreUnavailable):
        await settle(task, DONE)
    await services.database._writers[0].close()
    await services.database._durable.dispose()
    assert (await services.tasks.get(task_id)).status is Status.RUNNING
    await settle(task, DONE)
    assert (await services.tasks.get(task_id)).status is Status.COMPLETED
