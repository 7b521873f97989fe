"""What workers may do with tasks: claim, renew, settle, report. A batch in each call, one transaction in each."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from app.core import lifecycle
from app.core.breaker import Verdict
from app.core.events import EventBus, LeasesRefused, Settlement, TaskProgressed, TasksClaimed, TasksSettled
from app.core.lifecycle import Change, Completed, Outcome, Policy
from app.core.retry import RetryPolicy
from app.core.settings import Settings
from app.core.task import TERMINAL, Attempt, ClaimedTask, JsonText, Status, Task
from app.models import chores as chore_rows
from app.models import files as file_rows
from app.models import queue as rows
from app.models.database import Connection, Database
from app.models.queue import Completion, Head, Lease, Renewal
from app.services.breakers import Board, Breakers
from app.services.executors import ExecutorRegistry

MOST_PAIRS = 64
"""Pairs of queue and task type that one claim looks into; the ones whose first task has waited longest."""
PROMOTED_A_CLAIM = 1000


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Wish:
    """What a worker could start now: up to `room` tasks of these pairs."""

    pairs: tuple[tuple[str, str], ...]
    room: int


Choose = Callable[[Sequence[Head]], Sequence[Wish]]
"""Given the first waiting task of every pair the worker serves, by rank, says what to claim. Pure."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came of one exchange: new work, checkpoints of earlier attempts by task id. Where nothing was claimed,
    `next_due_at` is when the next delayed task is due or the next breaker may be tried, None if neither is to come."""

    claimed: tuple[ClaimedTask, ...] = ()
    checkpoints: dict[int, list[JsonText]] = field(default_factory=dict)
    next_due_at: datetime | None = None


class TaskQueue:
    """The worker's side of the tasks. Nothing here knows processes; every write is fenced by the lease."""

    def __init__(
        self,
        database: Database,
        bus: EventBus,
        registry: ExecutorRegistry,
        breakers: Breakers,
        settings: Settings,
        random: Random,
    ) -> None:
        self._database = database
        self._bus = bus
        self._registry = registry
        self._breakers = breakers
        self._settings = settings
        self._random = random
        self._clock = database.clock()

    async def exchange(
        self,
        worker_id: str,
        ended: Sequence[Ended],
        choose: Choose | None = None,
        queues: Sequence[str] = (),
    ) -> Exchange:
        """Settle what ended and claim what may start, in one transaction. Raises StoreUnavailable; then nothing changed.

        `choose` None claims nothing. `queues` empty means every queue. Late settles are refused quietly.
        """
        now = self._clock()
        changes: list[Change] = []
        exchange = Exchange()
        heads: list[Head] = []
        async with self._database.write(durable=bool(ended)) as connection:
            if ended:
                changes = await self._settle(connection, worker_id, ended, now)
            if choose is not None:
                heads = await self._heads(connection, queues, now)
            board = await self._breakers.board(connection, self._verdicts(ended, changes), heads, now)
            if choose is not None:
                exchange = await self._claim(connection, worker_id, choose, heads, board, now)
        self._tell(worker_id, ended, changes)
        if exchange.claimed:
            self._bus.publish(TasksClaimed(worker_id, exchange.claimed))
        for event in board.events:
            self._bus.publish(event)
        return exchange

    async def renew(self, leases: Iterable[Lease]) -> list[Renewal]:
        """Extend these leases; what does not come back is lost to us."""
        until = self._clock() + timedelta(seconds=self._settings.lease_seconds)
        async with self._database.write(durable=False) as connection:
            return await rows.renew(connection, leases, until)

    async def save_progress(self, progress: Sequence[tuple[int, int, JsonText]]) -> None:
        """Store the newest (id, lease, progress) of running attempts."""
        async with self._database.write(durable=False) as connection:
            stored = await rows.save_progress(connection, progress)
        if stored:
            self._bus.publish(TaskProgressed(tuple(stored)))

    async def add_checkpoint(self, task_id: int, lease: int, data: JsonText) -> bool:
        """Store a checkpoint for the next attempt; returns after the commit. False when the lease is lost."""
        async with self._database.write() as connection:
            return await rows.add_checkpoint(connection, task_id, lease, data)

    def policy(self, task: Task) -> Policy:
        """The rules for an attempt that goes wrong: the task's own, else its executor's, else the settings'."""
        executor = self._registry.get(task.task_type)
        retry = RetryPolicy(**json.loads(task.retry)) if task.retry else executor.retry if executor else None
        return Policy(
            retry=retry or self._settings.retry_policy,
            poison_after=self._settings.poison_after,
            priority_step_seconds=self._settings.priority_step_seconds,
        )

    async def settle_expired(self, connection: Connection, limit: int, evidence: str) -> list[tuple[Task, Change]]:
        """Take back up to `limit` leases that are over: decided and written in the caller's transaction."""
        now = self._clock()
        tasks = await chore_rows.expired_leases(connection, now, limit)
        decided = [(task, self._decide(task, lifecycle.Lost(evidence), now)) for task in tasks]
        if decided:
            await self._write(connection, decided, {task.id: "lost" for task in tasks})
            over = [change.id for _, change in decided if change.status in TERMINAL]
            await self._clear_after(connection, over, now)
        return decided

    async def _settle(
        self, connection: Connection, worker_id: str, ended: Sequence[Ended], now: datetime
    ) -> list[Change]:
        completed = [one for one in ended if isinstance(one.outcome, Completed)]
        others = {(one.task.id, one.task.lease): one for one in ended if not isinstance(one.outcome, Completed)}
        changes: list[Change] = []
        if completed:
            written = await rows.complete(connection, [_completion(one) for one in completed])
            changes += [_completed(one, now) for one in completed if one.task.id in written]
        if others:
            tasks = await rows.held(connection, others)
            decided = [(task, self._decide(task, others[task.id, task.lease].outcome, now)) for task in tasks]
            if decided:
                words = {one.task.id: one.outcome.word for one in others.values()}
                progress = {one.task.id: one.progress for one in others.values()}
                await self._write(connection, decided, words, progress)
                changes += [change for _, change in decided]
        over = {change.id for change in changes if change.status in TERMINAL}
        left = [one.task.id for one in ended if one.task.id in over and one.left_something]
        await self._clear_after(connection, left, now)
        return changes

    async def _clear_after(self, connection: Connection, over: Sequence[int], now: datetime) -> None:
        """Drop what tasks that have ended kept for their next attempt."""
        if over:
            await rows.drop_checkpoints(connection, over)
            await file_rows.let_go_temporary(connection, over, now)

    def _decide(self, task: Task, outcome: Outcome, now: datetime) -> Change:
        return lifecycle.settle(task, outcome, self.policy(task), now, self._random)

    async def _write(
        self,
        connection: Connection,
        decided: Sequence[tuple[Task, Change]],
        words: Mapping[int, str],
        progress: Mapping[int, JsonText | None] = rows.NOTHING,
    ) -> None:
        written = await rows.apply(connection, [change for _, change in decided], progress)
        history = [_attempt(task, change, words[task.id]) for task, change in decided if change.id in written]
        if history:
            await rows.record_attempts(connection, history)

    def _verdicts(self, ended: Sequence[Ended], changes: Sequence[Change]) -> list[Verdict]:
        """What the attempts that were still ours say of their dependencies."""
        if not self._registry.breakers:
            return []
        settled = {(change.id, change.lease) for change in changes}
        ours = (one for one in ended if (one.task.id, one.task.lease) in settled)
        found = (self._breakers.verdict(one.task, one.outcome) for one in ours)
        return [verdict for verdict in found if verdict is not None]

    async def _heads(self, connection: Connection, queues: Sequence[str], now: datetime) -> list[Head]:
        await chore_rows.promote_due(connection, now, PROMOTED_A_CLAIM)
        return [
            head
            for head in await rows.waiting_heads(connection)
            if head.task_type in self._registry and (not queues or head.queue in queues)
        ]

    async def _claim(
        self,
        connection: Connection,
        worker_id: str,
        choose: Choose,
        heads: Sequence[Head],
        board: Board,
        now: datetime,
    ) -> Exchange:
        heads = sorted(await board.passing(heads), key=lambda head: head.rank)[:MOST_PAIRS]
        until = now + timedelta(seconds=self._settings.lease_seconds)
        claimed: list[ClaimedTask] = []
        for wish in choose(heads) if heads else ():
            room = wish.room
            for pairs, breaker in board.parts(wish.pairs):
                places = room if breaker is None else min(room, board.places[breaker])
                if places:
                    taken = await rows.claim(connection, pairs, places, worker_id, now, until)
                    await board.let_through(breaker, taken)
                    claimed += taken
                    room -= len(taken)
        again = [task.id for task in claimed if task.lease > 1]
        checkpoints = await rows.checkpoints_of(connection, again) if again else {}
        return Exchange(tuple(claimed), checkpoints, None if claimed else await self._next_due(connection, board))

    async def _next_due(self, connection: Connection, board: Board) -> datetime | None:
        moments = (await chore_rows.next_due(connection), board.until)
        return min((moment for moment in moments if moment is not None), default=None)

    def _tell(self, worker_id: str, ended: Sequence[Ended], changes: Sequence[Change]) -> None:
        by_lease = {(one.task.id, one.task.lease): one for one in ended}
        settlements = [_settlement(by_lease.pop((change.id, change.lease)), change) for change in changes]
        if settlements:
            self._bus.publish(TasksSettled(worker_id, tuple(settlements)))
        if by_lease:
            self._bus.publish(LeasesRefused(worker_id, tuple(id_ for id_, _ in by_lease)))


def _completion(one: Ended) -> Completion:
    assert isinstance(one.outcome, Completed)
    finished_at = one.started_at + timedelta(seconds=one.run_seconds or 0.0)
    return Completion(one.task.id, one.task.lease, one.outcome.result, one.started_at, finished_at, one.progress)


def _completed(one: Ended, now: datetime) -> Change:
    """What the fast path wrote, for the listeners."""
    return Change(
        id=one.task.id,
        lease=one.task.lease,
        status=Status.COMPLETED,
        attempts=one.task.attempt,
        rank=one.task.rank,
        at=now,
        finished_at=now,
    )


def _settlement(one: Ended, change: Change) -> Settlement:
    return Settlement(one.task.task_type, one.task.queue, one.task.attempt, one.outcome.word, change, one.run_seconds)


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


def settlement_of_expired(task: Task, change: Change) -> Settlement:
    """What listeners hear of a lease that ran out."""
    return Settlement(task.task_type, task.queue, task.attempts, "lost", change, None)
