"""`Snapshots`: lets any number of streams wait for what the service looks like, at the cost of one look a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from app.core.errors import StoreUnavailable
from app.core.events import EventBus, StoreTroubled

TICK_SECONDS = 1.0
"""From one look to the next."""
RESTS, LONGEST_REST_SECONDS = 3, 5.0
"""Where looks take long they are rarer: none begins for so many times as long as the last one took."""
WOKEN_AT_ONCE, APART_SECONDS = 20, 0.01
"""A thousand streams told at once would hold up other requests for a tenth of a second: so many are, and the next after this."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is to be told, and the id that names it: the same of whatever looks the same, in every process."""

    id: str
    content: bytes


@dataclass(eq=False)
class _Watch:
    """Those who wait for one tenant's snapshot, with the id of the one they have; and the last that was seen while somebody
    did."""

    latest: Snapshot | None = None
    waiting: dict[asyncio.Future[None], str | None] = field(default_factory=dict)
    watching: asyncio.Task[None] | None = None


class Snapshots:
    """One per API process. Looks while anyone waits, once for all who wait for the same tenant."""

    def __init__(self, look: Callable[[str], Awaitable[Snapshot]], bus: EventBus) -> None:
        """`look` takes a tenant, empty for the whole service; it may raise StoreUnavailable."""
        self._look = look
        self._bus = bus
        self._watches: dict[str, _Watch] = {}
        self.closed = False

    async def newer(self, tenant: str, seen: str | None, timeout: float) -> Snapshot | None:
        """The newest snapshot as soon as it has another id than `seen`; None after `timeout` seconds, or at close."""
        if self.closed:
            return None
        watch = self._watches.get(tenant)
        if watch is None:
            watch = self._watches[tenant] = _Watch()
            watch.watching = asyncio.create_task(self._watch(tenant, watch))
        if watch.latest is None or watch.latest.id == seen:
            await _woken(watch, seen, timeout)
        latest = watch.latest
        return None if self.closed or latest is None or latest.id == seen else latest

    def let_go(self) -> None:
        """Let everyone who waits go, now and from now on, so that the process can stop."""
        self.closed = True
        for watch in self._watches.values():
            for one in watch.waiting:
                _wake(one)

    async def close(self) -> None:
        """Let everyone go and look no more."""
        self.let_go()
        watching = [watch.watching for watch in self._watches.values() if watch.watching is not None]
        for one in watching:
            one.cancel()
        await asyncio.gather(*watching, return_exceptions=True)

    async def _watch(self, tenant: str, watch: _Watch) -> None:
        try:
            while not self.closed:
                began = time.monotonic()
                snapshot = await self._seen(tenant)
                took = time.monotonic() - began
                again_at = began + took + max(TICK_SECONDS, min(RESTS * took, LONGEST_REST_SECONDS))
                if snapshot is not None:
                    await _tell(watch, snapshot)
                await asyncio.sleep(again_at - time.monotonic())
                if not watch.waiting:
                    return
        finally:
            del self._watches[tenant]

    async def _seen(self, tenant: str) -> Snapshot | None:
        try:
            return await self._look(tenant)
        except StoreUnavailable as error:
            self._bus.publish(StoreTroubled("look for the overview", str(error)))
            return None


async def _tell(watch: _Watch, snapshot: Snapshot) -> None:
    watch.latest = snapshot
    news = [one for one, seen in watch.waiting.items() if seen != snapshot.id]
    for place, one in enumerate(news, 1):
        _wake(one)
        if place % WOKEN_AT_ONCE == 0:
            await asyncio.sleep(APART_SECONDS)


async def _woken(watch: _Watch, seen: str | None, timeout: float) -> None:
    one = asyncio.get_running_loop().create_future()
    watch.waiting[one] = seen
    try:
        async with asyncio.timeout(timeout):
            await one
    except TimeoutError:
        pass
    finally:
        del watch.waiting[one]


def _wake(one: asyncio.Future[None]) -> None:
    if not one.done():
        one.set_result(None)
