"""Every number about the queue and its workers that a client may ask for. All of it comes from the store."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.core.settings import Settings
from app.core.task import Status
from app.models import stats as rows
from app.models import workers as worker_rows
from app.models.database import Database
from app.models.stats import QueueDepth
from app.models.workers import WorkerRow


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


class Insights:
    """Reads numbers; changes nothing."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._silent_after = timedelta(seconds=2 * settings.lease_seconds)
        self._clock = database.clock()

    async def queues(self) -> list[QueueDepth]:
        """Depth and oldest age of each queue, by name."""
        async with self._database.read() as connection:
            return await rows.queue_depths(connection, self._clock())

    async def workers(self) -> list[WorkerRow]:
        """The workers that were heard of within two leases."""
        async with self._database.read() as connection:
            return list(await worker_rows.listed(connection, self._clock() - self._silent_after))

    async def stats(self) -> Stats:
        """Totals over all queues."""
        now = self._clock()
        async with self._database.read() as connection:
            depths = await rows.queue_depths(connection, now)
            ended = await rows.finished_counts(connection)
            lately = await rows.finished_counts(connection, now - timedelta(hours=1))
            workers = await worker_rows.listed(connection, now - self._silent_after)
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

    async def store_answers(self) -> None:
        """Return when the store has answered a read. Raises StoreUnavailable."""
        async with self._database.read() as connection:
            await rows.paused_queues(connection)
