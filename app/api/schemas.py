"""What goes out, as models for the documentation, and as bytes for the answers.

The bytes are built by hand: payload, result, progress and error are JSON text in the store and are put in as they are.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from app.core.fingerprint import FINGERPRINT
from app.core.retry import RetryKind
from app.core.task import LARGEST_INTEGER, Attempt, FailureReason, Status, Task
from app.services.executors import LONGEST_WAIT_SECONDS
from app.services.submissions import MaxAttempts, Metadata, Name, Priority, Submission, Tags, When

OPTIONS = orjson.OPT_UTC_Z


class ErrorView(BaseModel):
    """Why the last attempt did not complete."""

    type: str
    message: str
    attempt: int
    at: datetime
    traceback: str | None = None


class ProgressView(BaseModel):
    """What the attempt last said about itself."""

    percent: float | None
    message: str | None
    data: Any
    updated_at: datetime


class RetryView(BaseModel):
    """The wait between attempts, where the submission said."""

    base_seconds: float
    ceiling_seconds: float
    policy: RetryKind
    jitter: bool


class TaskSummary(BaseModel):
    """A task without its payload and result."""

    id: int
    task_type: str
    status: Status
    queue: str
    priority: int
    attempts: int
    max_attempts: int
    timeout_seconds: float
    progress: ProgressView | None
    error: ErrorView | None
    failure_reason: FailureReason | None
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    cancel_requested_at: datetime | None
    worker_id: str | None
    retry: RetryView | None
    retry_for_seconds: float | None
    resolved_at: datetime | None
    resolution: str | None
    unique_key: str | None
    parent_id: int | None
    tags: list[str]
    metadata: dict[str, Any] | None


class TaskView(TaskSummary):
    """A task."""

    payload: dict[str, Any]
    result: Any


class TaskPage(BaseModel):
    """Tasks, newest first. `next_cursor` is null on the last page."""

    items: list[TaskSummary]
    next_cursor: str | None


class AttemptView(BaseModel):
    """One run of a task. `lease` counts every claim and never repeats; `attempt` counts what was charged and starts anew
    after a retry by hand. `outcome` is null while it runs; `delay_seconds` is the wait chosen after it."""

    lease: int
    attempt: int
    outcome: str | None
    worker_id: str | None
    started_at: datetime
    finished_at: datetime | None
    error: ErrorView | None
    delay_seconds: float | None


class AttemptList(BaseModel):
    """Every attempt, oldest first."""

    items: list[AttemptView]


class BulkSubmission(BaseModel):
    """Many tasks in one transaction: all or nothing."""

    model_config = ConfigDict(strict=True, extra="forbid")

    tasks: list[Submission] = Field(min_length=1)


class BulkAnswer(BaseModel):
    """The ids, in the order of the tasks."""

    ids: list[int]


class TaskPatch(BaseModel):
    """What to change on a waiting task; what is left out stays. `scheduled_at` null means now."""

    model_config = ConfigDict(strict=True, extra="forbid")

    priority: Priority = 0
    scheduled_at: When | None = None
    max_attempts: MaxAttempts = 1
    tags: Tags = []
    metadata: Metadata | None = None


class Selection(BaseModel):
    """Which dead letters are meant. What is given must all fit; `all` says that every one is meant."""

    model_config = ConfigDict(strict=True, extra="forbid")

    ids: list[Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]] | None = Field(None, min_length=1, max_length=10_000)
    fingerprint: str | None = Field(None, pattern=FINGERPRINT, description="That of a group.")
    task_type: Name | None = None
    queue: Name | None = None
    failure_reason: Annotated[FailureReason, Field(strict=False)] | None = None
    all: bool = False
    dry_run: bool = Field(False, description="Change nothing; say what would be changed.")


class Resolution(Selection):
    """Which dead letters are dealt with, and how."""

    note: str | None = Field(None, min_length=1, max_length=1000, description="For whoever looks at the task later.")


class Trip(BaseModel):
    """Why a breaker is to be open, and for how long."""

    model_config = ConfigDict(strict=True, extra="forbid")

    reason: str = Field(min_length=1, max_length=500, description="For whoever wonders why tasks wait.")
    seconds: float | None = Field(
        None, gt=0, le=LONGEST_WAIT_SECONDS, allow_inf_nan=False, description="Left out: until it is reset."
    )


class Pending(BaseModel):
    """There is no result yet."""

    status: Status
    detail: str


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


_TEXTS = {"progress", "error", "metadata", "retry"}
_SUMMARY = tuple((name, name in _TEXTS) for name in TaskSummary.model_fields)


def summary_fields(task: Task) -> dict[str, Any]:
    """A `TaskSummary`, before it is made bytes."""
    return {name: _fragment(getattr(task, name)) if is_json else getattr(task, name) for name, is_json in _SUMMARY}


def _whole(task: Task) -> dict[str, Any]:
    return summary_fields(task) | {"payload": _fragment(task.payload), "result": _fragment(task.result)}


def task_json(task: Task) -> bytes:
    """A `TaskView`."""
    return orjson.dumps(_whole(task), option=OPTIONS)


def summary_json(task: Task) -> bytes:
    """A `TaskSummary`."""
    return orjson.dumps(summary_fields(task), option=OPTIONS)


def page_json(tasks: Sequence[Task], next_cursor: str | None, include: set[str]) -> bytes:
    """A `TaskPage`; `include` may name payload and result."""
    items = [summary_fields(task) | {name: _fragment(getattr(task, name)) for name in include} for task in tasks]
    return orjson.dumps({"items": items, "next_cursor": next_cursor}, option=OPTIONS)


def attempts_json(attempts: Sequence[Attempt]) -> bytes:
    """An `AttemptList`."""
    items = [
        {name: getattr(one, name) for name in AttemptView.model_fields if name != "error"}
        | {"error": _fragment(one.error)}
        for one in attempts
    ]
    return orjson.dumps({"items": items}, option=OPTIONS)
