"""Alerts: looks at the service by turns, keeps what it finds in rows, and tells the channels.

Any process may look and any may send; none leads. What is to be told is stored in the transaction that decides it, one notice
for each channel. Whoever sends one has claimed it for a while under a lease; if it dies, another takes over, so a notice is
told at least once, and always under the same id. Notices are no tasks, as those of ended tasks are: that no worker is left is
among what they tell.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from random import Random
from urllib.parse import urlsplit

from app.core import alerts as core
from app.core.alerts import (
    FAILURE_WINDOW,
    GROWTH_WINDOW,
    Alert,
    AlertState,
    BreakerSeen,
    Kind,
    QueueSeen,
    Sight,
    Silence,
    WebhookSeen,
    WorkerSeen,
)
from app.core.audit import Action, Actor, Deed
from app.core.breaker import BreakerState
from app.core.errors import Conflict, NotFound
from app.core.events import AlertCleared, AlertFired, EventBus, NoticeFailed
from app.core.notices import BACKOFF, MOST_ATTEMPTS, Notice, told, told_for_test
from app.core.settings import Settings
from app.core.tally import MINUTE, floor
from app.core.task import LARGEST_INTEGER
from app.models import alerts as rows
from app.models import dead_letters as dead_rows
from app.models import webhooks as webhook_rows
from app.models import workers as worker_rows
from app.models.alerts import AlertFilter, Delivery
from app.models.database import Connection, Database, retried
from app.models.dead_letters import DeadFilter
from app.services.audit import note
from app.services.breakers import Breakers
from app.services.channels import Sender
from app.services.limits import QueueLimits
from app.services.tallies import Tallies

TURN = "alerts"
SENT_AT_ONCE = 20
PRUNED_AT_ONCE = 500
WORKERS_LIVE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class AlertReport:
    """An alert, and what was told of it."""

    alert: Alert
    silenced: bool
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of trying one channel; `error` is None where it works."""

    channel: str
    error: str | None


class Alerts:
    """The alerts of one store."""

    def __init__(
        self,
        database: Database,
        bus: EventBus,
        settings: Settings,
        limits: QueueLimits,
        tallies: Tallies,
        breakers: Breakers,
        random: Random,
    ) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings
        self._limits = limits
        self._tallies = tallies
        self._breakers = breakers
        self._random = random
        self._clock = database.clock()
        self._sender = Sender(settings, self._clock)
        self._patience = settings.alert_patience
        # Processes look at uneven times; a turn lasts a little less, so that none is left out for being early.
        self._turn = timedelta(seconds=settings.alert_look_seconds * 0.7)

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of those that this process can tell."""
        return tuple(self._sender.channels)

    # Looking.

    async def look(self) -> bool:
        """See what is wrong and what no longer is, if it is our turn. Raises StoreUnavailable."""
        if await self._takes_turn():
            await self.judge(await self._sight())
        return False

    @retried
    async def _takes_turn(self) -> bool:
        now = self._clock()
        async with self._database.read() as connection:
            if not await rows.due_turn(connection, TURN, now, self._turn):
                return False
        async with self._database.write(durable=False) as connection:
            return await rows.take_turn(connection, TURN, now, self._turn)

    async def _sight(self) -> Sight:
        now = self._clock()
        queues = await self._limits.listed()
        ended = await self._ended(now)
        breakers = await self._breakers.listed()
        async with self._database.read() as connection:
            dead_letters = await dead_rows.count(connection, DeadFilter())
            lately = await rows.dead_letters_since(connection, now - GROWTH_WINDOW)
            workers = await worker_rows.listed(connection, now, WORKERS_LIVE)
            webhooks = await webhook_rows.found(connection, "")
        ages = {one.rule.name: one.oldest_age_seconds or 0.0 for one in queues}
        paused = {one.rule.name for one in queues if one.rule.paused}
        return Sight(
            now=now,
            queues=tuple(
                QueueSeen(name, name in paused, ages.get(name, 0.0), *ended.get(name, (0, 0)))
                for name in sorted(ages.keys() | ended.keys())
            ),
            dead_letters=dead_letters,
            dead_letters_lately=lately,
            workers=tuple(WorkerSeen(one.id, one.name, one.host, one.started_at, one.beat_at) for one in workers),
            open_breakers=tuple(
                BreakerSeen(one.circuit.name, one.circuit.reason, one.waiting)
                for one in breakers
                if one.state is BreakerState.OPEN
            ),
            dead_webhooks=tuple(
                WebhookSeen(one.id, urlsplit(one.url).hostname or "", one.switched_off_reason)
                for one in webhooks
                if one.switched_off_reason is not None
            ),
        )

    async def _ended(self, now: datetime) -> dict[str, tuple[int, int]]:
        """How many tasks of each queue ended within the window, and how many of them failed."""
        begins_at, ends_at = floor(now - FAILURE_WINDOW, MINUTE), now + timedelta(minutes=1)
        ended: dict[str, tuple[int, int]] = {}
        steps = await self._tallies.summed(
            begins_at, ends_at, MINUTE, ("queue",), queue=None, task_type=None, most=100_000
        )
        for step in steps:
            if step.queue is not None:
                before = ended.get(step.queue, (0, 0))
                ended[step.queue] = before[0] + step.tally.ended, before[1] + step.tally.failed
        return ended

    @retried
    async def judge(self, sight: Sight) -> None:
        """Bring the alerts up to what was seen, and store what is to be told of them."""
        settings, now = self._settings, sight.now
        troubles = core.found(sight, settings.alert_thresholds, settings.alert_rules_off)
        changed: list[Alert] = []
        async with self._database.write() as connection:
            await rows.reserve(connection)
            active = {alert.key: alert for alert in await rows.active(connection)}
            silences = await rows.silences(connection, now)
            for key, (rule, trouble) in troubles.items():
                if key not in active:
                    alert = core.begun(rule, trouble, now, self._patience)
                    changed += await self._keep(connection, alert, None, silences, now)
            for key, before in active.items():
                found = troubles.get(key)
                after = core.followed(before, found and found[1], now, self._patience)
                if after is None:
                    await rows.forget(connection, [before.id])
                else:
                    changed += await self._keep(connection, after, before, silences, now)
        for alert in changed:
            self._bus.publish(AlertFired(alert) if alert.state is AlertState.FIRING else AlertCleared(alert))

    async def _keep(
        self, connection: Connection, alert: Alert, before: Alert | None, silences: Sequence[Silence], now: datetime
    ) -> list[Alert]:
        """Store the alert and what is to be told of it. Returns it if it has fired or cleared by this."""
        kind = core.to_tell(alert, silences)
        if kind is Kind.FIRED and not self.channels:
            kind = None  # nobody can be told from here; another process may be able to
        if kind is Kind.FIRED:
            alert = replace(alert, told_at=now)
        if before is None:
            id_ = await rows.add(connection, alert)
            if id_ is None:
                return []
            alert = replace(alert, id=id_)
        elif alert != before:
            await rows.save(connection, alert, before.state)
        if kind is not None:
            told_before = kind is Kind.CLEARED
            channels = await rows.channels_told(connection, alert.id) if told_before else self.channels
            await rows.add_notices(connection, alert.id, kind, channels, told(alert, kind, now), now)
        was = AlertState.HOLDING if before is None else before.state
        return [alert] if alert.state is not was else []

    # Telling.

    async def tell(self) -> bool:
        """Send what is due. True if there is more. Raises StoreUnavailable."""
        if not self.channels:
            return False
        async with self._database.read() as connection:
            due = await rows.unsent(connection, self.channels, self._clock(), SENT_AT_ONCE)
        for notice in due:
            claimed = await self._claimed(notice)
            if claimed is not None:
                error = await self._sender.send(claimed.channel, claimed.message_id, claimed.told)
                await self._settle(claimed, error)
        return len(due) == SENT_AT_ONCE

    @retried
    async def _claimed(self, notice: Notice) -> Notice | None:
        async with self._database.write(durable=False) as connection:
            return await rows.claim(connection, notice, self._clock())

    @retried
    async def _settle(self, notice: Notice, error: str | None) -> None:
        now = self._clock()
        async with self._database.write() as connection:
            if error is None:
                await rows.sent(connection, notice, now)
            elif notice.attempts >= MOST_ATTEMPTS:
                await rows.give_up(connection, notice, error, now)
            else:
                wait = timedelta(seconds=BACKOFF.delay_seconds(notice.attempts, self._random))
                await rows.put_off(connection, notice, error, now + wait)
        if error is not None:
            self._bus.publish(NoticeFailed(notice.channel, error, gave_up=notice.attempts >= MOST_ATTEMPTS))

    async def test(self, channel: str | None = None) -> list[Tried]:
        """Tell this channel, or each, that this is a test; at once, and once. Raises Conflict where there is none."""
        if not self.channels:
            raise Conflict("No channel is set: ALERT_WEBHOOK_URL, ALERT_SLACK_URL and ALERT_MAIL_TO are empty.")
        if channel is not None and channel not in self.channels:
            raise Conflict(f"The channel {channel} is not set; {', '.join(self.channels)} is.")
        now = self._clock()
        message_id = f"alert_test_{now:%Y%m%d%H%M%S%f}"
        return [
            Tried(name, await self._sender.send(name, message_id, told_for_test(now)))
            for name in ([channel] if channel is not None else self.channels)
        ]

    # Reading.

    async def listed(self) -> list[AlertReport]:
        """What holds and fires now, oldest first."""
        async with self._database.read() as connection:
            return await self._reports(connection, await rows.active(connection))

    async def history(self, wanted: AlertFilter, limit: int, before_id: int | None = None) -> list[AlertReport]:
        """Up to `limit` alerts that have fired, newest first."""
        async with self._database.read() as connection:
            return await self._reports(connection, await rows.history(connection, wanted, limit, before_id))

    async def _reports(self, connection: Connection, alerts: Sequence[Alert]) -> list[AlertReport]:
        silences = await rows.silences(connection, self._clock())
        deliveries = await rows.deliveries(connection, [alert.id for alert in alerts]) if alerts else []
        return [
            AlertReport(
                alert,
                alert.state in core.ACTIVE and any(silence.covers(alert) for silence in silences),
                tuple(one for one in deliveries if one.alert_id == alert.id),
            )
            for alert in alerts
        ]

    # Silences.

    async def silences(self) -> Sequence[Silence]:
        """Those that last."""
        async with self._database.read() as connection:
            return await rows.silences(connection, self._clock())

    async def silence(self, rule: str | None, queue: str | None, lasts: timedelta, why: str, by: Actor) -> Silence:
        """Tell nobody for so long that an alert of this rule and queue fires; None is any."""
        now = self._clock()
        made = Silence(0, rule, queue, now + lasts, why, now, "" if by.key_id is None else by.name)
        async with self._database.write() as connection:
            made = await rows.add_silence(connection, made)
            await note(connection, by, now, Deed(Action.SILENCE_CREATE, f"silence {made.id}", None, asdict(made)))
        return made

    async def end_silence(self, silence_id: int, by: Actor) -> None:
        """End it now; what still fires is told. Raises NotFound."""
        if not 0 < silence_id <= LARGEST_INTEGER:
            raise NotFound("silence", silence_id)
        async with self._database.write() as connection:
            ended = await rows.remove_silence(connection, silence_id, self._clock())
            if ended is None:
                raise NotFound("silence", silence_id)
            deed = Deed(Action.SILENCE_END, f"silence {silence_id}", asdict(ended))
            await note(connection, by, self._clock(), deed)

    async def prune(self) -> bool:
        """Delete what is beyond its retention. True if there may be more."""
        before = self._clock() - timedelta(seconds=self._settings.retention_alerts_seconds)
        async with self._database.write(durable=False) as connection:
            await rows.prune_silences(connection, before)
            return await rows.prune(connection, before, PRUNED_AT_ONCE) == PRUNED_AT_ONCE
