from datetime import timedelta

import pytest
from sqlalchemy import text

from app.core.clock import to_milliseconds
from app.core.errors import NotFound
from app.core.events import BroughtBack, ClockJumped, LogGrown
from app.core.lifecycle import Completed, Edit, Errored, Snoozed
from app.core.task import JsonText, Status
from app.models import sqlite
from app.services.wiring import Services
from tests.conftest import FrozenClock, straight
from tests.services.conftest import Claim, Settle, Submit, lose_leases


async def test_a_dead_workers_task_runs_again_within_lease_and_sweep(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    await services.chores.sweep()
    task_id = await submit()
    await claim()
    for _ in range(6):  # every SWEEP_SECONDS
        clock.forward(5)
        await services.chores.sweep()
    assert (await services.tasks.get(task_id)).status is Status.RUNNING
    clock.forward(1)
    await services.chores.sweep()
    task = await services.tasks.get(task_id)
    assert (task.status, task.attempts, task.deaths) == (Status.RETRYING, 1, 1)
    assert task.scheduled_at is not None
    assert task.scheduled_at - clock() <= timedelta(seconds=1)
    (attempt,) = await services.tasks.attempts(task_id)
    assert (attempt.outcome, attempt.worker_id) == ("lost", "w1")


async def test_a_process_that_has_just_started_watches_for_a_lease_before_it_takes_any(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    """Whether the lease is old or the clock was set just before it started, it cannot know."""
    task_id = await submit()
    await claim()
    clock.forward(3600)
    for _ in range(7):
        await services.chores.sweep()
        assert (await services.tasks.get(task_id)).status is Status.RUNNING
        clock.forward(5)
    await services.chores.sweep()
    assert (await services.tasks.get(task_id)).status is Status.RETRYING


async def test_a_task_that_loses_its_worker_again_and_again_is_given_up(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    task_id = await submit(max_attempts=10)
    for _ in range(3):
        await claim()
        await lose_leases(services, clock)
        clock.forward(3600)
    task = await services.tasks.get(task_id)
    assert (task.status, task.failure_reason, task.attempts) == (Status.FAILED, "poisoned", 3)


async def test_a_lost_task_that_was_to_be_cancelled_is_cancelled(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    task_id = await submit()
    await claim()
    await services.tasks.cancel(task_id)
    await lose_leases(services, clock)
    assert (await services.tasks.get(task_id)).status is Status.CANCELLED


async def test_more_lost_leases_than_a_batch_has_room_for_are_taken_back_one_batch_after_the_other(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.chores.BATCH", 2)
    for _ in range(3):
        await submit()
    await claim()
    await services.chores.sweep()
    clock.forward(31)
    assert await services.chores.sweep()
    assert not await services.chores.sweep()
    assert (await services.insights.stats()).retrying == 3


@pytest.mark.parametrize("seconds", [3600, -3600, 86400, -86400])
async def test_a_clock_that_is_set_takes_no_lease_from_a_worker_that_lives_and_leaves_none_to_one_that_died(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock, seconds: int
) -> None:
    jumps: list[ClockJumped] = []
    services.bus.subscribe(ClockJumped, jumps.append)
    await services.chores.bring_back()
    await submit()
    await submit()
    living, dead = await claim()
    await services.chores.sweep()
    clock.set(seconds)
    for step in range(12):
        if step % 2:
            await services.queue.renew([(living.id, living.lease)])
        clock.forward(5)
        await services.chores.sweep()
        await services.chores.bring_back()
        assert (await services.tasks.get(living.id)).status is Status.RUNNING
        assert (await services.tasks.get(dead.id)).status is (Status.RUNNING if step < 7 else Status.RETRYING)
    assert [round(jump.seconds) for jump in jumps] == [seconds]


async def test_after_the_clock_was_set_back_nothing_waits_for_it_to_come_round_again(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    await services.chores.bring_back()
    first, urgent, waiting = await submit(), await submit(priority=50), await submit(priority=10)
    retried, snoozed, asked = await submit(queue="q"), await submit(queue="q"), await submit(delay_seconds=60)
    for task in await claim(queues=("q",)):
        outcome = Errored("E", "again", after_seconds=20) if task.id == retried else Snoozed(30)
        await settle(task, outcome)
    edited = await submit(queue="q")
    await settle((await claim(queues=("q",)))[0], Errored("E", "again", after_seconds=20))
    moment = clock() + timedelta(hours=2)
    await services.tasks.edit(edited, Edit({"scheduled_at": moment}))
    asked_for = (await services.tasks.get(asked)).scheduled_at
    events: list[BroughtBack] = []
    services.bus.subscribe(BroughtBack, events.append)
    clock.set(-86400)
    newest = await submit()
    while await services.chores.bring_back():
        pass
    assert [(event.tasks, event.breakers) for event in events] == [(5, 0)]
    for task_id, wait in ((retried, 20), (snoozed, 30)):
        assert (await services.tasks.get(task_id)).scheduled_at == clock() + timedelta(seconds=wait)
    assert (await services.tasks.get(asked)).scheduled_at == asked_for
    assert (await services.tasks.get(edited)).scheduled_at == moment
    assert [task.id for task in await claim(room=9)] == [urgent, waiting, first, newest]
    clock.forward(31)
    assert {task.id for task in await claim(queues=("q",))} == {retried, snoozed}
    await services.chores.bring_back()
    assert len(events) == 1


async def test_what_was_dated_by_a_clock_that_was_ahead_is_brought_back_by_whoever_starts_next(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    clock.set(86400)
    task_id = await submit()
    clock.set(-86400)
    newer = await submit()
    await services.chores.bring_back()
    assert [task.id for task in await claim(room=1)] == [task_id]
    assert (await services.tasks.get(newer)).status is Status.PENDING


async def test_more_than_a_batch_is_brought_back_too(
    services: Services, submit: Submit, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.chores.BATCH", 2)
    for _ in range(3):
        await submit()
    clock.set(-3600)
    assert [await services.chores.bring_back() for _ in range(4)] == [True, True, False, False]
    async with services.database.read() as connection:
        assert set(await connection.scalars(text("SELECT rank FROM tasks"))) == {to_milliseconds(clock())}


async def test_nothing_is_deleted_for_its_age_in_the_hour_after_the_clock_was_set(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    """A clock that is years ahead for a moment must not cost a client what was finished today."""
    task_id = await submit()
    await settle((await claim())[0], Completed(JsonText("1")))
    async with await services.files.receive() as reception:
        await reception.write(b"data")
        await reception.finish("a", None)

    async def kept_files() -> int | None:
        async with services.database.read() as connection:
            return await connection.scalar(text("SELECT count(*) FROM files"))

    await services.upkeep.do("prune")
    clock.set(10 * 365 * 86400)
    await services.upkeep.do("prune")
    await services.upkeep.do("collect files")
    clock.forward(3599)
    await services.upkeep.do("prune")
    await services.upkeep.do("collect files")
    assert await kept_files() == 1
    assert (await services.tasks.get(task_id)).status is Status.COMPLETED
    clock.forward(1)
    await services.upkeep.do("prune")
    with pytest.raises(NotFound):
        await services.tasks.get(task_id)
    await services.upkeep.do("collect files")
    assert await kept_files() == 0


@straight
async def test_due_tasks_are_promoted_and_workers_are_woken(
    services: Services, submit: Submit, clock: FrozenClock
) -> None:
    task_id = await submit(delay_seconds=10)
    assert not await services.chores.promote()
    assert (await services.tasks.get(task_id)).status is Status.SCHEDULED
    clock.forward(10)
    ear = services.wakeup.listen("queues")
    await services.chores.promote()
    assert await ear.wait(5)
    ear.close()
    assert (await services.tasks.get(task_id)).status is Status.PENDING


async def test_what_did_not_start_in_time_fails_as_expired(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    running = await submit(expires_at=clock() + timedelta(seconds=10))
    await claim()
    waiting = await submit(expires_at=clock() + timedelta(seconds=10))
    clock.forward(10)
    await services.chores.expire()
    task = await services.tasks.get(waiting)
    assert (task.status, task.failure_reason) == (Status.FAILED, "expired")
    assert task.error is not None
    assert "Expired" in task.error
    assert (await services.tasks.get(running)).status is Status.RUNNING


async def test_each_kind_of_ending_is_kept_for_its_own_time(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    completed, cancelled, waiting = await submit(), await submit(), await submit()
    (task,) = await claim(room=1)
    await settle(task, Completed(JsonText("1")))
    await services.tasks.cancel(cancelled)

    async def kept() -> set[int]:
        found = await services.tasks.search(
            __import__("app.models.tasks", fromlist=["x"]).TaskFilter(), 10, whole_rows=False
        )
        return {one.id for one in found}

    clock.forward(7 * 86400 - 1)
    await services.chores.prune()
    assert await kept() == {completed, cancelled, waiting}
    clock.forward(2)
    await services.chores.prune()
    assert await kept() == {cancelled, waiting}
    clock.forward(23 * 86400)
    await services.chores.prune()
    assert await kept() == {waiting}


async def test_chores_say_whether_there_is_more_to_do(
    services: Services, submit: Submit, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.chores.BATCH", 2)
    for _ in range(3):
        await submit(delay_seconds=1)
    clock.forward(1)
    assert await services.chores.promote()
    assert not await services.chores.promote()


async def test_a_worker_that_beat_before_the_clock_was_set_back_and_not_since_is_not_there(
    services: Services, clock: FrozenClock
) -> None:
    await services.workers.sign_in("dead", [], ["echo"], 4)
    living = await services.workers.sign_in("living", [], ["echo"], 4)
    clock.set(-86400)
    await services.workers.beat(living, "running", JsonText("[]"))
    assert [worker.row.name for worker in await services.insights.workers()] == ["living"]
    assert (await services.insights.stats()).live_workers == 1


async def test_workers_that_are_silent_for_a_day_are_forgotten(services: Services, clock: FrozenClock) -> None:
    await services.workers.sign_in("w", [], ["echo"], 4)
    assert [worker.row.name for worker in await services.insights.workers()] == ["w"]
    clock.forward(61)
    assert await services.insights.workers() == []
    clock.forward(86400)
    await services.chores.forget_workers()
    async with services.database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM workers")) == 0


@pytest.mark.parametrize("store", ["sqlite"])
async def test_a_log_that_has_grown_is_cut_off_and_told_while_it_cannot_be(
    services: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOG_BYTES", 100_000)
    told: list[LogGrown] = []
    services.bus.subscribe(LogGrown, told.append)
    reader = sqlite.sqlite.connect(services.database.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM tasks").fetchall()
    while not services.database.log_is_long:
        await submit()
    await services.chores.shorten_log()
    assert [event.size for event in told] == [services.database.log_bytes]
    reader.close()
    await services.chores.shorten_log()
    assert (len(told), services.database.log_bytes) == (1, 0)


@pytest.mark.parametrize("store", ["sqlite"])
async def test_a_log_that_is_short_is_left_alone(services: Services, submit: Submit) -> None:
    await submit()
    before = services.database.log_bytes
    await services.chores.shorten_log()
    assert services.database.log_bytes == before > 0
