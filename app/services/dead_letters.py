"""What may be done with dead letters: look, group them by cause, requeue, resolve, purge; one, a group or a filter."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from app.core.audit import Action, Actor, Deed
from app.core.events import DeadLettersPurged, DeadLettersResolved, EventBus, TasksRequeued
from app.core.task import Task
from app.models import chores as chore_rows
from app.models import dead_letters as rows
from app.models import files as file_rows
from app.models import tasks as task_rows
from app.models.database import Connection, Database, retried
from app.models.dead_letters import CauseGroup, Chosen, DeadFilter
from app.services.audit import note
from app.services.concurrency import share_out
from app.services.limits import QueueLimits
from app.services.quota import Quota

BATCH = 500
SAMPLES = 10
MOST_SKIPPED = 100


@dataclass(slots=True)
class ActionReport:
    """What an action did, or would do: how many dead letters matched and were changed, the ids of the first few, and
    those that were left alone, with the reason."""

    dry_run: bool
    matched: int = 0
    changed: int = 0
    task_ids: list[int] = field(default_factory=list)
    skipped: list[dict[str, object]] = field(default_factory=list)


class DeadLetters:
    """Failed tasks that nobody has dealt with."""

    def __init__(
        self, database: Database, bus: EventBus, limits: QueueLimits, priority_step_seconds: float, quota: Quota
    ) -> None:
        self._database = database
        self._bus = bus
        self._step = priority_step_seconds
        self._clock = database.clock()
        self._limits = limits
        self._quota = quota

    async def search(self, wanted: DeadFilter, limit: int, before_id: int | None = None) -> list[Task]:
        """Up to `limit` dead letters, newest first."""
        async with self._database.read() as connection:
            return await rows.search(connection, wanted, limit, before_id)

    async def groups(self, wanted: DeadFilter, limit: int) -> tuple[int, list[CauseGroup]]:
        """How many dead letters there are, and the largest groups of one cause."""
        async with self._database.read() as connection:
            return await rows.count(connection, wanted), await rows.groups(connection, wanted, limit, SAMPLES)

    async def requeue(self, wanted: DeadFilter, *, dry_run: bool, by: Actor | None = None) -> ActionReport:
        """Run them again, now, with a fresh budget of attempts; their history stays. One whose unique key another
        unfinished task holds is left alone, and so is one whose tenant or queue has as many tasks waiting as it may."""
        deed = _Deed(by, Action.DEAD_LETTERS_REQUEUE)
        return await self._each_batch(wanted, dry_run, self._requeue, TasksRequeued, deed)

    async def resolve(
        self, wanted: DeadFilter, note: str | None, *, dry_run: bool, by: Actor | None = None
    ) -> ActionReport:
        """Say that they are dealt with: they stay failed, and are no dead letters any more."""

        async def resolve(connection: Connection, chosen: Sequence[Chosen]) -> _Done:
            return _Done(await rows.resolve(connection, [one.id for one in chosen], self._clock(), note))

        deed = _Deed(by, Action.DEAD_LETTERS_RESOLVE, {"note": note})
        return await self._each_batch(wanted, dry_run, resolve, DeadLettersResolved, deed)

    async def purge(self, wanted: DeadFilter, *, dry_run: bool, by: Actor | None = None) -> ActionReport:
        """Delete them, with their history and files."""

        async def purge(connection: Connection, chosen: Sequence[Chosen]) -> _Done:
            ids = [one.id for one in chosen]
            await file_rows.let_go(connection, ids, self._clock())
            await chore_rows.prune(connection, ids)
            return _Done(ids)

        deed = _Deed(by, Action.DEAD_LETTERS_PURGE)
        return await self._each_batch(wanted, dry_run, purge, DeadLettersPurged, deed)

    async def _requeue(self, connection: Connection, chosen: Sequence[Chosen]) -> "_Done":
        keyed = [one for one in chosen if one.unique_key is not None]
        keys, tenants = {one.unique_key for one in keyed if one.unique_key}, {one.tenant for one in keyed}
        found = await task_rows.find_by_keys(connection, [], keys, tenants)
        holders = {(task.tenant, task.unique_key): task.id for task in found}
        free: list[Chosen] = []
        skipped: dict[int, str] = {}
        for one in chosen:
            id_, key, tenant, _ = one
            if key is not None and (tenant, key) in holders:
                skipped[id_] = f"task {holders[tenant, key]} holds its unique key"
                continue
            if key is not None:
                holders[tenant, key] = id_
            free.append(one)
        # The tenant is asked first: one without room is not to take what its queue has for others.
        over = await self._quota.over(connection, [one.tenant for one in free])
        skipped |= {free[place].id: str(refusal) for place, refusal in over.items()}
        free = [one for place, one in enumerate(free) if place not in over]
        full = await self._limits.full(connection, [one.queue for one in free])
        skipped |= {free[place].id: str(refusal) for place, refusal in full.items()}
        ready = [one.id for place, one in enumerate(free) if place not in full]
        requeued = await rows.requeue(connection, ready, self._clock(), self._step)
        await share_out(connection, {key for _, key in requeued})
        return _Done([id_ for id_, _ in requeued], skipped)

    async def _each_batch(
        self,
        wanted: DeadFilter,
        dry_run: bool,
        act: Callable[[Connection, Sequence[Chosen]], Awaitable["_Done"]],
        event: Callable[[tuple[int, ...]], object],
        deed: "_Deed",
    ) -> ActionReport:
        """Act in short transactions, so that a hundred thousand hold nobody up. A dry run does all of it and takes each
        batch back, so that it says what would really happen; but what a queue or a tenant has room for, it says of each batch
        as if no other had taken it."""
        report = ActionReport(dry_run)
        after_id = 0
        while True:
            chosen, done = await self._one_batch(wanted, after_id, dry_run, act, deed)
            if not chosen:
                return report
            after_id = chosen[-1].id
            report.matched += len(chosen)
            report.changed += len(done.ids)
            report.task_ids = (report.task_ids + sorted(done.ids))[:SAMPLES]
            report.skipped += [{"id": id_, "reason": reason} for id_, reason in done.skipped.items()]
            del report.skipped[MOST_SKIPPED:]
            if done.ids and not dry_run:
                self._bus.publish(event(tuple(done.ids)))

    @retried
    async def _one_batch(
        self,
        wanted: DeadFilter,
        after_id: int,
        dry_run: bool,
        act: Callable[[Connection, Sequence[Chosen]], Awaitable["_Done"]],
        deed: "_Deed",
    ) -> tuple[Sequence[Chosen], "_Done"]:
        chosen: Sequence[Chosen] = ()
        done = _Done([])
        with suppress(_TakeBack):
            async with self._database.write() as connection:
                chosen = await rows.choose(connection, wanted, after_id, BATCH)
                if chosen:
                    done = await act(connection, chosen)
                    await note(connection, deed.by, self._clock(), deed.done(wanted, done))
                if dry_run:
                    raise _TakeBack
        return chosen, done


@dataclass(frozen=True, slots=True)
class _Done:
    ids: list[int]
    skipped: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Deed:
    """What the audit log is told of an action: an entry for each batch, in its transaction."""

    by: Actor | None
    action: Action
    more: Mapping[str, object] = field(default_factory=dict)

    def done(self, wanted: DeadFilter, done: _Done) -> Deed:
        names = ("task_type", "queue", "failure_reason", "fingerprint", "ids")
        chosen = {name: getattr(wanted, name) for name in names if getattr(wanted, name) is not None}
        after = {"changed": len(done.ids), "task_ids": sorted(done.ids), "skipped": len(done.skipped), **self.more}
        return Deed(self.action, "dead letters", {"chosen": chosen or "all"}, after)


class _TakeBack(Exception):
    """Ends a transaction that was only tried."""
