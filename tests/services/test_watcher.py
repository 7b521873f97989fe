import asyncio
from collections.abc import Sequence

import pytest

from app.core.lifecycle import Completed
from app.core.task import JsonText, Status
from app.models import tasks as rows
from app.models.database import Connection
from app.services.wiring import Services
from tests.conftest import straight, until
from tests.services.conftest import Claim, Settle, Submit


async def test_a_waiter_hears_of_each_kind_of_change(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit()
    seen = []
    for step in ("claim", "progress", "cancel", "end"):
        task = await services.tasks.get(task_id)
        waiting = asyncio.create_task(services.watcher.changed(task, 10))
        await asyncio.sleep(0)
        if step == "claim":
            (claimed,) = await claim()
        elif step == "progress":
            await services.queue.save_progress([(claimed.id, claimed.lease, JsonText('{"percent":1}'))])
        elif step == "cancel":
            await services.tasks.cancel(task_id)
        else:
            await settle(claimed, Completed(JsonText("1")))
        seen.append(await waiting)
    assert seen == [True] * 4
    assert (await services.tasks.get(task_id)).status is Status.COMPLETED


async def test_a_change_between_reading_and_waiting_is_not_missed(
    services: Services, submit: Submit, claim: Claim
) -> None:
    task_id, other = await submit(), await submit()
    stale = await services.tasks.get(task_id)
    long_wait = asyncio.create_task(services.watcher.changed(await services.tasks.get(other), 30))
    await asyncio.sleep(0.05)  # the watcher is asleep in its poll when the second waiter comes
    async with services.database.write() as connection:
        await rows.edit_waiting(connection, task_id, {"rank": 5})
    async with asyncio.timeout(0.7):  # well within the poll of one second
        assert await services.watcher.changed(stale, 10)
    long_wait.cancel()


@straight
async def test_of_many_that_are_waited_for_only_the_changed_one_is_looked_at(
    services: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.watcher, "_poll_seconds", 60.0)
    tasks = [await services.tasks.get(await submit()) for _ in range(50)]
    waiting = [asyncio.create_task(services.watcher.changed(task, 60)) for task in tasks]
    looks: list[list[int]] = []
    versions = rows.versions

    async def spy(connection: Connection, ids: Sequence[int]) -> object:
        looks.append(list(ids))
        return await versions(connection, ids)

    monkeypatch.setattr(rows, "versions", spy)
    await until(lambda: looks)  # all of them, once
    for task, waiter in zip(tasks[:20], waiting, strict=False):
        looks.clear()
        await services.tasks.cancel(task.id)
        assert await waiter
        if looks == [[task.id]]:
            break
        # A line to the store that was made just now may have missed something: then all are looked at once more.
    assert looks == [[task.id]]
    services.watcher.let_go()
    await asyncio.gather(*waiting)


async def test_a_deleted_task_is_a_change(services: Services, submit: Submit) -> None:
    task_id = await submit()
    waiting = asyncio.create_task(services.watcher.changed(await services.tasks.get(task_id), 10))
    await asyncio.sleep(0)
    await services.tasks.delete(task_id)
    assert await waiting


async def test_nothing_changes_until_the_timeout(services: Services, submit: Submit) -> None:
    task = await services.tasks.get(await submit())
    assert not await services.watcher.changed(task, 0.05)


async def test_a_thousand_waiters_cost_one_query_a_look(
    services: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    versions = rows.versions

    async def counted(connection: Connection, ids: list[int]) -> object:
        looked.append(len(ids))
        return await versions(connection, ids)

    monkeypatch.setattr(rows, "versions", counted)
    tasks = [await services.tasks.get(await submit()) for _ in range(10)]
    waiting = [asyncio.create_task(services.watcher.changed(tasks[number % 10], 20)) for number in range(1000)]
    await asyncio.sleep(0.1)
    before = len(looked)
    for task in tasks:
        await services.tasks.cancel(task.id)
    assert all(await asyncio.gather(*waiting))
    assert max(looked) == 10
    assert len(looked) - before <= 11


async def test_letting_go_ends_every_wait_at_once_and_later_ones_too(services: Services, submit: Submit) -> None:
    task = await services.tasks.get(await submit())
    waiting = asyncio.create_task(services.watcher.changed(task, 60))
    await asyncio.sleep(0)
    services.watcher.let_go()
    assert not await waiting
    assert not await services.watcher.changed(task, 60)


async def test_nobody_listens_while_nobody_waits(services: Services, submit: Submit) -> None:
    task = await services.tasks.get(await submit())
    assert not await services.watcher.changed(task, 0.02)
    await until(lambda: services.watcher._watching is None or services.watcher._watching.done())
    assert services.watcher._waiters == {}
