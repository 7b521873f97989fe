"""Work to do, without processes: claim and settle as a worker would."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.core.lifecycle import Outcome
from app.core.task import ClaimedTask
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services
from tests.conftest import FrozenClock, both_stores

__all__ = ["both_stores", "lose_leases", "others_told"]


async def lose_leases(services: Services, clock: FrozenClock) -> None:
    """A lease's time passes, in which no worker renews; then somebody sweeps who has watched all the while."""
    await services.chores.sweep()
    clock.forward(services.settings.lease_seconds + 1)
    await services.chores.sweep()


Submit = Callable[..., Awaitable[int]]
Claim = Callable[..., Awaitable[list[ClaimedTask]]]
Settle = Callable[..., Awaitable[None]]


async def others_told() -> None:
    """Wait for what an exchange leaves to the loop: it tells listeners while the next one is in the database."""
    await asyncio.sleep(0)


@pytest.fixture
def submit(services: Services) -> Submit:
    async def submit_task(task_type: str = "echo", idempotency_key: str | None = None, **fields: Any) -> int:
        submission = Submission(task_type=task_type, **fields)
        return (await services.tasks.submit(services.intake.prepare(submission, idempotency_key))).task.id

    return submit_task


@pytest.fixture
def claim(services: Services) -> Claim:
    async def claim_tasks(room: int = 10, worker: str = "w1", queues: tuple[str, ...] = ()) -> list[ClaimedTask]:
        exchange = await services.queue.exchange(
            worker, [], lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), room)], queues
        )
        await others_told()
        return list(exchange.claimed)

    return claim_tasks


@pytest.fixture
def settle(services: Services) -> Settle:
    async def settle_task(task: ClaimedTask, outcome: Outcome, worker: str = "w1", **more: Any) -> None:
        await services.queue.exchange(worker, [Ended(task, outcome, services.database.clock()(), 0.01, **more)])
        await others_told()

    return settle_task
