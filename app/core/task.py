"""What a task is: its states, its values, and the one number that orders work. No decisions: those are in lifecycle."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

from app.core.clock import to_milliseconds
from app.core.values import value

JsonText = NewType("JsonText", str)
"""Strict JSON as text: checked where it came in, stored and handed on as it is."""

LARGEST_INTEGER = 2**63 - 1


class Status(StrEnum):
    PENDING = "pending"
    SCHEDULED = "scheduled"
    RETRYING = "retrying"
    BLOCKED = "blocked"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = (Status.PENDING, Status.SCHEDULED, Status.RETRYING, Status.BLOCKED)
UNFINISHED = (*WAITING, Status.RUNNING)
TERMINAL = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class FailureReason(StrEnum):
    ERROR = "error"
    EXHAUSTED = "exhausted"
    TIMEOUT = "timeout"
    LOST = "lost"
    POISONED = "poisoned"
    EXPIRED = "expired"
    REJECTED = "rejected"


PRIORITY_NAMES = {"low": -50, "normal": 0, "high": 50, "critical": 100}
LOWEST_PRIORITY, HIGHEST_PRIORITY = -100, 100


def rank_of(ready_at: datetime, priority: int, priority_step_seconds: float) -> int:
    """Place in the order of work, lowest first: the moment it was ready (ms), moved forward by its priority."""
    return to_milliseconds(ready_at) - round(priority * priority_step_seconds * 1000)


@value
class TaskError:
    """Why an attempt did not complete. `attempt` counts from 1."""

    type: str
    message: str
    attempt: int
    at: datetime
    traceback: str | None = None


@value
class NewTask:
    """A task as it was asked for, validated, every default filled in, not yet stored.

    `metadata`, `payload` and `retry` (a RetryPolicy of its own) are JSON objects as text; `retry_for_seconds` is the time all
    attempts have together, from when it is due. `request_hash` belongs to the idempotency key. `file_ids` are the
    uploaded files that the payload names, each once. `tenant` is whose it is, empty where it belongs to none. At most
    `concurrency_limit` tasks run at once that have the same `concurrency_key`. `webhook_url` is told of the end.
    `traceparent` and `tracestate` are the trace it belongs to, as `core/trace` checked them.
    """

    task_type: str
    payload: JsonText
    queue: str
    priority: int
    max_attempts: int
    timeout_seconds: float
    scheduled_at: datetime | None = None
    expires_at: datetime | None = None
    unique_key: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    parent_id: int | None = None
    tags: tuple[str, ...] = ()
    metadata: JsonText | None = None
    traceparent: str | None = None
    retry: JsonText | None = None
    retry_for_seconds: float | None = None
    file_ids: tuple[str, ...] = ()
    tenant: str = ""
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    webhook_url: str | None = None
    tracestate: str | None = None


@value
class Task:
    """One row of `tasks`. `payload`, `result`, `error`, `progress`, `metadata` and `retry` are JSON text, None where not
    read. `fingerprint` stands for the cause of a failure; `resolved_at` and `resolution` say that somebody dealt with it.
    """

    id: int
    task_type: str
    queue: str
    status: Status
    priority: int
    rank: int
    attempts: int
    max_attempts: int
    timeout_seconds: float
    lease: int
    created_at: datetime
    payload: JsonText | None = None
    result: JsonText | None = None
    error: JsonText | None = None
    failure_reason: FailureReason | None = None
    progress: JsonText | None = None
    lease_expires_at: datetime | None = None
    worker_id: str | None = None
    cancel_requested_at: datetime | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    unique_key: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    parent_id: int | None = None
    tags: tuple[str, ...] = ()
    metadata: JsonText | None = None
    traceparent: str | None = None
    retry: JsonText | None = None
    retry_for_seconds: float | None = None
    retry_until: datetime | None = None
    deaths: int = 0
    runs_alone: bool = False
    fingerprint: str | None = None
    resolved_at: datetime | None = None
    resolution: str | None = None
    tenant: str = ""
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    webhook_url: str | None = None
    tracestate: str | None = None

    @property
    def finished(self) -> bool:
        return self.status in TERMINAL


@value
class ClaimedTask:
    """What a worker needs to run one attempt. `lease` is the fence every later write must carry."""

    id: int
    lease: int
    task_type: str
    queue: str
    payload: JsonText
    attempt: int
    timeout_seconds: float
    rank: int
    runs_alone: bool
    traceparent: str | None = None
    priority: int = 0
    concurrency_key: str | None = None
    tracestate: str | None = None
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a task. `outcome` is None while it runs; `delay_seconds` is the wait that was chosen after it."""

    task_id: int
    lease: int
    attempt: int
    outcome: str | None
    worker_id: str | None
    started_at: datetime
    finished_at: datetime | None
    error: JsonText | None = None
    delay_seconds: float | None = None
