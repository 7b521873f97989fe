"""A walk through the HTTP API, one call after the other. Read it from top to bottom to learn the API.

It needs a running API (`python run_api.py`) and a worker (`python run_worker.py`). Everything it prints comes from the
answers it got. `integrated_demo.py` starts both by itself and shows them under load.
"""

import base64
import io
import os
import re
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from examples.demo.show import (
    as_json,
    between,
    curl,
    facts,
    grid,
    picture,
    problem_panel,
    status_text,
    task_line,
    text_panel,
)
from examples.demo.texts import ARTICLES, LETTER, guest_book
from taskclient import Client, ClientError, StillRunning, Task
from taskclient.connection import API_KEY
from taskclient.operations import result_of

NEEDED = ("text_processing", "ai_summarization", "image_processing", "batch_processing")
PICTURE = Path(__file__).resolve().parent / "examples" / "lighthouse.jpg"
BROKEN_PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\nThis is where the picture should be.").decode()
LONG_TEXT = "The ferry leaves the harbour at seven, and the crew is glad that the fog has gone. " * 700
PATIENCE_SECONDS = 30
LONG_POLL = {"wait": 25}


class CannotGoOn(Exception):
    """The walk ends here; the message is one line that says why and what to do."""


class Api:
    """An HTTP client that shows what it sends and what comes back."""

    def __init__(self, url: str, console: Console, folder: Path) -> None:
        self.url = url.rstrip("/")
        self.console = console
        self.folder = folder
        """Where downloads go."""
        # A proxy from the environment would be asked for 127.0.0.1 too.
        key = os.environ.get(API_KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, trust_env=False, headers=headers)
        self.tasks = Client(self.url)
        """The Python client, which does without a line what the calls above show one by one."""
        self.tag = f"demo-{uuid.uuid4().hex[:6]}"
        """Every task of this walk carries it."""

    def call(self, method: str, path: str, expected: int, **options: Any) -> Any:
        """Send a request, show it and the status of the answer, and return the JSON. Another status ends the walk."""
        self.show_request(method, path, options)
        answer = self.send(method, path, expected, **options)
        return answer.json() if answer.content else None

    def upload(self, path: Path) -> Any:
        """Upload a file, shown like any call."""
        self.show_request("POST", "/files", {"upload": os.path.relpath(path)})
        with path.open("rb") as file:
            return self.send("POST", "/files", 201, files={"file": (path.name, file, "image/jpeg")}).json()

    def download(self, file_id: str, name: str) -> Path:
        """Download a file, shown like any call, into the folder for that."""
        target = self.folder / name
        self.show_request("GET", f"/files/{file_id}", {"output": target})
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.tasks.files.download(file_id, target)
        except OSError as error:
            raise CannotGoOn(f"{target} cannot be written: {error.strerror}. Choose a folder with --output.") from None
        return target

    def send(self, method: str, path: str, expected: int, **options: Any) -> httpx.Response:
        """Send a request and show what the head of the answer says."""
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
        return answer

    def create(self, task_type: str, expected: int = 201, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        """Create a task that carries the tag of this walk."""
        body = {"task_type": task_type, **fields, "tags": [self.tag]}
        return self.call("POST", "/tasks/", expected, json=body, headers=headers or {})

    def result_of(self, task_id: int) -> dict[str, Any]:
        """Wait for a task by a long poll, and return its result. The walk ends if it has none."""
        task = self.call("GET", f"/tasks/{task_id}", 200, params=LONG_POLL)
        if task["status"] != "completed":
            why = task["error"]["message"] if task["error"] else "is a worker alive and free?"
            raise CannotGoOn(f"Task {task_id} ({task['task_type']}) is {task['status']}: {why}")
        waited, ran = (between(task[start], task[end]) for start, end in WAITED_AND_RAN)
        line = task_line(task).append(f"  waited {waited:.0f} ms, ran {ran:.0f} ms", "dim")
        self.show(line)
        result: dict[str, Any] = task["result"]
        return result

    def wait(self, task_id: int) -> Task:
        """Wait for the end of a task without showing it."""
        try:
            return self.tasks.wait(task_id, PATIENCE_SECONDS)
        except StillRunning as error:
            raise CannotGoOn(f"{error} Is a worker alive and free? Start one: python run_worker.py") from None

    def show_request(self, method: str, path: str, options: dict[str, Any]) -> None:
        self.console.print(curl(self.url, method, path, options), soft_wrap=True)

    def show(self, what: Any) -> None:
        self.console.print(Padding(what, (0, 0, 0, 2), expand=False))


WAITED_AND_RAN = (("created_at", "started_at"), ("started_at", "finished_at"))


# Who is there


def see_health(api: Api) -> None:
    """GET /health says how the service is."""
    health = api.call("GET", "/health", 200)
    checks = ", ".join(f"{name} {value}" for name, value in health["checks"].items())
    api.show(Text.assemble((health["status"], "green"), f"  version {health['version']}, {checks}"))


def see_task_types(api: Api) -> None:
    """GET /task-types says what work there is. Each type comes with the JSON Schema of its payload and an example."""
    table = grid("task_type", "what it does")
    known = api.call("GET", "/task-types", 200)["items"]
    for item in known:
        table.add_row(Text(item["task_type"], "cyan"), re.split(r"(?<=\.)\s", item["description"])[0])
    api.show(table)
    if missing := set(NEEDED) - {item["task_type"] for item in known}:
        raise CannotGoOn(
            f"The API at {api.url} lacks {listed(missing)}. Start the one of this folder: python run_api.py"
        )


def see_workers(api: Api) -> None:
    """GET /workers says who does the work. Without a worker, tasks are stored and wait."""
    workers = api.call("GET", "/workers", 200)["items"]
    if not workers:
        raise CannotGoOn("No worker is alive, so no task would be done. Start one: python run_worker.py")
    table = grid("worker", ">pid", ">slots", "serves")
    for worker in workers:
        queues = ", ".join(worker["queues"]) or "every queue"
        what = f"{queues}; {', '.join(worker['task_types'])}"
        table.add_row(worker["id"], str(worker["pid"]), str(worker["slots"]), what)
    api.show(table)
    if missing := set(NEEDED).difference(*(worker["task_types"] for worker in workers)):
        raise CannotGoOn(f"No worker alive serves {listed(missing)}. Start one: python run_worker.py")


def listed(names: set[str]) -> str:
    return ", ".join(name for name in NEEDED if name in names)


# One task of each kind


def process_a_text(api: Api) -> None:
    """POST /tasks/ answers at once with an id: 201 means that the task is on disk. ?wait= answers when it has ended."""
    task_id = api.create("text_processing", payload={"text": LETTER})["id"]
    api.show(text_panel(LETTER, api.result_of(task_id)))


def use_the_client(api: Api) -> None:
    """The Python client does the same in a line. It waits by long polls and asks again without ever making a second task."""
    line = 'client.submit("text_processing", {"text": "Hello World"}).result(timeout=30)["statistics"]["words"]'
    api.console.print(Text(f"  >>> {line}", "bold cyan"), soft_wrap=True)
    handle = api.tasks.submit("text_processing", {"text": "Hello World"}, tags=[api.tag])
    api.show(Text(str(result_of(api.wait(handle.id))["statistics"]["words"])))


def summarise_a_text(api: Api) -> None:
    """A summary: the sentences that say most, chosen in the worker, without network. GET .../result is the bare result."""
    task_id = api.create("ai_summarization", payload={"text": ARTICLES[0], "sentences": 2})["id"]
    result = api.call("GET", f"/tasks/{task_id}/result", 200, params=LONG_POLL)
    share = len(result["summary"]) / len(ARTICLES[0])
    title = f"{share:.0%} of {len(ARTICLES[0]):,} characters"
    api.show(Panel(Text(result["summary"], "italic"), title=title, title_align="left", border_style="green"))


def change_a_picture(api: Api) -> None:
    """A picture is uploaded once and named by its id; the produced picture is a file too, which you download."""
    file_id = api.upload(PICTURE)["id"]
    operations: list[dict[str, Any]] = [
        {"operation": "thumbnail", "width": 300, "height": 300},
        {"operation": "palette", "colors": 4},
    ]
    task_id = api.create("image_processing", payload={"file_id": file_id, "operations": operations})["id"]
    result = api.result_of(task_id)
    target = api.download(result["file_id"], f"thumbnail-{task_id}.jpg")
    api.show(colors_text(result["operations"][1]["colors"]))
    if (small := picture(target.read_bytes(), api.console, 48)) is not None:
        api.show(small)
    size = f"{result['width']} x {result['height']}, {result['bytes']:,} bytes of {PICTURE.stat().st_size:,}"
    api.show(facts(("thumbnail", f"{target}  ({size})")))


def colors_text(colors: list[dict[str, Any]]) -> Text:
    """The main colours of a picture, each with its share."""
    parts = (Text.assemble(("██ ", color["hex"]), f"{color['hex']} {color['share']:.0%}") for color in colors)
    return Text("  ").join(parts)


def run_a_batch(api: Api) -> None:
    """A batch is one task with many items and counts as it goes. GET .../events streams each change until the end."""
    items = [{"text": text, "operations": ["sentiment"]} for text in guest_book(400)]
    payload = {"task_type": "text_processing", "items": items, "concurrency": 2}
    task_id = api.create("batch_processing", payload=payload)["id"]
    api.show_request("GET", f"/tasks/{task_id}/events", {"stream": True})
    watch(api, task_id)
    outcomes = api.result_of(task_id)["items"]
    moods = Counter(outcome["result"]["sentiment"]["label"] for outcome in outcomes)
    worst = min(outcomes, key=lambda outcome: float(outcome["result"]["sentiment"]["compound"]))
    counts = ", ".join(f"{count} {mood}" for mood, count in moods.most_common())
    api.show(facts(("moods", counts), ("saddest", Text(items[worst["index"]]["text"], "italic"))))


def watch(api: Api, task_id: int) -> None:
    """Show each change of a task, until it has ended."""
    began, last = time.perf_counter(), ""
    for task in api.tasks.events(task_id):
        percent, message = (task.progress.percent or 0, task.progress.message or "") if task.progress else (0, "")
        said = f"{percent:5.1f} %  {message}"
        if f"{task.status} {said}" != last:
            last = f"{task.status} {said}"
            passed = f"{time.perf_counter() - began:6.2f} s  "
            api.show(Text.assemble((passed, "dim"), status_text(f"{task.status:<10}"), said))


def ask_a_language_model(api: Api) -> None:
    """A language model behind the worker's AI_BASE_URL answers; this step is shown because AI_BASE_URL is set here too."""
    task_id = api.create("ai_completion", payload={"prompt": "Say hello in three languages.", "max_tokens": 100})["id"]
    result = api.result_of(task_id)
    api.show(
        Panel(Text(result["text"], "italic"), title=Text(result["model"]), title_align="left", border_style="green")
    )


# What goes wrong


def send_what_is_wrong(api: Api) -> None:
    """What does not fit is refused at the door with 422, every fault named; nothing is stored."""
    payload = {"text": "", "operations": ["statistics", "divination"]}
    api.show(problem_panel(api.create("text_processing", 422, payload=payload)))
    api.show(problem_panel(api.create("make_coffee", 422)))


def see_a_task_fail(api: Api) -> None:
    """What shows only in the work is a failed task with its reason. This picture ends after its first eight bytes."""
    task_id = api.create("image_processing", payload={"image_base64": BROKEN_PICTURE})["id"]
    task = api.call("GET", f"/tasks/{task_id}", 200, params=LONG_POLL)
    api.show(task_line(task))
    if task["status"] != "failed":
        raise CannotGoOn(f"Task {task_id} should have failed, but is {task['status']}.")
    api.show(facts(("error", Text(f"{task['error']['type']}: {task['error']['message']}", "red"))))
    api.call("GET", f"/tasks/{task_id}/result", 409)


def run_out_of_time(api: Api) -> None:
    """Every attempt can be seen. This text is too long for a limit of 5 ms, so each attempt is stopped."""
    task_id = api.create("text_processing", payload={"text": LONG_TEXT}, timeout_seconds=0.005, max_attempts=2)["id"]
    api.show(task_line(api.call("GET", f"/tasks/{task_id}", 200, params=LONG_POLL)))
    table = grid(">attempt", "outcome", ">ran", ">next after", "error")
    for item in api.call("GET", f"/tasks/{task_id}/attempts", 200)["items"]:
        ran = f"{between(item['started_at'], item['finished_at']):.0f} ms" if item["finished_at"] else "-"
        after = "-" if item["delay_seconds"] is None else f"{item['delay_seconds']:.2f} s"
        table.add_row(str(item["attempt"]), str(item["outcome"]), ran, after, (item["error"] or {}).get("message", ""))
    api.show(table)


# Safely, later, not at all, first


def repeat_a_request(api: Api) -> None:
    """With an Idempotency-Key a request can be repeated safely: same key and body, same task. Another body is refused."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = api.create("text_processing", headers=key, payload={"text": "Once is enough."})
    again = api.create("text_processing", 200, headers=key, payload={"text": "Once is enough."})
    api.show(f"task {first['id']} the first time, task {again['id']} the second time")
    api.show(problem_panel(api.create("text_processing", 422, headers=key, payload={"text": "Something else."})))


def delay_a_task(api: Api) -> None:
    """A task may wait for its time: delay_seconds, or scheduled_at. Its result is a 202 until then."""
    task = api.create("text_processing", payload={"text": "Better late than never."}, delay_seconds=2)
    api.show(task_line(task))
    api.show(as_json(api.call("GET", f"/tasks/{task['id']}/result", 202)))
    task = api.call("GET", f"/tasks/{task['id']}", 200, params=LONG_POLL)
    api.show(task_line(task))
    if task["started_at"]:
        late = between(task["scheduled_at"], task["started_at"])
        api.show(Text(f"started {late:.0f} ms after it was due", "dim"))


def change_and_cancel_a_task(api: Api) -> None:
    """A waiting task can be changed or cancelled; what was cancelled can be retried. A completed task never changes."""
    task_id = api.create("text_processing", payload={"text": "Not today."}, delay_seconds=3600)["id"]
    api.show(task_line(api.call("PATCH", f"/tasks/{task_id}", 200, json={"priority": "high"})))
    api.show(task_line(api.call("POST", f"/tasks/{task_id}/cancel", 200)))
    api.show(task_line(api.call("POST", f"/tasks/{task_id}/retry", 200)))
    api.result_of(task_id)
    api.show(problem_panel(api.call("POST", f"/tasks/{task_id}/cancel", 409)))


def send_in_bulk_with_priority(api: Api) -> None:
    """/tasks/bulk stores many tasks in one transaction, all or none. A higher priority (-100 to 100) starts first."""
    tag = f"{api.tag}-bulk"
    plain = {"task_type": "text_processing", "payload": {"text": LETTER}, "tags": [api.tag, tag]}
    ids = api.call("POST", "/tasks/bulk", 201, json={"tasks": [plain] * 49 + [plain | {"priority": "critical"}]})["ids"]
    for task_id in ids:
        api.wait(task_id)
    tasks = {task["id"]: task for task in api.call("GET", "/tasks/", 200, params={"tag": tag, "limit": 100})["items"]}
    place = 1 + sum(task["started_at"] < tasks[ids[-1]]["started_at"] for task in tasks.values())
    api.show(f"the critical task was number {len(ids)} in the bulk and started as number {place}")


# Looking back


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


def see_stats(api: Api) -> None:
    """GET /stats has the totals over all queues; GET /queues has them for each queue."""
    stats = api.call("GET", "/stats", 200)
    table = grid("", ">tasks")
    for name in ("ready", "scheduled", "retrying", "running", "completed", "failed", "cancelled"):
        table.add_row(status_text(name), str(stats[name]))
    api.show(table)


STEPS = (
    ("Is it there?", see_health),
    ("What can it do?", see_task_types),
    ("Who does the work?", see_workers),
    ("A text: create a task and wait for it", process_a_text),
    ("The same from Python", use_the_client),
    ("A summary", summarise_a_text),
    ("A picture: upload, thumbnail, download", change_a_picture),
    ("A batch, watched live", run_a_batch),
    ("A language model", ask_a_language_model),
    ("A wrong request", send_what_is_wrong),
    ("A task that fails", see_a_task_fail),
    ("Attempts of a task that runs out of time", run_out_of_time),
    ("The same request twice", repeat_a_request),
    ("Later, please", delay_a_task),
    ("Change, cancel, retry", change_and_cancel_a_task),
    ("Many at once, one of them urgent", send_in_bulk_with_priority),
    ("Find tasks again", list_tasks),
    ("Numbers", see_stats),
)


def walk(api: Api) -> None:
    """Every step, in order; the language model only where there is one."""
    steps = [step for step in STEPS if step[1] is not ask_a_language_model or os.environ.get("AI_BASE_URL")]
    for number, (title, step) in enumerate(steps, start=1):
        api.console.print()
        api.console.print(Rule(Text(f"{number}  {title}", "bold"), align="left", style="dim"))
        api.console.print(Text(step.__doc__ or "", "dim"))
        step(api)
    api.console.print()
    api.console.print(Text(f"Done. The tasks of this walk carry the tag {api.tag}; see also {api.url}/docs", "green"))


def main(
    url: Annotated[str, typer.Option(help="Where the API listens.")] = "http://localhost:8000",
    output: Annotated[Path, typer.Option(help="Folder for the picture that is downloaded.")] = Path("data/demo"),
) -> None:
    """Walk through the HTTP API of a running service, step by step.

    Start the service first, each in a terminal of its own: python run_api.py and python run_worker.py. For a service that
    wants an API key, put one with the scopes read, submit and manage into TASKS_API_KEY.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an old terminal without UTF-8 shows question marks
    try:
        api = Api(url, Console(highlight=False), output)
        knock(api)
        walk(api)
    except CannotGoOn as reason:
        fail(str(reason))
    except (httpx.InvalidURL, ValueError) as error:
        fail(f"{url} is not an address: {error}")
    except (httpx.TransportError, ClientError) as error:
        fail(f"The API at {url} stopped answering: {error}")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def knock(api: Api) -> None:
    """See that a task service answers at all."""
    try:
        answer = api.client.get("/health/live")
    except httpx.TransportError as error:
        raise CannotGoOn(f"No API answers at {api.url} ({error}). Start it: python run_api.py") from None
    if answer.status_code != 200 or answer.headers.get("content-type") != "application/json":
        raise CannotGoOn(f"Something answers at {api.url}, but it is not this task service.")
    if api.client.get("/task-types").status_code == 401:
        raise CannotGoOn(
            f"The API at {api.url} wants a key: put one with the scopes read, submit and manage into {API_KEY}."
        )


def fail(line: str) -> NoReturn:
    """Say why on one line and leave with status 1."""
    print(line, file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(main)
    command()
