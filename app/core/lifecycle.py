"""The state machine: what a task becomes. Every rule about retries, snoozes, cancels and giving up is here, and pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from app.core.errors import Conflict, InvalidRequest
from app.core.fingerprint import fingerprint
from app.core.retry import RetryPolicy
from app.core.task import WAITING, FailureReason, JsonText, Status, Task, TaskError, rank_of
from app.core.values import value


@value
class Completed:
    """The executor returned; `result` is its value as JSON text."""

    result: JsonText
    word = "completed"


@dataclass(frozen=True, slots=True)
class Errored:
    """The executor raised. `retryable` is False for what cannot get better; `after` overrides the policy's delay;
    `dependency` names what it needs and what did not work, None where it failed for another reason."""

    type: str
    message: str
    traceback: str | None = None
    retryable: bool = True
    after_seconds: float | None = None
    dependency: str | None = None
    word = "error"


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The attempt ran longer than its limit and was stopped."""

    limit_seconds: float
    word = "timeout"


@dataclass(frozen=True, slots=True)
class Lost:
    """The runner or the worker died, or the lease ran out. `evidence` says what was seen."""

    evidence: str
    word = "lost"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The attempt obeyed a cancel request, or its executor raised Cancel."""

    message: str = "cancelled"
    word = "cancelled"


@dataclass(frozen=True, slots=True)
class Released:
    """Handed back unfinished through no fault of its own: the attempt is not charged, the old rank is kept.

    `runs_alone`: it was in a shared runner that died; the guilty one is not known, so next time it runs alone.
    """

    reason: str
    runs_alone: bool = False
    word = "released"


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The executor asked to run again after `after_seconds`; the attempt is not charged."""

    after_seconds: float
    message: str = "snoozed"
    word = "snoozed"


Outcome = Completed | Errored | TimedOut | Lost | Cancelled | Released | Snoozed


@dataclass(frozen=True, slots=True)
class Policy:
    """What the service and the executor lay down for an attempt that went wrong."""

    retry: RetryPolicy
    poison_after: int
    priority_step_seconds: float


@value
class Change:
    """What a running task becomes. Written with one statement that matches only while `lease` holds.

    `delay_seconds` is the wait chosen before the next attempt, for the history.
    """

    id: int
    lease: int
    status: Status
    attempts: int
    rank: int
    at: datetime
    scheduled_at: datetime | None = None
    finished_at: datetime | None = None
    result: JsonText | None = None
    error: TaskError | None = None
    failure_reason: FailureReason | None = None
    deaths: int = 0
    runs_alone: bool = False
    delay_seconds: float | None = None
    fingerprint: str | None = None


def settle(task: Task, outcome: Outcome, policy: Policy, now: datetime, random: Random) -> Change:
    """What the running `task` becomes after `outcome`. Completion wins over a cancel request, nothing else does."""
    if isinstance(outcome, Completed):
        return _end(task, Status.COMPLETED, now, result=outcome.result)
    if task.cancel_requested_at is not None or isinstance(outcome, Cancelled):
        return _end(task, Status.CANCELLED, now, error=_error(task, outcome, now))
    match outcome:
        case Released():
            return _release(task, outcome, now)
        case Snoozed():
            return _wait(task, policy, now, outcome.after_seconds, Status.SCHEDULED, task.attempts - 1, None)
        case Errored() | TimedOut() | Lost():
            return _fail_or_retry(task, outcome, policy, now, random)


def _fail_or_retry(
    task: Task, outcome: Errored | TimedOut | Lost, policy: Policy, now: datetime, random: Random
) -> Change:
    error = _error(task, outcome, now)
    deaths = task.deaths + isinstance(outcome, Lost)
    asked = outcome.after_seconds if isinstance(outcome, Errored) else None
    delay = policy.retry.delay_seconds(task.attempts, random) if asked is None else asked
    reason = _failure_reason(task, outcome, policy, deaths, now + timedelta(seconds=delay))
    if reason is not None:
        return _end(task, Status.FAILED, now, error=error, failure_reason=reason, deaths=deaths)
    return _wait(task, policy, now, delay, Status.RETRYING, task.attempts, error, deaths)


def _failure_reason(
    task: Task, outcome: Errored | TimedOut | Lost, policy: Policy, deaths: int, next_at: datetime
) -> FailureReason | None:
    """Why the task is given up now, or None if it may try again at `next_at`. The last cause wins."""
    if isinstance(outcome, Errored) and not outcome.retryable:
        return FailureReason.ERROR
    if isinstance(outcome, Lost) and deaths >= policy.poison_after:
        return FailureReason.POISONED
    in_time = task.retry_until is None or next_at <= task.retry_until
    if task.attempts < task.max_attempts and in_time:
        return None
    match outcome:
        case Errored():
            return FailureReason.EXHAUSTED
        case TimedOut():
            return FailureReason.TIMEOUT
        case Lost():
            return FailureReason.LOST


def _error(task: Task, outcome: Outcome, now: datetime) -> TaskError | None:
    match outcome:
        case Errored():
            return TaskError(outcome.type, outcome.message, task.attempts, now, outcome.traceback)
        case TimedOut():
            message = f"ran longer than its limit of {outcome.limit_seconds:g} s and was stopped"
            return TaskError("TimeLimitExceeded", message, task.attempts, now)
        case Lost():
            return TaskError("Lost", outcome.evidence, task.attempts, now)
        case Cancelled():
            return TaskError("Cancelled", outcome.message, task.attempts, now)
        case _:
            return None


def _end(
    task: Task,
    status: Status,
    now: datetime,
    *,
    result: JsonText | None = None,
    error: TaskError | None = None,
    failure_reason: FailureReason | None = None,
    deaths: int | None = None,
) -> Change:
    return Change(
        id=task.id,
        lease=task.lease,
        status=status,
        attempts=task.attempts,
        rank=task.rank,
        at=now,
        finished_at=_not_before_start(task, now),
        result=result,
        error=error,
        failure_reason=failure_reason,
        deaths=task.deaths if deaths is None else deaths,
        fingerprint=fingerprint(task.task_type, error.type, error.message) if error and failure_reason else None,
    )


def _wait(
    task: Task,
    policy: Policy,
    now: datetime,
    delay_seconds: float,
    status: Status,
    attempts: int,
    error: TaskError | None,
    deaths: int | None = None,
) -> Change:
    ready_at = now + timedelta(seconds=delay_seconds)
    return Change(
        id=task.id,
        lease=task.lease,
        status=status,
        attempts=attempts,
        rank=rank_of(ready_at, task.priority, policy.priority_step_seconds),
        at=now,
        scheduled_at=ready_at,
        error=error,
        deaths=task.deaths if deaths is None else deaths,
        delay_seconds=delay_seconds,
    )


def _release(task: Task, outcome: Released, now: datetime) -> Change:
    return Change(
        id=task.id,
        lease=task.lease,
        status=Status.PENDING,
        attempts=task.attempts - 1,
        rank=task.rank,
        at=now,
        deaths=task.deaths,
        # Released before it could run alone, it still has to.
        runs_alone=outcome.runs_alone or task.runs_alone,
    )


def _not_before_start(task: Task, now: datetime) -> datetime:
    # The wall clock may have been set back while the attempt ran; a task never ends before it began.
    return max(now, task.started_at) if task.started_at else now


@dataclass(frozen=True, slots=True)
class Edit:
    """What a client wants changed on a waiting task: column and new value, only those that were given."""

    values: Mapping[str, Any]


def edited(task: Task, edit: Edit, now: datetime, priority_step_seconds: float) -> dict[str, Any]:
    """The columns a waiting `task` gets. Raises InvalidRequest where the new values do not go together.

    A new moment makes a pending task scheduled and a scheduled one due; `scheduled_at` None means now. One with a concurrency
    key that is due is blocked until it gets a place.
    """
    values = dict(edit.values)
    if "max_attempts" in values and values["max_attempts"] <= task.attempts:
        raise _wrong("max_attempts", f"must be above the {task.attempts} attempts already made")
    priority = values.get("priority", task.priority)
    if "scheduled_at" in values:
        ready_at = max(values["scheduled_at"] or now, now)
        values["rank"] = rank_of(ready_at, priority, priority_step_seconds)
        keyed = task.concurrency_key is not None
        if task.status is not Status.BLOCKED or keyed:
            values["status"] = _waiting_status(task, ready_at > now)
        ready = (Status.PENDING, Status.BLOCKED) if keyed else (Status.PENDING,)
        if values.get("status", task.status) not in ready:
            values["scheduled_at"] = ready_at
        if task.expires_at is not None and task.started_at is None and task.expires_at <= ready_at:
            raise _wrong("scheduled_at", f"must be before expires_at, {task.expires_at.isoformat()}")
    elif priority != task.priority:
        values["rank"] = task.rank - round((priority - task.priority) * priority_step_seconds * 1000)
    return values


def _wrong(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {message}.", [{"location": [field], "message": message, "type": "value_error"}])


def _waiting_status(task: Task, delayed: bool) -> Status:
    if not delayed:
        return Status.PENDING if task.concurrency_key is None else Status.BLOCKED
    return Status.RETRYING if task.status is Status.RETRYING else Status.SCHEDULED


def ensure_editable(task: Task) -> None:
    """Raise Conflict unless the task still waits."""
    if task.status not in WAITING:
        raise Conflict(f"Task {task.id} is {task.status}; only a waiting task can be changed.", task.status)


def ensure_retryable(task: Task) -> None:
    """Raise Conflict unless a person may ask for another run: the task failed or was cancelled."""
    if task.status not in (Status.FAILED, Status.CANCELLED):
        raise Conflict(f"Task {task.id} is {task.status}; only a failed or cancelled task can be retried.", task.status)


def ensure_deletable(task: Task) -> None:
    """Raise Conflict while the task runs."""
    if task.status is Status.RUNNING:
        raise Conflict(f"Task {task.id} is running; cancel it first.", task.status)


def ensure_cancellable(task: Task) -> None:
    """Raise Conflict if the task has ended otherwise. Cancelling a cancelled task again is fine."""
    if task.status in (Status.COMPLETED, Status.FAILED):
        raise Conflict(f"Task {task.id} is {task.status} and can no longer be cancelled.", task.status)
