import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from app.core.errors import StoreDamaged, StoreUnavailable
from app.core.events import LeasesRefused, TasksSettled
from app.core.lifecycle import Cancelled, Completed, Errored, Lost, Outcome, Released, Snoozed, TimedOut
from app.core.task import JsonText, Status
from app.models import queue as rows
from app.models.database import Database
from app.models.queue import Head
from app.models.sqlite import sqlite
from app.models.sqlite_store import SqliteStore
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.wiring import Services
from tests.conftest import FrozenClock, until
from tests.services.conftest import Claim, Settle, Submit, lose_leases, others_told
from tests.services.test_limits import limit
from tests.stores import Stores

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


@pytest.mark.parametrize("stale_outcome", [DONE, Errored("E", "stale")])
@pytest.mark.parametrize("outcome", [DONE, Cancelled("enough")])
async def test_what_a_worker_lost_and_what_it_holds_of_one_task_are_told_apart_in_one_batch(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock, outcome: Outcome, stale_outcome: Outcome
) -> None:
    task_id = await submit()
    (stale,) = await claim()
    await lose_leases(services, clock)
    clock.forward(3600)
    (current,) = await claim()
    heard: list[TasksSettled] = []
    refused: list[LeasesRefused] = []
    services.bus.subscribe(TasksSettled, heard.append)
    services.bus.subscribe(LeasesRefused, refused.append)
    now = clock()
    await services.queue.exchange("w1", [Ended(current, outcome, now), Ended(stale, stale_outcome, now)])
    await others_told()
    assert [one.change.lease for event in heard for one in event.settlements] == [current.lease]
    assert [event.ids for event in refused] == [(task_id,)]
    assert [one.outcome for one in await services.tasks.attempts(task_id)] == ["lost", outcome.word]


async def test_a_worker_that_lost_its_lease_changes_nothing_and_is_told(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    task_id = await submit()
    (stale,) = await claim(worker="frozen")
    await lose_leases(services, clock)
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


async def test_an_exchange_says_where_it_left_something_for_others(
    services: Services, submit: Submit, clock: FrozenClock
) -> None:
    for queue in ("many", "many", "many", "one", "stopped"):
        await submit(queue=queue)
    await submit(queue="later", delay_seconds=60)
    async with services.database.write() as connection:
        await connection.execute(text("UPDATE tasks SET task_type = 'of_a_plug_in' WHERE queue = 'one'"))

    async def left(room: int, *queues: str) -> frozenset[str]:
        def choose(heads: Sequence[Head]) -> list[Wish]:
            return [Wish(tuple((head.queue, head.task_type) for head in heads if head.queue != "stopped"), room)]

        return (await services.queue.exchange("w1", [], choose, queues)).left

    assert await left(2, "many") == {"many"}  # as many as there was room for: there may be more
    assert await left(2, "many") == frozenset()
    assert await left(2) == {"one", "stopped"}  # a type that is not known here; what was not wished for


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


@asynccontextmanager
async def read_only(database: Database, straight_url: str) -> AsyncIterator[None]:
    """Nothing can be written meanwhile."""
    if isinstance(database._store, SqliteStore):
        async with database.write() as connection:
            await connection.exec_driver_sql("PRAGMA query_only=ON")
        yield
        await database._store._writers[0].close()
        await database._store._durable.dispose()
        return
    other = await asyncpg.connect(straight_url)
    name = await other.fetchval("SELECT current_database()")
    leave = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
    await other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await other.execute(leave, name)
    yield
    await other.execute("SET default_transaction_read_only = off")
    await other.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await other.execute(leave, name)
    await other.close()
    await until(lambda: _answers(database))


async def _answers(database: Database) -> bool:
    """A pooler may need a moment to see that its connections are gone."""
    try:
        await database.write_nothing()
    except StoreUnavailable:
        return False
    return True


async def test_a_store_that_cannot_be_written_is_said_and_changes_nothing(
    services: Services, stores: Stores, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit()
    (task,) = await claim()
    async with read_only(services.database, stores.straight(services.settings.database_url)):
        with pytest.raises(StoreUnavailable):
            await settle(task, DONE)
    assert (await services.tasks.get(task_id)).status is Status.RUNNING
    await settle(task, DONE)
    assert (await services.tasks.get(task_id)).status is Status.COMPLETED


@pytest.mark.parametrize("store", ["sqlite"])
async def test_a_retry_policy_that_is_none_is_damage_and_no_bug(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    """It was checked when it was stored. A sweep that crashed on it would never sweep again."""
    await submit(retry={"base_seconds": 1})
    (task,) = await claim()
    other = sqlite.connect(services.database.path, isolation_level=None)
    other.execute("UPDATE tasks SET retry = '{\"base'")
    other.close()
    with pytest.raises(StoreDamaged, match="a retry policy that is none"):
        await settle(task, Errored("E", "again"))


async def test_what_a_cancelled_exchange_may_have_claimed_is_handed_back_with_the_next(
    services: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled while its claim is under way, and committed all the same or not: no task may be left to wait for its
    lease to run out."""
    task_id = await submit()
    loop, claiming = asyncio.get_running_loop(), asyncio.Event()
    claim = rows.claim

    async def slow(*arguments: Any) -> Any:
        claimed = await claim(*arguments)
        loop.call_soon_threadsafe(claiming.set)
        if services.database.path is None:
            await asyncio.sleep(0.2)
        else:
            time.sleep(0.2)  # noqa: ASYNC251 in the database's thread
        return claimed

    monkeypatch.setattr(rows, "claim", slow)
    wish = lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 5)]  # noqa: E731
    exchange = asyncio.create_task(services.queue.exchange("w1", [], wish))
    await claiming.wait()
    exchange.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange
    monkeypatch.undo()
    assert services.queue.in_doubt is (services.database.path is not None), "a server was not told to commit"
    await services.queue.exchange("w1", [])
    assert not services.queue.in_doubt
    task = await services.tasks.get(task_id)
    assert (task.status, task.attempts) == (Status.PENDING, 0)
    assert [one.id for one in (await services.queue.exchange("w1", [], wish)).claimed] == [task_id]


async def test_a_claim_stops_when_its_payloads_are_large_and_says_that_there_are_more(
    services: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.queue.PORTION", 2)
    monkeypatch.setattr("app.services.queue.CHARACTERS_A_CLAIM", 40)
    ids = [await submit(payload={"number": 10**number}) for number in (0, 0, 0, 15, 15, 15, 15)]
    wish = lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 6)]  # noqa: E731
    first = await services.queue.exchange("w1", [], wish)
    assert [task.id for task in first.claimed] == ids[:4]
    assert first.left == {"default"}
    second = await services.queue.exchange("w1", [], wish)
    assert [task.id for task in second.claimed] == ids[4:6]
    third = await services.queue.exchange("w1", [], wish)
    assert [task.id for task in third.claimed] == ids[6:]
    assert third.left == frozenset()


async def test_portions_of_a_claim_keep_a_limit_together(
    services: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.queue.PORTION", 2)
    await limit(services, "default", max_running=3)
    for _ in range(6):
        await submit()
    wish = lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 6)]  # noqa: E731
    assert len((await services.queue.exchange("w1", [], wish)).claimed) == 3


async def test_what_another_worker_has_meanwhile_is_not_handed_back(
    services: Services, submit: Submit, claim: Claim
) -> None:
    """A claim that was undone leaves its number to the next worker: the lease alone does not say whose it is."""
    task_id = await submit()
    (theirs,) = await claim()
    services.queue._doubtful.append(theirs)
    await services.queue.exchange("another", [])
    assert not services.queue.in_doubt
    task = await services.tasks.get(task_id)
    assert (task.status, task.lease, task.worker_id) == (Status.RUNNING, theirs.lease, "w1")
    assert [one.outcome for one in await services.tasks.attempts(task_id)] == [None], "it goes on"
