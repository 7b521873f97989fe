"""Everything that is done at intervals, without a leader: any process may do any of it at any time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from random import Random

from app.core.errors import StoreUnavailable
from app.core.events import EventBus, StoreTroubled
from app.core.logger import structlog
from app.core.settings import Settings
from app.services.alerts import Alerts
from app.services.audit import AuditLog
from app.services.breakers import Breakers
from app.services.chores import Chores
from app.services.files import FileService
from app.services.limits import QueueLimits
from app.services.tallies import Tallies
from app.services.wall_clock import WallClock

BREATH_SECONDS = 0.01
"""Pause between two batches of one chore, in which others may write."""
MINUTE, HOUR = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do every `every_seconds`; `run` says whether it should be done again at once.

    for_work   it is there for work to be found, and may be left to others by who is told of work anyway
    by_age     it deletes what is old, and is left alone while the wall clock is not to be trusted
    """

    name: str
    every_seconds: float
    run: Callable[[], Awaitable[bool]]
    for_work: bool = False
    by_age: bool = False


def every_chore(
    settings: Settings,
    chores: Chores,
    files: FileService,
    breakers: Breakers,
    limits: QueueLimits,
    tallies: Tallies,
    alerts: Alerts,
    audit: AuditLog,
) -> tuple[Chore, ...]:
    """All that there is to do."""
    poll, sweep = settings.poll_seconds, settings.sweep_seconds
    return (
        Chore("promote", poll, chores.promote, for_work=True),
        Chore("expire", poll, chores.expire, for_work=True),
        Chore("sweep", sweep, chores.sweep),
        Chore("bring back", sweep, chores.bring_back),
        Chore("share out places", sweep, chores.share_out_places),
        Chore("see the limits", poll, limits.refresh),
        Chore("write tallies", 2 * poll, tallies.write),
        Chore("look for alerts", settings.alert_look_seconds, alerts.look),
        Chore("tell of alerts", sweep, alerts.tell),
        Chore("prune", MINUTE, chores.prune, by_age=True),
        Chore("prune tallies", HOUR, tallies.prune, by_age=True),
        Chore("prune alerts", HOUR, alerts.prune, by_age=True),
        Chore("prune the audit log", HOUR, audit.prune, by_age=True),
        Chore("collect files", MINUTE, files.collect, by_age=True),
        Chore("clear drafts", HOUR, files.clear_drafts),
        Chore("forget workers", 10 * MINUTE, chores.forget_workers),
        Chore("forget hosts", MINUTE, breakers.forget_hosts),
        Chore("shorten the log", 5, chores.shorten_log),
    )


class Upkeep:
    """Does each chore at its interval. Chores are idempotent and work in small batches."""

    def __init__(self, chores: Iterable[Chore], bus: EventBus, wall: WallClock, random: Random) -> None:
        self.chores = {chore.name: chore for chore in chores}
        self._bus = bus
        self._wall = wall
        self._random = random

    async def run(self, rest: Callable[[float], float] = lambda seconds: seconds) -> None:
        """Do every chore at its interval until cancelled; what is there for work to be found, at what `rest` makes of it.
        Trouble with the store only delays them."""
        async with asyncio.TaskGroup() as group:
            for chore in self.chores.values():
                group.create_task(self._repeat(chore, rest))

    async def do(self, name: str) -> bool:
        """Do a batch of one chore, unless it has to be left alone. True if there may be more."""
        chore = self.chores[name]
        if chore.by_age and not self._wall.is_steady():
            return False
        return await chore.run()

    async def _repeat(self, chore: Chore, rest: Callable[[float], float]) -> None:
        while True:
            # Jitter, so that many processes do not all look at the same moment.
            seconds = rest(chore.every_seconds) if chore.for_work else chore.every_seconds
            await asyncio.sleep(seconds * self._random.uniform(0.75, 1.25))
            try:
                again = await self.do(chore.name)
                while again:
                    await asyncio.sleep(BREATH_SECONDS)
                    again = await self.do(chore.name)
            except StoreUnavailable as error:
                self._bus.publish(StoreTroubled(chore.name, str(error)))
            except Exception:  # one chore that fails must not end the others, nor itself for ever
                structlog.get_logger("app.upkeep").exception("a chore failed", chore=chore.name)
