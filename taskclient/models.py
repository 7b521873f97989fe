"""What the service says, as values. Fields that a newer service adds are kept and can be read by name."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Required, TypedDict

from pydantic import BaseModel, ConfigDict, Field

ENDED = frozenset({"completed", "failed", "cancelled"})
"""The states that a task does not leave by itself."""


class SubmitOptions(TypedDict, total=False):
    """What a submission may say besides task type and payload; what each means is in USAGE.md, "Submit a task"."""

    queue: str
    priority: int | str
    scheduled_at: datetime | str
    delay_seconds: float
    expires_at: datetime | str
    max_attempts: int
    timeout_seconds: float
    retry: Mapping[str, Any]
    retry_for_seconds: float
    unique_key: str
    tags: list[str]
    metadata: Mapping[str, Any]
    parent_id: int
    concurrency_key: str
    concurrency_limit: int
    webhook_url: str


class Submission(SubmitOptions, total=False):
    """A whole submission, for `submit_many`."""

    task_type: Required[str]
    payload: Mapping[str, Any] | BaseModel


class Edits(TypedDict, total=False):
    """What can be changed while a task waits."""

    priority: int | str
    scheduled_at: datetime | str | None
    max_attempts: int
    tags: list[str]
    metadata: Mapping[str, Any] | None


class Limits(TypedDict, total=False):
    """What can be changed of a queue; None takes a limit away."""

    paused: bool
    max_running: int | None
    rate_limit: int | None
    rate_period_seconds: float | None
    max_depth: int | None


class Choice(TypedDict, total=False):
    """Which dead letters are meant: what is given must all fit. `all` says that every one is meant."""

    ids: list[int]
    fingerprint: str
    task_type: str
    queue: str
    failure_reason: str
    all: bool
    dry_run: bool


class Subscription(TypedDict, total=False):
    """What a webhook may be told of, and how; what each means is in USAGE.md, "Subscriptions"."""

    description: str | None
    events: list[str]
    task_types: list[str]
    queues: list[str]
    tags: list[str]
    secrets: list[str]


class WebhookChanges(Subscription, total=False):
    """What can be changed of a webhook. `enabled` switches it on, which forgets its failures, or off."""

    url: str
    enabled: bool


class _Said(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class TaskError(_Said):
    """Why an attempt did not complete."""

    type: str
    message: str
    attempt: int
    at: datetime
    traceback: str | None = None


class Progress(_Said):
    """What the attempt last said about itself."""

    percent: float | None
    message: str | None
    data: Any
    updated_at: datetime


class Retry(_Said):
    """The wait between attempts."""

    base_seconds: float
    ceiling_seconds: float
    policy: str
    jitter: bool


class Task(_Said):
    """A task as it was when the service was asked. Lists and event streams leave out `payload` and `result`."""

    id: int
    task_type: str
    status: str
    queue: str
    priority: int
    attempts: int
    max_attempts: int
    timeout_seconds: float
    progress: Progress | None
    error: TaskError | None
    failure_reason: str | None
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    cancel_requested_at: datetime | None
    worker_id: str | None
    retry: Retry | None
    retry_for_seconds: float | None
    resolved_at: datetime | None
    resolution: str | None
    unique_key: str | None
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    parent_id: int | None
    webhook_url: str | None = None
    tags: list[str]
    metadata: dict[str, Any] | None
    tenant: str = ""
    payload: dict[str, Any] | None = None
    result: Any = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def completed(self) -> bool:
        return self.status == "completed"


class Attempt(_Said):
    """One run of a task. `outcome` is None while it runs; `delay_seconds` is the wait chosen after it."""

    lease: int
    attempt: int
    outcome: str | None
    worker_id: str | None
    started_at: datetime
    finished_at: datetime | None
    error: TaskError | None
    delay_seconds: float | None


class LogLine(_Said):
    """One line that an attempt printed (`source` stdout or stderr) or logged (log); `number` counts from 1."""

    number: int
    at: datetime
    source: str
    text: str
    fields: dict[str, Any] = {}


class AttemptLog(_Said):
    """What one attempt printed and logged; `dropped` lines were older than these and are not kept."""

    lease: int
    attempt: int
    dropped: int
    lines: list[LogLine]


class Reason(_Said):
    """One reason why a task waits; `held_by` names the first few tasks that must end before."""

    reason: str
    message: str
    until: datetime | None
    held_by: list[int]


class Explanation(_Said):
    """Why a task has not started: every reason, most decisive first; none once it has."""

    task_id: int
    status: str
    reasons: list[Reason]
    position: int | None
    position_is_at_least: bool
    drained_per_second: float | None
    estimated_start_at: datetime | None


class TaskType(_Said):
    """One kind of work: what it takes, and how it is treated by default."""

    task_type: str
    description: str
    max_attempts: int
    timeout_seconds: float
    retry: Retry
    shared: bool
    payload_schema: dict[str, Any]
    example: dict[str, Any] | None


class Queue(_Said):
    """What waits and runs in one queue, and its limits; None is no limit."""

    queue: str
    paused: bool = False
    ready: int
    blocked: int = 0
    scheduled: int
    retrying: int
    running: int
    oldest_age_seconds: float | None
    max_running: int | None = None
    rate_limit: int | None = None
    rate_period_seconds: float | None = None
    max_depth: int | None = None
    drained_per_second: float = 0.0


class Worker(_Said):
    """A worker process. No `queues` means every queue; `running` lists what is in its runners, `runners` the processes.
    `memory_bytes` is what it and they have in use, None where that cannot be told. `silent_seconds`: for how long it has not
    been heard of, None while it beats. `room`: how many more attempts it could take, `plain` ones or `shared` ones."""

    id: str
    name: str
    host: str
    pid: int
    state: str
    silent_seconds: float | None = None
    queues: list[str]
    task_types: list[str]
    slots: int
    room: dict[str, int] | None = None
    running: list[dict[str, Any]]
    started_at: datetime
    beat_at: datetime
    memory_bytes: int | None = None
    runners: list[dict[str, Any]] = []


class Durations(_Said):
    """How long something took, in seconds: how often it was measured, the mean, and quantiles. None where it was not."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class Tally(_Said):
    """What happened to tasks in some time."""

    submitted: int
    completed: int
    failed: int
    retried: int
    cancelled: int
    wait_seconds: Durations
    run_seconds: Durations


class Point(Tally):
    """What happened in the step that begins `at`."""

    at: datetime


class Series(_Said):
    """What happened to one queue, task type, or pair of both. Steps in which nothing happened are left out."""

    queue: str | None
    task_type: str | None
    total: Tally
    points: list[Point]


class StatsRange(_Said):
    """What happened between two moments."""

    begins_at: datetime
    ends_at: datetime
    step_seconds: int
    series: list[Series]


class Stats(_Said):
    """Tasks by state now, and those that ended within the last hour."""

    ready: int
    scheduled: int
    retrying: int
    running: int
    completed: int
    failed: int
    cancelled: int
    completed_last_hour: int
    failed_last_hour: int
    oldest_ready_at: datetime | None
    live_workers: int
    range: StatsRange | None = None


class DeadLetter(Task):
    """A failed task nobody has dealt with; `fingerprint` is that of its cause."""

    fingerprint: str | None


class CauseGroup(_Said):
    """Dead letters of one task type with one cause; `error` is that of the newest, `task_ids` are the ten newest."""

    fingerprint: str
    task_type: str
    count: int
    first_failed_at: datetime
    last_failed_at: datetime
    error: TaskError | None
    task_ids: list[int]


class CauseGroups(_Said):
    """The largest groups, of `total` dead letters."""

    total: int
    items: list[CauseGroup]


class Done(_Said):
    """What was done with dead letters, or would be. `task_ids` are the first ten; `skipped` says who was left alone, and why."""

    dry_run: bool
    matched: int
    changed: int
    task_ids: list[int]
    skipped: list[dict[str, Any]]


class Breaker(_Said):
    """One circuit breaker; `waiting` are the ready tasks that it holds back."""

    name: str
    state: str
    reason: str | None
    failures: int
    trips: int
    opened_at: datetime | None
    open_until: datetime | None
    tripped_by_hand: bool
    probes: int
    task_types: list[str]
    waiting: int


class AlertDelivery(_Said):
    """One channel that was told of an alert, or is to be: `waiting`, `sent` or `given_up`."""

    kind: str
    channel: str
    state: str
    attempts: int
    due_at: datetime
    error: str | None
    created_at: datetime
    ended_at: datetime | None


class Alert(_Said):
    """One rule about one subject: `holding`, `firing` or `cleared`. An empty `subject` is the whole service."""

    id: int
    rule: str
    subject: str
    queue: str | None
    severity: str
    state: str
    what: str
    value: float
    threshold: float
    began_at: datetime
    fired_at: datetime | None
    calm_since: datetime | None
    cleared_at: datetime | None
    told_at: datetime | None
    silenced: bool
    deliveries: list[AlertDelivery]


class Silence(_Said):
    """Until `ends_at` nobody is told that such an alert fires; no `rule` or `queue` is any."""

    id: int
    rule: str | None
    queue: str | None
    ends_at: datetime
    note: str
    created_at: datetime
    created_by: str


class TriedChannel(_Said):
    """What came of testing one channel; `error` is None where it works."""

    channel: str
    error: str | None


class AuditEntry(_Said):
    """One thing that somebody did, and what it changed. `key_id` is None where no key was shown."""

    id: int
    at: datetime
    key_id: str | None
    key_name: str
    tenant: str | None
    address: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class ApiKey(_Said):
    """An API key, without its secret. `tenant` is whose tasks and files it sees; None for everyone's."""

    id: str
    name: str
    scopes: list[str]
    tenant: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewApiKey(ApiKey):
    """A key just made; `key` is what to send, and is not shown again."""

    key: str = Field(repr=False)


class Webhook(_Said):
    """Who is told of which ends. Secrets are names. `switched_off_reason` is None where a person switched it off."""

    id: str
    url: str
    description: str | None
    events: list[str]
    task_types: list[str]
    queues: list[str]
    tags: list[str]
    secrets: list[str]
    tenant: str | None
    enabled: bool
    failures: int
    failing_since: datetime | None
    last_error: str | None
    switched_off_at: datetime | None
    switched_off_reason: str | None
    created_at: datetime


class Delivery(_Said):
    """One notice, which is the task `task_id`; what its last attempt said. `subject_id` is the task that it tells of."""

    task_id: int
    event: str
    message_id: str
    subject_id: int | None
    status: str
    attempts: int
    max_attempts: int
    status_code: int | None
    error: str | None
    attempted_at: datetime | None
    duration_seconds: float | None
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class StoredFile(_Said):
    """A stored file. It is kept while a task uses it, otherwise until `expires_at`."""

    id: str
    name: str
    size: int
    content_type: str
    sha256: str
    created_at: datetime
    expires_at: datetime | None


class TaskFile(StoredFile):
    """A file of a task; `role` is `input`, `output` or `temporary`."""

    role: str


class Health(_Said):
    """`status` is healthy, degraded or unhealthy."""

    status: str
    version: str
    checks: dict[str, Any]


class Finding(_Said):
    """Something that is wrong: what, why it matters, what to do. `code` is a word for programs, `severity` is `critical` or
    `warning`."""

    code: str
    severity: str
    what: str
    why: str
    what_to_do: str


class Diagnosis(_Said):
    """What the service finds wrong with itself, at `at` by its own clock; `checked` is all that it looked at."""

    at: datetime
    version: str
    checked: list[str]
    items: list[Finding]


class Page(_Said):
    """One page of a list. Its items are read one by one, as what they are."""

    items: list[dict[str, Any]]
    next_cursor: str | None = None
