"""What a worker's row says of it: that it lives, what it runs, and what that takes."""

import time
from collections.abc import Callable
from dataclasses import replace

import orjson

from app.core.task import JsonText
from app.models.queue import Lease
from app.models.workers import WorkerRow
from app.services.workers import WorkerBook
from app.workers.pool import RunnerPool
from app.workers.process import Given
from app.workers.roster import MOST_SHOWN
from app.workers.surroundings import resident_bytes


class Presence:
    """Keeps the row of one worker as it is."""

    def __init__(self, book: WorkerBook, pool: RunnerPool, row: WorkerRow, is_stopping: Callable[[], bool]) -> None:
        self._book = book
        self._pool = pool
        self._row = row
        self._is_stopping = is_stopping
        self._shown: list[Lease] = []

    @property
    def shows_work(self) -> bool:
        """Whether the row says that something runs."""
        return bool(self._shown)

    async def beat(self) -> None:
        """Say how it is now. Raises StoreUnavailable."""
        state = "stopping" if self._is_stopping() else "failing" if self._pool.roster.failing else "running"
        begun = [given for given in self._pool.running() if given.began is not None][:MOST_SHOWN]
        self._shown = [given.key for given in begun]
        reports = self._pool.roster.reports()
        own = resident_bytes()
        row = replace(
            self._row,
            slots=self._pool.roster.capacity,
            memory_bytes=own + sum(one.memory_bytes for one in reports) if own else None,
            runners=_json(reports),
        )
        await self._book.beat(row, state, _json([_shown(given) for given in begun]))

    async def beat_when_idle(self) -> None:
        """Say at once that nothing runs any more, instead of showing for a while what has ended."""
        if self._shown and not self._pool.running():
            await self.beat()


def _json(value: object) -> JsonText:
    return JsonText(orjson.dumps(value).decode())


def _shown(given: Given) -> dict[str, object]:
    seconds = 0.0 if given.began is None else time.monotonic() - given.began
    return {
        "task_id": given.task.id,
        "task_type": given.task.task_type,
        "attempt": given.task.attempt,
        "seconds": round(seconds, 3),
    }
