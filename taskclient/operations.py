"""Every call of the service, written once: what is sent, and what is made of the answer. The clients list them."""

import hashlib
import mimetypes
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel
from pydantic_core import to_json

from taskclient.errors import StillRunning, TaskCancelled, TaskFailed, UnexpectedAnswer
from taskclient.models import (
    Alert,
    ApiKey,
    Attempt,
    AttemptLog,
    AuditEntry,
    Breaker,
    CauseGroups,
    Choice,
    DeadLetter,
    Delivery,
    Diagnosis,
    Done,
    Edits,
    Explanation,
    Health,
    Limits,
    NewApiKey,
    Page,
    Queue,
    Silence,
    Stats,
    StoredFile,
    Submission,
    SubmitOptions,
    Subscription,
    Task,
    TaskFile,
    TaskType,
    TriedChannel,
    Webhook,
    WebhookChanges,
    Worker,
)
from taskclient.patience import problem_of
from taskclient.sse import EventParser
from taskclient.steps import Answer, Emit, Form, Receive, Request, Steps, Stream, Work

Payload = Mapping[str, Any] | BaseModel
Source = str | os.PathLike[str] | bytes | IO[bytes]
Target = str | os.PathLike[str] | IO[bytes]
Model = TypeVar("Model", bound=BaseModel)

POLL_SECONDS = 25.0
"""How long one request waits for the end of a task: shorter than most proxies let a connection be silent."""
LET_GO_SECONDS = 0.2
"""Pause before a wait that ended early is taken up again: the service stops, or allows only short ones."""
PAGE = 500
WHOLE_PAGE = 100
"""Most tasks in a page, without and with payloads and results; the latter for those with a text in them, too."""
MOST_IN_VAIN = 5
"""Times that a download is taken up again without a byte coming."""

_JSON = {"Content-Type": "application/json"}


# Tasks


def submit(
    task_type: str,
    payload: Payload | None = None,
    *,
    idempotency_key: str | None = None,
    **options: Unpack[SubmitOptions],
) -> Steps[tuple[Task, bool]]:
    """Store a task and return a handle on it. What the service acknowledged is on disk.

    Every try carries the same Idempotency-Key, so there is one task however often an answer gets lost. Give a key of your
    own to make it one task across several calls.
    """
    body = {"task_type": task_type, "payload": {} if payload is None else payload, **options}
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    answer: Answer = yield Request("POST", "/tasks", content=to_json(body), headers=_JSON | headers)
    return answer.read(Task), "idempotency-replayed" in answer.response.headers


def submit_many(submissions: Iterable[Submission]) -> Steps[list[int]]:
    """Store many tasks in one transaction, all or none, and return a handle on each, in their order.

    The call is not repeated when its answer got lost: NoAnswer says so. Give the tasks unique keys, and repeat it yourself.
    """
    content = to_json({"tasks": list(submissions)})
    answer: Answer = yield Request("POST", "/tasks/bulk", content=content, headers=_JSON, repeatable=False)
    return answer.read(_Ids).ids


class _Ids(BaseModel):
    ids: list[int]


def get(task_id: int) -> Steps[Task]:
    """The task as it is now."""
    answer: Answer = yield Request("GET", f"/tasks/{task_id}")
    return _task(answer)


def _task(answer: Answer) -> Task:
    return answer.read(Task)


def wait(task_id: int, timeout: float | None = None) -> Steps[Task]:
    """The task once it has ended, in whichever way. Raises StillRunning after `timeout` seconds; None is no limit.

    It asks by long polls, which cost the service next to nothing, and goes on when the service is restarted meanwhile.
    """
    left = POLL_SECONDS if timeout is None else timeout
    began, pause = None, 0.0
    while True:
        poll = max(0.0, min(left, POLL_SECONDS))
        request = Request("GET", f"/tasks/{task_id}", {"wait": poll}, wait_seconds=poll, pause_seconds=pause)
        answer: Answer = yield request
        task = answer.read(Task)
        if task.ended:
            return task
        began = answer.began if began is None else began
        if timeout is not None and (left := timeout - (answer.ended - began)) <= 0:
            raise StillRunning(task, timeout)
        pause = LET_GO_SECONDS if answer.ended - answer.began < poll - LET_GO_SECONDS else 0.0


def result(task_id: int, timeout: float | None = None) -> Steps[Any]:
    """The result of the task once it has completed. Raises TaskFailed, TaskCancelled, or StillRunning after `timeout`."""
    task = yield from wait(task_id, timeout)
    return result_of(task)


def result_of(task: Task) -> Any:
    """The result of a task that has ended. Raises TaskFailed or TaskCancelled."""
    if task.completed:
        return task.result
    raise TaskCancelled(task) if task.status == "cancelled" else TaskFailed(task)


def list_tasks(
    *,
    status: str | Sequence[str] | None = None,
    task_type: str | None = None,
    queue: str | None = None,
    tag: str | None = None,
    created_after: datetime | str | None = None,
    created_before: datetime | str | None = None,
    parent_id: int | None = None,
    q: str | None = None,
    include: Sequence[str] = (),
    limit: int | None = None,
) -> Stream[Task]:
    """Tasks, newest first, at most `limit`; pages are fetched as they are needed. `q` is a text in payload, result or error,
    letter for letter; the service looks at 10,000 tasks a page, so a rare one takes many pages. `include`: "payload",
    "result", "waiting_reason"."""
    params = {
        "status": [status] if isinstance(status, str) else list(status or ()),
        "task_type": task_type,
        "queue": queue,
        "tag": tag,
        "created_after": _moment(created_after),
        "created_before": _moment(created_before),
        "parent_id": parent_id,
        "q": q,
        "include": ",".join(include) or None,
    }
    return _listed("/tasks", params, Task, limit, PAGE if q is None and not include else WHOLE_PAGE)


def _moment(value: datetime | str | None) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else value


def _listed(path: str, params: Mapping[str, Any], model: type[Model], limit: int | None, page: int) -> Stream[Model]:
    cursor, left = None, limit
    while left is None or left > 0:
        size = page if left is None else min(left, page)
        answer: Answer = yield Request("GET", path, _given({**params, "limit": size, "cursor": cursor}))
        found = answer.read(Page)
        for item in found.items:
            yield Emit(model.model_validate(item))
        cursor = found.next_cursor
        if cursor is None:
            return
        left = None if left is None else left - len(found.items)


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None and value != []}


def edit(task_id: int, **changes: Unpack[Edits]) -> Steps[Task]:
    """Change a task while it waits; what is left out stays. `scheduled_at=None` means now."""
    answer: Answer = yield Request("PATCH", f"/tasks/{task_id}", content=to_json(changes), headers=_JSON)
    return _task(answer)


def cancel(task_id: int) -> Steps[Task]:
    """End a waiting task, or ask a running one to stop: it stays `running` until its worker has obeyed."""
    answer: Answer = yield Request("POST", f"/tasks/{task_id}/cancel")
    return _task(answer)


def retry(task_id: int) -> Steps[Task]:
    """Run a failed or cancelled task again, now, with a fresh budget of attempts. Its history stays."""
    answer: Answer = yield Request("POST", f"/tasks/{task_id}/retry", repeatable=False)
    return _task(answer)


def delete(task_id: int) -> Steps[None]:
    """Delete a task that does not run, with its history."""
    yield from _deleted(f"/tasks/{task_id}")


def _deleted(path: str) -> Steps[None]:
    answer: Answer = yield Request("DELETE", path, accepted=frozenset({404}))
    if answer.status == 404 and not answer.unsure:  # else it may be gone because this was sent before
        raise problem_of(answer)


def attempts(task_id: int) -> Steps[list[Attempt]]:
    """Every run of the task so far, oldest first."""
    return _items(f"/tasks/{task_id}/attempts", Attempt)


def logs(task_id: int) -> Steps[list[AttemptLog]]:
    """What the task's attempts printed and logged, as far as it is kept, oldest first."""
    return _items(f"/tasks/{task_id}/logs", AttemptLog)


def _items(path: str, model: type[Model]) -> Steps[list[Model]]:
    answer: Answer = yield Request("GET", path)
    return [model.model_validate(item) for item in answer.read(Page).items]


def explain(task_id: int) -> Steps[Explanation]:
    """Why the task has not started yet, its place in the queue, and when it should start."""
    answer: Answer = yield Request("GET", f"/tasks/{task_id}/explain")
    return answer.read(Explanation)


def events(task_id: int) -> Stream[Task]:
    """The task now, and after each change of its state or progress, without payload and result; ends with the task.

    Changes that follow each other quickly may be one. A stream that breaks off is taken up again.
    """
    seen, pause = None, 0.0
    while True:
        path = f"/tasks/{task_id}/events"
        yield Request("GET", path, streamed=True, pause_seconds=pause)
        pause, parser = LET_GO_SECONDS, EventParser()
        try:
            while (chunk := (yield Receive())) is not None:
                for name, data in parser.feed(chunk):
                    if name == "deleted":
                        return
                    if data != seen:
                        seen, task = data, Task.model_validate_json(data)
                        yield Emit(task)
                        if task.ended:
                            return
        except httpx.TransportError:
            continue


def task_files(task_id: int) -> Steps[list[TaskFile]]:
    """The files a task keeps: those its payload names and those its attempts saved."""
    return _items(f"/tasks/{task_id}/files", TaskFile)


# The service


def task_types() -> Steps[list[TaskType]]:
    """What kinds of work there are, each with the JSON Schema of its payload and an example."""
    return _items("/task-types", TaskType)


def task_type(name: str) -> Steps[TaskType]:
    """One kind of work."""
    answer: Answer = yield Request("GET", f"/task-types/{name}")
    return answer.read(TaskType)


def queues() -> Steps[list[Queue]]:
    """Depth, age and limits of each queue that has unfinished tasks, or that somebody has steered."""
    return _items("/queues", Queue)


def queue(name: str) -> Steps[Queue]:
    """One queue."""
    answer: Answer = yield Request("GET", f"/queues/{name}")
    return answer.read(Queue)


def pause_queue(name: str) -> Steps[Queue]:
    """Start none of its tasks from now on; what runs goes on."""
    answer: Answer = yield Request("POST", f"/queues/{name}/pause")
    return answer.read(Queue)


def resume_queue(name: str) -> Steps[Queue]:
    """Start its tasks again."""
    answer: Answer = yield Request("POST", f"/queues/{name}/resume")
    return answer.read(Queue)


def limit_queue(name: str, **limits: Unpack[Limits]) -> Steps[Queue]:
    """Change how many of its tasks run, start and wait; what is left out stays, and None is no limit."""
    answer: Answer = yield Request("PATCH", f"/queues/{name}", content=to_json(limits), headers=_JSON)
    return answer.read(Queue)


def workers() -> Steps[list[Worker]]:
    """The workers that were heard of lately, and what each one runs."""
    return _items("/workers", Worker)


def stats(
    begins_at: datetime | str | None = None,
    ends_at: datetime | str | None = None,
    *,
    step_seconds: int | None = None,
    by: Sequence[str] = (),
    queue: str | None = None,
    task_type: str | None = None,
) -> Steps[Stats]:
    """Totals over all queues. With `begins_at`, its `range` has what happened since then, in steps, told apart `by` "queue",
    "task_type" or both."""
    params = {
        "from": _moment(begins_at),
        "to": _moment(ends_at),
        "step": step_seconds,
        "by": ",".join(by) or None,
        "queue": queue,
        "task_type": task_type,
    }
    answer: Answer = yield Request("GET", "/stats", _given(params))
    return answer.read(Stats)


def health() -> Steps[Health]:
    """How the service is; an unhealthy one is an answer, not an error."""
    answer: Answer = yield Request("GET", "/health", accepted=frozenset({503}))
    return answer.read(Health)


def diagnosis() -> Steps[Diagnosis]:
    """What the service finds wrong with itself and its workers."""
    answer: Answer = yield Request("GET", "/diagnosis")
    return answer.read(Diagnosis)


# Dead letters


def dead_letters(
    *,
    task_type: str | None = None,
    queue: str | None = None,
    failure_reason: str | None = None,
    fingerprint: str | None = None,
    limit: int | None = None,
) -> Stream[DeadLetter]:
    """Failed tasks that nobody has dealt with, newest first, at most `limit`."""
    params = {"task_type": task_type, "queue": queue, "failure_reason": failure_reason, "fingerprint": fingerprint}
    return _listed("/dead-letters", params, DeadLetter, limit, PAGE)


def dead_letter_groups(
    *, task_type: str | None = None, queue: str | None = None, failure_reason: str | None = None, limit: int = 50
) -> Steps[CauseGroups]:
    """Dead letters by cause, the largest group first."""
    params = {"task_type": task_type, "queue": queue, "failure_reason": failure_reason, "limit": limit}
    answer: Answer = yield Request("GET", "/dead-letters/groups", _given(params))
    return answer.read(CauseGroups)


def requeue(**choice: Unpack[Choice]) -> Steps[Done]:
    """Run failed tasks again, now, with a fresh budget of attempts."""
    return _done("requeue", choice)


def resolve(*, note: str | None = None, **choice: Unpack[Choice]) -> Steps[Done]:
    """Say that failed tasks are dealt with, and how. They stay failed."""
    return _done("resolve", choice if note is None else {**choice, "note": note})


def purge(**choice: Unpack[Choice]) -> Steps[Done]:
    """Delete failed tasks, with their history and files."""
    return _done("purge", choice)


def _done(verb: str, choice: Mapping[str, Any]) -> Steps[Done]:
    # Not repeated blindly: what has failed meanwhile would be chosen too, and the count would be of the second time.
    path = f"/dead-letters/{verb}"
    answer: Answer = yield Request("POST", path, content=to_json(choice), headers=_JSON, repeatable=False)
    return answer.read(Done)


# Breakers


def breakers() -> Steps[list[Breaker]]:
    """Every circuit breaker, and what waits behind those that are open."""
    return _items("/breakers", Breaker)


def trip(name: str, reason: str, *, seconds: float | None = None) -> Steps[Breaker]:
    """Hold back the tasks of a dependency, or of a task type, for some seconds or until it is reset."""
    content = to_json(_given({"reason": reason, "seconds": seconds}))
    answer: Answer = yield Request("POST", f"/breakers/{name}/trip", content=content, headers=_JSON)
    return answer.read(Breaker)


def reset(name: str) -> Steps[Breaker]:
    """Close a breaker and forget its failures."""
    answer: Answer = yield Request("POST", f"/breakers/{name}/reset")
    return answer.read(Breaker)


# Webhooks


def webhooks() -> Steps[list[Webhook]]:
    """Every subscription to the ends of tasks, and how its receiver is."""
    return _items("/webhooks", Webhook)


def webhook(webhook_id: str) -> Steps[Webhook]:
    """One subscription."""
    answer: Answer = yield Request("GET", _webhook(webhook_id))
    return answer.read(Webhook)


def _webhook(webhook_id: str) -> str:
    return f"/webhooks/{quote(webhook_id, safe='')}"


def create_webhook(url: str, *, tenant: str | None = None, **options: Unpack[Subscription]) -> Steps[Webhook]:
    """Tell a URL of every task that ends from now on and fits. The call is not repeated when its answer got lost: there may
    be two then."""
    content = to_json(_given({"url": url, "tenant": tenant}) | dict(options))
    answer: Answer = yield Request("POST", "/webhooks", content=content, headers=_JSON, repeatable=False)
    return answer.read(Webhook)


def change_webhook(webhook_id: str, **changes: Unpack[WebhookChanges]) -> Steps[Webhook]:
    """Change a subscription, or switch it on or off; what is left out stays."""
    answer: Answer = yield Request("PATCH", _webhook(webhook_id), content=to_json(changes), headers=_JSON)
    return answer.read(Webhook)


def delete_webhook(webhook_id: str) -> Steps[None]:
    """End a subscription. What has ended before is told still."""
    yield from _deleted(_webhook(webhook_id))


def ping_webhook(webhook_id: str) -> Steps[Delivery]:
    """Send it a `webhook.test`; its deliveries say what came of it."""
    answer: Answer = yield Request("POST", f"{_webhook(webhook_id)}/test", repeatable=False)
    return answer.read(Delivery)


def deliveries(
    webhook_id: str, *, status: str | Sequence[str] | None = None, limit: int | None = None
) -> Stream[Delivery]:
    """What was sent to it, newest first, at most `limit`; pages are fetched as they are needed."""
    params = {"status": [status] if isinstance(status, str) else list(status or ())}
    return _listed(f"{_webhook(webhook_id)}/deliveries", params, Delivery, limit, PAGE)


def redeliver(webhook_id: str, task_id: int) -> Steps[Delivery]:
    """Send a notice once more that arrived or was given up, under the same id."""
    path = f"{_webhook(webhook_id)}/deliveries/{task_id}/redeliver"
    answer: Answer = yield Request("POST", path, repeatable=False)
    return answer.read(Delivery)


# Alerts


def alerts() -> Steps[list[Alert]]:
    """What is wrong now, by the rules of alerts, the oldest first."""
    return _items("/alerts", Alert)


def alert_history(*, rule: str | None = None, queue: str | None = None, limit: int | None = None) -> Stream[Alert]:
    """Alerts that fire or have fired, newest first, at most `limit`."""
    return _listed("/alerts/history", {"rule": rule, "queue": queue}, Alert, limit, PAGE)


def silences() -> Steps[list[Silence]]:
    """The silences that last."""
    return _items("/alerts/silences", Silence)


def silence(
    seconds: float, note: str, *, rule: str | None = None, queue: str | None = None, every: bool = False
) -> Steps[Silence]:
    """Tell nobody for so long that alerts of this rule and queue fire; `every` is all of them."""
    asked = _given({"seconds": seconds, "note": note, "rule": rule, "queue": queue}) | ({"all": True} if every else {})
    answer: Answer = yield Request("POST", "/alerts/silences", content=to_json(asked), headers=_JSON, repeatable=False)
    return answer.read(Silence)


def end_silence(silence_id: int) -> Steps[None]:
    """End a silence now; what still fires is told."""
    yield from _deleted(f"/alerts/silences/{silence_id}")


def try_channels(channel: str | None = None) -> Steps[list[TriedChannel]]:
    """Send a test over this channel, or over each, and say what came of it."""
    answer: Answer = yield Request("POST", "/alerts/test", _given({"channel": channel}), repeatable=False)
    return [TriedChannel.model_validate(item) for item in answer.read(Page).items]


def audit(
    *,
    action: str | None = None,
    key: str | None = None,
    target: str | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = None,
) -> Stream[AuditEntry]:
    """What operators did, newest first, at most `limit`."""
    params = {"action": action, "key": key, "target": target, "since": _moment(since), "until": _moment(until)}
    return _listed("/audit", params, AuditEntry, limit, PAGE)


# Keys


def keys() -> Steps[list[ApiKey]]:
    """Every API key, the ended ones too, oldest first."""
    return _items("/api-keys", ApiKey)


def create_key(
    name: str, scopes: Sequence[str], *, tenant: str | None = None, expires_in_seconds: float | None = None
) -> Steps[NewApiKey]:
    """A new API key. The call is not repeated when its answer got lost: there may be a key then that nobody knows."""
    asked = {"name": name, "scopes": list(scopes), "tenant": tenant, "expires_in_seconds": expires_in_seconds}
    content = to_json(_given(asked))
    answer: Answer = yield Request("POST", "/api-keys", content=content, headers=_JSON, repeatable=False)
    return answer.read(NewApiKey)


def revoke_key(key_id: str) -> Steps[None]:
    """End an API key."""
    yield Request("DELETE", f"/api-keys/{quote(key_id, safe='')}")


# Files


def upload(source: Source, *, name: str | None = None, content_type: str | None = None) -> Steps[StoredFile]:
    """Store a file: a path, bytes, or an open stream. Its `id` goes into a payload.

    A stream that cannot be rewound is sent once; anything else again when the connection breaks.
    """
    with ExitStack() as stack:
        stream: IO[bytes]
        if isinstance(source, bytes):
            stream = BytesIO(source)
        elif isinstance(source, str | os.PathLike):
            stream = stack.enter_context(Path(source).open("rb"))
        else:
            stream = source
        label = name or Path(str(getattr(stream, "name", ""))).name or "file"
        kind = content_type or mimetypes.guess_type(label)[0] or "application/octet-stream"
        form = Form(label, stream, kind)
        answer: Answer = yield Request("POST", "/files", form=form, repeatable=stream.seekable())
        return answer.read(StoredFile)


def stream_file(file_id: str) -> Stream[bytes]:
    """The file's bytes, chunk by chunk. A transfer that breaks off goes on where it broke; at the end the SHA-256 is
    compared. Raises UnexpectedAnswer if it differs."""
    received, digest, tag, pause, vain = 0, hashlib.sha256(), "", 0.0, 0
    while True:
        headers = {"Range": f"bytes={received}-", "If-Range": tag} if received else {}
        path = f"/files/{file_id}"
        answer: Answer = yield Request("GET", path, headers=headers, streamed=True, pause_seconds=pause)
        if received and answer.status != 206:
            raise UnexpectedAnswer(f"File {file_id} could not be taken up again after {received} bytes.")
        tag, pause = answer.response.headers.get("etag", ""), LET_GO_SECONDS
        try:
            while (chunk := (yield Receive())) is not None:
                vain, received = 0, received + len(chunk)
                digest.update(chunk)
                yield Emit(chunk)
        except httpx.TransportError:
            vain += 1
            if vain > MOST_IN_VAIN:
                raise
            continue
        if tag.strip('"') != digest.hexdigest():
            raise UnexpectedAnswer(f"File {file_id} arrived with other bytes than were stored.")
        return


def read_file(file_id: str) -> Steps[bytes]:
    """The whole file's bytes."""
    chunks: list[bytes] = []
    yield from _into(stream_file(file_id), chunks.append)
    return b"".join(chunks)


def _into(stream: Stream[bytes], take: Any) -> Steps[None]:
    """Run a stream to its end, giving each item to `take`, which may block."""
    reply: Any = None
    trouble: BaseException | None = None
    while True:
        try:
            step = stream.throw(trouble) if trouble else stream.send(reply)
        except StopIteration:
            return
        reply, trouble = None, None
        try:
            reply = yield (Work(lambda chunk=step.item: take(chunk)) if isinstance(step, Emit) else step)  # type: ignore[misc]
        except httpx.TransportError as error:
            trouble = error


def download(file_id: str, target: Target) -> Steps[int]:
    """Write a file's bytes to a path or an open stream, and return how many. A path has the whole file or stays as it is."""
    size = 0

    if not isinstance(target, str | os.PathLike):
        stream = target

        def take(chunk: bytes) -> None:
            nonlocal size
            size += stream.write(chunk)

        yield from _into(stream_file(file_id), take)
        return size
    path = Path(target)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("wb") as whole:
            size = yield from download(file_id, whole)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size


def delete_file(file_id: str) -> Steps[None]:
    """Delete a file that no task keeps."""
    yield from _deleted(f"/files/{file_id}")
