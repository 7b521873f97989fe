"""What workers may do with tasks: claim, renew, settle, report. A batch in each call, one transaction in each."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from random import Random

from app.core import lifecycle
from app.core.attempt_log import Chunk
from app.core.breaker import Verdict
from app.core.errors import OutcomeUnknown
from app.core.events import (
    EventBus,
    LeasesRefused,
    QueuePlacesFreed,
    TaskProgressed,
    TasksAdmitted,
    TasksClaimed,
    TasksSettled,
)
from app.core.lifecycle import Change
from app.core.settings import Settings
from app.core.task import ClaimedTask, JsonText
from app.models import chores as chore_rows
from app.models import queue as rows
from app.models import task_logs as log_rows
from app.models.database import Connection, Database, retried
from app.models.queue import Front, Head, Lease, Renewal
from app.services.breakers import Board, Breakers
from app.services.concurrency import share_out
from app.services.limits import LimitBoard, QueueLimits
from app.services.registry import ExecutorRegistry
from app.services.settling import Ended, Settler, settlement_of

MOST_PAIRS = 64
"""Pairs of queue and task type that one claim looks into; the ones whose first task has waited longest."""
PROMOTED_A_CLAIM = 1000
PORTION = 256
CHARACTERS_A_CLAIM = 8 * 2**20
"""A claim takes no further portion when its payloads have so many: each is written anew with its row, while nobody else can
write. How large they are is not known before; 1,028 of 256 KiB took two seconds and a gigabyte."""
LOOK_AGAIN_SECONDS = 0.05
"""About how long until a worker looks again that was left empty-handed by others who claimed at the same moment."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a worker could start now: up to `room` tasks of these pairs."""

    pairs: tuple[tuple[str, str], ...]
    room: int


_concurrency_key, _task_type = attrgetter("task.concurrency_key"), attrgetter("task.task_type")

Choose = Callable[[Sequence[Head]], Sequence[Wish]]
"""Given the first waiting task of every pair the worker serves, by rank, says what to claim. Pure."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came of one exchange: new work, checkpoints of earlier attempts by task id. Where nothing was claimed,
    `next_due_at` is when it is worth another look: when the next delayed task is due, the next breaker may be tried, or what
    others held may be free; None if nothing is to come. `left`: queues in which more may wait, for others to take."""

    claimed: tuple[ClaimedTask, ...] = ()
    checkpoints: dict[int, list[JsonText]] = field(default_factory=dict)
    next_due_at: datetime | None = None
    left: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Look:
    """What an exchange wrote and saw before it chooses: what ended, what may be claimed, which queues have tasks of types
    that we do not know, what holds them back, and which tasks got a place of their concurrency key. `due_at` is when the
    first of those that wait for a moment is due.
    `events` are to be published after the commit: new tasks that tell of an end, subscriptions switched off. `has_seen`:
    whether it was looked at all what waits."""

    changes: list[Change]
    heads: Sequence[Head]
    due_at: datetime | None
    strange: frozenset[str]
    board: Board
    limits: LimitBoard
    admitted: Set[int]
    events: list[object]
    has_seen: bool


class TaskQueue:
    """The worker's side of the tasks. Nothing here knows processes; every write is fenced by the lease."""

    def __init__(
        self,
        database: Database,
        bus: EventBus,
        registry: ExecutorRegistry,
        breakers: Breakers,
        limits: QueueLimits,
        settler: Settler,
        settings: Settings,
        random: Random,
    ) -> None:
        self._database = database
        self._bus = bus
        self._registry = registry
        self._breakers = breakers
        self._limits = limits
        self._settler = settler
        self._settings = settings
        self._random = random
        self._clock = database.clock()
        self._doubtful: list[ClaimedTask] = []
        """What was claimed in transactions of which nobody knows whether they were committed."""
        self._freed: set[str] = set()
        """Queues in which something has ended since it was last looked who may have room for what waits there."""

    @property
    def in_doubt(self) -> bool:
        """Whether something may have been claimed that is to be handed back, with the next exchange."""
        return bool(self._doubtful)

    @retried
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
        exchange = Exchange()
        claimed: list[ClaimedTask] = []
        # If they are ours nobody runs them, so they are handed back.
        doubtful = [Ended(task, lifecycle.Released("the answer to its claim was lost"), now) for task in self._doubtful]
        try:
            async with self._database.write(durable=bool(ended)) as connection:
                looks = self._settle_and_look(
                    connection, worker_id, ended, doubtful, now, queues=None if choose is None else queues
                )
                look = await self._database.at_once(connection, looks, last=choose is None)
                if choose is not None:
                    wishes = choose(look.heads) if look.heads else ()
                    claims = self._claim(connection, worker_id, wishes, look, now, claimed)
                    exchange = await self._database.at_once(connection, claims, last=True)
                    exchange = replace(exchange, left=exchange.left | _unwished(look.heads, wishes) | look.strange)
        except (OutcomeUnknown, asyncio.CancelledError):
            self._doubtful += claimed
            raise
        del self._doubtful[: len(doubtful)]
        # Soon: whoever exchanges next hands that to the database first, and this is done while the statements run.
        tell = partial(self._tell, worker_id, ended, doubtful, look, exchange.claimed)
        asyncio.get_running_loop().call_soon(tell)
        return exchange

    def _tell(
        self,
        worker_id: str,
        ended: Sequence[Ended],
        doubtful: Sequence[Ended],
        look: _Look,
        claimed: tuple[ClaimedTask, ...],
    ) -> None:
        self._tell_of_ends(worker_id, ended, doubtful, look.changes)
        for told in look.events:
            self._bus.publish(told)
        if claimed:
            self._bus.publish(TasksClaimed(worker_id, claimed))
        for event in look.board.events:
            self._bus.publish(event)
        self._tell_of_places(look, claimed, {one.task.queue for one in ended})

    def _tell_of_places(self, look: _Look, claimed: Sequence[ClaimedTask], queues: set[str]) -> None:
        """Others may have room for what became ready here and was not claimed."""
        if look.admitted and (left := look.admitted - {task.id for task in claimed}):
            self._bus.publish(TasksAdmitted(tuple(sorted(left))))
        self._freed |= queues
        if look.has_seen:
            freed, self._freed = self._freed, set()
            if look.limits.room_in(freed):
                self._bus.publish(QueuePlacesFreed())

    @retried
    async def renew(self, leases: Iterable[Lease]) -> list[Renewal]:
        """Extend these leases; what does not come back is lost to us."""
        until = self._clock() + timedelta(seconds=self._settings.lease_seconds)
        async with self._database.write(durable=False) as connection:
            return await rows.renew(connection, leases, until)

    @retried
    async def save_progress(self, progress: Sequence[tuple[int, int, JsonText]], lines: Sequence[Chunk] = ()) -> None:
        """Store the newest (id, lease, progress) of running attempts, and what attempts printed and logged."""
        told = {one.task_id for one in lines}
        async with self._database.write(durable=False) as connection:
            if progress:
                told |= await rows.save_progress(connection, progress)
            if lines:
                await log_rows.append(connection, lines)
                await log_rows.drop(connection, lines)
                await log_rows.drop_attempts(connection, lines)
        if told:
            self._bus.publish(TaskProgressed(tuple(sorted(told))))

    @retried
    async def add_checkpoint(self, task_id: int, lease: int, data: JsonText) -> bool:
        """Store a checkpoint for the next attempt; returns after the commit. False when the lease is lost."""
        async with self._database.write() as connection:
            return await rows.add_checkpoint(connection, task_id, lease, data)

    def _verdicts(self, ended: Sequence[Ended], changes: Sequence[Change]) -> list[Verdict]:
        """What the attempts that were still ours say of their dependencies."""
        if not self._registry.breakers and self._registry.calls_hosts.isdisjoint(map(_task_type, ended)):
            return []
        settled = {(change.id, change.lease) for change in changes}
        ours = (one for one in ended if (one.task.id, one.task.lease) in settled)
        found = (self._breakers.verdict(one.task, one.outcome) for one in ours)
        return [verdict for verdict in found if verdict is not None]

    async def _settle_and_look(
        self,
        connection: Connection,
        worker_id: str,
        ended: Sequence[Ended],
        doubtful: Sequence[Ended],
        now: datetime,
        *,
        queues: Sequence[str] | None,
    ) -> _Look:
        """Write what ended, and see what waits in these queues (None is none, empty all): first tasks of the types that we
        know, and queues in which there are others."""
        changes: list[Change] = []
        events: list[object] = []
        if ended or doubtful:
            ours = await _committed_after_all(connection, worker_id, doubtful) if doubtful else ()
            changes, events = await self._settler.settle(connection, [*ended, *ours], now)
        keys = set(map(_concurrency_key, (*ended, *doubtful)))
        front, admitted = await self._front(connection, keys, now, queues)
        heads = [head for head in front.heads if head.task_type in self._registry]
        strange = frozenset(head.queue for head in front.heads if head.task_type not in self._registry)
        board = await self._breakers.board(connection, self._verdicts(ended, changes), heads, now)
        passing = await board.passing(heads) if queues is not None else heads
        limits = await self._limits.board(connection, passing, now)
        heads = sorted(limits.passing(passing), key=lambda head: head.rank)[:MOST_PAIRS]
        return _Look(changes, heads, front.due_at, strange, board, limits, admitted, events, queues is not None)

    async def _front(
        self, connection: Connection, keys: set[str | None], now: datetime, queues: Sequence[str] | None
    ) -> tuple[Front, Set[int]]:
        """What waits in these queues when what is due has become ready, and the places of these concurrency keys have been
        given away; and which tasks got one."""
        front = Front() if queues is None else await rows.front(connection)
        promoted = []
        if front.due_at is not None and front.due_at <= now:
            promoted = await chore_rows.promote_due(connection, now, PROMOTED_A_CLAIM)
        admitted = await share_out(connection, keys.union(key for _, key in promoted))
        if queues is not None and (promoted or admitted):
            front = await rows.front(connection)
        heads = [head for head in front.heads if not queues or head.queue in queues]
        return replace(front, heads=heads), admitted.keys()

    async def _claim(
        self,
        connection: Connection,
        worker_id: str,
        wishes: Sequence[Wish],
        look: _Look,
        now: datetime,
        claimed: list[ClaimedTask],
    ) -> Exchange:
        """What may start, added to `claimed` too: nobody would know of it if the answer got lost."""
        board, limits = look.board, look.limits
        until = now + timedelta(seconds=self._settings.lease_seconds)
        asked = put_off = False
        left: set[str] = set()
        for wish in wishes:
            room = wish.room
            for pairs, breaker in board.parts(wish.pairs):
                places = room if breaker is None else min(room, board.places[breaker])
                if places:
                    asked = True
                    most = limits.most(pairs)
                    taken, all_of_it = await _taken(connection, pairs, places, worker_id, now, until, most)
                    if not all_of_it:
                        left.update(queue for queue, _ in pairs)
                    kept = await self._put_off(connection, look, taken)
                    put_off = put_off or len(kept) < len(taken)
                    await board.let_through(breaker, kept)
                    await limits.take(kept)
                    claimed += kept
                    room -= len(kept)
        again = [task.id for task in claimed if task.lease > 1]
        checkpoints = await rows.checkpoints_of(connection, again) if again else {}
        due_at = None if claimed else now if put_off else self._next_due(look, asked)
        return Exchange(tuple(claimed), checkpoints, due_at, frozenset(left))

    async def _put_off(
        self, connection: Connection, look: _Look, claimed: Sequence[ClaimedTask]
    ) -> Sequence[ClaimedTask]:
        """Give back those that call a host which is down. Which host that is stands in the payload alone, so it is known no
        earlier. Returns the others.

        The place of a concurrency key that one of them had is given away by a chore: who has breakers to himself must not wait
        for keys, because others have keys and wait for breakers.
        """
        held = await look.board.put_off(claimed)
        if not held:
            return claimed
        await rows.put_off(connection, held)
        ids = {task.id for task, _ in held}
        return [task for task in claimed if task.id not in ids]

    def _next_due(self, look: _Look, asked: bool) -> datetime | None:
        moments = [look.due_at, look.board.until, look.limits.until]
        if asked:
            # Something waits and could not be had: others hold it at this moment, and may not take it.
            moments.append(self._clock() + timedelta(seconds=self._random.uniform(0.5, 1.5) * LOOK_AGAIN_SECONDS))
        return min((moment for moment in moments if moment is not None), default=None)

    def _tell_of_ends(
        self, worker_id: str, ended: Sequence[Ended], doubtful: Sequence[Ended], changes: Sequence[Change]
    ) -> None:
        by_lease = {(one.task.id, one.task.lease): one for one in (*ended, *doubtful)}
        settlements = [settlement_of(by_lease.pop((change.id, change.lease)), change) for change in changes]
        if settlements:
            self._bus.publish(TasksSettled(worker_id, tuple(settlements)))
        refused = by_lease.keys() - {(one.task.id, one.task.lease) for one in doubtful}
        if refused:
            self._bus.publish(LeasesRefused(worker_id, tuple(sorted(id_ for id_, _ in refused))))


async def _committed_after_all(connection: Connection, worker_id: str, doubtful: Sequence[Ended]) -> list[Ended]:
    """What we really have of these claims. One that was undone has left its number to the next worker, who has the same
    lease now, and runs the task."""
    held = await rows.held(connection, {(one.task.id, one.task.lease) for one in doubtful})
    ours = {task.id for task in held if task.worker_id == worker_id}
    return [one for one in doubtful if one.task.id in ours]


async def _taken(
    connection: Connection,
    pairs: Sequence[tuple[str, str]],
    places: int,
    worker_id: str,
    now: datetime,
    until: datetime,
    most: Mapping[str, int],
) -> tuple[list[ClaimedTask], bool]:
    """Up to `places` tasks, claimed in portions until they have CHARACTERS_A_CLAIM; and whether that is all there was."""
    taken: list[ClaimedTask] = []
    characters = 0
    while len(taken) < places and characters < CHARACTERS_A_CLAIM:
        portion = min(PORTION, places - len(taken))
        claimed_of = Counter(task.queue for task in taken) if most else {}
        still = {queue: number - claimed_of.get(queue, 0) for queue, number in most.items()}
        more = await rows.claim(connection, pairs, portion, worker_id, now, until, still)
        taken += more
        if len(more) < portion:
            return taken, True
        characters += sum(len(task.payload) for task in more)
    return taken, False


def _unwished(heads: Sequence[Head], wishes: Sequence[Wish]) -> frozenset[str]:
    wished = {pair for wish in wishes for pair in wish.pairs}
    return frozenset(head.queue for head in heads if (head.queue, head.task_type) not in wished)
