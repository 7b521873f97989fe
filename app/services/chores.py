"""Upkeep that any process may do at any time, without a leader: each chore is idempotent and works in small batches."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import structlog

from app.core.clock import JumpDetector
from app.core.errors import StoreUnavailable
from app.core.events import (
    ClockJumped,
    EventBus,
    StoreTroubled,
    TasksExpired,
    TasksPromoted,
    TasksPruned,
    TasksSettled,
)
from app.core.fingerprint import fingerprint
from app.core.settings import Settings
from app.core.task import Status, TaskError
from app.models import chores as rows
from app.models import files as file_rows
from app.models import workers as worker_rows
from app.models.database import Database
from app.models.queue import error_json
from app.services.files import FileService
from app.services.queue import TaskQueue, settlement_of_expired

BATCH = 500
BREATH_SECONDS = 0.01
"""Pause between two batches of one chore, in which others may write."""
KEYS_LIVE = timedelta(hours=24)
SILENT_WORKERS_LIVE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do every `every_seconds`; `run` says whether it should be done again at once."""

    name: str
    every_seconds: float
    run: Callable[[], Awaitable[bool]]


class Chores:
    """Promote due tasks, sweep lost leases, expire what never started, prune what is old, collect files, forget workers."""

    def __init__(
        self,
        database: Database,
        queue: TaskQueue,
        files: FileService,
        bus: EventBus,
        settings: Settings,
        random: Random,
    ) -> None:
        self._database = database
        self._queue = queue
        self._files = files
        self._bus = bus
        self._settings = settings
        self._random = random
        self._clock = database.clock()
        self._jumps = JumpDetector()
        self.all = (
            Chore("promote", settings.poll_seconds, self.promote),
            Chore("expire", settings.poll_seconds, self.expire),
            Chore("sweep", settings.sweep_seconds, self.sweep),
            Chore("prune", 60, self.prune),
            Chore("collect files", 60, self.collect_files),
            Chore("clear drafts", 3600, self.clear_drafts),
            Chore("forget workers", 600, self.forget_workers),
        )

    async def run(self) -> None:
        """Do every chore at its interval until cancelled. Trouble with the store only delays them."""
        async with asyncio.TaskGroup() as group:
            for chore in self.all:
                group.create_task(self._repeat(chore))

    async def _repeat(self, chore: Chore) -> None:
        while True:
            # Jitter, so that many processes do not all look at the same moment.
            await asyncio.sleep(chore.every_seconds * self._random.uniform(0.75, 1.25))
            try:
                again = await chore.run()
                while again:
                    await asyncio.sleep(BREATH_SECONDS)
                    again = await chore.run()
            except StoreUnavailable as error:
                self._bus.publish(StoreTroubled(chore.name, str(error)))
            except Exception:  # one chore that fails must not end the others, nor itself for ever
                structlog.get_logger("app.chores").exception("a chore failed", chore=chore.name)

    async def promote(self) -> bool:
        """Make due tasks ready. True if more may be due."""
        now = self._clock()
        async with self._database.read() as connection:
            due_at = await rows.next_due(connection)
        if due_at is None or due_at > now:
            return False
        async with self._database.write(durable=False) as connection:
            queues = await rows.promote_due(connection, now, BATCH)
        if queues:
            self._bus.publish(TasksPromoted(len(queues), tuple(set(queues))))
        return len(queues) == BATCH

    async def sweep(self) -> bool:
        """Take back leases that are over. Holds still for one lease after the wall clock jumped. True if more may be."""
        if not self._clock_is_trusted():
            return False
        async with self._database.write() as connection:
            decided = await self._queue.settle_expired(connection, BATCH, "the lease ran out; its worker died or froze")
        if decided:
            settlements = tuple(settlement_of_expired(task, change) for task, change in decided)
            self._bus.publish(TasksSettled(None, settlements))
        return len(decided) == BATCH

    def _clock_is_trusted(self) -> bool:
        wall, monotonic = self._clock().timestamp(), time.monotonic()
        jump = self._jumps.observe(wall, monotonic)
        if jump:
            self._bus.publish(ClockJumped(jump))
        return self._jumps.settled(monotonic, self._settings.lease_seconds)

    async def expire(self) -> bool:
        """Fail tasks that should have started by now. True if more may be over."""
        now = self._clock()
        async with self._database.read() as connection:
            first = await rows.next_expiry(connection)
        if first is None or first > now:
            return False
        error = TaskError("Expired", "it had not started by expires_at", 0, now)
        text = error_json(error)
        assert text is not None
        ids: list[int] = []
        async with self._database.write() as connection:
            late = await rows.overdue(connection, now, BATCH)
            for task_type in {task_type for _, task_type in late}:
                its = [id_ for id_, its_type in late if its_type == task_type]
                cause = fingerprint(task_type, error.type, error.message)
                ids += await rows.expire(connection, its, now, text, cause)
        if ids:
            self._bus.publish(TasksExpired(tuple(ids)))
        return len(ids) == BATCH

    async def prune(self) -> bool:
        """Delete finished tasks beyond their retention, a batch of each kind. True if more may be old."""
        now = self._clock()
        counts = []
        for status, kept_seconds in (
            (Status.COMPLETED, self._settings.retention_completed_seconds),
            (Status.FAILED, self._settings.retention_failed_seconds),
            (Status.CANCELLED, self._settings.retention_failed_seconds),
        ):
            before = now - timedelta(seconds=kept_seconds)
            async with self._database.write(durable=False) as connection:
                ids = await rows.prunable(connection, status, before, now - KEYS_LIVE, BATCH)
                if ids:
                    await file_rows.let_go(connection, ids, now)
                    await rows.prune(connection, ids)
                counts.append(len(ids))
        if sum(counts):
            self._bus.publish(TasksPruned(sum(counts)))
        return max(counts) == BATCH

    async def collect_files(self) -> bool:
        """Delete files whose time is over. True if there may be more."""
        return await self._files.collect(BATCH)

    async def clear_drafts(self) -> bool:
        """Remove what was left half written by uploads and attempts that died."""
        await self._files.clear_drafts()
        return False

    async def forget_workers(self) -> bool:
        """Drop the rows of workers that have been silent for a day."""
        async with self._database.write(durable=False) as connection:
            await worker_rows.remove_silent(connection, self._clock() - SILENT_WORKERS_LIVE)
        return False
