"""Why a task waits, seen on the rows of both stores."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event, text

from app.core.errors import NotFound
from app.core.explain import MOST_COUNTED, Why
from app.core.lifecycle import Completed
from app.core.slots import Room
from app.core.task import JsonText
from app.models.tasks import TaskFilter
from app.models.workers import WorkerRow
from app.services.submissions import Submission
from app.services.wiring import Services
from tests.conftest import FrozenClock, engines_of
from tests.services.conftest import Claim, Settle, Submit


async def reasons(services: Services, task_id: int) -> list[Why]:
    return [one.reason for one in (await services.explainer.explain(task_id)).reasons]


@pytest.fixture
async def worker(services: Services) -> None:
    """A live worker that takes anything."""
    await services.workers.sign_in("w", (), tuple(services.registry), 4)


async def test_a_task_says_all_that_it_waits_for(
    services: Services, submit: Submit, claim: Claim, worker: None, clock: FrozenClock
) -> None:
    running, waiting = await submit(queue="q"), await submit(queue="q")
    await services.limits.change("q", {"max_running": 1, "rate_limit": 1, "rate_period_seconds": 60.0})
    assert await reasons(services, running) == [Why.NEXT_IN_LINE]
    await claim()
    assert await reasons(services, running) == []
    found = await services.explainer.explain(waiting)
    assert [one.reason for one in found.reasons] == [Why.QUEUE_LIMIT, Why.RATE_LIMIT, Why.NEXT_IN_LINE]
    assert found.reasons[0].held_by == (running,)
    assert found.reasons[1].until is not None
    assert timedelta(seconds=60) <= found.reasons[1].until - clock() <= timedelta(seconds=60.01)
    await services.limits.change("q", {"paused": True})
    await services.breakers.trip("echo", "not today", 3600)
    assert (await reasons(services, waiting))[:2] == [Why.QUEUE_PAUSED, Why.BREAKER_OPEN]


async def test_a_task_without_a_worker_says_so(services: Services, submit: Submit) -> None:
    task_id = await submit(queue="q")
    assert await reasons(services, task_id) == [Why.NO_WORKER, Why.NEXT_IN_LINE]
    await services.workers.sign_in("w", ("other",), tuple(services.registry), 4)
    found = await services.explainer.explain(task_id)
    assert found.reasons[0].message == "No live worker serves queue q."


async def test_a_silent_worker_takes_nothing(
    services: Services, submit: Submit, worker: None, clock: FrozenClock
) -> None:
    """Killed, say: its row is there for two leases."""
    task_id = await submit(queue="q")
    clock.forward(15)
    assert await reasons(services, task_id) == [Why.NEXT_IN_LINE]
    clock.forward(1)
    assert await reasons(services, task_id) == [Why.NO_WORKER, Why.NEXT_IN_LINE]
    assert (await first_reasons(services))[task_id] is Why.NO_WORKER


async def with_runners(services: Services, runners: int, concurrency: int) -> WorkerRow:
    """A live worker that has said how many runners it has."""
    row = await services.workers.sign_in("w", (), tuple(services.registry), runners * concurrency)
    processes = [{"pid": pid, "memory_bytes": 1, "task_ids": []} for pid in range(runners)]
    row = replace(row, runners=JsonText(json.dumps(processes)))
    await services.workers.beat(row, "running", JsonText("[]"))
    return row


async def test_a_plain_task_waits_for_a_runner_to_itself(services: Services, submit: Submit, claim: Claim) -> None:
    """Although slots are free, and a shared one could start; what was claimed since the last beat counts."""
    row = await with_runners(services, runners=2, concurrency=4)
    first, second = await submit("echo"), await submit("echo_shared")
    await claim(worker=row.id)
    plain, shared = await submit("echo"), await submit("echo_shared")
    found = await services.explainer.explain(plain)
    assert [(one.reason, one.held_by) for one in found.reasons] == [
        (Why.WORKERS_BUSY, (first, second)),
        (Why.NEXT_IN_LINE, ()),
    ]
    assert found.reasons[0].message.endswith("it needs a runner to itself, and none is free.")
    assert found.estimated_start_at is None
    assert await reasons(services, shared) == [Why.BEHIND_OTHERS]
    assert await first_reasons(services) == {plain: Why.WORKERS_BUSY, shared: Why.BEHIND_OTHERS}
    (worker,) = await services.insights.workers_with_room()
    assert worker.room == Room(plain=0, shared=3)


async def test_a_shared_task_waits_where_plain_ones_have_every_runner(
    services: Services, submit: Submit, claim: Claim
) -> None:
    row = await with_runners(services, runners=1, concurrency=4)
    await submit("echo")
    await claim(worker=row.id)
    waiting = await submit("echo_shared")
    assert await reasons(services, waiting) == [Why.WORKERS_BUSY, Why.NEXT_IN_LINE]
    await with_runners(services, runners=1, concurrency=4)  # another one
    assert await reasons(services, waiting) == [Why.NEXT_IN_LINE]


async def test_a_tenant_is_not_told_what_the_workers_hold(services: Services, submit: Submit, claim: Claim) -> None:
    row = await with_runners(services, runners=1, concurrency=1)
    await submit("echo")
    await claim(worker=row.id)
    new = services.intake.prepare(Submission(task_type="echo", payload={"number": 1}), tenant="north")
    waiting = (await services.tasks.submit(new)).task.id
    assert (await services.explainer.explain(waiting)).reasons[0].held_by
    reason, _ = (await services.explainer.explain(waiting, "north")).reasons
    assert (reason.reason, reason.held_by) == (Why.WORKERS_BUSY, ())


async def test_a_blocked_task_names_who_has_the_place(services: Services, submit: Submit, worker: None) -> None:
    ids = [await submit(concurrency_key="k") for _ in range(3)]
    found = await services.explainer.explain(ids[2])
    assert [(one.reason, one.held_by) for one in found.reasons] == [(Why.CONCURRENCY_LIMIT, (ids[0],))]
    assert "1 task waits before it" in found.reasons[0].message
    assert (found.position, found.estimated_start_at) == (None, None)


async def test_the_place_is_that_in_the_order_of_work_over_all_types(
    services: Services, submit: Submit, worker: None
) -> None:
    await submit(queue="elsewhere")
    low = await submit(queue="q", priority="low")
    first = await submit("echo_shared", queue="q", priority="high")
    normal = await submit(queue="q")
    places = [(await services.explainer.explain(task_id)).position for task_id in (first, normal, low)]
    assert places == [1, 2, 3]


async def test_the_start_is_estimated_from_what_was_worked_off(
    services: Services, submit: Submit, claim: Claim, settle: Settle, worker: None, clock: FrozenClock
) -> None:
    """Ten in 100 s: a task with five before it starts in 50 s."""
    clock.set(-5)  # a whole minute
    for _ in range(10):
        await submit(queue="q")
    for task in await claim():
        await settle(task, Completed(JsonText("1")))
    await services.tallies.write()
    clock.forward(100)
    await services.workers.sign_in("w", (), tuple(services.registry), 4)
    ids = [await submit(queue="q") for _ in range(6)]
    found = await services.explainer.explain(ids[-1])
    assert (found.position, found.drained_per_second) == (6, pytest.approx(0.1))
    assert found.estimated_start_at is not None
    assert (found.estimated_start_at - clock()).total_seconds() == pytest.approx(50)


async def test_a_long_queue_is_counted_to_a_bound(services: Services, worker: None) -> None:
    submission = services.intake.prepare(Submission(task_type="echo", queue="q"))
    ids = await services.tasks.submit_all([submission] * (MOST_COUNTED + 50))
    found = await services.explainer.explain(ids[-1])
    assert (found.position, found.position_is_at_least) == (MOST_COUNTED + 1, True)


async def test_a_task_of_a_type_that_nobody_knows_any_more_is_explained(services: Services, submit: Submit) -> None:
    task_id = await submit()
    async with services.database.write() as connection:
        await connection.execute(text("UPDATE tasks SET task_type = 'gone'"))
    assert (await reasons(services, task_id))[0] is Why.NO_WORKER


async def test_an_unknown_task_is_not_found(services: Services) -> None:
    with pytest.raises(NotFound):
        await services.explainer.explain(99)


async def first_reasons(services: Services) -> dict[int, Why]:
    tasks = await services.tasks.search(TaskFilter(), 500, whole_rows=False)
    return {task_id: one.reason for task_id, one in (await services.explainer.first_reasons(tasks)).items()}


async def test_a_page_of_tasks_says_the_first_reason_of_each(
    services: Services, submit: Submit, claim: Claim, worker: None, clock: FrozenClock
) -> None:
    """As `explain` says of each alone."""
    running = await submit(queue="narrow")
    await claim()
    for queue, limits in (
        ("narrow", {"max_running": 1}),
        ("paused", {"paused": True}),
        ("slow", {"rate_limit": 1, "rate_period_seconds": 60.0}),
    ):
        await services.limits.change(queue, limits)
    await services.breakers.trip("echo_shared", "not today", 3600)
    started = await submit(queue="slow")
    await claim(room=1)
    later = clock() + timedelta(seconds=60)
    expected = {
        await submit(queue="narrow"): Why.QUEUE_LIMIT,
        await submit(queue="paused"): Why.QUEUE_PAUSED,
        await submit(queue="slow"): Why.RATE_LIMIT,
        await submit("echo_shared", queue="q"): Why.BREAKER_OPEN,
        await submit(queue="q", scheduled_at=later): Why.NOT_DUE,
        await submit(queue="r", concurrency_key="k"): Why.NEXT_IN_LINE,
        await submit(queue="r", concurrency_key="k"): Why.CONCURRENCY_LIMIT,
        await submit(queue="r"): Why.BEHIND_OTHERS,
    }
    found = await first_reasons(services)
    assert found == expected
    assert not {running, started} & found.keys()
    assert {task_id: (await reasons(services, task_id))[0] for task_id in expected} == expected


async def test_of_tasks_of_one_moment_only_one_is_the_first(services: Services, worker: None) -> None:
    submission = services.intake.prepare(Submission(task_type="echo", queue="q"))
    first, *others = await services.tasks.submit_all([submission] * 5)
    assert await first_reasons(services) == {first: Why.NEXT_IN_LINE} | dict.fromkeys(others, Why.BEHIND_OTHERS)


async def test_a_page_costs_a_few_looks_however_many_wait(services: Services, worker: None) -> None:
    submission = services.intake.prepare(Submission(task_type="echo", queue="q", concurrency_key="k"))
    await services.tasks.submit_all([submission] * 100)
    tasks = await services.tasks.search(TaskFilter(), 500, whole_rows=False)
    statements: list[str] = []
    for engine in engines_of(services.database):
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert len(await services.explainer.first_reasons(tasks)) == 100
    assert 0 < len([one for one in statements if one.startswith(("SELECT", "WITH"))]) <= 6


async def test_a_tenant_is_not_told_whose_calls_opened_a_breaker_nor_who_runs_in_its_queue(
    services: Services, claim: Claim, worker: None
) -> None:
    async def submit(tenant: str) -> int:
        new = services.intake.prepare(Submission(task_type="echo", payload={"number": 1}, queue="q"), tenant=tenant)
        return (await services.tasks.submit(new)).task.id

    await submit("south")
    await services.limits.change("q", {"max_running": 1})
    await claim()
    waiting = await submit("north")
    await services.breakers.trip("echo", "https://south.example/secret answered 500", 3600)
    everyones = await services.explainer.explain(waiting)
    assert "secret" in everyones.reasons[0].message
    assert everyones.reasons[1].held_by
    theirs = await services.explainer.explain(waiting, "north")
    assert [one.reason for one in theirs.reasons] == [one.reason for one in everyones.reasons]
    assert "secret" not in str(theirs.reasons)
    assert not any(one.held_by for one in theirs.reasons)
    task = await services.tasks.get(waiting)
    assert "secret" in (await services.explainer.first_reasons([task]))[waiting].message
    assert "secret" not in (await services.explainer.first_reasons([task], "north"))[waiting].message
