"""Upkeep that any process may do at any time, without a leader: each chore is idempotent and works in small batches."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from app.core.ahead import brought_back
from app.core.clock import JumpDetector
from app.core.concurrency import AS_IT_IS, shift
from app.core.errors import StoreUnavailable
from app.core.events import (
    BroughtBack,
    ClockJumped,
    EventBus,
    LogGrown,
    StoreTroubled,
    TasksAdmitted,
    TasksExpired,
    TasksPromoted,
    TasksPruned,
    TasksSettled,
)
from app.core.fingerprint import fingerprint
from app.core.leases import LeaseWatch
from app.core.logger import structlog
from app.core.settings import Settings
from app.core.task import Status, TaskError
from app.models import chores as rows
from app.models import concurrency as key_rows
from app.models import files as file_rows
from app.models import workers as worker_rows
from app.models.database import Database, retried
from app.models.queue import error_json
from app.services.alerts import Alerts
from app.services.audit import AuditLog
from app.services.breakers import Breakers
from app.services.concurrency import share_out
from app.services.files import FileService
from app.services.limits import QueueLimits
from app.services.queue import TaskQueue, settlement_of_expired
from app.services.tallies import Tallies

BATCH = 500
BREATH_SECONDS = 0.01
"""Pause between two batches of one chore, in which others may write."""
KEYS_AT_ONCE = 200
KEYS_LIVE = timedelta(hours=24)
SILENT_WORKERS_LIVE = timedelta(hours=24)
STEADY_SECONDS = 3600.0
"""How long nothing is deleted for its age after the wall clock was set: until somebody has noticed, if it was a mistake."""


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do every `every_seconds`; `run` says whether it should be done again at once. `for_work`: it is there
    for work to be found, and may be left to others by who is told of work anyway."""

    name: str
    every_seconds: float
    run: Callable[[], Awaitable[bool]]
    for_work: bool = False


class Chores:
    """Promote due tasks, sweep lost leases, expire what never started, prune what is old, collect files, forget workers,
    look for alerts and tell of them; keep the database's log short, bring back what lies ahead of a clock that was set back.
    """

    def __init__(
        self,
        database: Database,
        queue: TaskQueue,
        files: FileService,
        breakers: Breakers,
        limits: QueueLimits,
        tallies: Tallies,
        alerts: Alerts,
        audit: AuditLog,
        bus: EventBus,
        settings: Settings,
        random: Random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._queue = queue
        self._files = files
        self._breakers = breakers
        self._tallies = tallies
        self._alerts = alerts
        self._audit = audit
        self._bus = bus
        self._settings = settings
        self._random = random
        self._clock = database.clock()
        self._monotonic = monotonic
        self._jumps = JumpDetector()
        self._leases = LeaseWatch(settings.lease_seconds)
        self._set_backs = 1  # before we were there, for all we know
        self._set_backs_seen_to = 0
        self._keys_seen_to = ""
        self.all = (
            Chore("promote", settings.poll_seconds, self.promote, for_work=True),
            Chore("expire", settings.poll_seconds, self.expire, for_work=True),
            Chore("sweep", settings.sweep_seconds, self.sweep),
            Chore("bring back", settings.sweep_seconds, self.bring_back),
            Chore("share out places", settings.sweep_seconds, self.share_out_places),
            Chore("see the limits", settings.poll_seconds, limits.refresh),
            Chore("write tallies", 2 * settings.poll_seconds, tallies.write),
            Chore("look for alerts", settings.alert_look_seconds, alerts.look),
            Chore("tell of alerts", settings.sweep_seconds, alerts.tell),
            Chore("prune", 60, self.prune),
            Chore("prune tallies", 3600, self.prune_tallies),
            Chore("prune alerts", 3600, self.prune_alerts),
            Chore("prune the audit log", 3600, self.prune_audit),
            Chore("collect files", 60, self.collect_files),
            Chore("clear drafts", 3600, self.clear_drafts),
            Chore("forget workers", 600, self.forget_workers),
            Chore("forget hosts", 60, breakers.forget_hosts),
            Chore("shorten the log", 5, self.shorten_log),
        )

    async def run(self, rest: Callable[[float], float] = lambda seconds: seconds) -> None:
        """Do every chore at its interval until cancelled; what is there for work to be found, at what `rest` makes of it.
        Trouble with the store only delays them."""
        async with asyncio.TaskGroup() as group:
            for chore in self.all:
                group.create_task(self._repeat(chore, rest))

    async def _repeat(self, chore: Chore, rest: Callable[[float], float]) -> None:
        while True:
            # Jitter, so that many processes do not all look at the same moment.
            seconds = rest(chore.every_seconds) if chore.for_work else chore.every_seconds
            await asyncio.sleep(seconds * self._random.uniform(0.75, 1.25))
            try:
                again = await chore.run()
                while again:
                    await asyncio.sleep(BREATH_SECONDS)
                    again = await chore.run()
            except StoreUnavailable as error:
                self._bus.publish(StoreTroubled(chore.name, str(error)))
            except Exception:  # one chore that fails must not end the others, nor itself for ever
                structlog.get_logger("app.chores").exception("a chore failed", chore=chore.name)

    @retried
    async def promote(self) -> bool:
        """Make due tasks ready. True if more may be due."""
        now = self._clock()
        async with self._database.read() as connection:
            due_at = await rows.next_due(connection)
        if due_at is None or due_at > now:
            return False
        async with self._database.write(durable=False) as connection:
            promoted = await rows.promote_due(connection, now, BATCH)
            await share_out(connection, {key for _, key in promoted})
        if promoted:
            self._bus.publish(TasksPromoted(len(promoted), tuple({queue for queue, _ in promoted})))
        return len(promoted) == BATCH

    @retried
    async def sweep(self) -> bool:
        """Take back leases that nobody renewed for as long as they last. True if there are more.

        A process that has just started must first have watched them for that long.
        """
        wall, monotonic = self._clock(), self._monotonic()
        async with self._database.read() as connection:
            standing_out = await rows.leases_that_end(connection, *self._leases.stands_out(wall))
        over = self._leases.over(standing_out, wall, monotonic)
        if not over:
            return False
        async with self._database.write() as connection:
            decided, notices = await self._queue.take_back(
                connection, over[:BATCH], "the lease ran out; its worker died or froze"
            )
        if decided:
            settlements = tuple(settlement_of_expired(task, change) for task, change in decided)
            self._bus.publish(TasksSettled(None, settlements))
        if notices is not None:
            self._bus.publish(notices)
        return len(over) > BATCH

    async def bring_back(self) -> bool:
        """After the clock was set back, and once at the start, bring back what is dated ahead of it: places in the order
        of work, waits between attempts, open times of breakers. True if there may be more."""
        self._look_at_the_clock()
        seen_to = self._set_backs
        if self._set_backs_seen_to == seen_to:
            return False
        now, step = self._clock(), self._settings.priority_step_seconds
        breakers = await self._breakers.bring_back()
        async with self._database.read() as connection:
            ahead = await rows.waits_ahead(connection, now, step, BATCH)
        if ahead:
            async with self._database.write() as connection:
                await rows.move(connection, [brought_back(wait, now, step) for wait in ahead])
        if ahead or breakers:
            self._bus.publish(BroughtBack(len(ahead), breakers))
        if not ahead:
            self._set_backs_seen_to = seen_to
        return bool(ahead)

    def _look_at_the_clock(self) -> None:
        jump = self._jumps.observe(self._clock().timestamp(), self._monotonic())
        if jump:
            self._bus.publish(ClockJumped(jump))
        self._set_backs += jump < 0

    def _clock_is_steady(self) -> bool:
        """Whether what is old by the clock may be deleted: a clock that was just set may be set again."""
        self._look_at_the_clock()
        return self._jumps.settled(self._monotonic(), STEADY_SECONDS)

    @retried
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
            late = {one.id: one for one in await rows.overdue(connection, now, BATCH)}
            for task_type in {one.task_type for one in late.values()}:
                its = [one.id for one in late.values() if one.task_type == task_type]
                cause = fingerprint(task_type, error.type, error.message)
                ids += await rows.expire(connection, its, now, text, cause)
            await share_out(connection, {one.concurrency_key for one in late.values()})
            notices = await self._queue.announce(connection, ids, now)
        if ids:
            self._bus.publish(TasksExpired(tuple(ids), tuple((late[id_].queue, late[id_].task_type) for id_ in ids)))
        if notices is not None:
            self._bus.publish(notices)
        return len(ids) == BATCH

    @retried
    async def share_out_places(self) -> bool:
        """Give away places of concurrency keys that were passed over, because somebody who then thought better of it held the
        task that was next. True if there are more keys."""
        async with self._database.read() as connection:
            keys = await key_rows.keys_after(connection, self._keys_seen_to, KEYS_AT_ONCE)
            found = await key_rows.contenders(connection, keys)
        self._keys_seen_to = keys[-1] if len(keys) == KEYS_AT_ONCE else ""
        unfair = [key for key, contenders in found.items() if shift(contenders) != AS_IT_IS]
        if unfair:
            async with self._database.write(durable=False) as connection:
                admitted = await share_out(connection, unfair)
            if admitted:
                self._bus.publish(TasksAdmitted(tuple(admitted)))
        return len(keys) == KEYS_AT_ONCE

    async def prune_tallies(self) -> bool:
        """Delete tallies that are older than 30 days. True if there may be more."""
        return self._clock_is_steady() and await self._tallies.prune()

    async def prune_alerts(self) -> bool:
        """Delete alerts that cleared long ago. True if there may be more."""
        return self._clock_is_steady() and await self._alerts.prune()

    async def prune_audit(self) -> bool:
        """Delete entries of the audit log beyond their retention. True if there may be more."""
        return self._clock_is_steady() and await self._audit.prune()

    @retried
    async def prune(self) -> bool:
        """Delete finished tasks beyond their retention, a batch of each kind. True if more may be old."""
        if not self._clock_is_steady():
            return False
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
        return self._clock_is_steady() and await self._files.collect(BATCH)

    async def clear_drafts(self) -> bool:
        """Remove what was left half written by uploads and attempts that died."""
        await self._files.clear_drafts()
        return False

    async def forget_workers(self) -> bool:
        """Drop the rows of workers that have been silent for a day."""
        async with self._database.write(durable=False) as connection:
            await worker_rows.remove_silent(connection, self._clock() - SILENT_WORKERS_LIVE)
        return False

    async def shorten_log(self) -> bool:
        """Write the database's log back if it has grown long: SQLite does so by itself only while nobody reads."""
        if self._database.log_is_long:
            await self._database.shorten_log()
            if self._database.log_is_long:
                self._bus.publish(LogGrown(self._database.log_bytes))
        return False
