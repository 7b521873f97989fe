"""What breakers do to claims, on the rows: a worker without processes, a clock that stands still."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from app.core import breaker as core
from app.core.breaker import HOST_RULE, LONGEST_HOLD_SECONDS, BreakerState, Circuit
from app.core.errors import NotFound
from app.core.events import BreakerClosed, BreakerOpened, BreakerProbed, BreakerReset, BreakerTripped
from app.core.explain import Why
from app.core.lifecycle import Cancelled, Completed, Errored, Lost, Outcome, Released, Snoozed, TimedOut
from app.core.settings import Settings
from app.core.task import ClaimedTask, JsonText, Status
from app.models import breakers as rows
from app.models.queue import Head
from app.services.breakers import BreakerReport
from app.services.checker import Checker
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wakeup import QUEUES
from app.services.wiring import Services, open_services
from tests.conftest import FrozenClock, engines_of, straight
from tests.services.conftest import lose_leases, others_told

DONE = Completed(JsonText("1"))


def down(name: str = "end") -> Errored:
    return Errored("ConnectionRefusedError", "nobody there", None, dependency=name)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        database_url=database_url, files_dir=tmp_path / "files", executor_modules=("tests.breaker_executors",)
    )


@pytest.fixture
async def others(settings: Settings, clock: FrozenClock, services: Services) -> AsyncIterator[Services]:
    """Another process's services on the same database."""
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as other:
        yield other


async def submit(
    services: Services, task_type: str = "end", count: int = 1, tenant: str = "", **fields: Any
) -> list[int]:
    fields = {"max_attempts": 9, "retry": {"base_seconds": 0, "jitter": False}} | fields
    submission = Submission.model_validate({"task_type": task_type, **fields})
    new = services.intake.prepare(submission, tenant=tenant)
    return [(await services.tasks.submit(new)).task.id for _ in range(count)]


async def claim(services: Services, room: int = 10, worker: str = "w1") -> list[ClaimedTask]:
    exchange = await services.queue.exchange(
        worker, [], lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), room)]
    )
    await others_told()
    return list(exchange.claimed)


async def settle(services: Services, tasks: list[ClaimedTask], outcome: Outcome) -> None:
    now = services.database.clock()()
    await services.queue.exchange("w1", [Ended(task, outcome, now, 0.01) for task in tasks])
    await others_told()


async def report(services: Services, name: str = "end") -> BreakerReport:
    (found,) = (one for one in await services.breakers.listed() if one.circuit.name == name)
    return found


async def state(services: Services, name: str = "end") -> BreakerState:
    return (await report(services, name)).state


def heard(*processes: Services) -> list[object]:
    """What is told of breakers from now on, by any of these."""
    events: list[object] = []
    for services in processes:
        for kind in (BreakerOpened, BreakerProbed, BreakerClosed, BreakerTripped, BreakerReset):
            services.bus.subscribe(kind, events.append)
    return events


@pytest.fixture
async def opened(services: Services, clock: FrozenClock) -> Services:
    """The breaker `end` is open; five tasks wait behind it, two of which have failed once."""
    await submit(services, count=5)
    claimed = await claim(services, room=2)
    await settle(services, claimed, down())
    clock.forward(0.001)  # the retries are due
    assert await state(services) is BreakerState.OPEN
    return services


async def test_while_it_is_open_tasks_wait_without_being_charged(opened: Services, clock: FrozenClock) -> None:
    for _ in range(3):
        clock.forward(3)
        assert await claim(opened) == []
    tasks = [await opened.tasks.get(task_id) for task_id in range(1, 6)]
    assert {task.status for task in tasks} == {Status.PENDING}
    assert [task.attempts for task in tasks] == [1, 1, 0, 0, 0]
    found = await report(opened)
    assert (found.waiting, found.task_types) == (5, ("end",))
    assert found.circuit.reason == "ConnectionRefusedError: nobody there"
    assert found.circuit.open_until is not None
    assert 10 <= (found.circuit.open_until - clock()).total_seconds() + 9.001 <= 11


async def test_others_are_claimed_beside_it(opened: Services) -> None:
    (free,) = await submit(opened, "free")
    assert [task.id for task in await claim(opened)] == [free]


async def test_what_is_held_back_takes_no_part_in_the_choice(opened: Services) -> None:
    """A head that cannot be claimed would have a runner kept free for it."""
    await submit(opened, "free")
    seen: list[str] = []

    def choose(heads: Sequence[Head]) -> list[Wish]:
        seen.extend(head.task_type for head in heads)
        return []

    await opened.queue.exchange("w1", [], choose)
    assert seen == ["free"]


async def test_a_worker_is_told_when_it_may_try_again(opened: Services) -> None:
    exchange = await opened.queue.exchange("w1", [], lambda heads: [])
    assert exchange.next_due_at == (await report(opened)).circuit.open_until
    await submit(opened, "free", delay_seconds=1)
    exchange = await opened.queue.exchange("w1", [], lambda heads: [])
    assert exchange.next_due_at == opened.database.clock()() + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (down(), True),
        (TimedOut(0.3), True),
        (Errored("ValueError", "a bug"), False),
        (Errored("Fail", "no use", retryable=False), False),
        (Lost("killed"), False),
        (Released("stopped"), False),
        (Snoozed(0), False),
        (Cancelled(), False),
        (down("nobody-declares-this"), False),
        (down("port"), False),
    ],
)
async def test_only_failures_of_the_dependency_count(services: Services, outcome: Outcome, counts: bool) -> None:
    await submit(services, count=2)
    await settle(services, await claim(services, room=2), outcome)
    assert await state(services) is (BreakerState.OPEN if counts else BreakerState.CLOSED)
    assert (await report(services)).circuit.failures == (2 if counts else 0)


async def test_a_time_limit_that_the_submission_made_shorter_says_nothing_of_the_dependency(services: Services) -> None:
    """Or whoever may submit could hold back everybody's tasks."""
    await submit(services, count=4, timeout_seconds=0.2)
    claimed = await claim(services, room=4)
    assert {task.timeout_seconds for task in claimed} == {0.2}
    await settle(services, claimed, TimedOut(0.2))
    assert (await report(services)).circuit.failures == 0
    await settle(services, await claim(services, room=2), down())
    assert await state(services) is BreakerState.OPEN, "its other failures count"


async def test_a_longer_time_limit_counts(services: Services) -> None:
    await submit(services, count=2, timeout_seconds=5)
    await settle(services, await claim(services, room=2), TimedOut(5))
    assert await state(services) is BreakerState.OPEN


async def test_an_executor_may_name_another_dependency(services: Services) -> None:
    await submit(services, count=3)
    await settle(services, await claim(services), down("port"))
    assert await state(services, "port") is BreakerState.OPEN
    await submit(services, "call")
    await submit(services, "call_shared")
    await submit(services, "end")
    assert {task.task_type for task in await claim(services)} == {"end"}


async def test_a_success_between_clears_the_count(services: Services) -> None:
    await submit(services, count=3)
    for outcome in (down(), DONE, down()):
        await settle(services, await claim(services, room=1), outcome)
    found = await report(services)
    assert (found.state, found.circuit.failures) == (BreakerState.CLOSED, 1)


async def test_a_late_finisher_says_nothing(services: Services, clock: FrozenClock) -> None:
    """Its lease is gone; the attempt was counted as lost already."""
    await submit(services, count=2)
    claimed = await claim(services)
    await lose_leases(services, clock)
    await settle(services, claimed, down())
    assert (await report(services)).circuit.failures == 0


async def test_in_doubt_no_more_is_let_out_than_it_takes_to_open_it(services: Services) -> None:
    """A batch claimed ahead would use up an attempt of every task in it."""
    await submit(services, "call", count=20)
    await settle(services, await claim(services, room=1), down("port"))
    first = await claim(services, room=10)
    assert len(first) == 2
    assert await claim(services, room=10) == []
    await settle(services, first[:1], Errored("ValueError", "a bug"))
    assert len(await claim(services, room=10)) == 1
    await settle(services, first[1:], DONE)
    assert len(await claim(services, room=10)) == 10


async def test_old_failures_hold_nothing_back(services: Services, clock: FrozenClock) -> None:
    await submit(services, count=9)
    await settle(services, await claim(services, room=1), down())
    clock.forward(61)
    assert (await report(services)).circuit.failures == 0
    assert len(await claim(services, room=5)) == 5


async def test_two_services_on_one_database_see_one_breaker(
    services: Services, others: Services, clock: FrozenClock
) -> None:
    await submit(services, count=4)
    here, there = await claim(services, room=1), await claim(others, room=1)
    await settle(services, here, down())
    assert await state(others) is BreakerState.CLOSED
    await settle(others, there, down())
    assert (await state(services), await state(others)) == (BreakerState.OPEN, BreakerState.OPEN)
    clock.forward(0.001)
    assert await claim(services) == await claim(others) == []
    clock.forward(11)
    await settle(others, await claim(others, room=1), DONE)
    assert await state(services) is BreakerState.CLOSED


async def test_failures_that_two_workers_report_at_once_are_all_counted(services: Services, others: Services) -> None:
    await submit(services, "free", count=6)
    mine, theirs = await claim(services, room=3), await claim(others, room=3)
    events = heard(services, others)
    await asyncio.gather(settle(services, mine[:1], down("port")), settle(others, theirs[:1], down("port")))
    found = await report(services, "port")
    assert (found.state, found.circuit.failures, events) == (BreakerState.CLOSED, 2, [])
    await asyncio.gather(
        *(settle(services, [task], down("port")) for task in mine[1:]),
        *(settle(others, [task], down("port")) for task in theirs[1:]),
    )
    assert await state(services, "port") is BreakerState.OPEN
    assert len(events) == 1, "it opens once"


async def test_exactly_so_many_probes_are_let_through_whoever_asks(
    opened: Services, others: Services, clock: FrozenClock
) -> None:
    clock.forward(11)
    assert await state(opened) is BreakerState.HALF_OPEN
    events = heard(opened, others)
    taken = await asyncio.gather(
        *(claim(services, room, f"w{room}") for room in range(1, 6) for services in (opened, others))
    )
    assert sum(len(batch) for batch in taken) == 2
    assert len((await report(opened)).circuit.let_through) == 2
    assert events[0] == BreakerProbed("end")


@straight
async def test_a_probe_that_succeeds_closes_it_and_wakes_workers(opened: Services, clock: FrozenClock) -> None:
    clock.forward(11)
    events = heard(opened)
    first, second = await claim(opened)
    ear = opened.wakeup.listen(QUEUES)
    await settle(opened, [first], DONE)
    assert await ear.wait(5)
    ear.close()
    assert events == [BreakerProbed("end"), BreakerClosed("end")]
    assert len(await claim(opened)) == 3
    await settle(opened, [second], down())
    assert (await report(opened)).circuit.failures == 1


async def test_a_probe_that_fails_opens_it_again_for_longer(opened: Services, clock: FrozenClock) -> None:
    clock.forward(11)
    first, second = await claim(opened)
    await settle(opened, [first], down())
    found = await report(opened)
    assert found.circuit.open_until is not None
    assert 20 <= (found.circuit.open_until - clock()).total_seconds() <= 22
    assert (found.state, found.circuit.trips) == (BreakerState.OPEN, 2)
    await settle(opened, [second], DONE)
    assert await state(opened) is BreakerState.OPEN, "the first probe to end decides"
    assert await claim(opened) == []


@pytest.mark.parametrize("outcome", [Errored("ValueError", "a bug"), Released("stopped"), None])
async def test_a_probe_that_says_nothing_makes_place_for_another(
    opened: Services, clock: FrozenClock, outcome: Outcome | None
) -> None:
    """None: its worker died, and the lease runs out."""
    clock.forward(11)
    probes = await claim(opened)
    assert await claim(opened) == []
    if outcome is None:
        await lose_leases(opened, clock)
    else:
        await settle(opened, probes, outcome)
    clock.forward(0.001)
    assert await state(opened) is BreakerState.HALF_OPEN
    assert len(await claim(opened)) == 2


async def test_what_ran_when_it_opened_does_not_close_it(services: Services) -> None:
    await submit(services, count=5)
    claimed = await claim(services)
    await settle(services, claimed[:2], down())
    await settle(services, claimed[2:3], DONE)
    await settle(services, claimed[3:], down())
    found = await report(services)
    assert (found.state, found.circuit.trips, found.circuit.failures) == (BreakerState.OPEN, 1, 2)


@straight
async def test_a_person_trips_and_resets_it(services: Services, clock: FrozenClock) -> None:
    events = heard(services)
    await submit(services, "call")
    await submit(services, "free")
    tripped = await services.breakers.trip("port", "maintenance", None)
    assert (tripped.state, tripped.waiting) == (BreakerState.OPEN, 1)
    await services.breakers.trip("free", "too many", 60)
    clock.forward(59)
    assert await claim(services) == []
    ear = services.wakeup.listen(QUEUES)
    assert (await services.breakers.reset("port")).state is BreakerState.CLOSED
    assert await ear.wait(5)
    ear.close()
    assert [task.task_type for task in await claim(services)] == ["call"]
    assert [type(one) for one in events] == [BreakerTripped, BreakerTripped, BreakerReset]


async def test_one_that_nobody_declares_closes_when_its_time_is_over(services: Services, clock: FrozenClock) -> None:
    await submit(services, "free", count=5)
    await services.breakers.trip("free", "too many", 60)
    events = heard(services)
    clock.forward(60)
    assert await state(services, "free") is BreakerState.CLOSED
    assert len(await claim(services)) == 5
    assert events == [BreakerClosed("free")]
    assert [one.circuit.name for one in await services.breakers.listed()] == ["end", "port"]


async def test_what_is_left_of_a_breaker_that_was_taken_out_of_the_code_holds_nothing_back(services: Services) -> None:
    await submit(services, "free", count=5)
    async with services.database.write() as connection:
        await rows.save(connection, Circuit("free", failures=2, window_started_at=services.database.clock()()))
    assert len(await claim(services)) == 5
    assert [one.circuit.name for one in await services.breakers.listed()] == ["end", "port"]


async def test_one_that_is_declared_is_tried_first_when_its_time_is_over(
    services: Services, clock: FrozenClock
) -> None:
    await submit(services, count=5)
    await services.breakers.trip("end", "maintenance", 60)
    clock.forward(60)
    assert len(await claim(services)) == 2


async def test_an_unknown_name_can_be_neither_tripped_nor_reset(services: Services) -> None:
    for act in (services.breakers.trip("typo", "because", None), services.breakers.reset("typo")):
        with pytest.raises(NotFound):
            await act
    assert [one.circuit.name for one in await services.breakers.listed()] == ["end", "port"]


async def test_a_service_in_good_health_asks_and_writes_nothing_about_breakers(services: Services) -> None:
    statements: list[str] = []

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "breakers" in statement:
            statements.append(statement)

    for engine in engines_of(services.database):
        event.listen(engine.sync_engine, "before_cursor_execute", executed)
    await submit(services, count=20)
    claimed = await claim(services, room=5)
    for _ in range(3):
        exchange = await services.queue.exchange(
            "w1",
            [Ended(task, DONE, services.database.clock()()) for task in claimed],
            lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 5)],
        )
        claimed = list(exchange.claimed)
    assert len(statements) == 4, statements  # the heads, which say that there are none
    assert all(statement.lstrip().startswith("WITH RECURSIVE heads") for statement in statements)


async def test_after_the_clock_was_set_back_it_is_tried_again_as_soon_as_before(
    opened: Services, clock: FrozenClock
) -> None:
    await opened.chores.bring_back()
    clock.set(-86400)
    assert await opened.chores.bring_back()
    clock.forward(12)
    assert len(await claim(opened)) == 2


# Hosts.

HOST = "host:api.example.com:443"
SERVER_ERROR = Errored("UnexpectedStatus", "https://api.example.com/x answered 503 Service Unavailable.")
UNREACHABLE = Errored("OutboundFailed", "The connection to api.example.com failed.")
NO = Errored("Fail", "https://api.example.com/x answered 404 Not Found.", retryable=False)


async def call(services: Services, url: str = "https://api.example.com/x", **fields: Any) -> int:
    (task_id,) = await submit(services, "http_request", payload={"url": url}, **fields)
    return task_id


async def break_host(services: Services, outcome: Outcome = SERVER_ERROR, **fields: Any) -> None:
    """Calls that fail as often as it takes."""
    for _ in range(HOST_RULE.failures):
        await call(services, max_attempts=1, **fields)
        await settle(services, await claim(services), outcome)


async def hosts(services: Services) -> dict[str, BreakerState]:
    found = await services.breakers.listed()
    return {one.circuit.name: one.state for one in found if one.circuit.name.startswith("host:")}


@pytest.mark.parametrize("outcome", [SERVER_ERROR, UNREACHABLE, TimedOut(120), down("http_request")])
async def test_a_host_that_is_down_holds_back_its_tasks_alone(
    services: Services, clock: FrozenClock, outcome: Outcome
) -> None:
    await break_host(services, outcome)
    assert await hosts(services) == {HOST: BreakerState.OPEN}
    held, other = await call(services), await call(services, "https://elsewhere.example.com/")
    assert [task.id for task in await claim(services)] == [other]
    task = await services.tasks.get(held)
    assert (task.status, task.attempts, task.lease, task.started_at) == (Status.SCHEDULED, 0, 0, None)
    assert [one async for one in Checker(services.database).findings() if one.broken] == []
    assert task.scheduled_at is not None
    assert 0 < (task.scheduled_at - clock()).total_seconds() <= 1.2 * LONGEST_HOLD_SECONDS
    assert await services.tasks.attempts(held) == []
    explained = await services.explainer.explain(held)
    reasons = {reason.reason: reason for reason in explained.reasons}
    assert HOST in reasons[Why.BREAKER_OPEN].message
    assert reasons[Why.BREAKER_OPEN].until is not None


@pytest.mark.parametrize(("seconds", "counts"), [(0.3, False), (29.9, False), (30, True), (200, True)])
async def test_a_host_is_not_judged_by_less_time_than_every_request_gets(
    services: Services, seconds: float, counts: bool
) -> None:
    await break_host(services, TimedOut(seconds))
    assert (await hosts(services)).get(HOST) is (BreakerState.OPEN if counts else None)
    await call(services)
    assert len(await claim(services)) == (0 if counts else 1)


async def test_a_host_that_does_not_answer_in_a_probes_shorter_time_is_probed_again(
    services: Services, clock: FrozenClock
) -> None:
    await break_host(services)
    clock.forward(20)
    await call(services, max_attempts=1, timeout_seconds=0.3)
    await settle(services, await claim(services), TimedOut(0.3))
    assert await hosts(services) == {HOST: BreakerState.HALF_OPEN}
    await call(services)
    assert len(await claim(services)) == 1


async def test_every_worker_obeys_what_one_found_out(services: Services, others: Services) -> None:
    await break_host(services)
    held = await call(others)
    assert await claim(others) == []
    assert (await others.tasks.get(held)).status is Status.SCHEDULED


@pytest.mark.parametrize("outcome", [NO, DONE])
async def test_a_host_that_answers_works(services: Services, clock: FrozenClock, outcome: Outcome) -> None:
    """Whatever it thinks of the request. One task tries it; the others wait for what it says."""
    await break_host(services)
    for _ in range(3):
        await call(services)
    assert await claim(services) == []
    clock.forward(120)
    probing = await claim(services)
    assert len(probing) == HOST_RULE.probes
    assert await hosts(services) == {HOST: BreakerState.HALF_OPEN}
    assert await claim(services) == []
    await settle(services, probing, outcome)
    assert await hosts(services) == {}
    clock.forward(60)
    assert len(await claim(services)) == 2


async def test_a_probe_of_a_host_that_fails_opens_it_again_for_longer(services: Services, clock: FrozenClock) -> None:
    await break_host(services)
    await call(services)
    clock.forward(120)
    await settle(services, await claim(services), UNREACHABLE)
    circuit = (await report(services, HOST)).circuit
    assert (circuit.trips, circuit.state) == (2, BreakerState.OPEN)


@pytest.mark.parametrize(
    "outcome", [Lost("killed"), Released("stopped"), Errored("SecretsMissing", "set it"), Cancelled()]
)
async def test_what_the_host_did_not_do_says_nothing_of_it(services: Services, outcome: Outcome) -> None:
    await break_host(services, outcome)
    assert await hosts(services) == {}


async def test_failures_that_are_not_in_a_row_do_not_open_it(services: Services) -> None:
    for _ in range(2 * HOST_RULE.failures):
        for outcome in (SERVER_ERROR, NO):
            await call(services, max_attempts=1)
            await settle(services, await claim(services), outcome)
    assert await hosts(services) == {}


async def test_what_is_held_back_gives_its_place_to_others(services: Services) -> None:
    await break_host(services)
    held = await call(services, concurrency_key="k")
    (other,) = await submit(services, "http_request", payload={"url": "https://b.example.com/"}, concurrency_key="k")
    assert await claim(services) == []
    await services.chores.share_out_places()
    assert [task.id for task in await claim(services)] == [other]
    assert (await services.tasks.get(held)).status is Status.SCHEDULED


async def test_what_is_held_back_may_expire(services: Services, clock: FrozenClock) -> None:
    await break_host(services)
    held = await call(services, expires_at=clock() + timedelta(seconds=5))
    assert await claim(services) == []
    clock.forward(6)
    await services.chores.expire()
    assert (await services.tasks.get(held)).status is Status.FAILED


async def test_a_worker_looks_again_at_once_when_all_it_got_was_held_back(services: Services) -> None:
    await break_host(services)
    for _ in range(3):
        await call(services)
    exchange = await services.queue.exchange(
        "w1", [], lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 2)]
    )
    assert exchange.claimed == ()
    assert exchange.next_due_at == services.database.clock()()


async def test_a_person_may_hold_a_host_back_and_let_it_go(services: Services, clock: FrozenClock) -> None:
    await services.breakers.trip(HOST, "they move house", None)
    held = await call(services)
    assert await claim(services) == []
    await services.breakers.reset(HOST)
    clock.forward(1.2 * LONGEST_HOLD_SECONDS)
    assert [task.id for task in await claim(services)] == [held]


async def test_hosts_have_no_breakers_where_they_are_switched_off(settings: Settings, clock: FrozenClock) -> None:
    off = settings.model_copy(update={"host_breakers": False})
    async with open_services(off, clock=clock, monotonic=clock.monotonic) as services:
        await break_host(services)
        assert await hosts(services) == {}
        task_id = await call(services)
        assert [task.id for task in await claim(services)] == [task_id]
        with pytest.raises(NotFound):
            await services.breakers.trip(HOST, "no", None)


async def test_only_so_many_hosts_are_remembered(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "MOST_HOSTS", 2)
    await break_host(services)
    for name in "abc":
        await call(services, f"https://{name}.example.com/", max_attempts=1)
        await settle(services, await claim(services), UNREACHABLE)
    assert set(await hosts(services)) == {HOST, "host:c.example.com:443"}


async def test_a_tenants_failures_hold_back_its_own_calls_alone(services: Services, clock: FrozenClock) -> None:
    await break_host(services, tenant="north")
    assert await hosts(services) == {f"{HOST}:tenant:north": BreakerState.OPEN}
    held = await call(services, tenant="north")
    free = [await call(services, tenant="south"), await call(services)]
    assert [task.id for task in await claim(services)] == free
    explained = await services.explainer.explain(held, "north")
    messages = [reason.message for reason in explained.reasons if reason.reason is Why.BREAKER_OPEN]
    assert f"{HOST}:tenant:north" in messages[0]
    clock.forward(1.2 * LONGEST_HOLD_SECONDS)
    (probe,) = await claim(services)
    await settle(services, [probe], DONE)
    assert await hosts(services) == {}


async def test_what_belongs_to_no_tenant_holds_back_no_tenant(services: Services) -> None:
    await break_host(services)
    held, free = await call(services), await call(services, tenant="north")
    assert [task.id for task in await claim(services)] == [free]
    assert (await services.tasks.get(held)).status is Status.SCHEDULED


async def test_a_person_who_holds_a_host_back_holds_it_back_for_every_tenant(
    services: Services, clock: FrozenClock
) -> None:
    await services.breakers.trip(HOST, "they move house", 600)
    held = [await call(services, tenant=tenant) for tenant in ("north", "")]
    assert await claim(services) == []
    explained = await services.explainer.explain(held[0], "north")
    assert [reason.until for reason in explained.reasons if reason.reason is Why.BREAKER_OPEN]
    clock.forward(700)
    assert [task.id for task in await claim(services)] == held
    await services.breakers.trip(f"{HOST}:tenant:north", "they pay no more", None)
    other = await call(services, tenant="south")
    await call(services, tenant="north")
    assert [task.id for task in await claim(services)] == [other]


async def test_a_tenant_is_no_probe_of_what_a_person_has_tripped(services: Services, clock: FrozenClock) -> None:
    await services.breakers.trip(HOST, "they move house", 60)
    clock.forward(61)
    await call(services, tenant="north", max_attempts=1)
    await settle(services, await claim(services), SERVER_ERROR)
    assert await hosts(services) == {
        HOST: BreakerState.HALF_OPEN,
        f"{HOST}:tenant:north": BreakerState.CLOSED,
    }


async def test_a_tenant_that_invents_hosts_takes_no_place_of_others(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "MOST_HOSTS_OF_A_TENANT", 2)
    for tenant in ("south", ""):
        await call(services, tenant=tenant, max_attempts=1)
        await settle(services, await claim(services), UNREACHABLE)
    for name in "abc":
        await call(services, f"https://{name}.example.com/", tenant="north", max_attempts=1)
        await settle(services, await claim(services), UNREACHABLE)
    north = {name for name in await hosts(services) if name.endswith(":tenant:north")}
    assert len(north) == 2
    assert set(await hosts(services)) - north == {HOST, f"{HOST}:tenant:south"}


async def test_hosts_that_nobody_calls_any_more_are_forgotten(services: Services, clock: FrozenClock) -> None:
    await break_host(services)
    await call(services, "https://a.example.com/", max_attempts=1)
    await settle(services, await claim(services), UNREACHABLE)
    clock.forward(61)
    await services.breakers.forget_hosts()
    assert set(await hosts(services)) == {HOST}
    clock.forward(400)
    await services.breakers.forget_hosts()
    async with services.database.read() as connection:
        assert await rows.found(connection) == {}
