import time
from datetime import timedelta

import pytest
from sqlalchemy import text

from app.core.events import ClockJumped
from app.core.lifecycle import Completed
from app.core.task import JsonText, Status
from app.services import chores
from app.services.wiring import Services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle, Submit


class MovedTogether:
    """Monotonic time that runs along with the frozen wall clock, as both do on a host whose clock nobody sets."""

    def __init__(self, clock: FrozenClock) -> None:
        self._clock = clock
        self._began = clock()

    def monotonic(self) -> float:
        return (self._clock() - self._began).total_seconds()


@pytest.fixture
def together(clock: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.chores.time.monotonic", MovedTogether(clock).monotonic)


@pytest.mark.usefixtures("together")
async def test_a_dead_workers_task_runs_again_within_lease_and_sweep(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    task_id = await submit()
    await claim()
    clock.forward(29)
    await services.chores.sweep()
    assert (await services.tasks.get(task_id)).status is Status.RUNNING
    clock.forward(2)
    await services.chores.sweep()
    task = await services.tasks.get(task_id)
    assert (task.status, task.attempts, task.deaths) == (Status.RETRYING, 1, 1)
    assert task.scheduled_at is not None
    assert task.scheduled_at - clock() <= timedelta(seconds=1)
    (attempt,) = await services.tasks.attempts(task_id)
    assert (attempt.outcome, attempt.worker_id) == ("lost", "w1")


@pytest.mark.usefixtures("together")
async def test_a_task_that_loses_its_worker_again_and_again_is_given_up(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    task_id = await submit(max_attempts=10)
    for _ in range(3):
        await claim()
        clock.forward(60)
        await services.chores.sweep()
        clock.forward(3600)
    task = await services.tasks.get(task_id)
    assert (task.status, task.failure_reason, task.attempts) == (Status.FAILED, "poisoned", 3)


@pytest.mark.usefixtures("together")
async def test_a_lost_task_that_was_to_be_cancelled_is_cancelled(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    task_id = await submit()
    await claim()
    await services.tasks.cancel(task_id)
    clock.forward(31)
    await services.chores.sweep()
    assert (await services.tasks.get(task_id)).status is Status.CANCELLED


async def test_nobody_is_swept_for_one_lease_after_the_wall_clock_jumped(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic = 1000.0
    monkeypatch.setattr("app.services.chores.time.monotonic", lambda: monotonic)
    jumps: list[ClockJumped] = []
    services.bus.subscribe(ClockJumped, jumps.append)
    task_id = await submit()
    await claim()
    await services.chores.sweep()
    clock.forward(3600)  # the wall clock jumps; nobody was silent for an hour
    monotonic += 5
    await services.chores.sweep()
    assert len(jumps) == 1
    assert (await services.tasks.get(task_id)).status is Status.RUNNING
    for _ in range(4):
        clock.forward(5)
        monotonic += 5
        await services.chores.sweep()
    assert (await services.tasks.get(task_id)).status is Status.RUNNING
    clock.forward(10)
    monotonic += 10
    await services.chores.sweep()
    assert (await services.tasks.get(task_id)).status is Status.RETRYING


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


async def test_workers_that_are_silent_for_a_day_are_forgotten(services: Services, clock: FrozenClock) -> None:
    await services.workers.sign_in("w", [], ["echo"], 4)
    assert [worker.name for worker in await services.insights.workers()] == ["w"]
    clock.forward(61)
    assert await services.insights.workers() == []
    clock.forward(86400)
    await services.chores.forget_workers()
    async with services.database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM workers")) == 0


def test_the_clock_the_chores_watch_is_the_real_one() -> None:
    """The tests above replace it; this says what they replace."""
    assert chores.time is time
