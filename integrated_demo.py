"""The whole service at work: starts an API and a worker, sends them a mixed load, shows it live and what was measured.

`python integrated_demo.py` needs nothing else: a free port, a database in a temporary folder, and both gone at the end.
Every number is measured here or comes from an answer of the API. `demo.py` explains the calls one by one.
"""

import asyncio
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from demo import show_result

HOME = Path(__file__).resolve().parent
CLIENTS = 4
ROUNDS_PER_SECOND = 10
START_SECONDS = 30
STOP_SECONDS = 10
STALL_SECONDS = 20
REQUEST_SECONDS = 30
LOOK_SECONDS = 0.2
TAIL_LINES = 12
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "SYSTEMROOT")
GOALS = {"create": 50, "status": 20, "list": 30, "health": 10}
"""Milliseconds each call should stay below."""

TEXTS = (
    "The night train to the coast was almost empty, so we had the dining car to ourselves. I loved every mile of it.",
    "My new kettle broke after two days and the shop refused to help. A terrible buy: $39 for a heap of sad plastic.",
    "Send the signed lease to office@harbour.example before 14 June 2027 and bring the first rent, $950, in person. "
    "We are happy to have you; the rest is at https://harbour.example.",
    "Der Bäcker an der Ecke öffnet um sechs Uhr, und schon vor sieben riecht die ganze Straße nach frischem Brot.",
    "Am 3. Mai 2027 zieht das Archiv um. Bis dahin bleiben die Kisten im Keller, und niemand darf sie öffnen.",
    "La vieille horloge de la gare avance de deux minutes, mais personne dans le village ne voudrait la corriger.",
    "El faro lleva cien años en la misma roca y cada noche cuenta a los barcos dónde termina el mar.",
    "Il mercato del pesce apre all'alba: chi arriva tardi trova soltanto ghiaccio, gatti e buone scuse.",
    "A biblioteca da ilha empresta livros, ferramentas e, quando chove muito, também guarda-chuvas coloridos.",
    "De brug gaat elke ochtend open voor een enkele boot, en alle fietsers wachten geduldig in de wind.",
    "Старый трамвай медленно поднимается на холм, и перед пассажирами открывается весь город до самой реки.",
    "Kun järvi jäätyy, koulun oppilaat hiihtävät sen yli ja säästävät puoli tuntia joka aamu.",
    "春になると、川沿いの桜が一斉に咲き、町の人たちは弁当を持って散歩に出かけます。",
)
OPERATIONS = (
    ["statistics", "language"],
    ["language", "sentiment", "keywords"],
    ["readability", "entities"],
    ["statistics", "language", "sentiment", "keywords", "readability", "entities"],
    ["normalize", "redact"],
)
NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Alan", "Hedy", "Katherine", "Linus")


class DemoFailed(Exception):
    """The demo cannot show what it promises; the message is one line that says why."""


@dataclass(frozen=True)
class Child:
    """A process of ours, API or worker, and the file it logs to."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])

    def ensure_alive(self) -> None:
        """Raise DemoFailed, with what it logged last, if the process has ended."""
        if self.process.poll() is not None:
            raise DemoFailed(f"The {self.name} ended with status {self.process.returncode}. It said:\n{self.tail()}")


@dataclass(frozen=True)
class Service:
    """An API and a worker, running."""

    api: Child
    worker: Child
    url: str
    runners: int

    def ensure_alive(self) -> None:
        self.api.ensure_alive()
        self.worker.ensure_alive()


class StopSignals:
    """Turns every signal that asks us to end into SystemExit, so that what was started is stopped on the way out."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._cancel: Callable[[], object] | None = None
        self._status = 0

    def __enter__(self) -> "StopSignals":
        self._before = [signal.signal(number, self._leave) for number in self.NUMBERS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(self.NUMBERS, self._before, strict=True):
            signal.signal(number, handler)

    def ignore(self) -> None:
        """From now on nothing interrupts: an impatient second Ctrl-C must not leave processes behind."""
        for number in self.NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in an event loop. A signal cancels it; an exception in the middle of some task would be noise."""

        async def cancellable() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            try:
                await work
            finally:
                self._cancel = None

        try:
            asyncio.run(cancellable())
        except asyncio.CancelledError:
            raise SystemExit(self._status) from None

    def _leave(self, number: int, frame: object) -> None:
        self._status = 128 + number
        if self._cancel is None:
            raise SystemExit(self._status)
        self._cancel()


@contextmanager
def running_service(signals: StopSignals) -> Iterator[Service]:
    """Start API and worker on a free port and a database of their own; stop them and tidy up, whatever happens."""
    children: list[Child] = []
    with tempfile.TemporaryDirectory(prefix="demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            runners = min(4, os.cpu_count() or 1)
            children.append(api := start(folder, "API", "run_api.py", "--port", "0"))
            url = said(api, r"Listening on (http://\S+)")
            children.append(worker := start(folder, "worker", "run_worker.py", "--processes", str(runners)))
            said(worker, r"(worker started)")
            yield Service(api, worker, url, runners)
        finally:
            signals.ignore()
            stop(children[::-1])


def start(folder: Path, name: str, script: str, *arguments: str) -> Child:
    """A program of ours in a clean environment: neither settings nor a `.env` of whoever runs the demo reach it."""
    settings = {
        "DATABASE_URL": f"sqlite:///{folder}/tasks.db",
        "EXECUTOR_MODULES": "examples.greetings",
        "LOG_FORMAT": "json",
        "PYTHONPATH": str(HOME),
        "TMPDIR": str(folder),
    }
    kept = {variable: os.environ[variable] for variable in KEPT if variable in os.environ}
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(HOME / script), *arguments],
            cwd=folder,
            env=kept | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for this process, which then stops its children in order
        )
    return Child(name, process, log)


def said(child: Child, pattern: str) -> str:
    """Wait until the log of a child has `pattern`, and return its group."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if found := re.search(pattern, child.log.read_text(errors="replace")):
            return found[1]
        child.ensure_alive()
        time.sleep(0.02)
    raise DemoFailed(f"The {child.name} was not ready after {START_SECONDS} s. It said:\n{child.tail()}")


def stop(children: Sequence[Child]) -> None:
    """SIGTERM, time to finish, then SIGKILL."""
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


@dataclass(frozen=True)
class Answer:
    """What came back for a request."""

    request: str
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """HTTP over connections that are kept open, and nothing else.

    A full HTTP library spends more time on a request than the API does, and here that would count as the API's.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._address = (address.hostname, address.port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def request(
        self, method: str, path: str, params: dict[str, Any] | None = None, body: dict[str, Any] | None = None
    ) -> Answer:
        """Send a request and wait for the whole answer. Raises OSError or EOFError when there is none."""
        query = "?" + urlencode(params) if params else ""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path}{query} HTTP/1.1\r\nHost: demo\r\nContent-Type: application/json\r\n"
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
                length = next(line for line in lines if line.startswith("content-length:")).partition(":")[2]
                answer = Answer(f"{method} {path}", int(lines[0].split()[1]), await reader.readexactly(int(length)))
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return answer

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


@dataclass
class Kind:
    """One kind of task in the load: what was planned, and what the clients have seen of it."""

    name: str
    planned: int = 0
    ids: list[int] = field(default_factory=list)
    ended: int = 0
    totals: list[float] = field(default_factory=list)
    """Milliseconds from sending a submission until its result was there, as the client saw it."""


class Load:
    """What is sent, by whom, and what came of it."""

    def __init__(self, service: Service, client: Client, seconds: float, bulk: int) -> None:
        self.service = service
        self.client = client
        self.latencies: dict[str, list[float]] = defaultdict(list)
        self.rounds = planned_rounds(round(seconds * ROUNDS_PER_SECOND * CLIENTS))
        self.kinds = {name: Kind(name) for name in ("text_processing", "greet", "delayed greet", "bulk", "critical")}
        for name, count in Counter(kind for kind, _ in self.rounds).items():
            self.kinds[name].planned = count
        self.kinds["bulk"].planned = bulk
        self.kinds["critical"].planned = 1
        self.notes: dict[str, str] = {}
        self.began = time.perf_counter()

    async def timed(self, call: str, method: str, path: str, expected: int, **options: Any) -> Any:
        """A request whose latency counts; its JSON. Raises DemoFailed at another status."""
        began = time.perf_counter()
        answer = await self.client.request(method, path, **options)
        self.latencies[call].append((time.perf_counter() - began) * 1000)
        return checked(answer, expected)

    async def get(self, path: str, **params: Any) -> Any:
        return checked(await self.client.request("GET", path, params), 200)

    async def run(self) -> None:
        """Everything, in the order in which it is shown."""
        await self.misbehave()
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self.submit_steadily(number, started))
        await self.submit_in_bulk()

    async def submit_steadily(self, number: int, started: float) -> None:
        """One client: at a fixed pace it creates a task, looks at it, at the list and at the health.

        The pace does not depend on the answers, so a slow answer makes later ones no rarer and cannot hide.
        """
        async with asyncio.TaskGroup() as group:
            for turn, (name, submission) in enumerate(self.rounds[number::CLIENTS]):
                due = started + (turn + number / CLIENTS) / ROUNDS_PER_SECOND
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                sent = time.perf_counter()
                task = await self.timed("create", "POST", "/tasks/", 201, body=submission)
                self.kinds[name].ids.append(task["id"])
                group.create_task(self.follow(self.kinds[name], task["id"], sent))
                await self.timed("status", "GET", f"/tasks/{task['id']}", 200)
                await self.timed("list", "GET", "/tasks/", 200, params={"limit": 20})
                await self.timed("health", "GET", "/health", 200)

    async def follow(self, kind: Kind, task_id: int, sent: float) -> dict[str, Any]:
        """Wait for the end of a task by long polls."""
        while True:
            task: dict[str, Any] = await self.get(f"/tasks/{task_id}", wait=10)
            if task["finished_at"] is not None:
                kind.ended += 1
                kind.totals.append((time.perf_counter() - sent) * 1000)
                return task

    async def submit_in_bulk(self) -> None:
        """Many tasks in one call, then one more that is critical: it does not wait for the others."""
        kind, critical = self.kinds["bulk"], self.kinds["critical"]
        before = await self.count_ended()
        tasks = [submission for name, submission in planned_rounds(kind.planned) if name != "delayed greet"]
        tasks = list(itertools.islice(itertools.cycle(tasks), kind.planned))
        began = time.perf_counter()
        kind.ids = (await self.timed("bulk", "POST", "/tasks/bulk", 201, body={"tasks": tasks}))["ids"]
        stored = time.perf_counter() - began
        await self.overtake(critical, "critical")
        while kind.ended < kind.planned:
            kind.ended = min(kind.planned, await self.count_ended() - before - 1)
            await asyncio.sleep(0.05)
        took = time.perf_counter() - began
        self.notes["bulk"] = (
            f"{kind.planned:,} tasks in one call, on disk after {stored * 1000:.0f} ms, "
            f"all done after {took:.1f} s ({kind.planned / took:,.0f} per second)"
        )

    async def overtake(self, kind: Kind, priority: str) -> None:
        """Send one task that goes ahead of all that wait."""
        waiting = (await self.get("/stats"))["ready"]
        sent = time.perf_counter()
        submission: dict[str, Any] = {"task_type": "text_processing", "payload": {"text": TEXTS[2]}}
        submission["priority"] = priority
        task = await self.timed("create", "POST", "/tasks/", 201, body=submission)
        kind.ids.append(task["id"])
        task = await self.follow(kind, task["id"], sent)
        self.notes["critical"] = (
            f"task {task['id']}, sent when {waiting:,} others waited, started after "
            f"{between(task['created_at'], task['started_at']):.0f} ms"
        )

    async def count_ended(self) -> int:
        stats = await self.get("/stats")
        return int(stats["completed"] + stats["failed"] + stats["cancelled"])

    async def misbehave(self) -> None:
        """One submission that is refused, one task that fails, one that is cancelled."""
        refused = await self.client.request("POST", "/tasks/", body={"task_type": "greet", "payload": {"names": []}})
        fault = checked(refused, 422)["errors"][0]
        where = ".".join(map(str, fault["location"]))
        self.notes["refused"] = f"greet without names: {refused.status}, {where}: {fault['message']}"
        body = {"task_type": "greet", "payload": {"names": ["Ada", " "]}}
        task = checked(await self.client.request("POST", "/tasks/", body=body), 201)
        task = await self.follow(Kind("failed"), task["id"], time.perf_counter())
        expect(task["status"] == "failed", f"Task {task['id']} should have failed, but is {task['status']}.")
        error = task["error"]
        self.notes["failed"] = (
            f"task {task['id']}: {error['message']} (attempt {task['attempts']} of {task['max_attempts']}; "
            f"failure_reason {task['failure_reason']})"
        )
        later = {"task_type": "greet", "payload": {"names": ["Nobody"]}, "delay_seconds": 3600}
        task = checked(await self.client.request("POST", "/tasks/", body=later), 201)
        task = checked(await self.client.request("POST", f"/tasks/{task['id']}/cancel"), 200)
        self.notes["cancelled"] = f"task {task['id']}: {task['status']} an hour before it was due"

    async def all_tasks(self) -> dict[int, dict[str, Any]]:
        """Every task there is, by id, page by page."""
        tasks: dict[int, dict[str, Any]] = {}
        params: dict[str, Any] = {"limit": 500}
        while True:
            page = await self.get("/tasks/", **params)
            tasks |= {task["id"]: task for task in page["items"]}
            if page["next_cursor"] is None:
                return tasks
            params["cursor"] = page["next_cursor"]


def planned_rounds(count: int) -> list[tuple[str, dict[str, Any]]]:
    """`count` submissions, each with its kind: mostly texts, every fourth a greeting, every sixteenth a delayed one."""
    texts, operations, names = itertools.cycle(TEXTS), itertools.cycle(OPERATIONS), itertools.cycle(NAMES)
    priorities = itertools.cycle(("normal", "low", "normal", "high", 7))
    languages = itertools.cycle(("en", "de", "fr", "es"))
    rounds: list[tuple[str, dict[str, Any]]] = []
    for number in range(count):
        submission: dict[str, Any] = {"priority": next(priorities)}
        if number % 4 != 3:
            payload: dict[str, Any] = {"text": next(texts), "operations": next(operations)}
            rounds.append(("text_processing", submission | {"task_type": "text_processing", "payload": payload}))
            continue
        payload = {"names": list(itertools.islice(names, 3)), "language": next(languages)}
        submission |= {"task_type": "greet", "payload": payload}
        if number % 16 == 3:
            rounds.append(("delayed greet", submission | {"delay_seconds": 1 + number % 3 / 2}))
        else:
            rounds.append(("greet", submission))
    return rounds


def checked(answer: Answer, expected: int) -> Any:
    """The JSON of an answer that has the status it should have."""
    said = answer.body[:200].decode(errors="replace")
    expect(answer.status == expected, f"{answer.request} answered {answer.status}, not {expected}: {said}")
    return answer.json()


def expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise DemoFailed(otherwise)


def between(start: str, end: str) -> float:
    """Milliseconds from one time of an answer to another."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all values do not exceed (nearest rank)."""
    return sorted(values)[max(0, -(-len(values) * round(share * 100) // 100) - 1)]


class View:
    """What the load looks like at this moment: a panel that moves in a terminal, a line each second elsewhere."""

    def __init__(self, load: Load, console: Console) -> None:
        self.load = load
        self.console = console
        self.moves = console.is_terminal and not console.is_dumb_terminal
        self.width = min(100, console.width - 2)  # room for the ^C that a terminal writes
        self.ended: deque[tuple[float, int]] = deque([(time.perf_counter(), 0)], maxlen=400)
        self.told = self.advanced = time.perf_counter()

    async def watch(self, sending: "asyncio.Task[None]") -> None:
        """Look and show until all is sent and done. Raises DemoFailed when a child has ended or nothing moves."""
        with Live(console=self.console, auto_refresh=False) if self.moves else nullcontext() as screen:
            is_over = False
            while not is_over:
                is_over = sending.done()
                self.load.service.ensure_alive()
                panel = await self.look()
                if screen is not None:
                    screen.update(panel, refresh=True)
                await asyncio.wait({sending}, timeout=LOOK_SECONDS)

    async def look(self) -> Panel:
        stats = await self.load.get("/stats")
        running = await self.load.get("/tasks/", status="running", limit=3)
        now, ended = time.perf_counter(), sum(kind.ended for kind in self.load.kinds.values())
        if ended > self.ended[-1][1]:
            self.advanced = now
        expect(now - self.advanced < STALL_SECONDS, f"Nothing has ended for {STALL_SECONDS} s.")
        self.ended.append((now, ended))
        rate = self.rate(now)
        if not self.moves and now - self.told >= 1:
            self.told = now
            self.tell(rate)
        return self.panel(stats, running["items"], rate)

    def rate(self, now: float) -> float:
        """Tasks ended per second, over the last second."""
        since, count = next(sample for sample in self.ended if sample[0] >= now - 1.1)
        return (self.ended[-1][1] - count) / (now - since) if now > since else 0.0

    def tell(self, rate: float) -> None:
        """The moment as one plain line."""
        counts = "  ".join(f"{kind.name} {kind.ended}/{kind.planned}" for kind in self.load.kinds.values())
        self.console.print(f"{time.perf_counter() - self.load.began:4.0f} s  {rate:4.0f}/s  {counts}", soft_wrap=True)

    def panel(self, stats: dict[str, Any], running: list[dict[str, Any]], rate: float) -> Panel:
        bars = Table.grid(padding=(0, 1), expand=True)
        bars.add_column(style="cyan", no_wrap=True)
        bars.add_column(ratio=1)
        bars.add_column(justify="right", no_wrap=True)
        for kind in self.load.kinds.values():
            bar = ProgressBar(kind.planned, kind.ended, style="grey23", complete_style="blue", finished_style="green")
            bars.add_row(kind.name, bar, f"{kind.ended:,}/{kind.planned:,}")
        names = ("ready", "scheduled", "running", "completed", "failed", "cancelled")
        counts = Text("  ").join(Text.assemble((f"{name} ", "dim"), f"{stats[name]:,}") for name in names)
        crew = ((" tasks per second  ", "dim"), str(stats["live_workers"]), (" worker  ", "dim"))
        speed = Text.assemble((f"{rate:,.0f}", "bold"), *crew, str(self.load.service.runners), (" runners", "dim"))
        now = Text("now ", "dim", no_wrap=True, overflow="ellipsis")
        now.append("  ".join(map(run_text, running)) or "idle", "cyan" if running else "dim")
        title = f"{time.perf_counter() - self.load.began:.1f} s"
        return Panel(Group(bars, "", counts, speed, now), title=title, title_align="right", width=self.width)


def run_text(task: dict[str, Any]) -> str:
    progress = task["progress"] or {}
    return f"#{task['id']} {task['task_type']} {progress.get('message') or ''}".rstrip()


async def perform(service: Service, console: Console, seconds: float, bulk: int) -> None:
    """Send the load, show it live, then show what was measured. Raises DemoFailed."""
    client = Client(service.url)
    try:
        for path in ("/health/ready", "/tasks/"):
            checked(await client.request("GET", path), 200)  # the first answers are slower, as caches fill
        load = Load(service, client, seconds, bulk)
        introduce(load, console, seconds)
        await watched(load, View(load, console))
        await report(load, console)
    except (OSError, EOFError) as error:
        await asyncio.sleep(0.5)  # a process that was just killed is reaped by then
        service.ensure_alive()
        raise DemoFailed(f"The API did not answer: {error!r}") from error
    finally:
        client.close()


async def watched(load: Load, view: View) -> None:
    """Run the load while the view looks on. Raises what stopped either."""
    sending = asyncio.create_task(load.run())
    try:
        await view.watch(sending)
        await sending
    except BaseExceptionGroup as errors:
        raise first_cause(errors) from None
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


def first_cause(error: BaseException) -> BaseException:
    """The first real error within nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def introduce(load: Load, console: Console, seconds: float) -> None:
    """What runs, and what will be sent to it."""
    service = load.service
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="cyan")
    facts.add_row("API", f"{service.url}  (pid {service.api.process.pid})")
    facts.add_row("worker", f"{service.runners} runner processes  (pid {service.worker.process.pid})")
    pace = f"{CLIENTS} clients send {CLIENTS * ROUNDS_PER_SECOND} tasks per second for {seconds:g} s"
    facts.add_row("load", f"{pace}, then {load.kinds['bulk'].planned:,} in one call")
    console.print(facts)
    console.print()


async def report(load: Load, console: Console) -> None:
    """The final tables, and one real result."""
    tasks = await load.all_tasks()
    for kind in load.kinds.values():
        for task_id in kind.ids:
            task = tasks[task_id]
            expect(task["status"] == "completed", f"Task {task_id} ended as {task['status']}: {task['error']}")
    console.print()
    console.print(Text("Tasks, in milliseconds", "bold"))
    console.print(kinds_table(load, tasks))
    console.print()
    cores = os.cpu_count() or 1
    console.print(Text(f"Calls, in milliseconds (clients, API and worker share {cores} cores)", "bold"))
    console.print(calls_table(load))
    console.print()
    notes = Table.grid(padding=(0, 2))
    notes.add_column(style="cyan")
    for name, note in load.notes.items():
        notes.add_row(name, note)
    console.print(notes)
    console.print()
    task = await load.get(f"/tasks/{load.kinds['critical'].ids[0]}")
    show_result(console, task["payload"]["text"], task["result"])


def kinds_table(load: Load, tasks: dict[int, dict[str, Any]]) -> Table:
    """Milliseconds by kind: waiting for a worker since the task was due, running, and all of it as the client saw it."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("kind", style="cyan", no_wrap=True)
    for name in ("done", "wait p50", "p99", "run p50", "p99", "client p50", "p99"):
        table.add_column(name, justify="right")
    for kind in load.kinds.values():
        rows = [tasks[task_id] for task_id in kind.ids]
        waits = [between(task["scheduled_at"] or task["created_at"], task["started_at"]) for task in rows]
        runs = [between(task["started_at"], task["finished_at"]) for task in rows]
        columns = (figure(values, share) for values in (waits, runs, kind.totals) for share in (0.5, 0.99))
        table.add_row(kind.name, f"{len(rows):,}", *columns)
    return table


def calls_table(load: Load) -> Table:
    """Latencies of the calls, as the clients measured them, beside their goals."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("call", style="cyan")
    for name in ("made", "p50", "p99", "goal"):
        table.add_column(name, justify="right")
    table.add_column("")
    for name, goal in GOALS.items():
        values = load.latencies[name]
        reached = quantile(values, 0.99) < goal
        verdict = Text("reached", "green") if reached else Text("missed at p99", "yellow")
        table.add_row(name, f"{len(values):,}", figure(values, 0.5), figure(values, 0.99), f"< {goal}", verdict)
    return table


def figure(values: Sequence[float], share: float) -> str:
    if not values:
        return "-"
    value = quantile(values, share)
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def main(
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long the clients send at a steady pace.")] = 8,
    bulk: Annotated[int, typer.Option(min=1, max=10_000, help="Tasks in the bulk submission after that.")] = 4000,
) -> None:
    """Start the service, send it work, show the results, and leave nothing behind.

    The API gets a free port, the database a temporary folder. Exits with 0 if every task ended as it should.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an old terminal without UTF-8 shows question marks
    console = Console(highlight=False)
    console.print(Rule(Text("Task service", "bold"), align="left", style="dim"))
    began = time.perf_counter()
    try:
        with StopSignals() as signals, running_service(signals) as service:
            signals.run(perform(service, console, seconds, bulk))
    except DemoFailed as reason:
        print(f"The demo failed. {reason}", file=sys.stderr)
        raise SystemExit(1) from None
    took = time.perf_counter() - began
    console.print()
    console.print(Text(f"Done in {took:.1f} s. API and worker are stopped, their folder is gone.", "green"))


if __name__ == "__main__":
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(main)
    command()
