"""How values look to people: tables, facts, times. JSON never comes from here."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from taskclient.models import (
    Alert,
    ApiKey,
    Attempt,
    AttemptLog,
    AuditEntry,
    Breaker,
    CauseGroup,
    DeadLetter,
    Delivery,
    Explanation,
    Finding,
    Queue,
    Reason,
    Retry,
    Silence,
    Stats,
    StoredFile,
    Task,
    TaskFile,
    TaskType,
    TriedChannel,
    Webhook,
    Worker,
)

STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "retrying": "magenta",
    "scheduled": "blue",
    "error": "red",
    "timeout": "red",
    "lost": "red",
    "open": "red",
    "half_open": "yellow",
    "closed": "green",
    "on": "green",
    "failing": "yellow",
    "silent": "red",
    "dead": "red",
    "firing": "red",
    "holding": "yellow",
    "cleared": "green",
}


def status(word: str | None) -> Text:
    return Text(word or "-", STYLES.get(word or "", ""))


def table(*columns: str) -> Table:
    """A table without lines. A column that begins with `>` is aligned to the right; the last one gives way where there is
    too little room."""
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        side: Literal["right", "left"] = "right" if column.startswith(">") else "left"
        # rich takes room first from columns that may wrap; the texts in them do not, they are cut.
        made.add_column(column.removeprefix(">"), justify=side, no_wrap=column is not columns[-1])
    return made


def rows(columns: Sequence[str], items: Iterable[Sequence[Any]], empty: str) -> RenderableType:
    """A table of these rows, or one line that says that there are none."""
    made = table(*columns)
    for item in items:
        made.add_row(*map(_cell, item))
    return made if made.row_count else Text(empty, "dim")


def _cell(value: Any) -> Text:
    text = (
        value.copy() if isinstance(value, Text) else Text(clock(value) if isinstance(value, datetime) else cell(value))
    )
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def cell(value: Any) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return moment(value)
        case float():
            return f"{value:g}"
        case list() | tuple() | set():
            return ", ".join(map(str, value)) or "-"
    return str(value)


def moment(value: datetime) -> str:
    """A moment on the wall clock of whoever reads it."""
    return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"


def clock(value: datetime) -> str:
    """A moment as short as it can be: today's without the day."""
    local = value.astimezone()
    today = local.date() == datetime.now(local.tzinfo).date()
    return f"{local:%H:%M:%S}" if today else f"{local:%Y-%m-%d %H:%M}"


def duration(value: float | timedelta | None) -> str:
    """A span of time, in the unit that fits it."""
    if value is None:
        return "-"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def waits(retry: Retry) -> str:
    """The waits between attempts."""
    return f"{retry.policy}, {duration(retry.base_seconds)} to {duration(retry.ceiling_seconds)}"


def facts(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, those without a value left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, "", [], {}):
            grid.add_row(name, value if isinstance(value, Text) else cell(value))
    return grid


def pretty(value: Any) -> str:
    """JSON over several lines. A text is neither cut nor folded when it is shown, so it can be copied."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def tasks(items: Iterable[Task]) -> RenderableType:
    columns = (">id", "status", "task_type", "queue", ">priority", ">attempts", "created", "note")
    return rows(columns, (task_row(task) for task in items), "No tasks.")


def task_row(task: Task) -> tuple[Any, ...]:
    return (
        *(task.id, status(task.status), task.task_type, task.queue, task.priority),
        *(f"{task.attempts}/{task.max_attempts}", task.created_at, Text(remark(task), "dim")),
    )


def remark(task: Task) -> str:
    """The one thing to know about a task in its state."""
    if task.error and task.status in ("failed", "retrying"):
        return _short(f"{task.failure_reason or task.error.type}: {task.error.message}")
    if task.status in ("scheduled", "retrying") and task.scheduled_at:
        return f"at {clock(task.scheduled_at)}"
    if task.cancel_requested_at and not task.ended:
        return "is asked to stop"
    return "" if task.ended else how_far(task)


def how_far(task: Task) -> str:
    """What a task says of itself."""
    if task.progress is None:
        return ""
    percent = "" if task.progress.percent is None else f"{task.progress.percent:.0f} %  "
    return _short(f"{percent}{task.progress.message or ''}".strip())


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def task_line(task: Task) -> Text:
    """A task in one line."""
    line = Text.assemble(f"task {task.id}  ", status(task.status), f"  {task.task_type}")
    if task.started_at and task.finished_at:
        line.append(f"  ran {duration(task.finished_at - task.started_at)}", "dim")
    if said := remark(task):
        line.append(f"  {said}", "dim")
    return line


def task_facts(task: Task) -> list[RenderableType]:
    """All of a task."""
    error = task.error
    parts: list[RenderableType] = [
        facts(
            [
                ("id", task.id),
                ("task_type", task.task_type),
                ("status", status(task.status)),
                ("failure_reason", task.failure_reason),
                ("error", Text(f"{error.type}: {error.message}", "red") if error else None),
                ("progress", how_far(task) if not task.completed else None),
                ("queue", task.queue),
                ("priority", task.priority),
                ("attempts", f"{task.attempts} of {task.max_attempts}"),
                ("waits between attempts", waits(task.retry) if task.retry else None),
                ("retry for", None if task.retry_for_seconds is None else duration(task.retry_for_seconds)),
                ("time limit", duration(task.timeout_seconds)),
                ("created_at", task.created_at),
                ("scheduled_at", task.scheduled_at),
                ("started_at", task.started_at),
                ("finished_at", task.finished_at),
                ("expires_at", task.expires_at),
                ("cancel_requested_at", task.cancel_requested_at),
                ("worker_id", task.worker_id),
                ("unique_key", task.unique_key),
                ("concurrency_key", task.concurrency_key),
                ("concurrency_limit", task.concurrency_limit),
                ("webhook_url", task.webhook_url),
                ("parent_id", task.parent_id),
                ("tags", task.tags),
                ("metadata", json.dumps(task.metadata) if task.metadata else None),
                ("resolved_at", task.resolved_at),
                ("resolution", task.resolution),
            ]
        )
    ]
    if task.payload is not None:
        parts += [Text("payload", "dim"), pretty(task.payload)]
    if task.completed:
        parts += [Text("result", "dim"), pretty(task.result)]
    return parts


def logs(items: Iterable[AttemptLog]) -> RenderableType:
    columns = (">attempt", ">line", "at", "from", "text")
    return rows(
        columns,
        (
            (one.attempt, line.number, line.at, line.source, " ".join([_short(line.text), *_fields(line.fields)]))
            for one in items
            for line in one.lines
        ),
        "Nothing was printed or logged, or nothing of it is kept.",
    )


def _fields(fields: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_short(json.dumps(value, ensure_ascii=False))}" for name, value in fields.items()]


def attempts(items: Iterable[Attempt]) -> RenderableType:
    columns = (">lease", ">attempt", "outcome", "worker", "started", ">ran", ">next after", "error")
    return rows(
        columns,
        (
            (
                *(one.lease, one.attempt, status(one.outcome or "running"), one.worker_id, one.started_at),
                duration(one.finished_at - one.started_at if one.finished_at else None),
                *(duration(one.delay_seconds), _short(f"{one.error.type}: {one.error.message}") if one.error else None),
            )
            for one in items
        ),
        "It has not run yet.",
    )


def explanation(one: Explanation) -> RenderableType:
    """What a task waits for, a reason a line."""
    reasons = rows(
        ("reason", "until", "what"),
        ((reason.reason, reason.until, _with_holders(reason)) for reason in one.reasons),
        f"Task {one.task_id} is {one.status}: it waits for nothing.",
    )
    if not one.reasons:
        return reasons
    place = "-" if one.position is None else f"{one.position:,}{' or later' if one.position_is_at_least else ''}"
    about = [("place in the queue", place), ("should start", one.estimated_start_at)]
    return Group(reasons, Text(), facts(about))


def _with_holders(reason: Reason) -> str:
    return reason.message + (f" ({', '.join(f'task {id_}' for id_ in reason.held_by)})" if reason.held_by else "")


def dead_letters(items: Iterable[DeadLetter]) -> RenderableType:
    columns = (">id", "task_type", "queue", "reason", "fingerprint", "failed", "error")
    return rows(
        columns,
        (
            (
                *(one.id, one.task_type, one.queue, Text(one.failure_reason or "-", "red"), one.fingerprint),
                *(one.finished_at, _short(one.error.message) if one.error else None),
            )
            for one in items
        ),
        "No dead letters.",
    )


def groups(items: Iterable[CauseGroup]) -> RenderableType:
    columns = (">count", "fingerprint", "task_type", "first", "last", "error")
    return rows(
        columns,
        (
            (
                *(one.count, one.fingerprint, one.task_type, one.first_failed_at, one.last_failed_at),
                _short(f"{one.error.type}: {one.error.message}") if one.error else None,
            )
            for one in items
        ),
        "No dead letters.",
    )


def bar(task: Task) -> RenderableType:
    """How far a task is, as a bar where it says so."""
    if task.ended:
        return Text("")
    percent = task.progress.percent if task.progress else None
    if percent is None:
        return Text("-", "dim")
    return ProgressBar(100, percent, width=20, style="grey23", complete_style="cyan", finished_style="green")


def change(task: Task) -> Text:
    """What an event says: the state, and how far it is; or how it ended."""
    if task.ended:
        return task_line(task)
    line = Text.assemble(f"task {task.id}  ", status(task.status))
    said = how_far(task) if task.status == "running" else remark(task)
    return line.append(f"  {said}", "dim") if said else line


def task_types(items: Iterable[TaskType]) -> RenderableType:
    columns = ("task_type", ">attempts", ">time limit", "what it does")
    return rows(
        columns,
        (
            (
                one.task_type,
                one.max_attempts,
                duration(one.timeout_seconds),
                _short(first_sentence(one.description), 90),
            )
            for one in items
        ),
        "No task types.",
    )


def first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", text.strip(), maxsplit=1)[0]


def task_type(one: TaskType) -> list[RenderableType]:
    about = facts(
        [
            ("task_type", one.task_type),
            ("attempts", one.max_attempts),
            ("time limit", duration(one.timeout_seconds)),
            ("waits between attempts", waits(one.retry)),
            ("runs beside others", one.shared),
        ]
    )
    parts: list[RenderableType] = [
        about,
        Text(),
        Text(one.description),
        Text(),
        Text("payload", "dim"),
        pretty(one.payload_schema),
    ]
    return parts if one.example is None else [*parts, Text("example", "dim"), pretty(one.example)]


def queues(items: Iterable[Queue]) -> RenderableType:
    columns = ("queue", ">ready", ">blocked", ">scheduled", ">retrying", ">running", ">oldest", "limits")
    return rows(
        columns,
        (
            (
                *(one.queue, one.ready, one.blocked, one.scheduled, one.retrying, one.running),
                *(duration(one.oldest_age_seconds), _limits(one)),
            )
            for one in items
        ),
        "No queue has unfinished tasks.",
    )


def _limits(one: Queue) -> str:
    said = ["paused"] if one.paused else []
    if one.max_running is not None:
        said.append(f"{one.max_running:,} run")
    if one.rate_limit is not None:
        said.append(f"{one.rate_limit:,} start in {duration(one.rate_period_seconds)}")
    if one.max_depth is not None:
        said.append(f"{one.max_depth:,} wait")
    return ", ".join(said)


def workers(items: Iterable[Worker]) -> RenderableType:
    columns = ("id", "host", ">pid", "state", "queues", ">running", ">slots", "room", ">memory", "started", "last beat")
    return rows(
        columns,
        (
            (
                *(
                    one.id,
                    one.host,
                    one.pid,
                    _worker_state(one),
                    one.queues or "every",
                    len(one.running),
                    one.slots,
                    _room(one),
                ),
                "-" if one.memory_bytes is None else f"{one.memory_bytes / 2**20:,.0f} MiB",
                *(one.started_at, one.beat_at),
            )
            for one in items
        ),
        "No worker is alive.",
    )


def _room(one: Worker) -> str:
    if one.room is None:
        return "-"
    return " or ".join(f"{count} {kind}" for kind, count in one.room.items() if count) or "none"


def _worker_state(one: Worker) -> Text:
    shown = status(one.state)
    return shown if one.silent_seconds is None else shown.append(f" for {duration(one.silent_seconds)}")


def stats(one: Stats) -> RenderableType:
    states = ("ready", "scheduled", "retrying", "running", "completed", "failed", "cancelled")
    counts = [(name, f"{getattr(one, name):,}") for name in states]
    return facts(
        [
            *counts,
            ("completed within an hour", f"{one.completed_last_hour:,}"),
            ("failed within an hour", f"{one.failed_last_hour:,}"),
            ("oldest ready", one.oldest_ready_at),
            ("live workers", one.live_workers),
        ]
    )


def breakers(items: Iterable[Breaker]) -> RenderableType:
    columns = ("name", "state", ">waiting", ">failures", "until", "task types", "reason")
    return rows(
        columns,
        (
            (
                *(one.name, status(one.state), one.waiting, one.failures, one.open_until),
                *(one.task_types, _short(one.reason or "-")),
            )
            for one in items
        ),
        "No breakers.",
    )


def webhooks(items: Iterable[Webhook]) -> RenderableType:
    columns = ("id", "state", ">failures", "since", "events", "filters", "url", "reason")
    return rows(
        columns,
        (
            (
                *(one.id, status(_state_of(one)), one.failures, one.switched_off_at or one.failing_since),
                *(",".join(one.events), _filters(one), _short(one.url)),
                _short(one.switched_off_reason or one.last_error or "-"),
            )
            for one in items
        ),
        "No webhooks.",
    )


def _state_of(one: Webhook) -> str:
    if not one.enabled:
        return "dead" if one.switched_off_reason else "off"
    return "failing" if one.failures else "on"


def _filters(one: Webhook) -> str:
    given = (("type", one.task_types), ("queue", one.queues), ("tag", one.tags))
    return " ".join(f"{name}={','.join(values)}" for name, values in given if values) or "-"


def deliveries(items: Iterable[Delivery]) -> RenderableType:
    columns = (">task", "event", ">of", "state", ">attempts", ">answer", ">ms", "next", "error")
    return rows(
        columns,
        (
            (
                *(one.task_id, one.event, one.subject_id, status(one.status), f"{one.attempts}/{one.max_attempts}"),
                *(one.status_code, None if one.duration_seconds is None else round(one.duration_seconds * 1000)),
                *(one.next_attempt_at, _short(one.error or "-")),
            )
            for one in items
        ),
        "No deliveries.",
    )


def alerts(items: Iterable[Alert]) -> RenderableType:
    columns = (">id", "state", "rule", "subject", "since", "until", "told", "what")
    return rows(
        columns,
        (
            (
                *(one.id, status(one.state), one.rule, one.subject, one.fired_at or one.began_at, one.cleared_at),
                *("silenced" if one.silenced else _told(one), one.what),
            )
            for one in items
        ),
        "No alerts.",
    )


def _told(alert: Alert) -> str:
    """The channels that were told, and those that were not yet or never will be."""
    last = {one.channel: one.state for one in alert.deliveries}
    return ", ".join(name if state == "sent" else f"{name} {state}" for name, state in last.items())


def silences(items: Iterable[Silence]) -> RenderableType:
    columns = (">id", "rule", "queue", "ends", "by", "note")
    return rows(
        columns,
        ((one.id, one.rule or "any", one.queue or "any", one.ends_at, one.created_by, one.note) for one in items),
        "No silences.",
    )


def tried(items: Iterable[TriedChannel]) -> RenderableType:
    return rows(("channel", "answer"), ((one.channel, one.error or "took it") for one in items), "No channels.")


def audit(items: Iterable[AuditEntry]) -> RenderableType:
    columns = ("at", "who", "tenant", "address", "action", "target", "before and after")
    return rows(
        columns,
        (
            (
                *(one.at, one.key_name, one.tenant, one.address, one.action, one.target),
                " -> ".join(
                    json.dumps(side, ensure_ascii=False) for side in (one.before, one.after) if side is not None
                ),
            )
            for one in items
        ),
        "No entries.",
    )


def keys(items: Iterable[ApiKey]) -> RenderableType:
    columns = ("id", "name", "scopes", "tenant", "created", "last used", "expires", "revoked")
    return rows(
        columns,
        (
            (
                *(one.id, one.name, ",".join(one.scopes), one.tenant or "-", one.created_at),
                *(one.last_used_at, one.expires_at, one.revoked_at),
            )
            for one in items
        ),
        "No keys.",
    )


def files(items: Iterable[StoredFile]) -> RenderableType:
    columns = ("id", "name", ">bytes", "type", "role", "kept until")
    return rows(
        columns,
        (
            (
                *(one.id, one.name, f"{one.size:,}", one.content_type),
                *(one.role if isinstance(one, TaskFile) else None, one.expires_at or "its task goes"),
            )
            for one in items
        ),
        "No files.",
    )


def finding(one: Finding) -> RenderableType:
    style = "bold red" if one.severity == "critical" else "bold yellow"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in (("", one.what), ("why", one.why), ("do", one.what_to_do)):
        grid.add_row(f"  {name}", Text(text))
    return Group(Text.assemble((one.severity, style), f"  {one.code}"), grid)
