"""Run as a program: a day of the service in one process, telling in a file what it has acknowledged, in order.

python -m tests.chaos.workload DATABASE TOLD FULL|RELAXED ROUNDS
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from app.core.lifecycle import Completed, Errored
from app.core.settings import Settings
from app.core.task import JsonText
from app.models import sqlite
from app.models.queue import Head
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.conftest import SAMPLES, FrozenClock

CHECKPOINT_PAGES = 50
"""So that a short day has many checkpoints: with the default of 1000 it would have none."""


def checkpoint_often() -> None:
    """Every connection opened from now on writes the log back after few pages."""
    set_pragmas = sqlite._set_pragmas

    def set_more(connection: Any, manner: sqlite.Manner) -> None:
        set_pragmas(connection, manner)
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")

    sqlite._set_pragmas = set_more


def choose(heads: Sequence[Head]) -> list[Wish]:
    return [Wish(tuple((head.queue, head.task_type) for head in heads), 8)]


class Day:
    """Rounds of submitting, working and deleting what is old."""

    def __init__(self, services: Services, clock: FrozenClock, tell: Callable[..., None]) -> None:
        self._services = services
        self._clock = clock
        self._tell = tell
        self._ended: list[int] = []

    async def submit(self, number: int) -> None:
        body = {"task_type": "echo", "payload": {"number": number, "text": "x" * (37 * number % 700)}}
        prepared = self._services.intake.prepare(Submission.model_validate(body), f"key-{number}")
        answer = await self._services.tasks.submit(prepared)
        self._tell(stored=answer.task.id)

    async def work(self) -> None:
        """Claims and renewals need not survive; what was settled must."""
        queue = self._services.queue
        exchange = await queue.exchange("w", [], choose)
        await queue.renew([(task.id, task.lease) for task in exchange.claimed])
        now = self._clock()
        ended = [
            Ended(
                task,
                Errored("E", "no", retryable=task.id % 2 == 0) if task.id % 5 == 0 else Completed(JsonText("1")),
                now,
            )
            for task in exchange.claimed
        ]
        await queue.exchange("w", ended)
        for one in ended:
            self._ended.append(one.task.id)
            if isinstance(one.outcome, Completed):
                self._tell(completed=one.task.id)

    async def forget_old(self) -> None:
        """Two months later. What may be gone from now on is told before."""
        self._clock.forward(60 * 86400)
        self._tell(forgotten=self._ended)
        self._ended = []
        await self._services.upkeep.do("prune")

    async def live(self, rounds: int) -> None:
        for number in range(rounds):
            together: list[Awaitable[None]] = [self.submit(5 * number + place) for place in range(5)]
            await asyncio.gather(*together, self.work())
            if number % 20 == 19:
                await self.forget_old()


async def main(url: str, told: str, durability: str, rounds: int) -> None:
    handle = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(**what: Any) -> None:
        os.write(handle, json.dumps(what).encode() + b"\n")

    settings = Settings.model_validate(
        {"database_url": url, "executor_modules": (SAMPLES,), "durability": durability, "files_dir": told + ".files"}
    )
    clock = FrozenClock()
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as services:
        await Day(services, clock, tell).live(rounds)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    checkpoint_often()
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
