"""A worker that scales by itself: as many runners as what waits and runs asks for."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from app.core.autoscale import Follower, slots_wanted
from app.core.errors import StoreUnavailable
from app.core.events import RunnersResized, StoreTroubled
from app.models.workers import WorkerRow
from app.services.wiring import Services
from app.workers.pool import RunnerPool

LOOK_SECONDS = 0.5
SHRINK_SECONDS = 30.0
"""How long fewer runners must do until some end."""
BEGUN_SECONDS = 2.0
"""How soon what waits should have begun."""
LOOK_SHARE = 20
"""To count a long line takes time: the pause is so many times as long at least."""


class Scaler:
    """Gives the pool of one worker between as many runners as it has now and `most`. `resized` is called when it has."""

    def __init__(
        self, services: Services, pool: RunnerPool, row: WorkerRow, most: int, resized: Callable[[], None]
    ) -> None:
        self._services = services
        self._pool = pool
        self._row = row
        self._follower = Follower(pool.roster.processes, most, SHRINK_SECONDS)
        self._resized = resized

    async def run(self) -> None:
        """Look and follow until cancelled. Trouble with the store only delays it."""
        pause = LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            try:
                await self._follow()
            except StoreUnavailable as error:
                self._services.bus.publish(StoreTroubled("scale", str(error)))
                continue
            pause = max(LOOK_SECONDS, LOOK_SHARE * (time.monotonic() - began))

    async def _follow(self) -> None:
        before = self._pool.roster.processes
        after = self._follower.next(time.monotonic(), before, await self._runners_wanted())
        if after < before or (after > before and not self._pool.roster.failing):
            await self._pool.roster.resize(after)
            self._services.bus.publish(RunnersResized(self._row.id, before, after))
            self._resized()

    async def _runners_wanted(self) -> int:
        demand = self._pool.demand()
        if self._pool.roster.starting:
            return self._pool.roster.processes  # what is on its way was wanted, and is no idle one
        if demand.running < self._pool.roster.processes:
            return demand.running  # one is idle, so nothing waits that it could take
        known = self._services.registry
        waiting = [one for one in await self._services.insights.waiting(self._row.queues) if one.task_type in known]
        now = self._services.database.clock()()
        age = max(((now - one.oldest_ready_at).total_seconds() for one in waiting), default=0.0)
        ready = self._pool.runners_for(waiting)
        return slots_wanted(replace(demand, ready=ready, oldest_age_seconds=age), BEGUN_SECONDS)
