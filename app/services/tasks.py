"""What clients may do with tasks. Each call owns its transaction and publishes what happened after the commit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from app.core.clock import Clock
from app.core.errors import Conflict, IdempotencyMismatch, InvalidRequest, NotFound, UniqueKeyTaken
from app.core.events import (
    EventBus,
    TaskCancelled,
    TaskCancelRequested,
    TaskDeleted,
    TaskEdited,
    TaskRetried,
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
from app.models import attempts as attempt_rows
from app.models import files as file_rows
from app.models import tasks as rows
from app.models.database import Connection, Database
from app.models.tasks import TaskFilter
from app.services.batcher import Batcher

ROWS_A_STATEMENT = 1000


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to a submission. `replayed`: the idempotency key had this task already, nothing new was stored."""

    task: Task
    replayed: bool = False


class TaskService:
    """Submit, look up, list, edit, cancel, retry and delete tasks."""

    def __init__(self, database: Database, bus: EventBus, priority_step_seconds: float) -> None:
        self._database = database
        self._bus = bus
        self._step = priority_step_seconds
        self._clock: Clock = database.clock()
        self._submissions: Batcher[NewTask, Submitted] = Batcher(self._store)
        self._lookups: Batcher[int, Task] = Batcher(self._load)

    async def close(self) -> None:
        """Return when every call under way has been answered."""
        await self._submissions.close()
        await self._lookups.close()

    async def submit(self, task: NewTask) -> Submitted:
        """Store a task; returns after the commit. Raises UniqueKeyTaken, IdempotencyMismatch, InvalidRequest."""
        return await self._submissions(task)

    async def submit_all(self, tasks: Sequence[NewTask]) -> list[int]:
        """Store all of `tasks` in one transaction, or none. Returns their ids in order. Raises as `submit` does."""
        now = self._clock()
        ids: list[int] = []
        async with self._database.write() as connection:
            faults = await self._faults(connection, tasks, now)
            if faults:
                place, (field, message) = min(faults.items())
                raise _refusal(field, message, ["tasks", place])
            for start in range(0, len(tasks), ROWS_A_STATEMENT):
                chunk = tasks[start : start + ROWS_A_STATEMENT]
                given, stored = await rows.insert_new(connection, chunk, now, self._step)
                refused = [task for id_, task in zip(given, chunk, strict=True) if id_ not in stored]
                ids += given
                if refused:
                    raise _collision(refused[0], await self._owners(connection, refused), within=ids)
                await _keep_files(connection, zip(given, chunk, strict=True))
        self._bus.publish(TasksSubmitted(tuple(ids), tuple(tasks)))
        return ids

    async def get(self, task_id: int) -> Task:
        """The task as it is now. Raises NotFound."""
        if not 0 < task_id <= LARGEST_INTEGER:
            raise NotFound("task", task_id)
        return await self._lookups(task_id)

    async def search(self, wanted: TaskFilter, limit: int, *, whole_rows: bool) -> list[Task]:
        """Up to `limit` tasks, newest first; payload and result are read only for `whole_rows`."""
        async with self._database.read() as connection:
            return await rows.search(connection, wanted, limit, whole_rows=whole_rows)

    async def attempts(self, task_id: int) -> list[Attempt]:
        """Every attempt of the task, oldest first; the running or completed one is read from the task itself."""
        task = await self.get(task_id)
        async with self._database.read() as connection:
            history = await attempt_rows.of_task(connection, task_id)
        current = _current_attempt(task)
        if current is not None and all(one.lease != current.lease for one in history):
            history.append(current)
        return history

    async def edit(self, task_id: int, edit: Edit) -> Task:
        """Change a waiting task. Raises NotFound, Conflict, InvalidRequest."""
        async with self._database.write() as connection:
            task = await self._locked(connection, task_id)
            ensure_editable(task)
            values = edited(task, edit, self._clock(), self._step)
            if values:
                await rows.edit_waiting(connection, task_id, values)
            task = await self._locked(connection, task_id)
        self._bus.publish(TaskEdited(task))
        return task

    async def cancel(self, task_id: int) -> Task:
        """End a waiting task, or ask a running one to stop. Raises NotFound, Conflict once it has ended otherwise."""
        now = self._clock()
        async with self._database.write() as connection:
            before = await self._locked(connection, task_id)
            ensure_cancellable(before)
            if before.status is Status.RUNNING and before.cancel_requested_at is None:
                await rows.request_cancel(connection, task_id, before.lease, now)
            elif not before.finished:
                await rows.cancel_waiting(connection, task_id, now)
            task = await self._locked(connection, task_id)
        if before.status is Status.RUNNING:
            self._bus.publish(TaskCancelRequested(task))
        elif not before.finished:
            self._bus.publish(TaskCancelled(task))
        return task

    async def retry(self, task_id: int) -> Task:
        """Run a failed or cancelled task again, now, with a fresh budget. Raises NotFound, Conflict, UniqueKeyTaken."""
        now = self._clock()
        async with self._database.write() as connection:
            task = await self._locked(connection, task_id)
            ensure_retryable(task)
            if task.unique_key is not None:
                for holder in await rows.find_by_keys(connection, [], [task.unique_key]):
                    raise UniqueKeyTaken(task.unique_key, holder.id, task.status)
            await rows.make_ready_again(connection, task, now, rank_of(now, task.priority, self._step))
            task = await self._locked(connection, task_id)
        self._bus.publish(TaskRetried(task))
        return task

    async def delete(self, task_id: int) -> None:
        """Delete a task that does not run, with its history. Raises NotFound, Conflict."""
        async with self._database.write() as connection:
            task = await self._locked(connection, task_id)
            ensure_deletable(task)
            await file_rows.let_go(connection, [task_id], self._clock())
            await rows.delete_idle(connection, task_id)
        self._bus.publish(TaskDeleted(task))

    async def _locked(self, connection: Connection, task_id: int) -> Task:
        task = await rows.get_for_change(connection, task_id) if 0 < task_id <= LARGEST_INTEGER else None
        if task is None:
            raise NotFound("task", task_id)
        return task

    async def _load(self, ids: Sequence[int]) -> list[Task | Exception]:
        async with self._database.read() as connection:
            found = await rows.get_many(connection, set(ids))
        return [found.get(id_) or NotFound("task", id_) for id_ in ids]

    async def _store(self, tasks: Sequence[NewTask]) -> list[Submitted | Exception]:
        now = self._clock()
        async with self._database.write() as connection:
            faults = await self._faults(connection, tasks, now)
            sound = [task for place, task in enumerate(tasks) if place not in faults]
            given, stored = await rows.insert_new(connection, sound, now, self._step) if sound else ([], set())
            refused = [task for id_, task in zip(given, sound, strict=True) if id_ not in stored]
            refused += [tasks[place] for place in faults]
            await _keep_files(connection, (pair for pair in zip(given, sound, strict=True) if pair[0] in stored))
            owners = await self._owners(connection, refused) if refused else []
        if stored:
            pairs = [pair for pair in zip(given, sound, strict=True) if pair[0] in stored]
            self._bus.publish(TasksSubmitted(tuple(id_ for id_, _ in pairs), tuple(task for _, task in pairs)))
        ids = iter(given)
        answers: list[Submitted | Exception] = []
        for place, task in enumerate(tasks):
            if place in faults:
                # A repeated request gets its first answer, even if it would no longer be accepted now.
                answers.append(_replay(task, owners) or _refusal(*faults[place], []))
                continue
            id_ = next(ids)
            if id_ in stored:
                answers.append(Submitted(rows.stored_task(task, id_, now, self._step)))
            else:
                answers.append(_replay(task, owners) or _collision(task, owners))
        return answers

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
            found = await rows.get_many(connection, parents)
            for place, task in enumerate(tasks):
                if task.parent_id is not None and task.parent_id not in found:
                    faults[place] = ("parent_id", f"names no task: there is no {task.parent_id}")
        named = {file_id for task in tasks for file_id in task.file_ids}
        if named:
            kept = await file_rows.kept_ids(connection, named, now)
            for place, task in enumerate(tasks):
                for missing in [file_id for file_id in task.file_ids if file_id not in kept][:1]:
                    faults[place] = ("payload", f"names no file: there is no {missing}")
        return faults

    async def _owners(self, connection: Connection, refused: Iterable[NewTask]) -> list[Task]:
        idempotency_keys = {task.idempotency_key for task in refused if task.idempotency_key}
        unique_keys = {task.unique_key for task in refused if task.unique_key}
        return await rows.find_by_keys(connection, idempotency_keys, unique_keys)


async def _keep_files(connection: Connection, stored: Iterable[tuple[int, NewTask]]) -> None:
    pairs = [(task_id, file_id) for task_id, task in stored for file_id in task.file_ids]
    if pairs:
        await file_rows.keep_inputs(connection, pairs)


def _replay(refused: NewTask, owners: Sequence[Task]) -> Submitted | IdempotencyMismatch | None:
    """The task that the submission's idempotency key made before, or that its key belongs to another request."""
    for owner in owners:
        if refused.idempotency_key is not None and owner.idempotency_key == refused.idempotency_key:
            if owner.request_hash == refused.request_hash:
                return Submitted(owner, replayed=True)
            return IdempotencyMismatch(refused.idempotency_key, owner.id)
    return None


def _collision(refused: NewTask, owners: Sequence[Task], within: Sequence[int] = ()) -> Conflict:
    """Who holds the unique key. `within`: ids of the same request, which will not exist once it is refused."""
    for owner in owners:
        if refused.unique_key is not None and owner.unique_key == refused.unique_key:
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
