"""Alerts: rules over what is seen of a service, and what becomes of an alert as time passes. Looking is done elsewhere.

An alert is one rule about one subject, from when its trouble was first seen. It fires after the trouble has held for a time,
and clears after it has been gone for a time; so what comes and goes is told once.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.core.diagnosis import Severity


class AlertState(StrEnum):
    HOLDING = "holding"
    """The trouble is there, not yet for long enough to tell anybody."""
    FIRING = "firing"
    CLEARED = "cleared"


ACTIVE = (AlertState.HOLDING, AlertState.FIRING)

FAILURE_WINDOW = timedelta(minutes=10)
GROWTH_WINDOW = timedelta(hours=1)
MOST_SUBJECTS = 50
"""Of one rule: clients may invent queues, and nobody reads a thousand messages."""
LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """One queue: how long its first ready task has been ready (0 where none is), and how many of its tasks ended and failed
    within FAILURE_WINDOW."""

    name: str
    paused: bool = False
    oldest_age_seconds: float = 0.0
    ended: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker process that has not signed out."""

    id: str
    name: str
    host: str
    started_at: datetime
    beat_at: datetime


@dataclass(frozen=True, slots=True)
class BreakerSeen:
    """An open breaker, and how many ready tasks it holds back."""

    name: str
    reason: str | None
    waiting: int


@dataclass(frozen=True, slots=True)
class WebhookSeen:
    """A webhook that was switched off because its receiver counts as dead."""

    id: str
    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that rules look at, as it was at one moment. `dead_letters_lately` failed within GROWTH_WINDOW."""

    now: datetime
    queues: tuple[QueueSeen, ...] = ()
    dead_letters: int = 0
    dead_letters_lately: int = 0
    workers: tuple[WorkerSeen, ...] = ()
    open_breakers: tuple[BreakerSeen, ...] = ()
    dead_webhooks: tuple[WebhookSeen, ...] = ()


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on it is trouble."""

    queue_age_seconds: float
    failure_share: float
    failures: int
    dead_letters: int
    dead_letters_growth: int
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a rule found of one subject; an empty subject is the whole service. `queue` where it is about one."""

    subject: str
    what: str
    value: float
    threshold: float
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of trouble. `name` is a word for programs, and does not change; `about` is for people."""

    name: str
    severity: Severity
    about: str
    find: Callable[[Sight, Thresholds], Iterable[Trouble]]


def _old_queues(sight: Sight, over: Thresholds) -> Iterator[Trouble]:
    for queue in sight.queues:
        if queue.oldest_age_seconds > over.queue_age_seconds and not queue.paused:
            what = f"A task in queue {queue.name} has been ready for {queue.oldest_age_seconds:.0f} s."
            yield Trouble(queue.name, what, queue.oldest_age_seconds, over.queue_age_seconds, queue.name)


def _failing_queues(sight: Sight, over: Thresholds) -> Iterator[Trouble]:
    for queue in sight.queues:
        share = queue.failed / queue.ended if queue.ended else 0.0
        if queue.failed >= over.failures and share >= over.failure_share:
            minutes = FAILURE_WINDOW // timedelta(minutes=1)
            what = f"{queue.failed} of {queue.ended} tasks of queue {queue.name} failed in {minutes} minutes."
            yield Trouble(queue.name, what, round(share, 4), over.failure_share, queue.name)


def _many_dead_letters(sight: Sight, over: Thresholds) -> Iterator[Trouble]:
    if sight.dead_letters >= over.dead_letters:
        what = f"{sight.dead_letters} failed tasks wait for somebody to deal with them."
        yield Trouble("", what, sight.dead_letters, over.dead_letters)


def _growing_dead_letters(sight: Sight, over: Thresholds) -> Iterator[Trouble]:
    if sight.dead_letters_lately >= over.dead_letters_growth:
        what = f"{sight.dead_letters_lately} dead letters have come within an hour."
        yield Trouble("", what, sight.dead_letters_lately, over.dead_letters_growth)


def _silent_workers(sight: Sight, over: Thresholds) -> Iterator[Trouble]:
    silent = timedelta(seconds=over.silent_seconds)
    live = [one for one in sight.workers if sight.now - one.beat_at <= silent]
    for worker in sight.workers:
        seconds = (sight.now - worker.beat_at).total_seconds()
        if seconds > over.silent_seconds and not any(_replaces(one, worker) for one in live):
            what = f"Worker {worker.name} on {worker.host} has not been heard of for {seconds:.0f} s."
            yield Trouble(worker.id, what, seconds, over.silent_seconds)


def _replaces(live: WorkerSeen, silent: WorkerSeen) -> bool:
    """Whether it was started where the other one has died: there is nothing left to do."""
    return (live.name, live.host) == (silent.name, silent.host) and live.started_at > silent.beat_at


def _open_breakers(sight: Sight, _over: Thresholds) -> Iterator[Trouble]:
    for breaker in sight.open_breakers:
        reason = f": {breaker.reason[:LONGEST_REASON]}" if breaker.reason else "."
        what = f"Breaker {breaker.name} is open, {breaker.waiting} ready tasks wait behind it{reason}"
        yield Trouble(breaker.name, what, breaker.waiting, 0)


def _dead_webhooks(sight: Sight, _over: Thresholds) -> Iterator[Trouble]:
    for webhook in sight.dead_webhooks:
        what = f"Webhook {webhook.id} to {webhook.host} is switched off: {webhook.reason[:LONGEST_REASON]}"
        yield Trouble(webhook.id, what, 1, 0)


RULES = (
    Rule("queue-old", Severity.WARNING, "a ready task waits for too long; not in paused queues", _old_queues),
    Rule("failures", Severity.WARNING, "too large a share of a queue's tasks fails", _failing_queues),
    Rule("dead-letters", Severity.WARNING, "too many dead letters", _many_dead_letters),
    Rule("dead-letters-grow", Severity.WARNING, "too many new dead letters within an hour", _growing_dead_letters),
    Rule("worker-silent", Severity.CRITICAL, "a worker vanished and nothing took its place", _silent_workers),
    Rule("breaker-open", Severity.WARNING, "a breaker is open", _open_breakers),
    Rule("webhook-dead", Severity.WARNING, "a webhook is switched off, its receiver is dead", _dead_webhooks),
)
"""Every rule. Another one is another line here, and what it looks at another field of `Sight`."""
RULE_NAMES = tuple(rule.name for rule in RULES)


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule about one subject. `id` is 0 until it is stored. `calm_since`: since when the trouble is gone, while it fires;
    `told_at`: when the channels were given it to tell, None while nobody knows of it."""

    id: int
    rule: str
    subject: str
    queue: str | None
    severity: Severity
    state: AlertState
    what: str
    value: float
    threshold: float
    began_at: datetime
    fired_at: datetime | None = None
    calm_since: datetime | None = None
    cleared_at: datetime | None = None
    told_at: datetime | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells active alerts apart."""
        return self.rule, self.subject


@dataclass(frozen=True, slots=True)
class Silence:
    """Until `ends_at` nobody is told that an alert of this rule and queue fires; None is any."""

    id: int
    rule: str | None
    queue: str | None
    ends_at: datetime
    note: str
    created_at: datetime
    created_by: str

    def covers(self, alert: Alert) -> bool:
        return self.rule in (None, alert.rule) and self.queue in (None, alert.queue)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long trouble must hold before an alert fires, and how long it must be gone before it clears."""

    hold: timedelta
    clear: timedelta


def found(sight: Sight, over: Thresholds, off: Iterable[str] = ()) -> dict[tuple[str, str], tuple[Rule, Trouble]]:
    """All trouble there is, by rule and subject; of each rule that is not `off` the worst MOST_SUBJECTS."""
    troubles: dict[tuple[str, str], tuple[Rule, Trouble]] = {}
    for rule in RULES:
        if rule.name not in off:
            worst = sorted(rule.find(sight, over), key=lambda trouble: -trouble.value)[:MOST_SUBJECTS]
            troubles |= {(rule.name, trouble.subject): (rule, trouble) for trouble in worst}
    return troubles


def begun(rule: Rule, trouble: Trouble, now: datetime, patience: Patience) -> Alert:
    """The alert of trouble that is seen for the first time."""
    alert = Alert(
        *(0, rule.name, trouble.subject, trouble.queue, rule.severity, AlertState.HOLDING),
        *(trouble.what, trouble.value, trouble.threshold, now),
    )
    return _held(alert, now, patience)


def followed(alert: Alert, trouble: Trouble | None, now: datetime, patience: Patience) -> Alert | None:
    """What becomes of an active alert whose trouble is there, or gone (None). None: it is forgotten, nobody was told."""
    alert = _brought_back(alert, now)
    if trouble is not None:
        seen = replace(alert, what=trouble.what, value=trouble.value, threshold=trouble.threshold, calm_since=None)
        return _held(seen, now, patience)
    if alert.state is AlertState.HOLDING:
        return None
    calm = replace(alert, calm_since=alert.calm_since or now)
    if now - (calm.calm_since or now) >= patience.clear:
        return replace(calm, state=AlertState.CLEARED, cleared_at=now)
    return calm


def _held(alert: Alert, now: datetime, patience: Patience) -> Alert:
    if alert.state is AlertState.HOLDING and now - alert.began_at >= patience.hold:
        return replace(alert, state=AlertState.FIRING, fired_at=now)
    return alert


def _brought_back(alert: Alert, now: datetime) -> Alert:
    """Dated no later than now: the clock may have been set back, and nothing shall hold for the hours until then."""
    calm = alert.calm_since and min(alert.calm_since, now)
    return replace(alert, began_at=min(alert.began_at, now), calm_since=calm)


class Kind(StrEnum):
    """What a notice tells."""

    FIRED = "fired"
    CLEARED = "cleared"


def to_tell(alert: Alert, silences: Iterable[Silence]) -> Kind | None:
    """What the channels are to tell now. What a silence holds back is told when it ends, if it still fires; that an alert is
    over is told to whoever heard of it."""
    if alert.state is AlertState.CLEARED:
        return Kind.CLEARED if alert.told_at is not None else None
    firing = alert.state is AlertState.FIRING and alert.told_at is None
    return Kind.FIRED if firing and not any(silence.covers(alert) for silence in silences) else None
