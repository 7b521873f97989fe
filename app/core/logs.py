"""How lines look, and every line about tasks in one place: a subscriber that turns events into them."""

import logging
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from app.core import events
from app.core.events import EventBus
from app.core.logger import structlog
from app.core.task import Status, TaskError

OWN_NAMES = frozenset(
    (
        *("event", "level", "timestamp", "logger", "task", "type", "queue", "attempt", "worker"),
        *(
            "exc_info",
            "exception",
            "exc_text",
            "stack",
            "stack_info",
            "positional_args",
            "self",
            "args",
            "kw",
            "method_name",
        ),
    )
)
"""What a line says by itself, or what means something to who writes it."""

FEW = 4
"""Up to this many tasks in one event get a line each; more share one, so that logging never costs more than the work."""

TROUBLE_SECONDS = 10.0
"""Trouble of one kind with the store gets a line this often at most."""

TRACES = ("traceback", "exception", "stack")
"""Fields that have several lines."""

FORESEEN = ("Fail", "Retry", "OutboundFailed", "UnexpectedStatus")
"""Errors whose message says what there is to say: an executor gave a reason, another host let us down."""

CHATTY = ("alembic", "uvicorn.error", "aiosqlite", "asyncio", "sse_starlette", "httpx", "httpcore")
"""Libraries that tell what they are about to do; only their warnings are of use, unless one debugs."""


def configure_logging(level: str, style: str, stream: TextIO = sys.stderr, redact: Callable[[str], str] = str) -> None:
    """One form for our lines and everyone else's: for people on a terminal, one JSON object a line otherwise. Each goes through
    `redact` as it is written."""
    people = style == "console" or (style == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if people else "iso", utc=not people),
    ]
    renderer = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if people
        else structlog.processors.JSONRenderer()
    )
    finish: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if people:
        finish.append(_printable)
    else:
        finish.append(structlog.processors.format_exc_info)
    formatter = _Redacted(
        redact, foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()], processors=[*finish, renderer]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def fields_of_others(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that user code has named, for a line of ours: under names that no part of it has."""
    return {f"field_{name}" if name in OWN_NAMES or name[:1] == "_" else name: fields[name] for name in fields}


def _printable(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What came from outside may hold characters that make a line of their own, or that a terminal obeys. JSON has them
    escaped; a traceback keeps its lines."""
    for name, value in fields.items():
        if isinstance(value, str) and not value.isprintable():
            lines = value.split("\n") if name in TRACES else [value]
            fields[name] = "\n".join(_escaped(line) for line in lines)
    return fields


def _escaped(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class _Redacted(structlog.stdlib.ProcessorFormatter):
    """The last thing that happens to a line, whoever wrote it."""

    def __init__(self, redact: Callable[[str], str], **options: Any) -> None:
        super().__init__(**options)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


class LogSubscriber:
    """Writes the service's log lines about tasks, workers and runners. Nobody else does. No payloads, no results."""

    def __init__(self, bus: EventBus, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._log = structlog.get_logger("app")
        self._monotonic = monotonic
        self._troubles: dict[str, _Trouble] = {}
        listeners: tuple[tuple[type, Callable[[Any], None]], ...] = (
            (events.TasksSubmitted, self._submitted),
            (events.TasksClaimed, self._claimed),
            (events.TasksSettled, self._settled),
            (events.LeasesRefused, self._refused),
            (events.TaskCancelRequested, self._about("cancel requested")),
            (events.TaskCancelled, self._about("cancelled")),
            (events.TaskRetried, self._about("retried by hand")),
            (events.TaskEdited, self._about("edited")),
            (events.TaskDeleted, self._about("deleted")),
            (events.TasksExpired, self._expired),
            (events.TasksRequeued, lambda event: self._log.info("dead letters requeued", tasks=len(event.ids))),
            (events.DeadLettersResolved, lambda event: self._log.info("dead letters resolved", tasks=len(event.ids))),
            (events.DeadLettersPurged, lambda event: self._log.info("dead letters purged", tasks=len(event.ids))),
            (events.TasksPruned, lambda event: self._log.info("pruned", tasks=event.count)),
            (
                events.FileStored,
                lambda event: self._log.info("file stored", file=event.id, size=event.size, task=event.task_id),
            ),
            (events.FilesRemoved, lambda event: self._log.info("files removed", files=event.count)),
            (events.KeyCreated, self._about_key("key created")),
            (events.KeyRevoked, self._about_key("key revoked")),
            (events.WebhookCreated, self._about_webhook("webhook created")),
            (events.WebhookChanged, self._webhook_changed),
            (events.WebhookRemoved, self._about_webhook("webhook removed")),
            (events.WebhookSwitchedOff, self._webhook_switched_off),
            (events.SignedIn, self._about_key("signed in")),
            (events.SignedOut, self._about_key("signed out")),
            (events.BreakerOpened, self._breaker_opened("breaker opened")),
            (events.BreakerTripped, self._breaker_opened("breaker tripped by hand")),
            (events.BreakerProbed, lambda event: self._log.info("breaker tries again", breaker=event.name)),
            (events.BreakerClosed, lambda event: self._log.info("breaker closed", breaker=event.name)),
            (events.BreakerReset, lambda event: self._log.info("breaker reset by hand", breaker=event.name)),
            (events.QueueChanged, self._queue_changed),
            (events.WorkerStarted, self._worker_started),
            (events.WorkerStopping, self._worker_stopping),
            (events.WorkerStopped, lambda event: self._log.info("worker stopped", worker=event.worker_id)),
            (events.MetricsServed, lambda event: self._log.info("metrics served", host=event.host, port=event.port)),
            (events.RunnerStarted, self._runner_started),
            (events.RunnerDied, self._runner_died),
            (events.RunnersResized, self._runners_resized),
            (events.RunnersFailing, self._runners_failing),
            (events.AlertFired, self._about_alert("alert fires")),
            (events.AlertCleared, self._about_alert("alert cleared")),
            (events.NoticeFailed, self._notice_failed),
            (events.ClockJumped, self._clock_jumped),
            (events.BroughtBack, self._brought_back),
            (events.StoreTroubled, self._store_troubled),
            (events.LogGrown, self._log_grown),
            (events.StoreSuspect, lambda event: self._log.warning(event.warning)),
            (events.BrokerLost, self._broker_lost),
            (events.BrokerStrange, self._broker_strange),
            (events.BrokerFound, lambda event: self._log.info("the broker can be used", broker=event.name)),
        )
        for kind, listener in listeners:
            bus.subscribe(kind, listener)

    def _submitted(self, event: events.TasksSubmitted) -> None:
        if len(event.ids) > FEW:
            self._log.info("submitted", tasks=len(event.ids))
            return
        for task_id, task in zip(event.ids, event.tasks, strict=True):
            self._log.info("submitted", task=task_id, type=task.task_type, queue=task.queue)

    def _claimed(self, event: events.TasksClaimed) -> None:
        for task in event.tasks[:FEW]:
            self._log.debug("claimed", task=task.id, type=task.task_type, queue=task.queue, attempt=task.attempt)

    def _settled(self, event: events.TasksSettled) -> None:
        completed = [one for one in event.settlements if one.change.status is Status.COMPLETED]
        if len(completed) > FEW:
            self._log.info("completed", tasks=len(completed), worker=event.worker_id)
        else:
            self._lines(event, completed)
        self._lines(event, [one for one in event.settlements if one.change.status is not Status.COMPLETED])

    def _lines(self, event: events.TasksSettled, settlements: Sequence[events.Settlement]) -> None:
        for one in settlements:
            change = one.change
            fields: dict[str, Any] = {"task": change.id, "type": one.task_type, "queue": one.queue}
            fields |= {"attempt": one.attempt, "worker": event.worker_id}
            if one.run_seconds is not None:
                fields["ms"] = round(one.run_seconds * 1000, 1)
            if change.error is not None:
                fields["error"] = f"{change.error.type}: {change.error.message}"[:200]
            if change.delay_seconds is not None:
                fields["again_in_seconds"] = round(change.delay_seconds, 2)
            if change.failure_reason is not None:
                fields["reason"] = str(change.failure_reason)
            if change.error is not None and _unforeseen(change.error):
                fields["traceback"] = change.error.traceback
            expected = change.error is None or change.status is Status.CANCELLED
            write = self._log.info if expected else self._log.warning
            write("released" if change.status is Status.PENDING else str(change.status), **fields)

    def _refused(self, event: events.LeasesRefused) -> None:
        self._log.info("late writes refused", tasks=list(event.ids[:20]), count=len(event.ids), worker=event.worker_id)

    def _about(self, what: str) -> Callable[[Any], None]:
        def write(event: Any) -> None:
            task = event.task
            self._log.info(what, task=task.id, type=task.task_type, queue=task.queue, status=str(task.status))

        return write

    def _expired(self, event: events.TasksExpired) -> None:
        self._log.warning("expired before they started", tasks=list(event.ids[:20]), count=len(event.ids))

    def _about_key(self, what: str) -> Callable[[Any], None]:
        def write(event: events.KeyCreated | events.KeyRevoked | events.SignedIn | events.SignedOut) -> None:
            key = event.key
            self._log.info(what, key=key.id, name=key.name, scopes=list(key.scopes), tenant=key.tenant)

        return write

    def _about_webhook(self, what: str) -> Callable[[Any], None]:
        def write(event: events.WebhookCreated | events.WebhookRemoved) -> None:
            self._log.info(what, webhook=event.webhook.id, tenant=event.webhook.tenant)

        return write

    def _webhook_changed(self, event: events.WebhookChanged) -> None:
        before, after = event.before, event.after
        what = "webhook changed by hand"
        if before.enabled != after.enabled:
            what = "webhook switched on by hand" if after.enabled else "webhook switched off by hand"
        self._log.info(what, webhook=after.id, tenant=after.tenant)

    def _webhook_switched_off(self, event: events.WebhookSwitchedOff) -> None:
        one = event.webhook
        since = one.failing_since.isoformat() if one.failing_since else None
        self._log.warning(
            "webhook switched off, its receiver is dead",
            webhook=one.id,
            tenant=one.tenant,
            failures=one.failures,
            failing_since=since,
            reason=str(one.switched_off_reason)[:200],
        )

    def _breaker_opened(self, what: str) -> Callable[[Any], None]:
        def write(event: events.BreakerOpened | events.BreakerTripped) -> None:
            circuit = event.circuit
            until = circuit.open_until.isoformat() if circuit.open_until else "it is reset"
            self._log.warning(what, breaker=circuit.name, reason=str(circuit.reason)[:200], until=until)

        return write

    def _queue_changed(self, event: events.QueueChanged) -> None:
        before, after = asdict(event.before), asdict(event.after)
        unsteered = ("name", "tokens", "refilled_at")
        changes = {name: value for name, value in after.items() if name not in unsteered and value != before[name]}
        self._log.info("queue changed by hand", queue=event.after.name, **changes)

    def _worker_started(self, event: events.WorkerStarted) -> None:
        self._log.info(
            "worker started",
            worker=event.worker_id,
            name=event.name,
            queues=list(event.queues) or "all",
            types=list(event.task_types),
            processes=event.processes,
            concurrency=event.concurrency,
            database=event.database,
        )

    def _worker_stopping(self, event: events.WorkerStopping) -> None:
        self._log.info("worker stopping, letting tasks finish", worker=event.worker_id, running=event.running)

    def _runner_started(self, event: events.RunnerStarted) -> None:
        self._log.debug("runner started", worker=event.worker_id, pid=event.pid)

    def _runner_died(self, event: events.RunnerDied) -> None:
        self._log.warning(
            "runner died", worker=event.worker_id, pid=event.pid, evidence=event.evidence, attempts=event.attempts
        )

    def _runners_resized(self, event: events.RunnersResized) -> None:
        self._log.info("runners resized", worker=event.worker_id, before=event.before, after=event.after)

    def _runners_failing(self, event: events.RunnersFailing) -> None:
        self._log.error(
            "runners die before they are ready, trying again", worker=event.worker_id, evidence=event.evidence
        )

    def _about_alert(self, what: str) -> Callable[[Any], None]:
        def write(event: events.AlertFired | events.AlertCleared) -> None:
            alert = event.alert
            log = self._log.warning if isinstance(event, events.AlertFired) else self._log.info
            log(what, alert=alert.id, rule=alert.rule, subject=alert.subject, found=alert.what)

        return write

    def _notice_failed(self, event: events.NoticeFailed) -> None:
        line = "an alert was not told, given up" if event.gave_up else "an alert was not told, trying again"
        self._log.warning(line, channel=event.channel, reason=event.reason)

    def _clock_jumped(self, event: events.ClockJumped) -> None:
        self._log.warning("the wall clock was set", seconds=round(event.seconds, 3))

    def _brought_back(self, event: events.BroughtBack) -> None:
        self._log.warning("brought back what was dated ahead of the clock", tasks=event.tasks, breakers=event.breakers)

    def _store_troubled(self, event: events.StoreTroubled) -> None:
        self._warn_seldom(
            event.what, "the store cannot be used now, trying again", what=event.what, reason=event.reason
        )

    def _broker_lost(self, event: events.BrokerLost) -> None:
        line = "the broker cannot be used now; work is found by looking until it can"
        self._warn_seldom("broker", line, broker=event.name, reason=event.reason)

    def _broker_strange(self, event: events.BrokerStrange) -> None:
        line = "somebody else writes into the streams of the broker (BROKER_PREFIX)"
        self._warn_seldom("strange", line, broker=event.name, messages=event.messages)

    def _log_grown(self, event: events.LogGrown) -> None:
        self._warn_seldom(
            "log", "the log of the database grows: somebody has been reading in it for long", bytes=event.size
        )

    def _warn_seldom(self, kind: str, line: str, **fields: Any) -> None:
        """A full disk fails every try of everything, many a second, which must not fill the disk with lines too."""
        now = self._monotonic()
        trouble = self._troubles.setdefault(kind, _Trouble())
        if trouble.told_at is not None and now - trouble.told_at < TROUBLE_SECONDS:
            trouble.untold += 1
            return
        untold = {"untold": trouble.untold} if trouble.untold else {}
        self._troubles[kind] = _Trouble(now)
        self._log.warning(line, **fields, **untold)


@dataclass(slots=True)
class _Trouble:
    """When one kind of trouble with the store was last told, and how often it came since."""

    told_at: float | None = None
    untold: int = 0


def _unforeseen(error: TaskError) -> bool:
    """Whether its traceback tells more than its message: it is none of those that say it all, or another error made it."""
    caused = "\nThe above exception was the direct cause of the following exception:\n" in (error.traceback or "")
    return error.traceback is not None and (caused or error.type not in FORESEEN)
