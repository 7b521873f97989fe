"""What becomes of attempts that are over: decided purely, written in the caller's transaction, each fenced by its lease."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from random import Random

from app.core import lifecycle, webhook
from app.core.errors import PluginError, StoreDamaged
from app.core.events import Settlement, TasksSubmitted
from app.core.leases import HeldLease
from app.core.lifecycle import Change, Completed, Outcome, Policy
from app.core.retry import RetryPolicy
from app.core.settings import Settings
from app.core.task import TERMINAL, Attempt, ClaimedTask, JsonText, Status, Task
from app.core.values import value
from app.models import chores as chore_rows
from app.models import files as file_rows
from app.models import queue as rows
from app.models.database import Connection
from app.models.queue import Completion
from app.services.concurrency import share_out
from app.services.registry import ExecutorRegistry
from app.services.webhooks import announce, note_receptions, patience_of

_task_type = attrgetter("task.task_type")


@value
class Ended:
    """One attempt that is over, as its worker saw it. `progress` is its last word on it, None if it said none;
    `checkpointed`: it stored or was given checkpoints; `saved_files`: it saved files."""

    task: ClaimedTask
    outcome: Outcome
    started_at: datetime
    run_seconds: float | None = None
    progress: JsonText | None = None
    checkpointed: bool = False
    saved_files: bool = False

    @property
    def left_something(self) -> bool:
        """Whether it, or an attempt before it, may have stored something for the next one."""
        return self.checkpointed or self.saved_files or self.task.lease > 1


class Settler:
    """Writes the ends of attempts. What it returns as events is to be published after the commit."""

    def __init__(self, registry: ExecutorRegistry, settings: Settings, random: Random) -> None:
        self._registry = registry
        self._settings = settings
        self._random = random

    async def settle(
        self, connection: Connection, ended: Sequence[Ended], now: datetime
    ) -> tuple[list[Change], list[object]]:
        """Write these ends as far as their leases hold. Returns what was changed, and the events."""
        completed = [one for one in ended if isinstance(one.outcome, Completed)]
        changes, awaited = await self._complete(connection, completed, now) if completed else ([], [])
        if len(completed) < len(ended):
            others = [one for one in ended if not isinstance(one.outcome, Completed)]
            changed, told = await self._end_otherwise(connection, others, now)
            changes, awaited = changes + changed, awaited + told
        leavers = [one.task.id for one in ended if one.left_something]
        if leavers:
            over = {change.id for change in changes if change.status in TERMINAL}
            await self._clear_after(connection, [id_ for id_ in leavers if id_ in over], now)
        notices = await self.announce(connection, awaited, now)
        events: list[object] = [] if notices is None else [notices]
        if webhook.TASK_TYPE in map(_task_type, ended):
            events += await self._note_receptions(connection, ended, changes, now)
        return changes, events

    async def take_back(
        self, connection: Connection, leases: Sequence[HeldLease], evidence: str, now: datetime
    ) -> tuple[list[tuple[Task, Change]], TasksSubmitted | None]:
        """Settle as lost what still runs under one of these leases as it was read. Returns that, and the notices."""
        awaited: list[int] = []
        tasks = await chore_rows.unrenewed(connection, leases)
        decided = [(task, self._decide(task, lifecycle.Lost(evidence), now)) for task in tasks]
        if decided:
            awaited = await self._write(connection, decided, {task.id: "lost" for task in tasks})
            over = [change.id for _, change in decided if change.status in TERMINAL]
            await self._clear_after(connection, over, now)
            await share_out(connection, (task.concurrency_key for task in tasks))
        return decided, await self.announce(connection, awaited, now)

    async def announce(self, connection: Connection, ended: Sequence[int], now: datetime) -> TasksSubmitted | None:
        """Store what tells of the end of these tasks."""
        return await announce(connection, ended, now, self._settings.priority_step_seconds) if ended else None

    async def _complete(
        self, connection: Connection, completed: Sequence[Ended], now: datetime
    ) -> tuple[list[Change], list[int]]:
        """The fast path: there is nothing to decide. Returns the changes, and those of whose end somebody has to be told."""
        written = await rows.complete(connection, [_completion(one) for one in completed])
        changes = [_completed(one, now) for one in completed if (one.task.id, one.task.lease) in written]
        return changes, [id_ for (id_, _), told in written.items() if told]

    async def _end_otherwise(
        self, connection: Connection, others: Sequence[Ended], now: datetime
    ) -> tuple[list[Change], list[int]]:
        """As `_complete`, for what has to be decided on the row."""
        by_lease = {(one.task.id, one.task.lease): one for one in others}
        tasks = await rows.held(connection, by_lease)
        if not tasks:
            return [], []
        # By task alone would not do: a worker may settle what it has lost together with what it holds.
        held = {task.id: by_lease[task.id, task.lease] for task in tasks}
        decided = [(task, self._decide(task, held[task.id].outcome, now)) for task in tasks]
        words = {id_: one.outcome.word for id_, one in held.items()}
        told = await self._write(connection, decided, words, {id_: one.progress for id_, one in held.items()})
        return [change for _, change in decided], told

    async def _note_receptions(
        self, connection: Connection, ended: Sequence[Ended], changes: Sequence[Change], now: datetime
    ) -> Sequence[object]:
        """What the attempts to deliver notices that were still ours say of their receivers."""
        ours = {(change.id, change.lease) for change in changes}
        told = [one for one in ended if one.task.task_type == webhook.TASK_TYPE]
        outcomes = {one.task.id: one.outcome for one in told if (one.task.id, one.task.lease) in ours}
        return await note_receptions(connection, outcomes, patience_of(self._settings), now) if outcomes else ()

    async def _clear_after(self, connection: Connection, over: Sequence[int], now: datetime) -> None:
        """Drop what tasks that have ended kept for their next attempt."""
        if over:
            await rows.drop_checkpoints(connection, over)
            await file_rows.let_go_temporary(connection, over, now)

    def _decide(self, task: Task, outcome: Outcome, now: datetime) -> Change:
        return lifecycle.settle(task, outcome, self._policy(task), now, self._random)

    def _policy(self, task: Task) -> Policy:
        """The rules for an attempt that goes wrong: the task's own, else its executor's, else the settings'."""
        executor = self._registry.get(task.task_type)
        retry = _retry_policy(task.retry) if task.retry else executor.retry if executor else None
        return Policy(
            retry=retry or self._settings.retry_policy,
            poison_after=self._settings.poison_after,
            priority_step_seconds=self._settings.priority_step_seconds,
        )

    async def _write(
        self,
        connection: Connection,
        decided: Sequence[tuple[Task, Change]],
        words: Mapping[int, str],
        progress: Mapping[int, JsonText | None] = rows.NOTHING,
    ) -> list[int]:
        """Returns those that have ended and of whose end somebody may have to be told."""
        written = await rows.apply(connection, [change for _, change in decided], progress)
        history = [_attempt(task, change, words[task.id]) for task, change in decided if change.id in written]
        if history:
            await rows.record_attempts(connection, history)
        return [change.id for _, change in decided if change.status in TERMINAL and written.get(change.id)]


def _retry_policy(stored: JsonText) -> RetryPolicy:
    try:
        return RetryPolicy(**json.loads(stored))
    except (ValueError, TypeError, PluginError):  # it was checked when it was stored
        raise StoreDamaged("there is a retry policy that is none") from None


def _completion(one: Ended) -> Completion:
    assert isinstance(one.outcome, Completed)
    seconds = one.run_seconds or 0.0
    return Completion(one.task.id, one.task.lease, one.outcome.result, one.started_at, seconds, one.progress)


def _completed(one: Ended, now: datetime) -> Change:
    """What the fast path wrote, for the listeners."""
    task = one.task
    return Change(task.id, task.lease, Status.COMPLETED, task.attempt, task.rank, now, finished_at=now)


def _attempt(task: Task, change: Change, outcome: str) -> Attempt:
    return Attempt(
        task_id=task.id,
        lease=task.lease,
        attempt=task.attempts,
        outcome=outcome,
        worker_id=task.worker_id,
        started_at=task.started_at or change.at,
        finished_at=max(change.at, task.started_at or change.at),
        error=rows.error_json(change.error),
        delay_seconds=change.delay_seconds,
    )


def settlement_of(one: Ended, change: Change) -> Settlement:
    """What listeners hear of an end."""
    return Settlement(one.task.task_type, one.task.queue, one.task.attempt, one.outcome.word, change, one.run_seconds)


def settlement_of_expired(task: Task, change: Change) -> Settlement:
    """What listeners hear of a lease that ran out."""
    return Settlement(task.task_type, task.queue, task.attempts, "lost", change, None)
