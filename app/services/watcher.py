"""`ChangeWatcher`: lets any number of requests wait for changes of tasks at the cost of one query a tick."""

import asyncio
from dataclasses import dataclass, field

import structlog

from app.core.errors import StoreUnavailable
from app.core.task import Task
from app.models import tasks as rows
from app.models.database import Database
from app.models.tasks import Version
from app.services.wakeup import CHANGES, Listener, Wakeup

TICK_SECONDS = 0.005
"""Shortest pause between two looks: under load many wake-ups share one."""


@dataclass(eq=False)
class _Waiter:
    seen: Version
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class ChangeWatcher:
    """One per API process. While anyone waits it re-reads the versions of all tasks that are waited for, in one query,
    at each wake-up and at least every `poll_seconds`."""

    def __init__(self, database: Database, wakeup: Wakeup, poll_seconds: float) -> None:
        self._database = database
        self._wakeup = wakeup
        self._poll_seconds = poll_seconds
        self._waiters: dict[int, set[_Waiter]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._ear: Listener | None = None
        self._closed = asyncio.Event()

    async def changed(self, task: Task, timeout: float) -> bool:
        """Return True when the row is no longer as in `task` (or is gone), False after `timeout` seconds or at close."""
        if self._closed.is_set():
            return False
        waiter = _Waiter(rows.version_of(task))
        self._waiters.setdefault(task.id, set()).add(waiter)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        elif self._ear is not None:
            self._ear.poke()  # the row may have changed between the caller's reading and now
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
        try:
            while self._waiters:
                await self._look()
                await asyncio.sleep(TICK_SECONDS)
                await ear.wait(self._poll_seconds)
        finally:
            ear.close()

    async def _look(self) -> None:
        # Who comes while we look was not asked for; the next look is theirs.
        asked = [(task_id, waiter) for task_id, waiters in self._waiters.items() for waiter in waiters]
        try:
            async with self._database.read() as connection:
                versions = await rows.versions(connection, list(self._waiters))
        except StoreUnavailable as error:
            structlog.get_logger("app.watcher").warning("cannot look for changes now", reason=str(error))
            return
        for task_id, waiter in asked:
            if versions.get(task_id) != waiter.seen:
                waiter.changed.set()
