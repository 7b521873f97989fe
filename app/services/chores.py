"""What is done to tasks, and to the rest of the store, beside the work itself: each chore is idempotent, works in small
batches, and may be done by any process. `upkeep.py` says how often."""

from datetime import timedelta

from app.core.ahead import brought_back
from app.core.concurrency import AS_IT_IS, shift
from app.core.events import (
    BroughtBack,
    EventBus,
    LogGrown,
    TasksAdmitted,
    TasksExpired,
    TasksPromoted,
    TasksPruned,
    TasksSettled,
)
from app.core.fingerprint import fingerprint
from app.core.leases import LeaseWatch
from app.core.settings import Settings
from app.core.task import Status, TaskError
from app.models import chores as rows
from app.models import concurrency as key_rows
from app.models import files as file_rows
from app.models import workers as worker_rows
from app.models.database import Database, retried
from app.models.queue import error_json
from app.services.breakers import Breakers
from app.services.concurrency import share_out
from app.services.settling import Settler, settlement_of_expired
from app.services.wall_clock import WallClock

BATCH = 500
KEYS_AT_ONCE = 200
KEYS_LIVE = timedelta(hours=24)
SILENT_WORKERS_LIVE = timedelta(hours=24)


class Chores:
    """Promote due tasks, sweep lost leases, expire what never started, prune what is old, give away places that were passed
    over, forget workers; keep the database's log short, bring back what lies ahead of a clock that was set back.
    """

    def __init__(
        self,
        database: Database,
        settler: Settler,
        breakers: Breakers,
        bus: EventBus,
        settings: Settings,
        wall: WallClock,
    ) -> None:
        self._database = database
        self._settler = settler
        self._breakers = breakers
        self._bus = bus
        self._settings = settings
        self._clock = database.clock()
        self._wall = wall
        self._leases = LeaseWatch(settings.lease_seconds)
        self._set_backs_seen_to = 0
        self._keys_seen_to = ""

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
        wall, monotonic = self._clock(), self._wall.monotonic()
        async with self._database.read() as connection:
            standing_out = await rows.leases_that_end(connection, *self._leases.stands_out(wall))
        over = self._leases.over(standing_out, wall, monotonic)
        if not over:
            return False
        async with self._database.write() as connection:
            decided, notices = await self._settler.take_back(
                connection, over[:BATCH], "the lease ran out; its worker died or froze", wall
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
        seen_to = self._wall.set_backs()
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
            notices = await self._settler.announce(connection, ids, now)
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

    @retried
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
