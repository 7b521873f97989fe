"""`taskctl submit`."""

from typing import Annotated, Any

import typer

from taskclient import TaskHandle
from taskctl import completion, payload, show
from taskctl.options import MaxAttempts, Metadata, Priority, Tags, Timeout, given, priority_of
from taskctl.session import Session
from taskctl.tasks import follow


def submit(
    session: Session,
    task_type: Annotated[str, typer.Argument(autocompletion=completion.task_types, help="Which executor does it.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[PAYLOAD]...", help=payload.HELP)] = None,
    lines: Annotated[
        str | None,
        typer.Option(
            "--lines", metavar="FILE", help="A task for each line, its payload as JSON; all or none. - is stdin."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end, and print the result.")] = False,
    timeout: Timeout = None,
    queue: Annotated[str | None, typer.Option(autocompletion=completion.queues, help="Where it waits.")] = None,
    priority: Priority = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Not before this moment, as 2026-12-24T18:00:00+01:00.")
    ] = None,
    delay: Annotated[
        float | None, typer.Option("--in", metavar="SECONDS", help="Not before this long from now.")
    ] = None,
    expires_at: Annotated[str | None, typer.Option(help="Fail if it has not started by this moment.")] = None,
    max_attempts: MaxAttempts = None,
    retry: Annotated[
        list[str] | None,
        typer.Option(
            "--retry",
            metavar="KEY=VALUE",
            help="The waits between attempts, like a payload: policy=fixed (or exponential), base_seconds:=5,"
            " ceiling_seconds:=60, jitter:=false. May be repeated.",
        ),
    ] = None,
    retry_for: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Time all attempts have together, from when it is due."),
    ] = None,
    time_limit: Annotated[float | None, typer.Option(metavar="SECONDS", help="Time limit of one attempt.")] = None,
    unique_key: Annotated[str | None, typer.Option(help="At most one unfinished task has it.")] = None,
    concurrency_key: Annotated[str | None, typer.Option(help="Tasks with the same key run so many at once.")] = None,
    concurrency_limit: Annotated[int | None, typer.Option(metavar="N", help="How many; 1 if it is left out.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key gives the same task, however often it is sent.")
    ] = None,
    tags: Tags = None,
    metadata: Metadata = None,
    parent: Annotated[int | None, typer.Option(metavar="ID", help="The task it belongs to.")] = None,
    webhook_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where to tell, by a signed POST, that it has ended.")
    ] = None,
) -> None:
    """Submit a task.

    What is acknowledged is on disk; an answer that gets lost makes no second task.
    """
    options = given(
        queue=queue,
        priority=priority_of(priority),
        scheduled_at=at,
        delay_seconds=delay,
        expires_at=expires_at,
        max_attempts=max_attempts,
        retry=payload.read_object(retry) if retry else None,
        retry_for_seconds=retry_for,
        timeout_seconds=time_limit,
        unique_key=unique_key,
        concurrency_key=concurrency_key,
        concurrency_limit=concurrency_limit,
        tags=tags,
        metadata=payload.read_object(metadata) if metadata else None,
        parent_id=parent,
        webhook_url=webhook_url,
    )
    if lines is None:
        body = payload.read_object(words or [])
        handles = [session.client.submit(task_type, body, idempotency_key=idempotency_key, **options)]
    elif words or idempotency_key or unique_key:
        raise typer.BadParameter("--lines goes with neither a payload, --idempotency-key nor --unique-key.")
    else:
        submissions: list[Any] = [
            {"task_type": task_type, "payload": one, **options} for one in payload.read_lines(lines)
        ]
        handles = list(session.client.submit_many(submissions)) if submissions else []
    if wait:
        follow(session, [handle.id for handle in handles], timeout, results=True)
    else:
        _acknowledge(session, handles)


def _acknowledge(session: Session, handles: list[TaskHandle]) -> None:
    if session.as_json:
        session.emit(*(handle.task or {"id": handle.id} for handle in handles))
    elif len(handles) == 1 and handles[0].task:
        session.show(show.task_line(handles[0].task))
    else:
        ids = f", {handles[0].id} to {handles[-1].id}" if handles else ""
        session.show(f"{len(handles)} tasks{ids}")
