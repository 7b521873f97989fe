"""How lines look, and every line about tasks in one place: a subscriber that turns events into them."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import structlog

from app.core import events
from app.core.events import EventBus
from app.core.task import Status, TaskError

FEW = 4
"""Up to this many tasks in one event get a line each; more share one, so that logging never costs more than the work."""

CHATTY = ("alembic", "uvicorn.error", "aiosqlite", "asyncio", "sse_starlette", "httpx", "httpcore")
"""Libraries that tell what they are about to do; only their warnings are of use, unless one debugs."""


def configure_logging(level: str, style: str, stream: TextIO = sys.stderr) -> None:
    """One form for our lines and everyone else's: for people on a terminal, one JSON object a line otherwise."""
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
    if not people:
        finish.append(structlog.processors.format_exc_info)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()], processors=[*finish, renderer]
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


class LogSubscriber:
    """Writes the service's log lines about tasks, workers and runners. Nobody else does. No payloads, no results."""

    def __init__(self, bus: EventBus) -> None:
        self._log = structlog.get_logger("app")
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
            (events.BreakerOpened, self._breaker_opened("breaker opened")),
            (events.BreakerTripped, self._breaker_opened("breaker tripped by hand")),
            (events.BreakerProbed, lambda event: self._log.info("breaker tries again", breaker=event.name)),
            (events.BreakerClosed, lambda event: self._log.info("breaker closed", breaker=event.name)),
            (events.BreakerReset, lambda event: self._log.info("breaker reset by hand", breaker=event.name)),
            (events.WorkerStarted, self._worker_started),
            (events.WorkerStopping, self._worker_stopping),
            (events.WorkerStopped, lambda event: self._log.info("worker stopped", worker=event.worker_id)),
            (events.RunnerStarted, self._runner_started),
            (events.RunnerDied, self._runner_died),
            (events.ClockJumped, self._clock_jumped),
            (events.StoreTroubled, self._store_troubled),
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

    def _breaker_opened(self, what: str) -> Callable[[Any], None]:
        def write(event: events.BreakerOpened | events.BreakerTripped) -> None:
            circuit = event.circuit
            until = circuit.open_until.isoformat() if circuit.open_until else "it is reset"
            self._log.warning(what, breaker=circuit.name, reason=str(circuit.reason)[:200], until=until)

        return write

    def _worker_started(self, event: events.WorkerStarted) -> None:
        self._log.info(
            "worker started",
            worker=event.worker_id,
            name=event.name,
            queues=list(event.queues) or "all",
            types=list(event.task_types),
            processes=event.processes,
            concurrency=event.concurrency,
        )

    def _worker_stopping(self, event: events.WorkerStopping) -> None:
        self._log.info("worker stopping, letting tasks finish", worker=event.worker_id, running=event.running)

    def _runner_started(self, event: events.RunnerStarted) -> None:
        self._log.debug("runner started", worker=event.worker_id, pid=event.pid)

    def _runner_died(self, event: events.RunnerDied) -> None:
        self._log.warning(
            "runner died", worker=event.worker_id, pid=event.pid, evidence=event.evidence, attempts=event.attempts
        )

    def _clock_jumped(self, event: events.ClockJumped) -> None:
        self._log.warning("the wall clock jumped; not sweeping for one lease", seconds=round(event.seconds, 3))

    def _store_troubled(self, event: events.StoreTroubled) -> None:
        self._log.warning("the database cannot be used now, trying again", what=event.what, reason=event.reason)


def _unforeseen(error: TaskError) -> bool:
    """Whether its traceback tells more than its message: an executor that gives a reason has said what there is to say,
    unless another error made it."""
    caused = "\nThe above exception was the direct cause of the following exception:\n" in (error.traceback or "")
    return error.traceback is not None and (caused or error.type not in ("Fail", "Retry"))
