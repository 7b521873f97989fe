"""What happened is counted once, by minute, queue and task type, over all processes."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.core import tally as core
from app.core.lifecycle import Completed, Errored, Released, Snoozed
from app.core.settings import Settings
from app.core.tally import ALWAYS, HOUR, MINUTE, OTHERS, Tally
from app.core.task import JsonText
from app.models import tallies as rows
from app.models.tallies import Step
from app.services import tallies as module
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle, Submit

DONE = Completed(JsonText("1"))


@pytest.fixture(autouse=True)
def _whole_hour(clock: FrozenClock) -> None:
    clock.now = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)


async def summed(services: Services, step: int = MINUTE, by: tuple[str, ...] = (), **which: Any) -> list[Step]:
    await services.tallies.write()
    now = services.database.clock()()
    which = {"queue": None, "task_type": None, "most": 1000} | which
    return await services.tallies.summed(now - timedelta(days=2), now + timedelta(days=1), step, by, **which)


def counts(tally: Tally) -> tuple[int, ...]:
    return tuple(getattr(tally, name) for name in core.COUNTS)


async def test_everything_that_happens_is_counted_once(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    outcomes = [DONE, DONE, Errored("E", "no", retryable=False), Errored("E", "no"), Snoozed(5), Released("stop")]
    for _ in outcomes:
        await submit(max_attempts=2)
    cancelled = await submit(priority=-100)
    late = await submit(expires_at=clock() + timedelta(seconds=30), scheduled_at=clock() + timedelta(seconds=20))
    for task, outcome in zip(await claim(room=6), outcomes, strict=True):
        await settle(task, outcome)
    await services.tasks.cancel(cancelled)
    clock.forward(31)
    await services.chores.expire()
    assert (await services.tasks.get(late)).finished
    (step,) = await summed(services)
    assert counts(step.tally) == (8, 2, 2, 1, 1)
    assert (step.tally.wait.count, step.tally.run.count) == (6, 6)
    assert await summed(services) == [step]


async def test_nobody_waits_to_write_while_it_is_found_out_what_is_new(
    services: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was counted is added by one statement, which is large: held up others for 0.1 s when it came second."""
    pairs = rows.pairs

    async def meanwhile(*arguments: Any) -> set[core.Pair]:
        found = await pairs(*arguments)
        async with asyncio.timeout(3), services.database.write() as connection:
            await connection.execute(text("SELECT 1"))
        return found

    monkeypatch.setattr(rows, "pairs", meanwhile)
    await submit()
    (step,) = await summed(services)
    assert step.tally.submitted == 1


async def test_waits_are_measured_from_when_a_task_was_ready_whatever_its_priority(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    await submit(priority="critical")
    await submit(priority="low", scheduled_at=clock() + timedelta(seconds=30))
    clock.forward(40)
    await claim()
    (step,) = await summed(services)
    assert step.tally.wait.total_seconds == pytest.approx(40 + 10)


async def test_processes_add_up_to_one_sum(services: Services, settings: Settings, clock: FrozenClock) -> None:
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as other:
        for process in (services, other, services):
            new = process.intake.prepare(submission("q"))
            await process.tasks.submit(new)
            await process.tallies.write()
    (step,) = await summed(services)
    assert step.tally.submitted == 3


def submission(queue: str) -> Submission:
    return Submission(task_type="echo", queue=queue)


async def test_a_process_that_stops_writes_what_it_has_counted(
    services: Services, settings: Settings, clock: FrozenClock
) -> None:
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as other:
        await other.tasks.submit(other.intake.prepare(submission("q")))
    (step,) = await summed(services)
    assert step.tally.submitted == 1


async def test_a_worker_that_stops_writes_the_ends_of_its_last_exchange(
    services: Services, submit: Submit, settings: Settings, clock: FrozenClock
) -> None:
    await submit()
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as other:
        exchange = await other.queue.exchange("w", [], lambda heads: [Wish((("default", "echo"),), 1)])
        await other.queue.exchange("w", [Ended(task, DONE, clock(), 0.01) for task in exchange.claimed])
    (step,) = await summed(services)
    assert step.tally.completed == 1


async def test_what_could_not_be_written_is_written_the_next_time(
    services: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submit()

    async def refuse(*_: Any) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr(module.rows, "add", refuse)
        with pytest.raises(RuntimeError, match="no"):
            await services.tallies.write()
    await submit()
    (step,) = await summed(services)
    assert step.tally.submitted == 2


async def test_steps_hours_and_totals_say_the_same(services: Services, submit: Submit, clock: FrozenClock) -> None:
    for _ in range(4):
        await submit(queue="a")
        await submit("echo_shared", queue="b")
        clock.forward(1800)
    assert [(one.begins_at.minute, one.tally.submitted) for one in await summed(services)] == [(0, 2), (30, 2)] * 2
    hours = await summed(services, HOUR, ("queue", "task_type"))
    assert [(one.begins_at.hour, one.queue, one.task_type, one.tally.submitted) for one in hours] == [
        (3, "a", "echo", 2),
        (3, "b", "echo_shared", 2),
        (4, "a", "echo", 2),
        (4, "b", "echo_shared", 2),
    ]
    assert [one.tally.submitted for one in await summed(services, 2 * HOUR, queue="a")] == [2, 2]
    assert [one.tally.submitted for one in await summed(services, 1800, task_type="echo_shared")] == [1, 1, 1, 1]
    assert len(await summed(services, HOUR, ("queue",), most=3)) == 3
    totals = await services.tallies.totals()
    assert {pair: tally.submitted for pair, tally in totals.items()} == {("a", "echo"): 4, ("b", "echo_shared"): 4}


async def test_what_is_older_than_thirty_days_goes_and_totals_stay(
    services: Services, submit: Submit, clock: FrozenClock
) -> None:
    await submit()
    await services.tallies.write()
    clock.forward(29 * 86400)
    await services.tallies.prune()
    assert await spans(services) == [ALWAYS, MINUTE, HOUR]
    await submit()
    await services.tallies.write()
    clock.forward(2 * 86400)
    while await services.tallies.prune():
        pass
    assert await spans(services) == [ALWAYS, MINUTE, HOUR]
    assert (await services.tallies.totals())["default", "echo"].submitted == 2


async def spans(services: Services) -> list[int]:
    async with services.database.read() as connection:
        return list(await connection.scalars(text("SELECT span_seconds FROM tallies ORDER BY span_seconds")))


async def test_names_that_clients_invent_do_not_make_rows_without_end(
    services: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PAIRS", 3)
    for number in range(6):
        await submit(queue=f"q{number}")
        await services.tallies.write()
    totals = await services.tallies.totals()
    assert {pair[0]: tally.submitted for pair, tally in totals.items()} == {"q0": 1, "q1": 1, "q2": 1, OTHERS: 3}


async def test_the_rows_of_tasks_are_not_read_for_it(services: Services, submit: Submit, claim: Claim) -> None:
    await submit()
    await services.tallies.write()
    async with services.database.write() as connection:
        await connection.execute(text("DELETE FROM tasks"))
    (step,) = await summed(services)
    assert step.tally.submitted == 1
