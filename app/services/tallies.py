"""Counts what happens to tasks, in memory from the events after the commits, and adds it to the store every few seconds.

A process that dies without warning loses what it has counted since it last wrote, two seconds of it by default (twice
`POLL_SECONDS`); one that is told to stop loses nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, TypeVar

from app.core import events
from app.core.events import EventBus
from app.core.lifecycle import Snoozed
from app.core.tally import HOUR, MINUTE, MOST_PAIRS, OTHERS, SPANS, Pair, Tally, floor
from app.core.task import Status
from app.models import tallies as rows
from app.models.database import Connection, Database
from app.models.tallies import Range, Span, Step

KEPT = timedelta(days=30)
DRAIN_MINUTES = 5
"""How far back is looked for how fast a queue is worked off."""
DRAIN_STANDS = timedelta(seconds=5)

_COUNTED_AS = {
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.RETRYING: "retried",
    Status.CANCELLED: "cancelled",
}


_pair: Callable[[Any], Pair] = attrgetter("queue", "task_type")
_end = attrgetter("change.status", "outcome")
_run_seconds = attrgetter("run_seconds")
One = TypeVar("One")


def _grouped(things: Sequence[One]) -> Mapping[Pair, Sequence[One]]:
    """By queue and task type. Mostly all are of one."""
    pairs = list(map(_pair, things))
    if pairs.count(pairs[0]) == len(pairs):
        return {pairs[0]: things}
    groups: dict[Pair, list[One]] = {}
    for pair, one in zip(pairs, things, strict=True):
        groups.setdefault(pair, []).append(one)
    return groups


class Tallies:
    """What happened, by minute, queue and task type. One per process; the store has the sum over all."""

    def __init__(self, database: Database, bus: EventBus, priority_step_seconds: float) -> None:
        self._database = database
        self._clock = database.clock()
        self._step_milliseconds = priority_step_seconds * 1000
        self._unwritten: dict[tuple[int, Pair], Tally] = {}
        self._known: set[Pair] = set()
        self._drained: tuple[datetime, dict[str, float]] | None = None
        bus.subscribe(events.TasksSubmitted, self._submitted)
        bus.subscribe(events.TasksClaimed, self._claimed)
        bus.subscribe(events.TasksSettled, self._settled)
        bus.subscribe(events.TaskCancelled, self._cancelled)
        bus.subscribe(events.TasksExpired, self._expired)

    # Counting. Every task passes here three times, so what is done for each is left to functions in C where it can be.

    def _of(self, minute: int, pair: Pair) -> Tally:
        tally = self._unwritten.get((minute, pair))
        if tally is None:
            tally = self._unwritten[minute, pair] = Tally()
        return tally

    def _minute(self) -> int:
        return int(self._clock().timestamp()) // MINUTE

    def _submitted(self, event: events.TasksSubmitted) -> None:
        minute = self._minute()
        for pair, count in Counter(map(_pair, event.tasks)).items():
            self._of(minute, pair).submitted += count

    def _claimed(self, event: events.TasksClaimed) -> None:
        now = self._clock().timestamp()
        step = self._step_milliseconds
        for pair, tasks in _grouped(event.tasks).items():
            # The rank is when it was ready, moved forward by its priority.
            waits = [now - (task.rank + task.priority * step) / 1000 for task in tasks]
            self._of(int(now) // MINUTE, pair).wait.add(waits if min(waits) >= 0 else [max(0.0, one) for one in waits])

    def _settled(self, event: events.TasksSettled) -> None:
        minute = self._minute()
        for pair, settlements in _grouped(event.settlements).items():
            tally = self._of(minute, pair)
            for (status, outcome), count in Counter(map(_end, settlements)).items():
                name = _COUNTED_AS.get(status)
                if name is not None and outcome != Snoozed.word:
                    setattr(tally, name, getattr(tally, name) + count)
            tally.run.add(seconds for seconds in map(_run_seconds, settlements) if seconds is not None)

    def _cancelled(self, event: events.TaskCancelled) -> None:
        self._of(self._minute(), (event.task.queue, event.task.task_type)).cancelled += 1

    def _expired(self, event: events.TasksExpired) -> None:
        minute = self._minute()
        for pair in event.pairs:
            self._of(minute, pair).failed += 1

    # Writing.

    async def write(self) -> bool:
        """Add to the store what was counted since the last time. Raises StoreUnavailable, and then keeps it for the next."""
        if not self._unwritten:
            return False
        counted, self._unwritten = self._unwritten, {}
        try:
            await self._learn({pair for _, pair in counted})
            spans = self._spans(counted)
            # Nothing but this one statement: it is large, and made ready for the first time before it takes the write lock.
            async with self._database.write(durable=False) as connection:
                await rows.add(connection, spans)
        except BaseException:
            for (minute, pair), tally in counted.items():
                self._of(minute, pair).merge(tally)
            raise
        return False

    async def _learn(self, pairs: set[Pair]) -> None:
        """Know which pairs there are; of new ones only so many are told apart."""
        if pairs <= self._known:
            return
        async with self._database.read() as connection:
            self._known |= await rows.pairs(connection, MOST_PAIRS)
        self._known |= set(sorted(pairs - self._known)[: max(0, MOST_PAIRS - len(self._known))])

    def _spans(self, counted: dict[tuple[int, Pair], Tally]) -> dict[Span, Tally]:
        spans: dict[Span, Tally] = {}
        for (minute, (queue, task_type)), tally in counted.items():
            name = queue if (queue, task_type) in self._known else OTHERS
            moment = floor(_moment(minute), MINUTE)
            for seconds in SPANS:
                span = Span(seconds, floor(moment, seconds), name, task_type)
                spans.setdefault(span, Tally()).merge(tally)
        return spans

    async def prune(self) -> bool:
        """Delete what is older than 30 days. True if there may be more."""
        async with self._database.write(durable=False) as connection:
            return await rows.prune(connection, self._clock() - KEPT, 500) >= 500

    # Reading.

    async def totals(self) -> dict[Pair, Tally]:
        """Everything that ever happened, as far as it is written."""
        async with self._database.read() as connection:
            return await rows.totals(connection)

    async def summed(
        self,
        begins_at: datetime,
        ends_at: datetime,
        step_seconds: int,
        by: Sequence[str],
        *,
        queue: str | None,
        task_type: str | None,
        most: int,
    ) -> list[Step]:
        """What happened in [begins_at, ends_at), by steps of whole minutes that begin at multiples of their length, told
        apart `by`; up to `most`."""
        # Hours are as good where nothing finer is asked for, and sixty times fewer.
        spans = HOUR if step_seconds % HOUR == 0 and floor(begins_at, HOUR) == begins_at else MINUTE
        wanted = Range(spans, floor(begins_at, MINUTE), ends_at, queue, task_type)
        async with self._database.read() as connection:
            return await rows.summed(connection, wanted, step_seconds, by, most)

    async def drained(self, connection: Connection) -> dict[str, float]:
        """How many tasks of each queue have ended a second, over the last minutes; looked up every few seconds at most."""
        now = self._clock()
        if self._drained is None or not timedelta(0) <= now - self._drained[0] <= DRAIN_STANDS:
            begins_at = floor(now - timedelta(minutes=DRAIN_MINUTES), MINUTE)
            wanted = Range(MINUTE, begins_at, now + timedelta(minutes=1))
            steps = await rows.summed(connection, wanted, MINUTE, ("queue",), 100_000)
            self._drained = now, _rates(steps, now)
        return self._drained[1]


def _moment(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * MINUTE, UTC)


def _rates(steps: Iterable[Step], now: datetime) -> dict[str, float]:
    """Ended tasks a second by queue, since the first minute in which any ended."""
    ended: dict[str, int] = {}
    first: dict[str, datetime] = {}
    for step in steps:
        if step.queue is not None and step.tally.ended:
            ended[step.queue] = ended.get(step.queue, 0) + step.tally.ended
            first.setdefault(step.queue, step.begins_at)
    return {queue: count / max(10.0, (now - first[queue]).total_seconds()) for queue, count in ended.items()}
