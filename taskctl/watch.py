"""`taskctl watch`: tasks as they move. A table that changes in a terminal, a line for each change elsewhere."""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from taskclient import Client, NotFound, Task
from taskclient.models import Stats
from taskctl import show
from taskctl.options import Queue, TaskType
from taskctl.session import Exit, Session

UNFINISHED = ("running", "retrying", "pending", "scheduled", "blocked")
MOST_SHOWN = 30


def watch(
    session: Session,
    task_ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="These tasks; ends when they have ended.")
    ] = None,
    task_type: TaskType = None,
    queue: Queue = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only with this tag.")] = None,
    interval: Annotated[float, typer.Option(min=0.1, max=60, metavar="SECONDS", help="How often to look.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
) -> None:
    """Watch tasks as they move.

    Those named, until they have ended; the exit status is 1 if one of them did not complete. Or all that wait and run,
    until Ctrl-C. Where there is no terminal each change is a line.
    """
    if task_ids and (task_type or queue or tag):
        raise typer.BadParameter("Name tasks, or filter them; not both.")
    filters = {"task_type": task_type, "queue": queue, "tag": tag}
    session.client.health()  # a service that is not there is told at once; later it is waited for
    looking: Iterator[tuple[list[Task], Stats | None]] = _unfinished(session.patient_client, filters)
    if task_ids:
        there = _there(session, task_ids)
        if not there:
            return
        looking = _named(session.patient_client, there)
    screen = Screen(session, whole=not task_ids)
    try:
        with screen:
            for tasks, stats in looking:
                screen.update(tasks, stats)
                if once or (task_ids and all(task.ended for task in tasks)):
                    break
                time.sleep(interval)
    except KeyboardInterrupt:
        if task_ids:
            raise
        return  # the way to end it
    if task_ids and any(task.ended and not task.completed for task in tasks):
        session.failed(Exit.BAD)


def _there(session: Session, task_ids: Sequence[int]) -> dict[int, Task]:
    """Those tasks that there are, by id; the others are told before a table is drawn."""
    tasks: dict[int, Task] = {}
    for task_id in task_ids:
        with session.going_on():
            tasks[task_id] = session.patient_client.get(task_id)
    return tasks


def _named(client: Client, tasks: dict[int, Task]) -> Iterator[tuple[list[Task], None]]:
    """These tasks, again and again. One that has ended is not asked for any more. Raises NotFound for a deleted one."""
    while True:
        yield list(tasks.values()), None
        for task_id, task in tasks.items():
            if not task.ended:
                tasks[task_id] = client.get(task_id)


def _unfinished(client: Client, filters: dict[str, str | None]) -> Iterator[tuple[list[Task], Stats]]:
    """What waits and runs, the running first; and what was seen and has ended, for one look longer."""
    before: set[int] = set()
    while True:
        tasks = list(client.list(status=["running"], limit=MOST_SHOWN, **filters))  # type: ignore[arg-type]  # by name
        if len(tasks) < MOST_SHOWN:
            tasks += client.list(status=UNFINISHED[1:], limit=MOST_SHOWN - len(tasks), **filters)  # type: ignore[arg-type]
        ids = {task.id for task in tasks}
        ended = [task for task_id in sorted(before - ids)[:MOST_SHOWN] if (task := _still_there(client, task_id))]
        yield [*tasks, *(task for task in ended if task.ended)], client.stats()
        before = ids


def _still_there(client: Client, task_id: int) -> Task | None:
    try:
        return client.get(task_id)
    except NotFound:
        return None


class Screen:
    """Shows what was seen, each time anew or what has changed. `whole`: with the totals of the service."""

    def __init__(self, session: Session, *, whole: bool) -> None:
        self._session = session
        self._whole = whole
        moves = session.out.is_terminal and not session.out.is_dumb_terminal and not session.as_json
        self._live = Live(console=session.out, auto_refresh=False) if moves else None
        self._told: dict[int, object] = {}

    def __enter__(self) -> None:
        (self._live or nullcontext()).__enter__()

    def __exit__(self, *raised: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, tasks: Sequence[Task], stats: Stats | None) -> None:
        if self._live:
            self._live.update(_panel(tasks, stats), refresh=True)
            return
        for task in tasks:
            news = (task.status, task.progress, task.attempts)
            if self._told.get(task.id) != news:
                self._told[task.id] = news
                self._session.tell(task, show.change)


def _panel(tasks: Sequence[Task], stats: Stats | None) -> RenderableType:
    table = show.table(">id", "status", "task_type", "queue", ">attempt", "progress", ">for", "note")
    for task in tasks:
        attempt = f"{task.attempts}/{task.max_attempts}"
        note = Text(show.remark(task), "dim", no_wrap=True, overflow="ellipsis")
        table.add_row(
            str(task.id),
            show.status(task.status),
            task.task_type,
            task.queue,
            attempt,
            show.bar(task),
            _age(task),
            note,
        )
    head = [Text(_totals(stats), "dim")] if stats else []
    return Group(*head, table if tasks else Text("Nothing waits or runs.", "dim"))


def _age(task: Task) -> str:
    """How long it runs or ran, or has been waiting; never below zero, whatever this machine's clock says."""
    since = task.started_at if task.status == "running" or task.ended else task.created_at
    until = task.finished_at or datetime.now(UTC)
    return show.duration(max(until - since, timedelta(0))) if since else "-"


def _totals(stats: Stats) -> str:
    waiting = f"{stats.ready:,} ready, {stats.scheduled + stats.retrying:,} later, {stats.running:,} running"
    ended = f"{stats.completed:,} completed, {stats.failed:,} failed, {stats.cancelled:,} cancelled"
    return f"{waiting}; {ended}; {stats.live_workers} live workers"
