"""What is told of a task that has ended, to whom, and when nobody is told any more. Pure.

The teller is a task like any other, stored in the transaction that ends the first one. So a notice is as durable as the end it
tells of, and retries, backoff, the log of deliveries (its attempts), redelivery (its retry) and giving up (a dead letter)
are those of tasks; there is no second queue to build, watch and repair.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

import orjson

from app.core.clock import to_milliseconds
from app.core.lifecycle import Completed, Errored, Outcome, TimedOut
from app.core.outbound import status_in
from app.core.task import HIGHEST_PRIORITY, JsonText, NewTask, Status, Task

TASK_TYPE = "webhook"
MAX_ATTEMPTS = 15
"""With waits of up to 5 s, 10 s ... 5 hours, about half a day altogether: a receiver may be away over night."""
TIMEOUT_SECONDS = 60.0
BASE_SECONDS = 5.0
CEILING_SECONDS = 6 * 3600.0
MOST_RESULT_CHARACTERS = 64 * 1024
"""Of a result that goes with the notice; whoever wants a larger one asks for it."""


class Event(StrEnum):
    """An end that can be told of: the status that the task has then."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TEST_EVENT = "webhook.test"
MOST_SECRETS = 2
"""Active at once: the new one and, while the receiver changes over, the old one."""
GONE = 410
"""The receiver says that it never wants to be told again."""
LONGEST_ERROR = 500
OUR_OWN_FAULTS = frozenset(["SecretsMissing"])
"""Errors of the worker that say nothing of the receiver."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A subscription: one row of `webhooks`. It is told of the ends that fit all its filters; an empty one fits all.

    tenant                whose ends; empty for everyone's
    events                words of `Event`
    tags                  a task that has one of them fits
    secrets               names of secrets of the workers, the newest first; none for WEBHOOK_SECRETS
    failures              failed attempts in a row over all its notices, the first of them at `failing_since`
    last_error            what the last of those said
    switched_off_at       since when nothing new is told, None while it is on
    switched_off_reason   why it was switched off for its failures, None where a person did it
    """

    id: str
    tenant: str
    url: str
    description: str | None
    events: tuple[str, ...]
    task_types: tuple[str, ...]
    queues: tuple[str, ...]
    tags: tuple[str, ...]
    secrets: tuple[str, ...]
    created_at: datetime
    failures: int = 0
    failing_since: datetime | None = None
    last_error: str | None = None
    switched_off_at: datetime | None = None
    switched_off_reason: str | None = None

    @property
    def enabled(self) -> bool:
        """Whether it is told of what ends now."""
        return self.switched_off_at is None


@dataclass(frozen=True, slots=True)
class End:
    """As much of a task that has ended as says who is told of it. `asked`: it has a `webhook_url`."""

    id: int
    task_type: str
    queue: str
    status: Status
    tags: tuple[str, ...]
    tenant: str
    asked: bool


@dataclass(frozen=True, slots=True)
class Patience:
    """A receiver is dead after so many failures in a row that began so long ago."""

    failures: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Reception:
    """What one attempt to deliver says of the receiver: that it took the notice, or (`trouble`) what went wrong."""

    trouble: str | None = None


def takers(end: End, webhooks: Iterable[Webhook]) -> list[Webhook]:
    """Who is told of this end, of all that are switched on. Nobody is told of notices: that would never end."""
    return [] if end.task_type == TASK_TYPE else [one for one in webhooks if _fits(one, end)]


def _fits(webhook: Webhook, end: End) -> bool:
    return (
        webhook.tenant in ("", end.tenant)
        and end.status in webhook.events
        and (not webhook.task_types or end.task_type in webhook.task_types)
        and (not webhook.queues or end.queue in webhook.queues)
        and (not webhook.tags or not set(webhook.tags).isdisjoint(end.tags))
    )


def message_id(task: Task, webhook: Webhook | None = None) -> str:
    """By its end, so that a retry by hand makes another notice, and every delivery of one has the same id."""
    assert task.finished_at is not None
    text = f"msg_{task.id}_{to_milliseconds(task.finished_at)}"
    return text if webhook is None else f"{text}_{webhook.id}"


def notice(task: Task) -> NewTask | None:
    """The task that tells the `webhook_url` of `task` of its end, None if it has none."""
    if task.webhook_url is None or task.finished_at is None:
        return None
    payload = {"url": task.webhook_url, "message_id": message_id(task), "body": body_of(task)}
    return _teller(payload, task.queue, task.tenant, task)


def notice_to(webhook: Webhook, task: Task) -> NewTask:
    """The task that tells a subscriber of the end of `task`. It is the subscriber's: what the operator is told of is not for
    the tenant to see."""
    payload = _payload(webhook, message_id(task, webhook), body_of(task))
    return _teller(payload, task.queue, webhook.tenant, task)


def notice_again(webhook: Webhook, sent: JsonText, queue: str, parent_id: int | None) -> NewTask:
    """The task that delivers once more what `sent`, the payload of another one, did: the same message under the same id,
    to where the subscriber is now."""
    payload = orjson.loads(sent)
    return _teller(_payload(webhook, payload["message_id"], payload["body"]), queue, webhook.tenant, None, parent_id)


def ping(webhook: Webhook, ping_id: str, queue: str, now: datetime) -> NewTask:
    """The task that sends a subscriber something to try itself with."""
    told = {"type": TEST_EVENT, "timestamp": now, "data": {"webhook_id": webhook.id}}
    body = orjson.dumps(told, option=orjson.OPT_UTC_Z).decode()
    return _teller(_payload(webhook, ping_id, body), queue, webhook.tenant)


def _payload(webhook: Webhook, message: str, body: str) -> dict[str, object]:
    return {
        "url": webhook.url,
        "message_id": message,
        "body": body,
        "webhook_id": webhook.id,
        "secrets": webhook.secrets,
    }


def _teller(
    payload: object, queue: str, tenant: str, task: Task | None = None, parent_id: int | None = None
) -> NewTask:
    """Its rank lets it pass what waits. Whoever does the work of the queue can tell of it too."""
    return NewTask(
        task_type=TASK_TYPE,
        payload=JsonText(orjson.dumps(payload).decode()),
        queue=queue,
        priority=HIGHEST_PRIORITY,
        max_attempts=MAX_ATTEMPTS,
        timeout_seconds=TIMEOUT_SECONDS,
        parent_id=parent_id if task is None else task.id,
        tenant=tenant,
        traceparent=None if task is None else task.traceparent,
        tracestate=None if task is None else task.tracestate,
    )


def event_of(status: Status) -> str:
    """How a notice says what happened."""
    return f"task.{status}"


def body_of(task: Task) -> str:
    """{"type": "task.completed", "timestamp": ..., "data": {...}}, as Standard Webhooks has it. No payload, no traceback."""
    error = None if task.error is None else orjson.loads(task.error)
    result = task.result if task.result is not None and len(task.result) <= MOST_RESULT_CHARACTERS else None
    data = {
        "id": task.id,
        "task_type": task.task_type,
        "queue": task.queue,
        "status": task.status,
        "failure_reason": task.failure_reason,
        "error": error and {name: value for name, value in error.items() if name != "traceback"},
        "attempts": task.attempts,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "parent_id": task.parent_id,
        "tags": task.tags,
        "metadata": None if task.metadata is None else orjson.Fragment(task.metadata),
        "result": None if result is None else orjson.Fragment(result),
        "result_left_out": result is not task.result,
    }
    if task.tenant:
        data["tenant"] = task.tenant
    told = {"type": event_of(task.status), "timestamp": task.finished_at, "data": data}
    return orjson.dumps(told, option=orjson.OPT_UTC_Z).decode()


def reception(outcome: Outcome) -> Reception | None:
    """What an attempt to deliver says of the receiver; None if nothing, like one that was stopped, or lost its worker."""
    match outcome:
        case Completed():
            return Reception()
        case Errored() if outcome.type not in OUR_OWN_FAULTS:
            return Reception(f"{outcome.type}: {outcome.message}"[:LONGEST_ERROR] if outcome.message else outcome.type)
        case TimedOut():
            return Reception(f"it took longer than {outcome.limit_seconds:g} s")
    return None


def says_gone(outcome: Outcome) -> bool:
    """Whether the receiver answered that it is gone for good."""
    return isinstance(outcome, Errored) and status_in(outcome.message) == GONE


def judge(webhook: Webhook, outcomes: Sequence[Outcome], patience: Patience, now: datetime) -> Webhook:
    """The subscription after these attempts, in their order. It is switched off once its receiver counts as dead, and not
    switched on by one that succeeds: that is for a person to say."""
    for outcome in outcomes:
        heard = reception(outcome)
        if heard is None:
            continue
        if heard.trouble is None:
            webhook = forgiven(webhook)
            continue
        webhook = replace(
            webhook,
            failures=webhook.failures + 1,
            failing_since=webhook.failing_since or now,
            last_error=heard.trouble,
        )
        reason = _why_dead(webhook, outcome, patience, now)
        if reason is not None and webhook.enabled:
            webhook = replace(webhook, switched_off_at=now, switched_off_reason=reason)
    return webhook


def _why_dead(webhook: Webhook, outcome: Outcome, patience: Patience, now: datetime) -> str | None:
    if says_gone(outcome):
        return f"The receiver answered {GONE}: it is gone for good."
    since = webhook.failing_since
    if since is None or webhook.failures < patience.failures or now - since < timedelta(seconds=patience.seconds):
        return None
    return f"{webhook.failures} attempts failed in a row. The last one: {webhook.last_error}"


def switched(webhook: Webhook, *, on: bool, now: datetime) -> Webhook:
    """The subscription after a person switched it on, which forgets its failures, or off."""
    if not on:
        return replace(webhook, switched_off_at=now, switched_off_reason=None) if webhook.enabled else webhook
    return replace(forgiven(webhook), switched_off_at=None, switched_off_reason=None)


def forgiven(webhook: Webhook) -> Webhook:
    """The subscription without its failures: its receiver works, or is another one."""
    return replace(webhook, failures=0, failing_since=None, last_error=None)
