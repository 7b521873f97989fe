"""New work through a broker: a hint goes to one worker that has room, not to all, and idle workers need not ask the store.

Only hints go this way; cancels and changes go the way of the store (`wakeup.py`), and so do hints while the broker cannot
be used. What it loses costs time: whoever waits looks by itself every `REST_SECONDS`, or at the usual pace without it.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from random import Random

from app.core import hint as core
from app.core.errors import BrokerUnavailable
from app.core.events import BrokerFound, BrokerLost, BrokerStrange, EventBus
from app.core.hint import MOST_PASSES, Hint
from app.models.streams import GroupGone, Streams
from app.services.wakeup import QUEUES, Listener, Wakeup, WorkEar

REST_SECONDS = 4.5
"""How long an idle worker goes without looking by itself: a hint may get lost in ways that nobody sees."""
BLOCK_SECONDS = 2.0
"""Longest wait of one command; how late a silent server is noticed, and a new queue."""
LEARN_SECONDS = 1.0
ANNOUNCE_SECONDS = 60.0
PING_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 5.0
SILENT_SECONDS = 600.0
"""A reader that has asked for nothing for so long is taken for dead."""
MOST_QUEUES = 256
"""So many queues are followed by a worker that serves every queue; what is in others it finds by looking."""


class BrokerWakeup:
    """Hints about work through `streams`, everything else through `own`, the wake-up of the store."""

    def __init__(self, streams: Streams, own: Wakeup, bus: EventBus, default_queue: str) -> None:
        self._streams = streams
        self._own = own
        self._bus = bus
        self._default_queue = default_queue
        self._unsaid: list[Hint] = []
        self._to_say = asyncio.Event()
        self._announced_at: dict[str, float] = {}
        self._troubles: dict[object, str] = {self: "it has not answered yet"}
        self._ears: set[BrokerEar] = set()
        self._saying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """See whether the broker answers; it is only told if it does not."""
        try:
            await self._streams.answers()
        except BrokerUnavailable as error:
            self.lost(self, error)
        else:
            self._troubles.clear()
        self._saying = asyncio.create_task(self._say_on())

    # As the store's own.

    def notify(self, channel: str, ids: Collection[int] = ()) -> None:
        self._own.notify(channel, ids)

    def listen(self, channel: str) -> Listener:
        return self._own.listen(channel)

    # Work.

    def call_workers(self, came: Mapping[str, int]) -> None:
        can_say = self not in self._troubles
        if not (can_say and came):
            self._own.notify(QUEUES)
        if can_say:
            # Where the queue is not known, everyone whom this process knows of looks once.
            hints = [Hint(queue, tasks) for queue, tasks in came.items()]
            self.say(hints or [Hint(queue) for queue in self._announced_at])

    def say(self, hints: Collection[Hint]) -> None:
        """Have some worker hear each of these soon."""
        self._unsaid = core.merged([*self._unsaid, *hints])
        self._to_say.set()

    def listen_for_work(self, queues: Sequence[str]) -> WorkEar:
        ear = BrokerEar(self, self._streams, self._own.listen(QUEUES), queues, self._default_queue)
        self._ears.add(ear)
        return ear

    def about(self) -> dict[str, str]:
        for trouble in self._troubles.values():
            return {"broker_warning": f"The broker {self._streams.name} cannot be used: {trouble}."}
        return {"broker": "ok"}

    async def close(self) -> None:
        for ear in list(self._ears):
            await ear.close()
        if self._saying is not None:
            self._saying.cancel()
            await asyncio.gather(self._saying, return_exceptions=True)
        if self._unsaid and not self._troubles:
            await self._said()
        await self._streams.close()
        await self._own.close()

    def gone(self, ear: "BrokerEar") -> None:
        self._ears.discard(ear)
        self._troubles.pop(ear, None)

    def lost(self, who: object, error: BrokerUnavailable) -> None:
        """`who` reads or says could not use the broker: until it can, hints go by the store, and readers look at the usual
        pace. One may work without the other, where memory is full or rights are missing."""
        if str(error) not in self._troubles.values():
            self._bus.publish(BrokerLost(self._streams.name, str(error)))
        self._troubles[who] = str(error)
        self._to_say.set()  # so that it is tried
        for ear in self._ears:
            ear.poke()

    def met_strangers(self, messages: int) -> None:
        """So many messages that were read were none of ours."""
        self._bus.publish(BrokerStrange(self._streams.name, messages))

    def found(self, who: object) -> None:
        """The broker was of use to `who`."""
        if self._troubles.pop(who, None) and not self._troubles:
            self._bus.publish(BrokerFound(self._streams.name))

    async def _say_on(self) -> None:
        """Say what there is to say, from a task of its own: nobody who calls ever waits."""
        pause = Pause()
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._to_say.wait()
            except TimeoutError:
                pass
            self._to_say.clear()
            while not await self._said():
                await pause.over()
            pause.forget()

    async def _said(self) -> bool:
        """Say it, or see that the broker answers. False if it does not; then everyone is called the other way."""
        hints, self._unsaid = self._unsaid, []
        try:
            await self._announce([hint.queue for hint in hints])
            await (self._streams.say(hints) if hints else self._streams.answers())
        except BrokerUnavailable as error:
            self.lost(self, error)
            self._announced_at.clear()
            if hints:
                self._own.notify(QUEUES)
                # Said again, because answering is not yet taking: a server whose memory is full still answers.
                self._unsaid = core.merged([*hints, *self._unsaid])
            return False
        except asyncio.CancelledError:  # the end of this process came in between; `close` says it
            self._unsaid = core.merged([*hints, *self._unsaid])
            raise
        self.found(self)
        return True

    async def _announce(self, queues: Sequence[str]) -> None:
        """Have those who serve every queue know these. Again and again, because the broker may forget them."""
        before = time.monotonic() - ANNOUNCE_SECONDS
        due = [queue for queue in queues if self._announced_at.get(queue, before) <= before]
        if due:
            await self._streams.announce(due)
            if any(queue not in self._announced_at for queue in due):
                self._own.notify(QUEUES)  # a reader that does not know the queue looks at once
            self._announced_at |= dict.fromkeys(due, time.monotonic())


class Pause:
    """Waits that grow while something fails, up to 5 s, and differ between processes."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._random = Random()  # noqa: S311 jitter, not secrets

    def forget(self) -> None:
        self._seconds = 0.0

    async def over(self) -> None:
        self._seconds = min(LONGEST_PAUSE_SECONDS, max(0.1, 2 * self._seconds))
        await asyncio.sleep(self._seconds * self._random.uniform(0.5, 1.0))


class BrokerEar(WorkEar):
    """Reads the streams of a worker's queues while it has room."""

    def __init__(
        self, broker: BrokerWakeup, streams: Streams, listener: Listener, queues: Sequence[str], default_queue: str
    ) -> None:
        super().__init__(listener)
        self._broker = broker
        self._streams = streams
        self._every_queue = not queues
        self._queues = dict.fromkeys(queues or [default_queue])
        self._joined: set[str] = set()
        self._known_to, self._learned_at = "0", 0.0
        self._heard: list[Hint] = []
        self._has_room = asyncio.Event()
        self._hears = False
        self._removed_silent_at = time.monotonic()
        self._reading = asyncio.create_task(self._read_on())

    def rest(self, poll_seconds: float) -> float:
        return max(poll_seconds, REST_SECONDS) if self._hears else poll_seconds

    def asks(self, room: bool) -> None:
        if room:
            self._has_room.set()
        else:
            self._has_room.clear()
            self._hand_on()

    def _hand_on(self) -> None:
        """What was heard and not seen to is for others, or for us later."""
        if self._heard:
            self._broker.say(self._heard)
            self._heard = []

    def heard(self) -> Sequence[Hint]:
        heard, self._heard = self._heard, []
        return heard

    def still_to_say(self, heard: Sequence[Hint], claimed: Mapping[str, int], left: Collection[str]) -> None:
        rest = core.still_to_say(heard, claimed, left) if heard else []
        if rest:
            self._broker.say(rest)

    def poke(self) -> None:
        """Have the worker look now, and at its usual pace if nothing is heard here any more."""
        self._listener.poke()

    async def close(self) -> None:
        hears = self._hears
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._broker.gone(self)
        if hears:
            # The last answer may have been on its way: whatever it said, somebody else looks.
            self._hand_on()
            self._broker.say([Hint(queue, 1, MOST_PASSES) for queue in self._joined])
            await self._leave()
        await super().close()

    async def _leave(self) -> None:
        try:
            await self._streams.leave(self._joined)
        except (BrokerUnavailable, GroupGone):
            return

    async def _read_on(self) -> None:
        """Read until cancelled; whatever ends it, nothing is heard here any more."""
        try:
            await self._read_for_ever()
        finally:
            self._hears = False

    async def _read_for_ever(self) -> None:
        pause = Pause()
        while True:
            await self._has_room.wait()
            try:
                await self._read()
            except BrokerUnavailable as error:
                self._hears = False
                self._forget()
                self._broker.lost(self, error)
                await pause.over()
            except GroupGone:
                # Somebody emptied the server, or it started anew: what it knew is lost.
                self._forget()
                self.poke()
                await pause.over()
            else:
                self._broker.found(self)
                pause.forget()

    def _forget(self) -> None:
        self._joined.clear()
        self._known_to, self._learned_at = "0", 0.0

    async def _read(self) -> None:
        """Follow the queues there are, and wait for one hint or several."""
        if self._every_queue and time.monotonic() - self._learned_at > LEARN_SECONDS:
            await self._learn()
        await self._join([queue for queue in self._queues if queue not in self._joined])
        await self._tidy()
        strange = self._streams.strange
        hints = await self._streams.read(list(self._queues), BLOCK_SECONDS)
        if self._streams.strange > strange:
            self._broker.met_strangers(self._streams.strange - strange)
        self._heard += hints
        if not self._has_room.is_set():
            self._hand_on()
        elif hints:
            self.poke()

    async def _learn(self) -> None:
        self._learned_at = time.monotonic()
        names, self._known_to = await self._streams.announced(self._known_to)
        for name in names:
            if len(self._queues) < MOST_QUEUES:
                self._queues[name] = None

    async def _join(self, queues: Sequence[str]) -> None:
        if queues:
            await self._streams.join(queues)
            self._joined.update(queues)
        if queues and not self._hears:
            self._hears = True
            self.poke()  # it may have been said before we could hear it

    async def _tidy(self) -> None:
        if time.monotonic() - self._removed_silent_at > SILENT_SECONDS:
            self._removed_silent_at = time.monotonic()
            await self._streams.remove_silent(list(self._joined), SILENT_SECONDS)
