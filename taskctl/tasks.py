"""Commands for tasks: look, wait, change."""

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from taskclient import StillRunning, Task
from taskclient.operations import result_of
from taskctl import payload, show
from taskctl.options import (
    Limit,
    MaxAttempts,
    Metadata,
    Priority,
    Queue,
    Result,
    Tags,
    TaskId,
    TaskIds,
    TaskType,
    Timeout,
    given,
    priority_of,
)
from taskctl.session import Exit, Session


def get(session: Session, task_id: TaskId, result: Result = False) -> None:
    """Show a task.

    With --result its bare result: status 1 if it failed or was cancelled, 7 if it has not ended yet.
    """
    task = session.client.get(task_id)
    if result and not task.ended:
        session.fail(f"Task {task.id} is {task.status}; it has no result yet.", Exit.STILL_RUNNING)
    if not result:
        session.tell(task, show.task_facts)
    elif session.out.is_terminal and not session.as_json:
        session.show(show.pretty(result_of(task)))
    else:
        session.emit(result_of(task))


def wait(session: Session, task_ids: TaskIds, timeout: Timeout = None, result: Result = False) -> None:
    """Wait for the end of tasks.

    The exit status is 1 if one of them did not complete, 7 if one has not ended in the time given.
    """
    follow(session, task_ids, timeout, results=result)


def follow(session: Session, task_ids: Sequence[int], timeout: float | None, *, results: bool) -> None:
    """Wait for the end of tasks and say how each ended, or print its result. One that did not complete, has not ended in
    time or is not there keeps the others from nothing, and is the exit status."""
    until = None if timeout is None else time.monotonic() + timeout
    for task_id in task_ids:
        left = None if until is None else max(0.0, until - time.monotonic())
        with session.going_on():
            try:
                _tell_end(session, session.patient_client.wait(task_id, left), results=results)
            except StillRunning as error:
                session.note(f"Task {task_id} is still {error.task.status} after {timeout:g} s.")
                session.failed(Exit.STILL_RUNNING)


def _tell_end(session: Session, task: Task, *, results: bool) -> None:
    if not task.completed:
        session.failed(Exit.BAD)
    if session.as_json:
        session.emit(task)
    elif results:
        session.note(show.task_line(task))
        if task.completed:
            session.show(show.pretty(task.result))
    else:
        session.show(show.task_line(task))


def list_(
    session: Session,
    status: Annotated[list[str] | None, typer.Option("--status", help="Only this state. May be repeated.")] = None,
    task_type: TaskType = None,
    queue: Queue = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only with this tag.")] = None,
    after: Annotated[str | None, typer.Option("--after", help="Only created after this moment.")] = None,
    before: Annotated[str | None, typer.Option("--before", help="Only created before this moment.")] = None,
    parent: Annotated[int | None, typer.Option("--parent", metavar="ID", help="Only children of this task.")] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Only with this text in payload, result or error, letter for letter."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help="payload, result or waiting_reason, for --json. May be repeated."),
    ] = None,
    limit: Limit = 20,
    every: Annotated[bool, typer.Option("--all", help="All there are, whatever --limit says.")] = False,
) -> None:
    """List tasks, newest first."""
    found = session.client.list(
        status=status,
        task_type=task_type,
        queue=queue,
        tag=tag,
        created_after=after,
        created_before=before,
        parent_id=parent,
        q=text,
        include=include or (),
        limit=None if every else limit,
    )
    session.give(found, show.tasks)


def cancel(session: Session, task_ids: TaskIds) -> None:
    """Cancel tasks.

    A waiting one ends at once, a running one as soon as its worker has stopped it.
    """
    for task_id in task_ids:
        with session.going_on():
            session.tell(session.client.cancel(task_id), show.task_line)


def retry(session: Session, task_ids: TaskIds) -> None:
    """Run failed or cancelled tasks again.

    They get a fresh budget of attempts; their history stays.
    """
    for task_id in task_ids:
        with session.going_on():
            session.tell(session.client.retry(task_id), show.task_line)


def edit(
    session: Session,
    task_id: TaskId,
    priority: Priority = None,
    at: Annotated[str | None, typer.Option("--at", help="Not before this moment; `now` for at once.")] = None,
    max_attempts: MaxAttempts = None,
    tags: Tags = None,
    metadata: Metadata = None,
) -> None:
    """Change a task while it waits. What is left out stays."""
    changes = given(
        priority=priority_of(priority),
        scheduled_at=at,
        max_attempts=max_attempts,
        tags=tags,
        metadata=payload.read_object(metadata) if metadata else None,
    )
    if not changes:
        raise typer.BadParameter("Say what is to be changed.")
    if at == "now":
        changes["scheduled_at"] = None
    session.tell(session.client.edit(task_id, **changes), show.task_line)


def delete(session: Session, task_ids: TaskIds) -> None:
    """Delete tasks that do not run, with their history."""
    for task_id in task_ids:
        with session.going_on():
            session.client.delete(task_id)
            if session.as_json:
                session.emit({"id": task_id, "deleted": True})
            else:
                session.show(f"task {task_id}  deleted")


def attempts(session: Session, task_id: TaskId) -> None:
    """Show every run of a task, oldest first."""
    session.give(session.client.attempts(task_id), show.attempts)


def logs(session: Session, task_id: TaskId) -> None:
    """Show what every run of a task printed and logged, as far as it is kept."""
    session.give(session.client.logs(task_id), show.logs)


def explain(session: Session, task_id: TaskId) -> None:
    """Show why a task has not started yet, and when it should."""
    session.tell(session.client.explain(task_id), show.explanation)


def events(session: Session, task_id: TaskId) -> None:
    """Follow a task until it has ended.

    Each change of its state or progress is a line.
    """
    for task in session.patient_client.events(task_id):
        session.tell(task, show.change)
