"""Circuit breakers with real workers and runners, and a dependency that is really not there."""

import asyncio
import socket
from contextlib import closing
from typing import Any

import pytest

from app.core.breaker import BreakerState
from app.core.events import BreakerClosed, BreakerOpened, BreakerProbed
from app.core.task import Status
from app.services.breakers import BreakerReport
from tests.conftest import until
from tests.workers.conftest import Running, Start

MODULES = ("tests.breaker_executors",)


def free_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def heard(*workers: Running) -> list[object]:
    """What is told of breakers from now on, by any of these."""
    events: list[object] = []
    for running in workers:
        for kind in (BreakerOpened, BreakerProbed, BreakerClosed):
            running.services.bus.subscribe(kind, events.append)
    return events


async def report(running: Running, name: str) -> BreakerReport:
    (found,) = (one for one in await running.services.breakers.listed() if one.circuit.name == name)
    return found


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("workers", [1, 2])
async def test_an_outage_costs_a_few_attempts_and_everything_completes_when_it_is_over(
    start: Start, workers: int
) -> None:
    """No failure but those that opened it, and those of probes: whoever waited was not charged."""
    port = free_port()
    crowd = [await start(processes=1, executor_modules=MODULES) for _ in range(workers)]
    running = crowd[0]
    events = heard(*crowd)
    payload = {"port": port}
    ids = [await running.submit(("call", "call_shared")[n % 2], payload=payload) for n in range(40)]
    await until(lambda: sum(isinstance(one, BreakerProbed) for one in events) >= 3)
    found = await report(running, "port")
    assert found.circuit.trips >= 3
    assert found.state is not BreakerState.CLOSED
    assert "Connect" in str(found.circuit.reason)
    assert found.waiting > 30
    server = await asyncio.start_server(greet, "127.0.0.1", port)
    async with server:
        tasks = [await running.ended(task_id) for task_id in ids]
    assert {(task.status, task.result) for task in tasks} == {(Status.COMPLETED, '"hello"')}
    assert (await report(running, "port")).state is BreakerState.CLOSED
    histories = [await running.outcomes(task_id) for task_id in ids]
    opened = sum(isinstance(one, BreakerOpened) for one in events)
    first_rush = sum(one.count("error") for one in histories) - (opened - 1)  # it opens again when one probe fails
    # Three open it. What the workers had claimed before the first failure was known, four at most, may fail too.
    assert 3 <= first_rush <= 3 + 4 * workers


async def test_a_single_worker_lets_no_more_fail_than_it_takes_to_open(start: Start) -> None:
    running = await start(processes=1, executor_modules=MODULES)
    events = heard(running)
    ids = [await running.submit("call", payload={"port": free_port()}) for _ in range(20)]
    await until(lambda: any(isinstance(one, BreakerOpened) for one in events))
    await running.services.breakers.trip("port", "held for the test", None)
    attempts = [len(await running.outcomes(task_id)) for task_id in ids]
    assert sum(attempts) == 3


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("connection", "ConnectionRefusedError: nobody there"),
        ("by name", "TransportError: no route"),
        ("down", "DependencyDown: maintenance until noon"),
        ("time", "an attempt ran longer than its limit of 0.3 s"),
    ],
)
async def test_what_a_runner_saw_reaches_the_breaker(start: Start, how: str, reason: str) -> None:
    running = await start(executor_modules=MODULES)
    await running.submit("end", payload={"how": how})

    async def counted() -> Any:
        return (await report(running, "end")).circuit.failures

    assert await until(counted) == 1
    assert (await report(running, "end")).circuit.reason == reason


async def test_a_dependency_named_by_hand_counts_for_that_one(start: Start) -> None:
    running = await start(executor_modules=MODULES)
    await running.run("end", payload={"how": "other down"})
    assert (await report(running, "port")).circuit.failures == 1
    assert (await report(running, "end")).circuit.failures == 0


@pytest.mark.parametrize("how", ["bug", "fail", "undeclared down", "return"])
async def test_a_bug_is_no_outage(start: Start, how: str) -> None:
    running = await start(executor_modules=MODULES)
    await running.run("end", payload={"how": how})
    assert (await report(running, "end")).circuit.failures == 0
    assert (await report(running, "port")).circuit.failures == 0


async def test_dependency_down_is_retried_after_its_own_wait(start: Start) -> None:
    running = await start(executor_modules=MODULES)
    task_id = await running.submit("end", payload={"how": "down"}, max_attempts=3)
    task = await running.in_status(task_id, Status.RETRYING)
    assert task.attempts == 1
    (attempt,) = await running.services.tasks.attempts(task_id)
    assert attempt.delay_seconds == 30


async def test_a_reset_wakes_an_idle_worker(start: Start) -> None:
    running = await start(executor_modules=MODULES, poll_seconds=300)
    await running.services.breakers.trip("free", "too many", None)
    task_id = await running.submit("free")
    await until(lambda: running.worker._next_due_at is None and not running.pool.running())
    assert (await running.get(task_id)).status is Status.PENDING
    await running.services.breakers.reset("free")
    assert (await running.ended(task_id, 10)).status is Status.COMPLETED


async def test_the_end_of_an_open_time_wakes_an_idle_worker(start: Start) -> None:
    running = await start(executor_modules=MODULES, poll_seconds=300)
    await running.services.breakers.trip("free", "too many", 0.3)
    task_id = await running.submit("free")
    assert (await running.ended(task_id, 10)).status is Status.COMPLETED
