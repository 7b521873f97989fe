import asyncio
from datetime import timedelta

import pytest

from app.core.errors import Conflict, IdempotencyMismatch, InvalidRequest, NotFound, PayloadInvalid, UniqueKeyTaken
from app.core.events import TasksSubmitted
from app.core.lifecycle import Completed, Edit, Errored, Released
from app.core.task import JsonText, Status
from app.models import files as file_rows
from app.models import queue as queue_rows
from app.services.submissions import Submission
from app.services.wiring import Services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle, Submit

FAIL = Errored("Fail", "no use", retryable=False)


async def test_a_submission_is_stored_before_it_is_answered_and_told_after(services: Services, submit: Submit) -> None:
    told: list[TasksSubmitted] = []
    services.bus.subscribe(TasksSubmitted, told.append)
    task_id = await submit(payload={"number": 3})
    assert (await services.tasks.get(task_id)).payload == '{"number":3}'
    assert [event.ids for event in told] == [(task_id,)]


async def test_submissions_that_come_together_share_one_transaction(services: Services, submit: Submit) -> None:
    told: list[TasksSubmitted] = []
    services.bus.subscribe(TasksSubmitted, told.append)
    ids = await asyncio.gather(*(submit(payload={"number": number}) for number in range(100)))
    assert len(told) < 10
    for number, task_id in enumerate(ids):
        assert (await services.tasks.get(task_id)).payload == f'{{"number":{number}}}'


async def test_the_same_key_and_body_give_the_first_task_again(services: Services) -> None:
    new = services.intake.prepare(Submission(task_type="echo", payload={"number": 1}), "key")
    first = await services.tasks.submit(new)
    again = await services.tasks.submit(new)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.task == first.task
    other = services.intake.prepare(Submission(task_type="echo", payload={"number": 2}), "key")
    with pytest.raises(IdempotencyMismatch) as caught:
        await services.tasks.submit(other)
    assert caught.value.task_id == first.task.id


async def test_a_hundred_at_once_with_one_key_are_one_task(services: Services) -> None:
    new = services.intake.prepare(Submission(task_type="echo"), "key")
    answers = await asyncio.gather(*(services.tasks.submit(new) for _ in range(100)))
    assert len({answer.task.id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1


async def test_a_unique_key_is_held_until_its_task_has_ended(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    holder = await submit(unique_key="u")
    with pytest.raises(UniqueKeyTaken) as caught:
        await submit(unique_key="u")
    assert caught.value.holder_id == holder
    (task,) = await claim()
    with pytest.raises(UniqueKeyTaken):
        await submit(unique_key="u")
    await settle(task, FAIL)
    second = await submit(unique_key="u")
    with pytest.raises(UniqueKeyTaken) as caught:
        await services.tasks.retry(holder)
    assert caught.value.holder_id == second


async def test_bulk_is_all_or_nothing(services: Services, submit: Submit) -> None:
    def new(**fields: object) -> object:
        return services.intake.prepare(Submission(task_type="echo", **fields))  # type: ignore[arg-type]

    await submit(unique_key="u")
    for bad in (new(unique_key="u"), new(parent_id=999)):
        with pytest.raises((UniqueKeyTaken, InvalidRequest)):
            await services.tasks.submit_all([new(), new(), bad, new()])  # type: ignore[list-item]
    assert (await services.insights.stats()).ready == 1
    ids = await services.tasks.submit_all([new(payload={"number": number}) for number in range(2500)])  # type: ignore[misc]
    assert len(set(ids)) == 2500
    assert [(await services.tasks.get(ids[place])).payload for place in (0, 1000, 2499)] == [
        '{"number":0}',
        '{"number":1000}',
        '{"number":2499}',
    ]


async def test_a_validator_of_user_code_that_breaks_refuses_its_payload_and_nothing_more(services: Services) -> None:
    with pytest.raises(PayloadInvalid, match="KeyError in the model of broken_model"):
        services.intake.prepare(Submission(task_type="broken_model", payload={"what": "x"}))


async def test_a_parent_must_exist(services: Services, submit: Submit) -> None:
    parent = await submit()
    child = await submit(parent_id=parent)
    assert (await services.tasks.get(child)).parent_id == parent
    with pytest.raises(InvalidRequest, match="there is no 999"):
        await submit(parent_id=999)


@pytest.mark.parametrize("task_id", [0, -1, 1, 2**63 - 1, 2**63, 10**30])
async def test_an_unknown_id_is_not_found(services: Services, task_id: int) -> None:
    for call in (services.tasks.get, services.tasks.cancel, services.tasks.retry, services.tasks.delete):
        with pytest.raises(NotFound):
            await call(task_id)


async def test_cancelling_a_waiting_task_ends_it_and_twice_is_fine(services: Services, submit: Submit) -> None:
    task_id = await submit()
    first = await services.tasks.cancel(task_id)
    assert first.status is Status.CANCELLED
    assert await services.tasks.cancel(task_id) == first


async def test_cancelling_a_task_that_waits_for_another_attempt_drops_what_earlier_ones_left_for_it(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit()
    (task,) = await claim()
    assert await services.queue.add_checkpoint(task.id, task.lease, JsonText("[1]"))
    async with await services.files.receive() as reception:
        await reception.write(b"half done")
        file = await reception.finish("half.bin", None)
    async with services.database.write() as connection:
        await file_rows.keep_inputs(connection, [(task_id, file.id)])
        await connection.exec_driver_sql("UPDATE task_files SET role = 'temporary'")
    await settle(task, Errored("E", "again"), checkpointed=True)
    await services.tasks.cancel(task_id)
    async with services.database.read() as connection:
        assert await queue_rows.checkpoints_of(connection, [task_id]) == {}
        assert await file_rows.get(connection, file.id, services.database.clock()()) is None


async def test_a_task_cancelled_after_the_clock_was_set_back_ends_no_earlier_than_it_began(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    task_id = await submit()
    (task,) = await claim()
    began = clock()
    await settle(task, Errored("E", "again"))
    clock.set(-3600)
    cancelled = await services.tasks.cancel(task_id)
    assert (cancelled.status, cancelled.started_at, cancelled.finished_at) == (Status.CANCELLED, began, began)


async def test_cancelling_a_running_task_asks_its_worker(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit()
    (task,) = await claim()
    asked = await services.tasks.cancel(task_id)
    assert (asked.status, asked.cancel_requested_at is not None) == (Status.RUNNING, True)
    assert await services.tasks.cancel(task_id) == asked
    assert [one.cancel_requested for one in await services.queue.renew([(task.id, task.lease)])] == [True]
    await settle(task, Errored("ValueError", "broke while stopping"))
    assert (await services.tasks.get(task_id)).status is Status.CANCELLED


async def test_completion_wins_over_a_cancel_request(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit()
    (task,) = await claim()
    await services.tasks.cancel(task_id)
    await settle(task, Completed(JsonText("1")))
    assert (await services.tasks.get(task_id)).status is Status.COMPLETED
    with pytest.raises(Conflict) as caught:
        await services.tasks.cancel(task_id)
    assert caught.value.status == "completed"


async def test_a_retry_by_hand_gives_a_fresh_budget_and_keeps_lease_and_history(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit(max_attempts=1)
    (task,) = await claim()
    await settle(task, Errored("ValueError", "no good"))
    failed = await services.tasks.get(task_id)
    assert (failed.status, failed.failure_reason) == (Status.FAILED, "exhausted")
    ready = await services.tasks.retry(task_id)
    assert (ready.status, ready.attempts, ready.lease, ready.failure_reason) == (Status.PENDING, 0, 1, None)
    (again,) = await claim()
    assert (again.attempt, again.lease) == (1, 2)
    await settle(task, Completed(JsonText('"late"')))  # under the old lease
    assert (await services.tasks.get(task_id)).status is Status.RUNNING
    await settle(again, Completed(JsonText('"new"')))
    assert (await services.tasks.get(task_id)).result == '"new"'
    history = await services.tasks.attempts(task_id)
    assert [(one.lease, one.outcome) for one in history] == [(1, "error"), (2, "completed")]


async def test_only_failed_and_cancelled_tasks_are_retried(services: Services, submit: Submit, claim: Claim) -> None:
    task_id = await submit()
    with pytest.raises(Conflict):
        await services.tasks.retry(task_id)
    await claim()
    with pytest.raises(Conflict):
        await services.tasks.retry(task_id)


async def test_a_waiting_task_can_be_moved_and_made_more_urgent(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    first, second = await submit(), await submit()
    await services.tasks.edit(second, Edit({"priority": 50, "tags": ("urgent",)}))
    later = clock() + timedelta(seconds=100)
    delayed = await services.tasks.edit(first, Edit({"scheduled_at": later}))
    assert (delayed.status, delayed.scheduled_at) == (Status.SCHEDULED, later)
    assert [task.id for task in await claim()] == [second]
    now = await services.tasks.edit(first, Edit({"scheduled_at": None}))
    assert (now.status, now.scheduled_at) == (Status.PENDING, None)
    assert [task.id for task in await claim()] == [first]
    with pytest.raises(Conflict):
        await services.tasks.edit(first, Edit({"priority": 1}))


async def test_a_running_task_cannot_be_deleted_and_any_other_can(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit()
    (task,) = await claim()
    with pytest.raises(Conflict):
        await services.tasks.delete(task_id)
    await settle(task, Released("back"))
    await services.tasks.delete(task_id)
    with pytest.raises(NotFound):
        await services.tasks.get(task_id)


async def test_the_running_attempt_is_part_of_the_history(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    task_id = await submit()
    (task,) = await claim()
    await settle(task, Released("back"))
    await claim(worker="w2")
    history = await services.tasks.attempts(task_id)
    assert [(one.attempt, one.lease, one.outcome, one.worker_id) for one in history] == [
        (1, 1, "released", "w1"),
        (1, 2, None, "w2"),
    ]
