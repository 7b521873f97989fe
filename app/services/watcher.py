"""`ChangeWatcher`: lets any number of requests wait for changes of tasks at the cost of one query a tick."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.core.errors import StoreUnavailable
from app.core.events import EventBus, StoreTroubled
from app.core.task import Task
from app.models import task_logs as log_rows
from app.models import tasks as rows
from app.models.database import Database
from app.models.task_logs import Position
from app.models.tasks import Version
from app.services.wakeup import CHANGES, Listener, Wakeup

TICK_SECONDS = 0.005
"""Shortest pause between two looks: under load many wake-ups share one."""


@dataclass(eq=False)
class _Waiter:
    seen: Version
    read_to: Position | None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class ChangeWatcher:
    """One per API process. While anyone waits it re-reads the versions of the tasks that are waited for, in one query: of
    those that a wake-up names, and of all every `poll_seconds`."""

    def __init__(self, database: Database, bus: EventBus, wakeup: Wakeup, poll_seconds: float) -> None:
        self._database = database
        self._bus = bus
        self._wakeup = wakeup
        self._poll_seconds = poll_seconds
        self._waiters: dict[int, set[_Waiter]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._ear: Listener | None = None
        self._closed = asyncio.Event()

    async def changed(self, task: Task, timeout: float, read_to: Position | None = None) -> bool:
        """Return True when the row is no longer as in `task` (or is gone), or there are lines behind `read_to` where that is
        given; False after `timeout` seconds or at close."""
        if self._closed.is_set():
            return False
        waiter = _Waiter(rows.version_of(task), read_to)
        self._waiters.setdefault(task.id, set()).add(waiter)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        elif self._ear is not None:
            self._ear.poke([task.id])  # the row may have changed between the caller's reading and now
        try:
            async with asyncio.timeout(timeout):
                await waiter.changed.wait()
        except TimeoutError:
            return False
        finally:
            self._waiters[task.id].discard(waiter)
            if not self._waiters[task.id]:
                del self._waiters[task.id]
        return not self._closed.is_set()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def let_go(self) -> None:
        """Let everyone who waits go, now and from now on, so that the process can stop."""
        self._closed.set()
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.changed.set()

    async def close(self) -> None:
        """Let everyone go and stop watching."""
        self.let_go()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        # Listens only while somebody waits: otherwise no worker need send us anything.
        self._ear = ear = self._wakeup.listen(CHANGES)
        looked_at_all = -math.inf
        try:
            while self._waiters:
                now, named = time.monotonic(), ear.named()
                if named is None or now - looked_at_all >= self._poll_seconds:
                    looked_at_all = now
                    await self._look(list(self._waiters))
                else:
                    await self._look([task_id for task_id in named if task_id in self._waiters])
                await asyncio.sleep(TICK_SECONDS)
                await ear.wait(max(0.0, looked_at_all + self._poll_seconds - time.monotonic()))
        finally:
            ear.close()

    async def _look(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        # Who comes while we look was not asked for; the next look is theirs.
        asked = [(task_id, waiter) for task_id in ids for waiter in self._waiters[task_id]]
        try:
            async with self._database.read() as connection:
                versions = await rows.versions(connection, ids)
                readers = {task_id for task_id, waiter in asked if waiter.read_to is not None}
                ends = await log_rows.positions(connection, readers) if readers else {}
        except StoreUnavailable as error:
            self._bus.publish(StoreTroubled("look for changes", str(error)))
            return
        for task_id, waiter in asked:
            more = waiter.read_to is not None and ends[task_id] > waiter.read_to
            if more or versions.get(task_id) != waiter.seen:
                waiter.changed.set()
