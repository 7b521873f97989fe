"""Places of concurrency keys: never more than may run at once, and none left empty."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import text

from app.core.events import TasksAdmitted
from app.core.lifecycle import Completed, Edit, Errored, Outcome, Released, Snoozed
from app.core.settings import Settings
from app.core.task import JsonText, Status
from app.models.dead_letters import DeadFilter
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle, Submit, lose_leases

DONE = Completed(JsonText("1"))
READY, BLOCKED = Status.PENDING, Status.BLOCKED


@pytest.fixture
async def others(settings: Settings, clock: FrozenClock, services: Services) -> AsyncIterator[Services]:
    """Another process's services on the same database."""
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as other:
        yield other


@pytest.fixture
def keyed(submit: Submit) -> Submit:
    async def submit_keyed(task_type: str = "echo", **fields: Any) -> int:
        return await submit(task_type, **{"concurrency_key": "k", **fields})

    return submit_keyed


async def statuses(services: Services, *ids: int) -> list[Status]:
    return [(await services.tasks.get(id_)).status for id_ in ids]


async def test_one_runs_and_the_next_is_ready_when_it_has_ended(
    services: Services, keyed: Submit, claim: Claim, settle: Settle
) -> None:
    ids = [await keyed() for _ in range(3)]
    assert await statuses(services, *ids) == [READY, BLOCKED, BLOCKED]
    (first,) = await claim()
    assert await claim() == []
    await settle(first, DONE)
    assert [task.id for task in await claim()] == ids[1:2]


async def test_the_end_of_one_and_the_start_of_the_next_are_one_exchange(
    services: Services, keyed: Submit, claim: Claim, clock: FrozenClock
) -> None:
    ids = [await keyed() for _ in range(2)]
    (first,) = await claim()
    exchange = await services.queue.exchange(
        "w1",
        [Ended(first, DONE, clock(), 0.01)],
        lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 1)],
    )
    assert [task.id for task in exchange.claimed] == ids[1:]


async def test_a_key_whose_places_are_taken_holds_nobody_else_back(
    services: Services, keyed: Submit, submit: Submit, claim: Claim
) -> None:
    held = [await keyed() for _ in range(30)]
    free = [await submit(), await keyed(concurrency_key="other")]
    assert [task.id for task in await claim(room=3)] == [held[0], *free]


async def test_a_limit_is_how_many_run_at_once(services: Services, keyed: Submit, claim: Claim) -> None:
    ids = [await keyed(concurrency_limit=3) for _ in range(5)]
    assert [task.id for task in await claim()] == ids[:3]


async def test_one_bulk_fills_a_large_limit(services: Services, claim: Claim) -> None:
    submission = Submission(task_type="echo", concurrency_key="k", concurrency_limit=45)
    await services.tasks.submit_all([services.intake.prepare(submission)] * 60)
    assert len(await claim(room=100)) == 45


async def test_a_higher_priority_passes_who_only_waits(services: Services, keyed: Submit, claim: Claim) -> None:
    low, high = await keyed(priority="low"), await keyed(priority="high")
    assert await statuses(services, low, high) == [BLOCKED, READY]
    (running,) = await claim()
    assert running.id == high
    assert await statuses(services, low, await keyed(priority="critical")) == [BLOCKED, BLOCKED]


@pytest.mark.parametrize(
    "outcome",
    [DONE, Errored("ValueError", "no", retryable=False), Errored("ValueError", "no", after_seconds=60), Snoozed(60)],
)
async def test_however_an_attempt_ends_its_place_is_free(
    services: Services, keyed: Submit, claim: Claim, settle: Settle, outcome: Outcome
) -> None:
    _, second = [await keyed() for _ in range(2)]
    (first,) = await claim()
    await settle(first, outcome)
    assert await statuses(services, second) == [READY]


async def test_a_released_task_keeps_its_place(services: Services, keyed: Submit, claim: Claim, settle: Settle) -> None:
    ids = [await keyed() for _ in range(2)]
    (first,) = await claim()
    await settle(first, Released("the worker stopped"))
    assert await statuses(services, *ids) == [READY, BLOCKED]


async def test_a_retry_that_is_due_waits_for_a_place_like_anyone(
    services: Services, keyed: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    ids = [await keyed() for _ in range(2)]
    (first,) = await claim()
    await settle(first, Errored("ValueError", "no", after_seconds=10))
    (second,) = await claim()
    clock.forward(11)
    await services.chores.promote()
    assert await statuses(services, *ids) == [BLOCKED, Status.RUNNING]
    await settle(second, DONE)
    assert await statuses(services, ids[0]) == [READY]


async def test_a_lost_workers_place_is_free_after_the_sweep(
    services: Services, keyed: Submit, claim: Claim, clock: FrozenClock
) -> None:
    _, second = [await keyed() for _ in range(2)]
    await claim()
    await lose_leases(services, clock)
    assert await statuses(services, second) == [READY]


@pytest.mark.parametrize("how", ["cancel", "delete", "postpone", "expire"])
async def test_who_leaves_before_its_start_frees_its_place(
    services: Services, keyed: Submit, clock: FrozenClock, how: str
) -> None:
    heard: list[TasksAdmitted] = []
    services.bus.subscribe(TasksAdmitted, heard.append)
    first = await keyed(expires_at=clock() + timedelta(seconds=60))
    second = await keyed()
    match how:
        case "cancel":
            await services.tasks.cancel(first)
        case "delete":
            await services.tasks.delete(first)
        case "postpone":
            await services.tasks.edit(first, Edit({"scheduled_at": clock() + timedelta(seconds=30)}))
        case "expire":
            clock.forward(61)
            await services.chores.expire()
    assert await statuses(services, second) == [READY]


async def test_what_is_made_ready_by_hand_waits_for_a_place(
    services: Services, keyed: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    failed, retried = await keyed(), await keyed()
    for _ in range(2):
        (task,) = await claim()
        await settle(task, Errored("ValueError", "no", retryable=False))
    later = await keyed(scheduled_at=clock() + timedelta(seconds=99))
    holder = await keyed()
    assert await statuses(services, later, holder) == [Status.SCHEDULED, READY]
    await claim()
    await services.dead_letters.requeue(DeadFilter(ids=(failed,)), dry_run=False)
    assert (await services.tasks.retry(retried)).status is BLOCKED
    assert (await services.tasks.edit(later, Edit({"scheduled_at": None}))).status is BLOCKED
    assert await statuses(services, failed, holder) == [BLOCKED, Status.RUNNING]


async def test_an_edit_can_give_a_blocked_task_the_place(services: Services, keyed: Submit) -> None:
    first, second = await keyed(), await keyed()
    assert (await services.tasks.edit(second, Edit({"priority": 50}))).status is READY
    assert await statuses(services, first) == [BLOCKED]


async def test_a_place_that_was_passed_over_is_given_away_by_a_chore(services: Services, keyed: Submit) -> None:
    ids = [await keyed(concurrency_key=key) for key in ("k", "k", "l", "l")]
    async with services.database.write() as connection:
        await connection.execute(text("UPDATE tasks SET status = 'blocked'"))
    assert await services.chores.share_out_places() is False
    assert await statuses(services, *ids) == [READY, BLOCKED, READY, BLOCKED]


async def test_processes_that_share_out_at_once_never_give_a_place_twice(
    services: Services, others: Services, clock: FrozenClock
) -> None:
    """Submissions, settles and cancels of two processes, three keys with a limit of two."""
    random = Random(7)
    ids: list[int] = []

    async def submit(services: Services) -> None:
        key = f"k{random.randrange(3)}"
        asked = Submission(
            task_type="echo", concurrency_key=key, concurrency_limit=2, priority=random.randrange(-99, 99)
        )
        ids.append((await services.tasks.submit(services.intake.prepare(asked))).task.id)

    async def work(services: Services, worker: str) -> None:
        exchange = await services.queue.exchange(
            worker, [], lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 4)]
        )
        await asyncio.sleep(0)
        await services.queue.exchange(worker, [Ended(task, DONE, clock(), 0.01) for task in exchange.claimed])

    async def cancel(services: Services) -> None:
        if ids:
            task = await services.tasks.get(random.choice(ids))
            if not task.finished:
                await services.tasks.cancel(task.id)

    for _ in range(12):
        steps: list[Any] = []
        for one in (services, others):
            steps += [submit(one) for _ in range(6)] + [work(one, f"w{id(one)}"), work(one, f"v{id(one)}"), cancel(one)]
        random.shuffle(steps)
        done = await asyncio.gather(*steps, return_exceptions=True)
        assert [one for one in done if isinstance(one, BaseException) and type(one).__name__ != "Conflict"] == []
        async with services.database.read() as connection:
            counted = await connection.execute(
                text("SELECT concurrency_key, count(*) FROM tasks WHERE status IN ('pending', 'running') GROUP BY 1")
            )
            assert all(count <= 2 for _, count in counted)
    for _ in range(200):
        await work(services, "last")
    left = await asyncio.gather(*(services.tasks.get(id_) for id_ in ids))
    assert {task.status for task in left} <= {Status.COMPLETED, Status.CANCELLED}
