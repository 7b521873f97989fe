"""What limits of queues do to claims and submissions, on the rows: a worker without processes, a clock that stands still."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from app.core.errors import InvalidRequest, NotFound, QueueFull
from app.core.events import QueueChanged, QueuePlacesFreed
from app.core.lifecycle import Completed, Errored
from app.core.settings import Settings
from app.core.task import ClaimedTask, JsonText, Status
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.conftest import FrozenClock, engines_of
from tests.services.conftest import Claim, Settle, Submit, others_told

DONE = Completed(JsonText("1"))


@pytest.fixture
async def others(settings: Settings, clock: FrozenClock, services: Services) -> AsyncIterator[Services]:
    """Another process's services on the same database."""
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as other:
        yield other


async def limit(services: Services, name: str = "q", **values: Any) -> None:
    await services.limits.change(name, values)


async def claim_from(services: Services, room: int = 10, worker: str = "w1") -> list[ClaimedTask]:
    exchange = await services.queue.exchange(
        worker, [], lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), room)]
    )
    await others_told()
    return list(exchange.claimed)


async def test_no_more_run_than_may_and_each_end_lets_one_start(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    await limit(services, max_running=2)
    ids = [await submit(queue="q") for _ in range(5)]
    first = await claim()
    assert [task.id for task in first] == ids[:2]
    assert await claim(worker="w2") == []
    await settle(first[0], DONE)
    assert [task.id for task in await claim(worker="w2")] == ids[2:3]


async def test_a_limit_is_over_all_task_types_of_the_queue_by_rank(
    services: Services, submit: Submit, claim: Claim
) -> None:
    await limit(services, max_running=3)
    types = ["echo", "echo_shared"]
    ids = [await submit(types[number % 2], queue="q", priority=number) for number in range(6)]
    assert [task.id for task in await claim()] == [*reversed(ids)][:3]


async def test_a_limited_queue_gets_no_better_a_place_among_others(
    services: Services, submit: Submit, claim: Claim
) -> None:
    """And what it may not start takes no room from others."""
    await limit(services, max_running=2)
    low = [await submit(queue="q", priority="low") for _ in range(3)]
    normal = [await submit(queue="free") for _ in range(3)]
    assert [task.id for task in await claim(room=2)] == normal[:2]
    assert [task.id for task in await claim(room=5)] == [normal[2], *low[:2]]


async def test_a_head_that_a_limit_holds_back_takes_no_part_in_the_choice(
    services: Services, submit: Submit, claim: Claim
) -> None:
    await limit(services, max_running=1)
    for queue in ("q", "q", "free"):
        await submit(queue=queue)
    await claim(room=1)
    seen: list[str] = []

    def choose(heads: Any) -> list[Wish]:
        seen.extend(head.queue for head in heads)
        return []

    await services.queue.exchange("w1", [], choose)
    assert seen == ["free"]


async def test_tokens_are_one_row_for_all_workers(
    services: Services, others: Services, submit: Submit, clock: FrozenClock
) -> None:
    await limit(services, rate_limit=3, rate_period_seconds=6)
    for _ in range(9):
        await submit(queue="q")
    assert len(await claim_from(services, room=2)) == 2
    assert len(await claim_from(others)) == 1
    assert await claim_from(services) == []
    clock.forward(1.9)
    assert await claim_from(others) == []
    clock.forward(0.2)
    assert len(await claim_from(services)) == 1
    clock.forward(3600)
    assert len(await claim_from(others)) == 3


async def test_a_worker_wakes_when_the_next_token_is_there(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    await limit(services, rate_limit=1, rate_period_seconds=30)
    for _ in range(2):
        await submit(queue="q")
    await claim()
    exchange = await services.queue.exchange("w1", [], lambda heads: [])
    assert exchange.next_due_at is not None
    assert timedelta(seconds=30) <= exchange.next_due_at - clock() <= timedelta(seconds=30.01)


async def test_many_workers_at_once_keep_the_limits(services: Services, others: Services, submit: Submit) -> None:
    await limit(services, max_running=5)
    await limit(services, "r", rate_limit=4, rate_period_seconds=3600)
    for number in range(40):
        await submit(queue="qr"[number % 2])
    claims = [claim_from((services, others)[number % 2], room=3, worker=f"w{number}") for number in range(12)]
    claimed = [task.queue for tasks in await asyncio.gather(*claims) for task in tasks]
    claimed += [task.queue for tasks in [await claim_from(services)] for task in tasks]
    assert (claimed.count("q"), claimed.count("r")) == (5, 4)


async def test_a_paused_queue_starts_nothing_and_goes_on_where_it_was(
    services: Services, submit: Submit, claim: Claim
) -> None:
    ids = [await submit(queue="q") for _ in range(2)]
    await limit(services, paused=True)
    assert await claim() == []
    await limit(services, paused=False)
    assert [task.id for task in await claim()] == ids


async def test_limits_taken_away_bind_nobody(services: Services, submit: Submit, claim: Claim) -> None:
    await limit(services, max_running=1, rate_limit=1, rate_period_seconds=60, max_depth=3)
    for _ in range(3):
        await submit(queue="q")
    await limit(services, max_running=None, rate_limit=None, rate_period_seconds=None, max_depth=None)
    await submit(queue="q")
    assert len(await claim()) == 4


async def hearing_of_places(services: Services, submit: Submit) -> list[object]:
    """Two tasks of a queue in which one may run; what is told of freed places from now on."""
    heard: list[object] = []
    services.bus.subscribe(QueuePlacesFreed, heard.append)
    await limit(services, max_running=1)
    for _ in range(2):
        await submit(queue="q")
    return heard


async def test_others_are_told_of_places_that_were_freed_and_not_taken(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    heard = await hearing_of_places(services, submit)
    (task,) = await claim()
    assert heard == []
    await services.queue.exchange("w1", [Ended(task, DONE, clock(), 0.01)], lambda heads: [])
    await others_told()
    assert len(heard) == 1


async def test_a_place_that_was_freed_when_nobody_looked_is_told_at_the_next_look(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    heard = await hearing_of_places(services, submit)
    (first,) = await claim()
    await settle(first, DONE)
    assert heard == []
    await services.queue.exchange("w1", [], lambda heads: [])
    await others_told()
    assert len(heard) == 1
    await services.queue.exchange("w1", [], lambda heads: [])
    await others_told()
    assert len(heard) == 1


async def test_a_queue_without_limits_costs_a_claim_no_statement(
    services: Services, submit: Submit, claim: Claim
) -> None:
    statements: list[str] = []
    for engine in engines_of(services.database):
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: statements.append(given[2]))

    async def count(queue: str) -> int:
        await submit(queue=queue)
        statements.clear()
        assert len(await claim()) == 1
        return len(statements)

    assert await count("q") == await count("q")
    before = await count("q")
    await limit(services, "elsewhere", max_running=1, rate_limit=5, rate_period_seconds=1, paused=True)
    assert await count("q") == before


# Depth.


async def test_a_full_queue_refuses_until_there_is_room(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    await limit(services, max_depth=2)
    for _ in range(2):
        await submit(queue="q")
    with pytest.raises(QueueFull) as refused:
        await submit(queue="q")
    assert (refused.value.queue, refused.value.max_depth, refused.value.retry_after_seconds) == ("q", 2, 300)
    await submit(queue="other")
    await claim(room=1)
    await submit(queue="q")


async def test_a_repeated_request_gets_its_first_answer_from_a_full_queue(services: Services, submit: Submit) -> None:
    await limit(services, max_depth=1)
    first = await submit(queue="q", idempotency_key="k")
    assert await submit(queue="q", idempotency_key="k") == first


async def test_the_time_to_wait_is_that_in_which_the_queue_was_worked_off(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    """Twenty tasks in the fifty seconds since the beginning of the minute: 0.4 a second."""
    clock.set(-5)  # a whole minute
    for _ in range(20):
        await submit(queue="q")
    for task in await claim(room=20):
        await settle(task, DONE)
    clock.forward(50)
    await services.tallies.write()
    await limit(services, max_depth=4)
    for _ in range(4):
        await submit(queue="q")
    new = [services.intake.prepare(Submission(task_type="echo", queue="q")) for _ in range(4)]
    with pytest.raises(QueueFull) as refused:
        await services.tasks.submit_all(new)
    assert refused.value.retry_after_seconds == pytest.approx(4 / 0.4)
    assert (await services.limits.get("q")).drained_per_second == pytest.approx(0.4)


async def test_a_bulk_finds_room_for_all_or_is_refused(services: Services) -> None:
    await limit(services, max_depth=3)
    new = [services.intake.prepare(Submission(task_type="echo", queue="q")) for _ in range(4)]
    with pytest.raises(InvalidRequest, match="4 are for queue q, in which at most 3 may wait"):
        await services.tasks.submit_all(new)  # it would never fit, so trying again is no use
    assert len(await services.tasks.submit_all(new[:2])) == 2
    with pytest.raises(QueueFull, match="2 tasks wait in queue q, and at most 3 may wait in it"):
        await services.tasks.submit_all(new[:2])


async def test_another_process_hears_of_a_new_depth_by_its_chore(
    services: Services, others: Services, submit: Submit
) -> None:
    await limit(others, max_depth=1)
    await submit(queue="q")
    await services.limits.refresh()
    with pytest.raises(QueueFull):
        await submit(queue="q")


async def test_submissions_that_come_together_share_what_room_there_is(services: Services, submit: Submit) -> None:
    await limit(services, max_depth=3)
    answers = await asyncio.gather(*(submit(queue="q") for _ in range(8)), return_exceptions=True)
    assert [isinstance(answer, int) for answer in answers].count(True) == 3
    assert [isinstance(answer, QueueFull) for answer in answers].count(True) == 5


async def _cancelled(services: Services, submit: Submit, **fields: Any) -> int:
    id_ = await submit(**fields)
    await services.tasks.cancel(id_)
    return id_


async def test_a_retry_by_hand_finds_no_room_in_a_full_queue(services: Services, submit: Submit) -> None:
    first, second = [await _cancelled(services, submit, queue="q") for _ in range(2)]
    elsewhere = await _cancelled(services, submit, queue="other")
    await limit(services, max_depth=2)
    await submit(queue="q")
    await services.tasks.retry(first)
    with pytest.raises(QueueFull) as refused:
        await services.tasks.retry(second)
    assert (refused.value.queue, refused.value.max_depth) == ("q", 2)
    assert (await services.tasks.get(second)).status is Status.CANCELLED
    await services.tasks.retry(elsewhere)
    await services.tasks.cancel(first)
    assert (await services.tasks.retry(second)).status is Status.PENDING


async def test_an_attempt_after_a_failure_finds_room_in_a_full_queue(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    await submit(queue="q")
    (task,) = await claim()
    await limit(services, max_depth=1)
    await submit(queue="q")
    await settle(task, Errored("E", "no"))
    clock.forward(3600)
    assert {one.id for one in await claim()} >= {task.id}


# The queues themselves.


async def test_a_queue_is_there_once_it_was_steered_or_has_work(services: Services, submit: Submit) -> None:
    heard: list[QueueChanged] = []
    services.bus.subscribe(QueueChanged, heard.append)
    with pytest.raises(NotFound):
        await services.limits.get("q")
    await limit(services, "new", max_running=7)
    await submit(queue="q")
    assert [(one.rule.name, one.rule.max_running, one.depth.ready) for one in await services.limits.listed()] == [
        ("new", 7, 0),
        ("q", None, 1),
    ]
    assert [(one.before.max_running, one.after.max_running) for one in heard] == [(None, 7)]
