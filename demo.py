"""A walk through the HTTP API, one call after the other. Read it from top to bottom to learn the API.

It needs a running API (`python run_api.py`) and a worker (`python run_worker.py`). Everything it prints comes from the
answers it got. `integrated_demo.py` starts both by itself and shows them under load.
"""

import io
import json
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, NoReturn

import httpx
import typer
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

TASK_TYPE = "text_processing"
LETTER = (
    "Dear Ada, I loved the little railway museum! The staff was friendly and the steam engine is wonderful. "
    "Tickets were $12, and the next tour starts on 3 May 2027. Write to tours@museum.example for a place."
)
LONG_TEXT = "The ferry leaves the harbour at seven, and the crew is glad that the fog has gone. " * 700
PATIENCE_SECONDS = 30
LONG_POLL = {"wait": 25}
LONGEST_SHOWN = 240
INDENT = (0, 0, 0, 2)
STATUS_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


class CannotGoOn(Exception):
    """The walk ends here; the message is one line that says why and what to do."""


class Api:
    """An HTTP client that shows what it sends and what comes back."""

    def __init__(self, url: str, console: Console) -> None:
        self.url = url.rstrip("/")
        self.console = console
        # A proxy from the environment would be asked for 127.0.0.1 too.
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, trust_env=False)
        self.tag = f"demo-{uuid.uuid4().hex[:6]}"
        """Every task of this walk carries it."""

    def call(self, method: str, path: str, expected: int, **options: Any) -> Any:
        """Send a request, show it and the status of the answer, and return the JSON. Another status ends the walk."""
        show_request(self.console, method, path, options)
        began = time.perf_counter()
        answer = self.client.request(method, path, **options)
        took = (time.perf_counter() - began) * 1000
        style = "green" if answer.is_success else "yellow"
        line = Text.assemble((f"← {answer.status_code} {answer.reason_phrase}", style), (f"  {took:.0f} ms", "dim"))
        for name in ("Location", "Idempotency-Replayed", "Retry-After"):
            if name in answer.headers:
                line.append(f"  {name}: {answer.headers[name]}", "dim")
        self.show(line)
        if answer.status_code != expected:
            raise CannotGoOn(f"{method} {path} answered {answer.status_code}, not {expected}: {answer.text[:300]}")
        return answer.json() if answer.content else None

    def create(self, expected: int = 201, headers: dict[str, str] | None = None, **submission: Any) -> Any:
        """Create a task that carries the tag of this walk."""
        body = {"task_type": TASK_TYPE, **submission, "tags": [self.tag]}
        return self.call("POST", "/tasks/", expected, json=body, headers=headers or {})

    def wait(self, task_id: int) -> dict[str, Any]:
        """Wait for the end of a task without showing it, by long polls."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            task: dict[str, Any] = self.client.get(f"/tasks/{task_id}", params={"wait": 5}).json()
            if task["finished_at"] is not None:
                return task
            self.check_patience(task, deadline)

    def check_patience(self, task: dict[str, Any], deadline: float) -> None:
        """End the walk if nobody has finished the task in time."""
        if time.monotonic() > deadline:
            raise CannotGoOn(
                f"Task {task['id']} is still {task['status']} after {PATIENCE_SECONDS} s. Is a worker alive and free? "
                "Start one: python run_worker.py"
            )

    def show(self, what: Any) -> None:
        self.console.print(Padding(what, INDENT, expand=False))


def show_request(console: Console, method: str, path: str, options: dict[str, Any]) -> None:
    """A request as one reads it in documentation: line, headers, body."""
    query = "&".join(f"{name}={value}" for name, value in options.get("params", {}).items())
    text = Text.assemble((f"→ {method}", "bold cyan"), f" {path}" + (f"?{query}" if query else ""))
    for name, value in options.get("headers", {}).items():
        text.append(f"\n{name}: {value}", "dim")
    if "json" in options:
        text.append("\n").append_text(as_json(options["json"]))
    console.print(Padding(text, INDENT, expand=False))


def as_json(value: Any) -> Text:
    return JSONHighlighter()(Text(json.dumps(shortened(value), ensure_ascii=False)))


def shortened(value: Any) -> Any:
    """`value` with its long texts and lists cut, for showing."""
    if isinstance(value, dict):
        return {name: shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return (
            [shortened(item) for item in value] if len(value) < 5 else [shortened(value[0]), f"… {len(value)} in all"]
        )
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        return f"{value[:60]}… ({len(value):,} characters)"
    return value


def grid(*columns: str) -> Table:
    """A table without frames; a name that starts with `>` is a column of numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def status_text(status: str) -> Text:
    return Text(status, STATUS_STYLES.get(status, "blue"))


def task_line(task: dict[str, Any]) -> Text:
    """The heart of a task in one line."""
    rest = f"  queue {task['queue']}  priority {task['priority']}  attempts {task['attempts']}/{task['max_attempts']}"
    return Text.assemble(f"task {task['id']}  ", status_text(task["status"]), (rest, "dim"))


def milliseconds(start: str, end: str) -> float:
    """From one time of an answer to another."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000


def show_result(console: Console, text: str, result: dict[str, Any]) -> None:
    """What text_processing found, in a panel: whichever of the operations the result holds."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="cyan")
    facts.add_column(overflow="fold")
    for operation, found in result.items():
        facts.add_row(operation, summary_of(operation, found))
    body = Table.grid()
    body.add_row(Text(text, "italic"))
    body.add_row("")
    body.add_row(facts)
    console.print(Panel(body, title="result", title_align="left", border_style="green"))


def summary_of(operation: str, found: dict[str, Any]) -> str:
    """One operation's answer in a few words; an operation that cannot serve the text says why."""
    if "reason" in found:
        return str(found["reason"])
    match operation:
        case "statistics":
            return f"words {found['words']}, sentences {found['sentences']}, characters {found['characters']}"
        case "language":
            return f"{found['name']} ({found['confidence']:.0%})"
        case "sentiment":
            return f"{found['label']} ({found['compound']:+.2f} between -1 and 1)"
        case "keywords":
            return ", ".join(item["keyword"] for item in found["items"][:5])
        case "readability":
            return ", ".join(f"{item['name']} {item['score']}" for item in found["formulas"])
        case "entities":
            kinds = {kind: items for kind, items in found.items() if isinstance(items, list) and items}
            return ", ".join(item["text"] for items in kinds.values() for item in items if isinstance(item, dict))
        case _:
            return str(found.get("text", json.dumps(found, ensure_ascii=False)))[:LONGEST_SHOWN]


def show_problem(api: Api, problem: dict[str, Any]) -> None:
    """An error as RFC 9457 has it: what kind, what is wrong, and where."""
    faults = Table.grid(padding=(0, 2))
    faults.add_column(style="cyan", overflow="fold")
    faults.add_column(overflow="fold")
    for name in ("type", "detail"):
        faults.add_row(name, str(problem[name]))
    for fault in problem.get("errors", []):
        faults.add_row(".".join(map(str, fault["location"])), Text(fault["message"], "yellow"))
    api.console.print(Panel(faults, title="problem", title_align="left", border_style="yellow"))


def see_health(api: Api) -> None:
    """GET /health says how the service is."""
    health = api.call("GET", "/health", 200)
    checks = ", ".join(f"{name} {value}" for name, value in health["checks"].items())
    api.show(Text.assemble((health["status"], "green"), f"  version {health['version']}, {checks}"))


def see_task_types(api: Api) -> None:
    """GET /task-types says what work there is. Each type comes with the JSON Schema of its payload and an example."""
    table = grid("task_type", "needs", "what it does")
    for item in api.call("GET", "/task-types", 200)["items"]:
        required = ", ".join(item["payload_schema"].get("required", []))
        table.add_row(Text(item["task_type"], "cyan"), required, item["description"].partition("\n")[0])
    api.show(table)


def see_workers(api: Api) -> None:
    """GET /workers says who does the work. Without a worker, tasks are stored and wait."""
    workers = api.call("GET", "/workers", 200)["items"]
    if not workers:
        raise CannotGoOn("No worker is alive, so no task would be done. Start one: python run_worker.py")
    table = grid("worker", ">slots", "serves", "queues")
    for worker in workers:
        queues = ", ".join(worker["queues"]) or "every queue"
        table.add_row(worker["id"], str(worker["slots"]), ", ".join(worker["task_types"]), queues)
    api.show(table)
    if not any(TASK_TYPE in worker["task_types"] for worker in workers):
        raise CannotGoOn(f"No worker alive serves {TASK_TYPE}. Start one: python run_worker.py")


def create_and_wait(api: Api) -> int:
    """Creating answers at once with an id: 201 means that the task is on disk. ?wait= answers when it has ended."""
    task_id: int = api.create(payload={"text": LETTER})["id"]
    task = api.call("GET", f"/tasks/{task_id}", 200, params=LONG_POLL)
    if task["status"] != "completed":
        raise CannotGoOn(f"Task {task_id} is {task['status']}: {task['error'] or 'is a worker alive and free?'}")
    api.show(task_line(task))
    waited = milliseconds(task["created_at"], task["started_at"])
    ran = milliseconds(task["started_at"], task["finished_at"])
    api.show(Text(f"waited {waited:.0f} ms for the worker, ran {ran:.0f} ms", "dim"))
    show_result(api.console, LETTER, task["result"])
    return task_id


def send_a_wrong_payload(api: Api) -> None:
    """A payload that does not fit is refused at the door, every fault named; nothing is stored."""
    payload = {"text": "", "operations": ["statistics", "divination"]}
    show_problem(api, api.create(422, payload=payload))


def send_an_unknown_task_type(api: Api) -> None:
    """So is a task type that no executor has."""
    show_problem(api, api.create(422, task_type="make_coffee"))


def repeat_a_request(api: Api) -> None:
    """With an Idempotency-Key a request can be repeated safely: same key and body, same task. Another body is refused."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = api.create(headers=key, payload={"text": "Once is enough."})
    again = api.create(200, headers=key, payload={"text": "Once is enough."})
    api.show(f"task {first['id']} the first time, task {again['id']} the second time")
    show_problem(api, api.create(422, headers=key, payload={"text": "Something else."}))


def delay_a_task(api: Api) -> None:
    """A task may wait for its time: delay_seconds, or scheduled_at. Its result is a 202 until then."""
    task = api.create(payload={"text": "Better late than never."}, delay_seconds=1.5)
    api.show(task_line(task))
    api.show(as_json(api.call("GET", f"/tasks/{task['id']}/result", 202)))
    task = api.call("GET", f"/tasks/{task['id']}", 200, params=LONG_POLL)
    api.show(task_line(task))
    if task["started_at"]:
        late = milliseconds(task["scheduled_at"], task["started_at"])
        api.show(Text(f"started {late:.0f} ms after it was due", "dim"))


def change_and_cancel_a_task(api: Api) -> None:
    """A waiting task can be changed or cancelled; what was cancelled can be retried. A completed task never changes."""
    task_id = api.create(payload={"text": "Not today."}, delay_seconds=3600)["id"]
    api.show(task_line(api.call("PATCH", f"/tasks/{task_id}", 200, json={"priority": "high"})))
    api.show(task_line(api.call("POST", f"/tasks/{task_id}/cancel", 200)))
    api.show(task_line(api.call("POST", f"/tasks/{task_id}/retry", 200)))
    api.show(task_line(api.call("GET", f"/tasks/{task_id}", 200, params=LONG_POLL)))
    show_problem(api, api.call("POST", f"/tasks/{task_id}/cancel", 409))


def send_in_bulk_with_priority(api: Api) -> None:
    """/tasks/bulk stores many tasks in one transaction, all or none. A higher priority (-100 to 100) starts first."""
    tag = f"{api.tag}-bulk"
    plain = {"task_type": TASK_TYPE, "payload": {"text": LETTER}, "tags": [api.tag, tag]}
    ids = api.call("POST", "/tasks/bulk", 201, json={"tasks": [plain] * 49 + [plain | {"priority": "critical"}]})["ids"]
    for task_id in ids:
        api.wait(task_id)
    tasks = {task["id"]: task for task in api.call("GET", "/tasks/", 200, params={"tag": tag, "limit": 100})["items"]}
    place = 1 + sum(task["started_at"] < tasks[ids[-1]]["started_at"] for task in tasks.values())
    api.show(f"the critical task was number {len(ids)} in the bulk and started as number {place}")


def list_tasks(api: Api) -> None:
    """The list is newest first, filtered by status, task_type, queue, tag or time; next_cursor leads to the next page."""
    params = {"tag": api.tag, "status": "completed", "limit": 3}
    page = api.call("GET", "/tasks/", 200, params=params)
    table = grid(">id", "status", ">priority", ">attempts", "created_at")
    items = page["items"]
    if page["next_cursor"]:
        items += api.call("GET", "/tasks/", 200, params=params | {"cursor": page["next_cursor"]})["items"]
    for task in items:
        numbers = (str(task["priority"]), str(task["attempts"]))
        table.add_row(str(task["id"]), status_text(task["status"]), *numbers, task["created_at"])
    api.show(table)


def run_out_of_time(api: Api) -> None:
    """Every attempt can be seen. This text is too long for a limit of 5 ms, so each attempt is stopped."""
    task_id = api.create(payload={"text": LONG_TEXT}, timeout_seconds=0.005, max_attempts=2)["id"]
    task = api.call("GET", f"/tasks/{task_id}", 200, params=LONG_POLL)
    api.show(Text.assemble(task_line(task), (f"  failure_reason {task['failure_reason']}", "dim")))
    table = grid(">attempt", "outcome", ">ran", ">next after", "error")
    for item in api.call("GET", f"/tasks/{task_id}/attempts", 200)["items"]:
        ran = f"{milliseconds(item['started_at'], item['finished_at']):.0f} ms" if item["finished_at"] else "-"
        after = "-" if item["delay_seconds"] is None else f"{item['delay_seconds']:.2f} s"
        table.add_row(str(item["attempt"]), str(item["outcome"]), ran, after, (item["error"] or {}).get("message", ""))
    api.show(table)


def watch_live(api: Api) -> None:
    """GET /tasks/ID/events is a stream of server-sent events, one for each change; it ends when the task has ended."""
    task_id = api.create(payload={"text": LONG_TEXT}, delay_seconds=0.5)["id"]
    show_request(api.console, "GET", f"/tasks/{task_id}/events", {})
    began = time.perf_counter()
    for task in events(api, task_id):
        progress = task["progress"] or {}
        said = f"  {progress['percent'] or 0:3.0f} %  {progress['message'] or ''}" if progress else ""
        passed = f"{time.perf_counter() - began:6.2f} s  "
        api.show(Text.assemble((passed, "dim"), status_text(f"{task['status']:<10}"), said))


def events(api: Api, task_id: int) -> Iterator[dict[str, Any]]:
    """The task after each change. Lines that start with `data:` carry it; a colon alone starts a keep-alive."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    task = {"id": task_id, "status": "scheduled"}
    with api.client.stream("GET", f"/tasks/{task_id}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                task = json.loads(line.removeprefix("data:"))
                yield task
            api.check_patience(task, deadline)


def see_stats(api: Api) -> None:
    """GET /stats has the totals over all queues; GET /queues has them for each queue."""
    stats = api.call("GET", "/stats", 200)
    table = grid("", ">tasks")
    for name in ("ready", "scheduled", "retrying", "running", "completed", "failed", "cancelled"):
        table.add_row(status_text(name), str(stats[name]))
    api.show(table)


def walk(api: Api) -> None:
    """Every step, in order."""
    steps = (
        ("Is it there?", see_health),
        ("What can it do?", see_task_types),
        ("Who does the work?", see_workers),
        ("Create a task and wait for it", create_and_wait),
        ("A wrong payload", send_a_wrong_payload),
        ("An unknown task type", send_an_unknown_task_type),
        ("The same request twice", repeat_a_request),
        ("Later, please", delay_a_task),
        ("Change, cancel, retry", change_and_cancel_a_task),
        ("Many at once, one of them urgent", send_in_bulk_with_priority),
        ("Find tasks again", list_tasks),
        ("Attempts of a task that fails", run_out_of_time),
        ("Watch it live", watch_live),
        ("Numbers", see_stats),
    )
    for number, (title, step) in enumerate(steps, start=1):
        api.console.print()
        api.console.print(Rule(Text(f"{number}  {title}", "bold"), align="left", style="dim"))
        api.console.print(Text(step.__doc__ or "", "dim"))
        step(api)
    api.console.print()
    api.console.print(Text(f"Done. The tasks of this walk carry the tag {api.tag}; see also {api.url}/docs", "green"))


def main(
    url: Annotated[str, typer.Option(help="Where the API listens.")] = "http://127.0.0.1:8000",
) -> None:
    """Walk through the HTTP API of a running service, step by step.

    Start the service first, each in a terminal of its own: python run_api.py and python run_worker.py.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an old terminal without UTF-8 shows question marks
    try:
        api = Api(url, Console(highlight=False))
        knock(api)
        walk(api)
    except CannotGoOn as reason:
        fail(str(reason))
    except httpx.InvalidURL as error:
        fail(f"{url} is not an address: {error}")
    except httpx.TransportError as error:
        fail(f"The API at {url} stopped answering: {error}")


def knock(api: Api) -> None:
    """See that a task service answers at all."""
    try:
        answer = api.client.get("/health/live")
    except httpx.TransportError as error:
        raise CannotGoOn(f"No API answers at {api.url} ({error}). Start it: python run_api.py") from None
    if answer.status_code != 200 or answer.headers.get("content-type") != "application/json":
        raise CannotGoOn(f"Something answers at {api.url}, but it is not this task service.")


def fail(line: str) -> NoReturn:
    """Say why on one line and leave with status 1."""
    print(line, file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(main)
    command()
