"""What clients may do with tasks. Each call owns its transaction and publishes what happened after the commit."""

import json
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import orjson

from app.core.attempt_log import Chunk
from app.core.audit import Action, Actor, Deed, difference
from app.core.clock import Clock
from app.core.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    NotFound,
    QueueFull,
    QuotaExceeded,
    StoreContended,
    UniqueKeyTaken,
)
from app.core.events import (
    EventBus,
    TaskCancelled,
    TaskCancelRequested,
    TaskDeleted,
    TaskEdited,
    TaskRetried,
    TasksAdmitted,
    TasksSubmitted,
)
from app.core.lifecycle import (
    Edit,
    edited,
    ensure_cancellable,
    ensure_deletable,
    ensure_editable,
    ensure_retryable,
)
from app.core.task import LARGEST_INTEGER, Attempt, NewTask, Status, Task, rank_of
from app.core.values import value
from app.models import attempts as attempt_rows
from app.models import files as file_rows
from app.models import queue as queue_rows
from app.models import task_logs as log_rows
from app.models import tasks as rows
from app.models.database import Connection, Database, retried
from app.models.task_logs import Position
from app.models.tasks import TaskFilter
from app.services.audit import note
from app.services.batcher import Batcher
from app.services.concurrency import share_out
from app.services.limits import QueueLimits
from app.services.quota import Quota
from app.services.webhooks import announce

ROWS_A_STATEMENT = 1000
MOST_SCANNED, FIRST_SCANNED = 10_000, 50
"""A search in texts looks at so many tasks, and at so many first."""
SCAN_SECONDS, LOOK_SECONDS = 0.5, 0.05
"""About how long it may take altogether, and for one look at the store."""


@value
class Submitted:
    """The answer to a submission. `replayed`: the idempotency key had this task already, nothing new was stored."""

    task: Task
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a search in texts found among `scanned` tasks. Those before `next_before_id` were not looked at, None if there are
    none."""

    tasks: tuple[Task, ...]
    scanned: int
    next_before_id: int | None


Fault = tuple[str, str] | QueueFull | QuotaExceeded
"""Field and message of what is wrong with a submission, or what has no room for it."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """What came of a batch of submissions, by their places in it: the ids of those that were stored, and what is wrong with
    others. `owners` are the tasks that hold the keys of the rest; the ids in `blocked` wait for a place of their key.
    """

    ids: dict[int, int]
    blocked: set[int]
    faults: dict[int, Fault]
    owners: list[Task]


_AUDITED = (
    *("status", "failure_reason", "attempts", "cancel_requested_at"),
    *("priority", "scheduled_at", "max_attempts", "tags", "metadata"),
)


def _deed(action: Action, before: Task, after: Task | None) -> Deed:
    """What was done to a task: of one that is gone what it was, of another what has changed."""
    target = f"task {before.id}"
    if after is None:
        return Deed(action, target, {"task_type": before.task_type, "queue": before.queue} | _audited(before))
    return Deed(action, target, *difference(_audited(before), _audited(after)))


def _audited(task: Task) -> dict[str, Any]:
    values = {name: getattr(task, name) for name in _AUDITED}
    return values | {"metadata": None if task.metadata is None else orjson.loads(task.metadata)}


class TaskService:
    """Submit, look up, list, edit, cancel, retry and delete tasks."""

    def __init__(
        self,
        database: Database,
        bus: EventBus,
        limits: QueueLimits,
        priority_step_seconds: float,
        quota: Quota,
    ) -> None:
        self._database = database
        self._limits = limits
        self._quota = quota
        self._bus = bus
        self._step = priority_step_seconds
        self._clock: Clock = database.clock()
        self._submissions: Batcher[NewTask, Submitted] = Batcher(self._store, size=_stored_size)
        self._lookups: Batcher[int, Task] = Batcher(self._load)

    async def close(self) -> None:
        """Return when every call under way has been answered."""
        await self._submissions.close()
        await self._lookups.close()

    async def submit(self, task: NewTask) -> Submitted:
        """Store a task; returns after the commit. Raises UniqueKeyTaken, IdempotencyMismatch, InvalidRequest,
        QuotaExceeded."""
        return await self._submissions(task)

    @retried
    async def submit_all(self, tasks: Sequence[NewTask]) -> list[int]:
        """Store all of `tasks` in one transaction, or none. Returns their ids in order. Raises as `submit` does."""
        self._limits.ensure_possible(tasks)
        now = self._clock()
        ids: list[int] = []
        async with self._database.write() as connection:
            faults = await self._faults(connection, tasks, now)
            if faults:
                place, (field, message) = min(faults.items())
                raise _refusal(field, message, ["tasks", place])
            for refused_for in (await self._full(connection, tasks)).values():
                raise refused_for
            for start in range(0, len(tasks), ROWS_A_STATEMENT):
                chunk = tasks[start : start + ROWS_A_STATEMENT]
                given, stored = await rows.insert_new(connection, chunk, now, self._step)
                refused = [task for id_, task in zip(given, chunk, strict=True) if id_ not in stored]
                ids += given
                if refused:
                    owners = await self._owners(connection, refused)
                    _ensure_owned(refused, owners)
                    raise _collision(refused[0], owners, within=ids)
                await _keep_files(connection, zip(given, chunk, strict=True))
            await share_out(connection, {task.concurrency_key for task in tasks})
        self._bus.publish(TasksSubmitted(tuple(ids), tuple(tasks)))
        return ids

    async def get(self, task_id: int, tenant: str = "") -> Task:
        """The task as it is now. Raises NotFound, for what is not that tenant's too; without a tenant all are seen."""
        if not 0 < task_id <= LARGEST_INTEGER:
            raise NotFound("task", task_id)
        task = await self._lookups(task_id)
        if tenant and task.tenant != tenant:
            raise NotFound("task", task_id)
        return task

    async def search(self, wanted: TaskFilter, limit: int, *, whole_rows: bool) -> list[Task]:
        """Up to `limit` tasks, newest first; payload and result are read only for `whole_rows`."""
        async with self._database.read() as connection:
            return await rows.search(connection, wanted, limit, whole_rows=whole_rows)

    async def find(self, wanted: TaskFilter, part: str, limit: int) -> Found:
        """Up to `limit` tasks with `part` in payload, result or error, newest first. Stops after MOST_SCANNED tasks, or when
        it has taken SCAN_SECONDS, and says how far it came."""
        texts = _spellings(part)
        deadline, size = time.monotonic() + SCAN_SECONDS, FIRST_SCANNED
        hits: list[int] = []
        scanned, complete = 0, False
        while len(hits) < limit and scanned < MOST_SCANNED and time.monotonic() < deadline and not complete:
            began = time.monotonic()
            async with self._database.read() as connection:
                seen = await rows.scan(connection, wanted, texts, size)
            complete = len(seen) < size
            for id_, hit in seen:
                if len(hits) == limit:
                    complete = False
                    break
                scanned += 1
                wanted = replace(wanted, before_id=id_)
                hits += [id_] if hit else []
            # Short looks: others want to read, too.
            size = size * 2 if time.monotonic() - began < LOOK_SECONDS else max(FIRST_SCANNED, size // 2)
            size = min(size, MOST_SCANNED - scanned or 1)
        async with self._database.read() as connection:
            tasks = await rows.get_many(connection, hits)
        whole = tuple(tasks[id_] for id_ in hits if id_ in tasks)
        return Found(whole, scanned, None if complete else wanted.before_id)

    async def attempts(self, task_id: int, tenant: str = "") -> list[Attempt]:
        """Every attempt of the task, oldest first; the running or completed one is read from the task itself."""
        task = await self.get(task_id, tenant)
        async with self._database.read() as connection:
            history = await attempt_rows.of_task(connection, task_id)
        current = _current_attempt(task)
        if current is not None and all(one.lease != current.lease for one in history):
            history.append(current)
        return history

    async def lines(self, task_id: int, read_to: Position = (0, 0), tenant: str = "") -> list[Chunk]:
        """What the task's attempts printed and logged behind `read_to`, oldest first, as far as it is kept. Raises NotFound."""
        await self.get(task_id, tenant)
        async with self._database.read() as connection:
            return await log_rows.after(connection, task_id, read_to)

    @retried
    async def edit(self, task_id: int, edit: Edit, tenant: str = "", by: Actor | None = None) -> Task:
        """Change a waiting task. Raises NotFound, Conflict, InvalidRequest."""
        async with self._database.write() as connection:
            task = await self._locked(connection, task_id, tenant)
            ensure_editable(task)
            values = edited(task, edit, self._clock(), self._step)
            if values:
                await rows.edit_waiting(connection, task_id, values)
                await share_out(connection, [task.concurrency_key])
            before, task = task, await self._locked(connection, task_id, tenant)
            await note(connection, by, self._clock(), _deed(Action.TASK_EDIT, before, task))
        self._bus.publish(TaskEdited(task))
        return task

    @retried
    async def cancel(self, task_id: int, tenant: str = "", by: Actor | None = None) -> Task:
        """End a waiting task, or ask a running one to stop. Raises NotFound, Conflict once it has ended otherwise."""
        now = self._clock()
        admitted: dict[int, str] = {}
        notices = None
        async with self._database.write() as connection:
            before = await self._locked(connection, task_id, tenant)
            ensure_cancellable(before)
            if before.status is Status.RUNNING and before.cancel_requested_at is None:
                await rows.request_cancel(connection, task_id, before.lease, now)
            elif before.status is not Status.RUNNING and await rows.cancel_waiting(connection, task_id, now):
                # Earlier attempts may have left something for the next one, which will not come.
                await queue_rows.drop_checkpoints(connection, [task_id])
                await file_rows.let_go_temporary(connection, [task_id], now)
                admitted = await share_out(connection, [before.concurrency_key])
                notices = await announce(connection, [task_id], now, self._step)
            task = await self._locked(connection, task_id, tenant)
            await note(connection, by, now, _deed(Action.TASK_CANCEL, before, task))
        if before.status is Status.RUNNING:
            self._bus.publish(TaskCancelRequested(task))
        elif not before.finished:
            self._bus.publish(TaskCancelled(task))
        self._tell(admitted)
        if notices is not None:
            self._bus.publish(notices)
        return task

    @retried
    async def retry(self, task_id: int, tenant: str = "", by: Actor | None = None) -> Task:
        """Run a failed or cancelled task again, now, with a fresh budget. Raises NotFound, Conflict, UniqueKeyTaken,
        QuotaExceeded, QueueFull."""
        now = self._clock()
        async with self._database.write() as connection:
            task = await self._locked(connection, task_id, tenant)
            ensure_retryable(task)
            if task.unique_key is not None:
                for holder in await rows.find_by_keys(connection, [], [task.unique_key], [task.tenant]):
                    raise UniqueKeyTaken(task.unique_key, holder.id, task.status)
            for refused in (await self._full(connection, [task])).values():
                raise refused
            await rows.make_ready_again(connection, task, now, rank_of(now, task.priority, self._step))
            await share_out(connection, [task.concurrency_key])
            before, task = task, await self._locked(connection, task_id, tenant)
            await note(connection, by, now, _deed(Action.TASK_RETRY, before, task))
        self._bus.publish(TaskRetried(task))
        return task

    @retried
    async def delete(self, task_id: int, tenant: str = "", by: Actor | None = None) -> None:
        """Delete a task that does not run, with its history. Raises NotFound, Conflict."""
        async with self._database.write() as connection:
            task = await self._locked(connection, task_id, tenant, delete=True)
            ensure_deletable(task)
            await file_rows.let_go(connection, [task_id], self._clock())
            await rows.delete_idle(connection, task_id)
            admitted = await share_out(connection, [task.concurrency_key])
            await note(connection, by, self._clock(), _deed(Action.TASK_DELETE, task, None))
        self._bus.publish(TaskDeleted(task))
        self._tell(admitted)

    def _tell(self, admitted: Collection[int]) -> None:
        if admitted:
            self._bus.publish(TasksAdmitted(tuple(admitted)))

    async def _locked(self, connection: Connection, task_id: int, tenant: str, *, delete: bool = False) -> Task:
        known = 0 < task_id <= LARGEST_INTEGER
        task = await rows.get_for_change(connection, task_id, tenant=tenant, delete=delete) if known else None
        if task is None:
            raise NotFound("task", task_id)
        return task

    async def _load(self, ids: Sequence[int]) -> list[Task | Exception]:
        async with self._database.read() as connection:
            found = await rows.get_many(connection, set(ids))
        return [found.get(id_) or NotFound("task", id_) for id_ in ids]

    @retried
    async def _store(self, tasks: Sequence[NewTask]) -> list[Submitted | Exception]:
        now = self._clock()
        async with self._database.write() as connection:
            batch = await self._database.at_once(connection, self._insert(connection, tasks, now), last=True)
        if batch.ids:
            stored = tuple(tasks[place] for place in batch.ids)
            self._bus.publish(TasksSubmitted(tuple(batch.ids.values()), stored))
        answers: list[Submitted | Exception] = []
        for place, task in enumerate(tasks):
            if place in batch.ids:
                blocked = batch.ids[place] in batch.blocked
                answers.append(Submitted(rows.stored_task(task, batch.ids[place], now, self._step, blocked=blocked)))
            elif place in batch.faults:
                # A repeated request gets its first answer, even if it would no longer be accepted now.
                fault = batch.faults[place]
                refusal = _refusal(*fault, []) if isinstance(fault, tuple) else fault
                answers.append(_replay(task, batch.owners) or refusal)
            else:
                answers.append(_replay(task, batch.owners) or _collision(task, batch.owners))
        return answers

    async def _insert(self, connection: Connection, tasks: Sequence[NewTask], now: datetime) -> "_Batch":
        """Store what is sound and collides with nothing, and find out what the rest collides with."""
        faults: dict[int, Fault] = {**await self._full(connection, tasks)}
        faults |= await self._faults(connection, tasks, now)
        sound = [place for place in range(len(tasks)) if place not in faults]
        given, stored = await rows.insert_new(connection, [tasks[place] for place in sound], now, self._step)
        ids = {place: id_ for place, id_ in zip(sound, given, strict=True) if id_ in stored}
        await _keep_files(connection, ((id_, tasks[place]) for place, id_ in ids.items()))
        blocked = {id_ for place, id_ in ids.items() if tasks[place].concurrency_key is not None}
        if blocked:
            blocked -= (await share_out(connection, {task.concurrency_key for task in tasks})).keys()
        collided = [tasks[place] for place in sound if place not in ids]
        refused = collided + [tasks[place] for place in faults]
        owners = await self._owners(connection, refused) if refused else []
        _ensure_owned(collided, owners)
        return _Batch(ids, blocked, faults, owners)

    async def _full(
        self, connection: Connection, tasks: Sequence[NewTask | Task]
    ) -> dict[int, QueueFull | QuotaExceeded]:
        """Those that are to wait and that their queue or their tenant has no room for, by their places."""
        full: dict[int, QueueFull | QuotaExceeded] = {
            **await self._limits.full(connection, [task.queue for task in tasks])
        }
        return full | await self._quota.over(connection, [task.tenant for task in tasks])

    async def _faults(
        self, connection: Connection, tasks: Sequence[NewTask], now: datetime
    ) -> dict[int, tuple[str, str]]:
        """What only the moment of storing can tell: place in `tasks` -> (field, what is wrong with it)."""
        faults = {
            place: ("expires_at", "must be later than now and than the start")
            for place, task in enumerate(tasks)
            if task.expires_at is not None and task.expires_at <= max(now, task.scheduled_at or now)
        }
        parents = {task.parent_id for task in tasks if task.parent_id is not None}
        if parents:
            found = await rows.present(connection, parents)
            for place, task in enumerate(tasks):
                if task.parent_id is not None and not _may_name(task.tenant, found.get(task.parent_id)):
                    faults[place] = ("parent_id", f"names no task: there is no {task.parent_id}")
        named = {file_id for task in tasks for file_id in task.file_ids}
        if named:
            kept = await file_rows.kept_ids(connection, named, now)
            for place, task in enumerate(tasks):
                for missing in [one for one in task.file_ids if not _may_name(task.tenant, kept.get(one))][:1]:
                    faults[place] = ("payload", f"names no file: there is no {missing}")
        return faults

    async def _owners(self, connection: Connection, refused: Sequence[NewTask]) -> list[Task]:
        tenants = {task.tenant for task in refused}
        idempotency_keys = {task.idempotency_key for task in refused if task.idempotency_key}
        unique_keys = {task.unique_key for task in refused if task.unique_key}
        return await rows.find_by_keys(connection, idempotency_keys, unique_keys, tenants)


def _spellings(part: str) -> set[str]:
    """How a text may stand in JSON: as part of a string, or of the JSON itself, which has no control characters."""
    as_json = {part} if part.isprintable() else set()
    return as_json | {json.dumps(part, ensure_ascii=False)[1:-1]}


def _may_name(tenant: str, owner: str | None) -> bool:
    """Whether a task of `tenant` may name what is `owner`'s; None is nobody's, because it is not there."""
    return owner is not None and (not tenant or tenant == owner)


def _stored_size(task: NewTask) -> int:
    """About how many bytes a submission takes in memory and in its statement."""
    return 500 + len(task.payload) + len(task.metadata or "")


async def _keep_files(connection: Connection, stored: Iterable[tuple[int, NewTask]]) -> None:
    pairs = [(task_id, file_id) for task_id, task in stored for file_id in task.file_ids]
    if pairs:
        await file_rows.keep_inputs(connection, pairs)


def _replay(refused: NewTask, owners: Sequence[Task]) -> Submitted | IdempotencyMismatch | None:
    """The task that the submission's idempotency key made before, or that its key belongs to another request."""
    for owner in owners:
        if refused.idempotency_key is not None and _same(
            owner, refused, owner.idempotency_key, refused.idempotency_key
        ):
            if owner.request_hash == refused.request_hash:
                return Submitted(owner, replayed=True)
            return IdempotencyMismatch(refused.idempotency_key, owner.id)
    return None


def _ensure_owned(refused: Iterable[NewTask], owners: Sequence[Task]) -> None:
    """Raise StoreContended if nobody has the key that one of these was refused for: its owner has ended meanwhile."""
    held = {(owner.tenant, key) for owner in owners for key in (owner.unique_key, owner.idempotency_key)}
    if any(held.isdisjoint(((one.tenant, one.unique_key), (one.tenant, one.idempotency_key))) for one in refused):
        raise StoreContended("Whoever held a key has given it back while it was looked for.")


def _same(owner: Task, refused: NewTask, key: str | None, wanted: str) -> bool:
    """Whether they have the key in common: each tenant has its own keys."""
    return key == wanted and owner.tenant == refused.tenant


def _collision(refused: NewTask, owners: Sequence[Task], within: Sequence[int] = ()) -> Conflict:
    """Who holds the unique key. `within`: ids of the same request, which will not exist once it is refused."""
    for owner in owners:
        if refused.unique_key is not None and _same(owner, refused, owner.unique_key, refused.unique_key):
            if owner.id in within:
                return Conflict(f"Two tasks of this request have the unique key {refused.unique_key!r}.")
            return UniqueKeyTaken(refused.unique_key, owner.id, owner.status)
    return Conflict("The task collides with another one.")


def _refusal(field: str, message: str, location: list[str | int]) -> InvalidRequest:
    fault: dict[str, Any] = {"location": [*location, field], "message": message, "type": "value_error"}
    return InvalidRequest(f"{field} {message}.", [fault])


def _current_attempt(task: Task) -> Attempt | None:
    if task.status not in (Status.RUNNING, Status.COMPLETED) or task.started_at is None:
        return None
    outcome: Literal["completed"] | None = "completed" if task.status is Status.COMPLETED else None
    return Attempt(task.id, task.lease, task.attempts, outcome, task.worker_id, task.started_at, task.finished_at)
