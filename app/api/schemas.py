"""What goes out, as models for the documentation, and as bytes for the answers.

The bytes are built by hand: payload, result, progress and error are JSON text in the store and are put in as they are.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from app.core.alerts import RULE_NAMES
from app.core.attempt_log import Chunk, Source
from app.core.concurrency import shown_key
from app.core.explain import Reason, Why
from app.core.fingerprint import FINGERPRINT
from app.core.keys import LONGEST_TOKEN, Scope
from app.core.retry import RetryKind
from app.core.secrets import NAME as SECRET_NAME
from app.core.task import LARGEST_INTEGER, Attempt, FailureReason, Status, Task
from app.core.webhook import MOST_SECRETS, Event
from app.services.destinations import LONGEST_URL
from app.services.executors import LONGEST_WAIT_SECONDS
from app.services.submissions import (
    FAR_FUTURE,
    UNIQUE,
    MaxAttempts,
    Metadata,
    Name,
    Priority,
    Submission,
    Tags,
    When,
    distinct,
)

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
    concurrency_key: str | None
    concurrency_limit: int | None
    parent_id: int | None
    webhook_url: str | None
    tags: list[str]
    metadata: dict[str, Any] | None
    tenant: str = Field("", description="Whose it is; left out where it belongs to nobody in particular.")


class TaskView(TaskSummary):
    """A task."""

    payload: dict[str, Any]
    result: Any


class WaitingReason(BaseModel):
    """The first reason why a task waits. `until` is when it is over, null where nobody can tell."""

    reason: Why
    message: str
    until: datetime | None


class TaskItem(TaskSummary):
    """A task in a list, with what `include` asked for."""

    payload: dict[str, Any] = Field({}, description="Only where it was asked for.")
    result: Any = Field(None, description="Only where it was asked for.")
    waiting_reason: WaitingReason | None = Field(
        None, description="Only where it was asked for; null for a task that does not wait."
    )


class Searched(BaseModel):
    """How many tasks were looked at, and the id of the oldest of them where there are older ones: `next_cursor` goes on there."""

    tasks: int
    back_to_id: int | None


class TaskPage(BaseModel):
    """Tasks, newest first. `next_cursor` is null on the last page."""

    items: list[TaskItem]
    next_cursor: str | None
    searched: Searched | None = Field(None, description="Only with `q`.")


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


class LogLineView(BaseModel):
    """One line: `number` counts from 1 in each attempt, `fields` are those of `context.log`."""

    number: int
    at: datetime
    source: Source
    text: str
    fields: dict[str, Any] = {}


class LogView(BaseModel):
    """What one attempt printed and logged. `dropped` lines were older than these and are not kept."""

    lease: int
    attempt: int
    dropped: int
    lines: list[LogLineView]


class LogList(BaseModel):
    """By attempt, oldest first; attempts of which no line is kept are missing."""

    items: list[LogView]


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


_CHOOSING = ("ids", "fingerprint", "task_type", "queue", "failure_reason")
_SOME: list[Any] = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in _CHOOSING]
_NOT_ALL: dict[str, Any] = {"properties": {"all": {"const": False}}}
_ALL: dict[str, Any] = {
    "required": ["all"],
    "properties": {"all": {"const": True}} | {name: {"type": "null"} for name in _CHOOSING},
}


class Selection(BaseModel):
    """Which dead letters are meant. What is given must all fit; `all` says that every one is meant."""

    model_config = ConfigDict(
        strict=True, extra="forbid", json_schema_extra={"oneOf": [_NOT_ALL | {"anyOf": _SOME}, _ALL]}
    )

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


class SilenceRequest(BaseModel):
    """Which alerts are to be silent, for how long, and why. What is given must all fit; `all` says that every one is meant."""

    model_config = ConfigDict(strict=True, extra="forbid")

    rule: str | None = Field(None, description="Only alerts of this rule.", json_schema_extra={"enum": [*RULE_NAMES]})
    queue: Name | None = Field(None, description="Only alerts about this queue.")
    all: bool = False
    seconds: float = Field(ge=1, le=LONGEST_WAIT_SECONDS, allow_inf_nan=False, description="How long it lasts.")
    note: str = Field(min_length=1, max_length=500, description="For whoever wonders why nothing was told.")


class KeyRequest(BaseModel):
    """A key as it is asked for."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Name = Field(description="Who or what will use it.")
    scopes: list[Annotated[Scope, Field(strict=False)]] = Field(min_length=1, max_length=len(Scope))
    tenant: Name | None = Field(None, description="Whose tasks and files it sees. Left out: everyone's.")
    expires_in_seconds: float | None = Field(
        None, gt=0, le=FAR_FUTURE.total_seconds(), allow_inf_nan=False, description="Left out: until it is revoked."
    )


MOST_NAMES = 20
_Distinct = AfterValidator(distinct)
Events = Annotated[
    list[Annotated[Event, Field(strict=False)]],
    Field(min_length=1, max_length=len(Event), description="Which ends it is told of.", json_schema_extra=UNIQUE),
    _Distinct,
]
TaskTypes = Annotated[
    list[Name],
    Field(max_length=MOST_NAMES, description="Only of these; empty for all.", json_schema_extra=UNIQUE),
    _Distinct,
]
Queues = Annotated[
    list[Name],
    Field(max_length=MOST_NAMES, description="Only in these; empty for all.", json_schema_extra=UNIQUE),
    _Distinct,
]
WebhookTags = Annotated[
    list[Name],
    Field(max_length=MOST_NAMES, description="Only with one of these; empty for all.", json_schema_extra=UNIQUE),
    _Distinct,
]
SecretNames = Annotated[
    list[Annotated[str, Field(pattern=SECRET_NAME)]],
    Field(
        max_length=MOST_SECRETS,
        description="Names of secrets of the workers that notices are signed with, the new one first while the receiver"
        " changes over; SECRETS_HOSTS must let them go to the host. None: WEBHOOK_SECRETS.",
        json_schema_extra=UNIQUE,
    ),
    _Distinct,
]
WebhookUrl = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_URL, description="Where to tell.", json_schema_extra={"format": "uri"}),
]
Description = Annotated[str | None, Field(min_length=1, max_length=200, description="For whoever looks at it later.")]


class WebhookRequest(BaseModel):
    """A subscription as it is asked for. A task must fit all that is given."""

    model_config = ConfigDict(strict=True, extra="forbid")

    url: WebhookUrl
    description: Description = None
    events: Events = list(Event)
    task_types: TaskTypes = []
    queues: Queues = []
    tags: WebhookTags = []
    secrets: SecretNames = []
    tenant: Name | None = Field(None, description="Whose tasks it is told of. Left out: your own, or everyone's.")


class WebhookPatch(BaseModel):
    """What to change of a subscription; what is left out stays."""

    model_config = ConfigDict(strict=True, extra="forbid")

    url: WebhookUrl = ""
    description: Description = None
    events: Events = list(Event)
    task_types: TaskTypes = []
    queues: Queues = []
    tags: WebhookTags = []
    secrets: SecretNames = []
    enabled: bool = Field(True, description="Switch it on, which forgets its failures, or off.")


class SignIn(BaseModel):
    """With what to sign in."""

    model_config = ConfigDict(strict=True, extra="forbid")

    key: str = Field(min_length=1, max_length=LONGEST_TOKEN, description="An API key, as `id.secret`.")


class QueuePatch(BaseModel):
    """What to change of a queue; what is left out stays, and null takes a limit away."""

    model_config = ConfigDict(strict=True, extra="forbid")

    paused: Annotated[bool | None, WithJsonSchema({"type": "boolean"})] = Field(
        None, description="Whether none of its tasks starts."
    )
    max_running: int | None = Field(None, ge=1, le=100_000, description="So many of its tasks run at once.")
    rate_limit: int | None = Field(
        None, ge=1, le=1_000_000, description="So many of its tasks start in `rate_period_seconds`, over all workers."
    )
    rate_period_seconds: float | None = Field(
        None, gt=0, le=86400, allow_inf_nan=False, description="With `rate_limit`; by default 1."
    )
    max_depth: int | None = Field(
        None, ge=1, le=1_000_000, description="So many of its tasks may be ready or blocked; more are refused with 429."
    )


class Pending(BaseModel):
    """There is no result yet."""

    status: Status
    detail: str


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


_SUMMARY = tuple(name for name in TaskSummary.model_fields if name != "tenant")
_summary_values = attrgetter(*_SUMMARY)
_TEXTS = ("progress", "error", "metadata", "retry")


def summary_fields(task: Task) -> dict[str, Any]:
    """A `TaskSummary`, before it is made bytes."""
    # One call for all the fields: each answer does this, a page fifty times.
    fields = dict(zip(_SUMMARY, _summary_values(task), strict=True))
    for name in _TEXTS:
        if fields[name] is not None:
            fields[name] = orjson.Fragment(fields[name])
    if task.tenant:
        fields["tenant"] = task.tenant
        if task.concurrency_key is not None:
            fields["concurrency_key"] = shown_key(task.tenant, task.concurrency_key)
    return fields


def _whole(task: Task) -> dict[str, Any]:
    fields = summary_fields(task)
    fields["payload"], fields["result"] = _fragment(task.payload), _fragment(task.result)
    return fields


def task_json(task: Task) -> bytes:
    """A `TaskView`."""
    return orjson.dumps(_whole(task), option=OPTIONS)


def summary_json(task: Task) -> bytes:
    """A `TaskSummary`."""
    return orjson.dumps(summary_fields(task), option=OPTIONS)


def page_json(
    tasks: Sequence[Task],
    next_cursor: str | None,
    texts: set[str],
    reasons: Mapping[int, Reason] | None = None,
    searched: tuple[int, int | None] | None = None,
) -> bytes:
    """A `TaskPage`; `texts` may name payload and result, `reasons` are first reasons by id, None if nobody asked;
    `searched` as in `Searched`."""
    items = [summary_fields(task) | {name: _fragment(getattr(task, name)) for name in texts} for task in tasks]
    if reasons is not None:
        for item in items:
            item["waiting_reason"] = _waiting_reason(reasons.get(item["id"]))
    page: dict[str, Any] = {"items": items, "next_cursor": next_cursor}
    if searched is not None:
        page["searched"] = dict(zip(Searched.model_fields, searched, strict=True))
    return orjson.dumps(page, option=OPTIONS)


def _waiting_reason(reason: Reason | None) -> dict[str, Any] | None:
    return None if reason is None else {name: getattr(reason, name) for name in WaitingReason.model_fields}


def attempts_json(attempts: Sequence[Attempt]) -> bytes:
    """An `AttemptList`."""
    items = [
        {name: getattr(one, name) for name in AttemptView.model_fields if name != "error"}
        | {"error": _fragment(one.error)}
        for one in attempts
    ]
    return orjson.dumps({"items": items}, option=OPTIONS)


def logs_json(chunks: Sequence[Chunk]) -> bytes:
    """A `LogList` of chunks in their order."""
    items = [log_fields(list(of_attempt)) for _, of_attempt in groupby(chunks, key=attrgetter("lease"))]
    return orjson.dumps({"items": items}, option=OPTIONS)


def log_fields(chunks: Sequence[Chunk], before: int = 0) -> dict[str, Any]:
    """A `LogView` of the chunks of one attempt, for who has read `before` lines of it."""
    first = chunks[0]
    return {
        "lease": first.lease,
        "attempt": first.attempt,
        "dropped": max(0, first.number - first.count - before),
        "lines": orjson.Fragment(f"[{','.join(chunk.lines[1:-1] for chunk in chunks)}]"),
    }
