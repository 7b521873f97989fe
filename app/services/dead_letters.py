"""What may be done with dead letters: look, group them by cause, requeue, resolve, purge; one, a group or a filter."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.core.events import DeadLettersPurged, DeadLettersResolved, EventBus, TasksRequeued
from app.core.task import Task
from app.models import chores as chore_rows
from app.models import dead_letters as rows
from app.models import files as file_rows
from app.models import tasks as task_rows
from app.models.database import Connection, Database
from app.models.dead_letters import CauseGroup, DeadFilter

BATCH = 500
SAMPLES = 10
MOST_SKIPPED = 100

Action = Literal["requeue", "resolve", "purge"]


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

    def __init__(self, database: Database, bus: EventBus, priority_step_seconds: float) -> None:
        self._database = database
        self._bus = bus
        self._step = priority_step_seconds
        self._clock = database.clock()

    async def search(self, wanted: DeadFilter, limit: int, before_id: int | None = None) -> list[Task]:
        """Up to `limit` dead letters, newest first."""
        async with self._database.read() as connection:
            return await rows.search(connection, wanted, limit, before_id)

    async def groups(self, wanted: DeadFilter, limit: int) -> tuple[int, list[CauseGroup]]:
        """How many dead letters there are, and the largest groups of one cause."""
        async with self._database.read() as connection:
            return await rows.count(connection, wanted), await rows.groups(connection, wanted, limit, SAMPLES)

    async def requeue(self, wanted: DeadFilter, *, dry_run: bool) -> ActionReport:
        """Run them again, now, with a fresh budget of attempts; their history stays. One whose unique key another
        unfinished task holds is left alone."""
        return await self._each_batch(wanted, dry_run, self._requeue, TasksRequeued)

    async def resolve(self, wanted: DeadFilter, note: str | None, *, dry_run: bool) -> ActionReport:
        """Say that they are dealt with: they stay failed, and are no dead letters any more."""

        async def resolve(connection: Connection, chosen: Sequence[tuple[int, str | None]]) -> _Done:
            return _Done(await rows.resolve(connection, [id_ for id_, _ in chosen], self._clock(), note))

        return await self._each_batch(wanted, dry_run, resolve, DeadLettersResolved)

    async def purge(self, wanted: DeadFilter, *, dry_run: bool) -> ActionReport:
        """Delete them, with their history and files."""

        async def purge(connection: Connection, chosen: Sequence[tuple[int, str | None]]) -> _Done:
            ids = [id_ for id_, _ in chosen]
            await file_rows.let_go(connection, ids, self._clock())
            await chore_rows.prune(connection, ids)
            return _Done(ids)

        return await self._each_batch(wanted, dry_run, purge, DeadLettersPurged)

    async def _requeue(self, connection: Connection, chosen: Sequence[tuple[int, str | None]]) -> "_Done":
        keys = {key for _, key in chosen if key is not None}
        holders = {task.unique_key: task.id for task in await task_rows.find_by_keys(connection, [], keys)}
        ready, skipped = [], {}
        for id_, key in chosen:
            if key is not None and key in holders:
                skipped[id_] = f"task {holders[key]} holds its unique key"
                continue
            if key is not None:
                holders[key] = id_
            ready.append(id_)
        return _Done(await rows.requeue(connection, ready, self._clock(), self._step), skipped)

    async def _each_batch(
        self,
        wanted: DeadFilter,
        dry_run: bool,
        act: Callable[[Connection, Sequence[tuple[int, str | None]]], Awaitable["_Done"]],
        event: Callable[[tuple[int, ...]], object],
    ) -> ActionReport:
        """Act in short transactions, so that a hundred thousand hold nobody up. A dry run does all of it and takes each
        batch back, so that it says what would really happen."""
        report = ActionReport(dry_run)
        after_id = 0
        while True:
            done = _Done([])
            try:
                async with self._database.write() as connection:
                    chosen = await rows.choose(connection, wanted, after_id, BATCH)
                    if chosen:
                        done = await act(connection, chosen)
                    if dry_run:
                        raise _TakeBack
            except _TakeBack:
                pass
            if not chosen:
                return report
            after_id = chosen[-1][0]
            report.matched += len(chosen)
            report.changed += len(done.ids)
            report.task_ids = (report.task_ids + sorted(done.ids))[:SAMPLES]
            report.skipped += [{"id": id_, "reason": reason} for id_, reason in done.skipped.items()]
            del report.skipped[MOST_SKIPPED:]
            if done.ids and not dry_run:
                self._bus.publish(event(tuple(done.ids)))


@dataclass(frozen=True, slots=True)
class _Done:
    ids: list[int]
    skipped: dict[int, str] = field(default_factory=dict)


class _TakeBack(Exception):
    """Ends a transaction that was only tried."""
