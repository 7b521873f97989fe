"""Every number about the queue and its workers that a client may ask for. All of it comes from the store."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson

from app.core.autoscale import Demand
from app.core.diagnosis import Hand, Waiting
from app.core.settings import Settings
from app.core.slots import Room
from app.core.task import Status
from app.core.workers import SILENT, room, silent_seconds
from app.models import stats as rows
from app.models import workers as worker_rows
from app.models.database import Database
from app.models.stats import QueueDepth
from app.models.workers import WorkerRow
from app.services.batcher import Batcher
from app.services.registry import ExecutorRegistry

LATELY = timedelta(minutes=1)
SAMPLED = 1000
"""How fast tasks complete is judged by those of the last minute, or by the last thousand of them."""
MANY = 50_000
"""So many finished tasks take a while to count: about 5 ms."""
STANDS = 100
LONGEST_SECONDS = 10.0
PROBE_STANDS_SECONDS = 1.0
"""How long a store that took a write is said to take one: probes come often, and each write costs a sync."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of tasks by state now, and of those that ended in the last hour."""

    ready: int
    scheduled: int
    retrying: int
    running: int
    completed: int
    failed: int
    cancelled: int
    completed_last_hour: int
    failed_last_hour: int
    oldest_ready_at: datetime | None
    live_workers: int


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A worker as far as it is known now.

    state           what it said last, or `silent`
    silent_seconds  for how long it has not been heard of, None while it beats
    room            how many more attempts it could take, by what it holds; None where its runners are not known: before its
                    first beat, and where its system does not say
    """

    row: WorkerRow
    state: str
    silent_seconds: float | None
    room: Room | None = None

    @property
    def takes_work(self) -> bool:
        return self.state == "running"


class _Sparing:
    """Counts finished tasks, which takes the longer the more are kept. A count of many is given again for a hundred times as
    long as it took, 10 s at most: so however often somebody asks, a process spends little of its time on it. Few are always
    counted anew, however busy the machine is: who watches a queue drain sees every step."""

    def __init__(self, count: Callable[..., Awaitable[dict[Status, int]]]) -> None:
        self._count = count
        self._counted: dict[Status, int] = {}
        self._stands_until = 0.0

    async def __call__(self, *arguments: Any) -> dict[Status, int]:
        began = time.monotonic()
        if began >= self._stands_until:
            self._counted = await self._count(*arguments)
            took = time.monotonic() - began
            many = sum(self._counted.values()) >= MANY
            self._stands_until = began + min(took * STANDS, LONGEST_SECONDS) if many else 0.0
        return self._counted


class Insights:
    """Reads numbers; changes nothing."""

    def __init__(self, database: Database, settings: Settings, registry: ExecutorRegistry) -> None:
        self._database = database
        self._registry = registry
        self._silent_after = timedelta(seconds=2 * settings.lease_seconds)
        self._clock = database.clock()
        self._probes: Batcher[None, None] = Batcher(self._probe)
        self._probed_at: float | None = None
        self._ended = _Sparing(rows.finished_counts)
        self._lately = _Sparing(rows.finished_counts)

    async def workers(self) -> list[WorkerReport]:
        """The workers that were heard of within two leases."""
        now = self._clock()
        async with self._database.read() as connection:
            listed = await worker_rows.listed(connection, now, self._silent_after)
        return [_reported(row, now) for row in listed]

    async def workers_with_room(self) -> list[WorkerReport]:
        """The same workers, with how much more each could take. Costs a look at all that runs."""
        workers = await self.workers()
        async with self._database.read() as connection:
            held = await worker_rows.held(connection)
        return [replace(one, room=self._room(one, held.get(one.row.id, {}))) for one in workers]

    def _room(self, worker: WorkerReport, held: Mapping[str, int]) -> Room | None:
        if not worker.takes_work:
            return Room(0, 0)
        runners = len(orjson.loads(worker.row.runners))
        shared = sum(count for task_type, count in held.items() if self.shares_runner(task_type))
        plain = sum(held.values()) - shared
        return room(runners, worker.row.slots, plain=plain, shared=shared) if runners else None

    def shares_runner(self, task_type: str) -> bool:
        """Whether attempts of this type run side by side. One that this process does not know is taken not to."""
        return task_type in self._registry and self._registry[task_type].shares_runner

    async def stats(self, tenant: str = "") -> Stats:
        """Totals over all queues; of one tenant's tasks, if it is named."""
        now = self._clock()
        async with self._database.read() as connection:
            depths = await rows.queue_depths(connection, now, tenant)
            hour_ago = now - timedelta(hours=1)
            if tenant:
                ended = await rows.finished_counts(connection, tenant=tenant)
                lately = await rows.finished_counts(connection, hour_ago, tenant)
            else:
                ended = await self._ended(connection)
                lately = await self._lately(connection, hour_ago)
            workers = await worker_rows.listed(connection, now, self._silent_after)
        return Stats(
            ready=sum(depth.ready for depth in depths),
            scheduled=sum(depth.scheduled for depth in depths),
            retrying=sum(depth.retrying for depth in depths),
            running=sum(depth.running for depth in depths),
            completed=ended[Status.COMPLETED],
            failed=ended[Status.FAILED],
            cancelled=ended[Status.CANCELLED],
            completed_last_hour=lately[Status.COMPLETED],
            failed_last_hour=lately[Status.FAILED],
            oldest_ready_at=min((depth.oldest_ready_at for depth in depths if depth.oldest_ready_at), default=None),
            live_workers=len(workers),
        )

    async def waiting(self, queues: Sequence[str]) -> list[Waiting]:
        """The tasks that could start now in these queues (none is every queue), by queue and task type."""
        async with self._database.read() as connection:
            pairs = await rows.ready_pairs(connection, self._clock())
        return [one for one in pairs if not queues or one.queue in queues]

    async def demands(self) -> dict[str, Demand]:
        """What is asked of each queue that has unfinished tasks, or had some a minute ago. Paused queues ask for nothing
        new."""
        now = self._clock()
        since = now - LATELY
        async with self._database.read() as connection:
            depths = await rows.queue_depths(connection, now)
            paused = await rows.paused_queues(connection)
            completed = await rows.completed_lately(connection, since, SAMPLED)
        if len(completed) == SAMPLED:
            since = completed[-1][2]
        seconds = max(1.0, (now - since).total_seconds())
        durations: dict[str, list[float]] = {depth.queue: [] for depth in depths}
        for queue, started_at, finished_at in completed:
            ran = (finished_at - started_at).total_seconds() if started_at else 0.0
            durations.setdefault(queue, []).append(max(0.0, ran))
        by_name = {depth.queue: depth for depth in depths}
        return {
            queue: _demand(by_name.get(queue), ran, seconds, now, paused=queue in paused)
            for queue, ran in sorted(durations.items())
        }

    async def store_answers(self) -> None:
        """Return when the store has answered a read and taken a write: a full disk can still be read. Those who ask
        within a second share one write. Raises StoreUnavailable."""
        if self._probed_at is None or time.monotonic() - self._probed_at > PROBE_STANDS_SECONDS:
            await self._probes(None)

    async def _probe(self, asked: Sequence[None]) -> Sequence[None]:
        async with self._database.read() as connection:
            await rows.paused_queues(connection)
        await self._database.write_nothing()
        self._probed_at = time.monotonic()
        return asked


def hand(worker: WorkerReport) -> Hand:
    """The worker, as one who may take work."""
    row = worker.row
    return Hand(row.id, row.queues, row.task_types, worker.takes_work, row.beat_at, worker.room)


def _reported(row: WorkerRow, now: datetime) -> WorkerReport:
    silent = silent_seconds(row.beat_at, now)
    return WorkerReport(row, row.state if silent is None else SILENT, silent)


def _demand(depth: QueueDepth | None, ran: Sequence[float], seconds: float, now: datetime, *, paused: bool) -> Demand:
    """`ran`: how long each task ran that completed within the last `seconds`."""
    waits = depth is not None and depth.oldest_ready_at is not None and not paused
    return Demand(
        ready=depth.ready if depth and waits else 0,
        running=depth.running if depth else 0,
        oldest_age_seconds=(
            max(0.0, (now - depth.oldest_ready_at).total_seconds())
            if depth and depth.oldest_ready_at and waits
            else 0.0
        ),
        completed_per_second=len(ran) / seconds,
        mean_seconds=sum(ran) / len(ran) if ran else None,
    )
