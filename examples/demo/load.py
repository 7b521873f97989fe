"""What the demo sends, and what came of it: a steady mix, a batch that outlives its worker, a bulk with one urgent task."""

import asyncio
import base64
import itertools
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from examples.demo.service import HOME, LEASE_SECONDS, SWEEP_SECONDS, Service, expect
from examples.demo.show import milliseconds
from examples.demo.stopwatch import Stopwatch
from examples.demo.texts import ARTICLES, LETTERS, OPERATIONS, guest_book, guest_book_file
from taskclient import AsyncClient, AsyncTaskHandle, InvalidRequest, Task
from taskclient.models import Submission

ROUNDS_PER_SECOND = 20
BULK_OPERATIONS = ["statistics", "sentiment"]
KILL_AT_PERCENT = 25
PATIENCE_SECONDS = 60
PICTURE = HOME / "examples" / "lighthouse.jpg"
BROKEN_PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\nThis is where the picture should be.").decode()
POSTCARD: list[dict[str, Any]] = [
    {"operation": "resize", "width": 900},
    {"operation": "watermark", "text": "Greetings from the task service", "position": "bottom"},
]
CHANGES: tuple[list[dict[str, Any]], ...] = (
    [{"operation": "thumbnail", "width": 320, "height": 320}],
    [{"operation": "thumbnail", "width": 400, "height": 400}, {"operation": "grayscale"}],
    [
        {"operation": "crop", "left": 300, "top": 100, "width": 500, "height": 500},
        {"operation": "palette", "colors": 4},
    ],
    [{"operation": "thumbnail", "width": 300, "height": 300}, {"operation": "rotate", "degrees": 12}],
    [{"operation": "metadata"}, {"operation": "palette", "colors": 5}],
)


@dataclass
class Kind:
    """One kind of task in the load. It has a queue of its own, so `GET /queues` counts it."""

    name: str
    planned: int
    expected: str = "completed"
    ids: list[int] = field(default_factory=list)
    waiting: int = 0
    running: int = 0
    ended: int = 0
    failed: int = 0


@dataclass
class Recovery:
    """What was seen of the kill and what followed."""

    worker: str = ""
    worker_id: str = ""
    running: int = 0
    seconds: float = 0.0
    stored: int = 0


class Load:
    """Sends everything and follows it."""

    def __init__(
        self, service: Service, client: AsyncClient, stopwatch: Stopwatch, seconds: float, bulk: int, items: int
    ) -> None:
        self.service = service
        self.client = client
        self.stopwatch = stopwatch
        self.bulk, self.items = bulk, items
        self.rounds = round(seconds * ROUNDS_PER_SECOND)
        names = [kind_of(number) for number in range(self.rounds)]
        planned = {name: names.count(name) for name in ("text_processing", "ai_summarization", "image_processing")}
        planned["image_processing"] += 1  # the postcard
        planned["batch_processing"] = 1
        if os.environ.get("AI_BASE_URL"):
            planned["ai_completion"] = 3
        planned |= {"delayed": names.count("delayed"), "bulk": bulk, "urgent": 1, "cancelled": 1, "broken": 1}
        self.kinds = {name: Kind(name, count) for name, count in planned.items()}
        self.kinds["broken"].expected = "failed"
        self.kinds["cancelled"].expected = "cancelled"
        self.batch: Task | None = None
        self.recovery = Recovery()
        self.postcard = b""
        self.events: deque[tuple[float, str]] = deque(maxlen=50)
        self.began = time.perf_counter()

    @property
    def planned(self) -> int:
        return sum(kind.planned for kind in self.kinds.values())

    @property
    def ended(self) -> int:
        return sum(kind.ended for kind in self.kinds.values())

    async def count(self) -> None:
        """How many of each kind wait and run, as the API counts them."""
        acknowledged = {name: len(kind.ids) for name, kind in self.kinds.items()}  # before it counts: never too many
        queues = {queue.queue: queue for queue in await self.client.queues()}
        for name, kind in self.kinds.items():
            queue = queues.get(name)
            kind.waiting = queue.ready + queue.scheduled + queue.retrying if queue else 0
            kind.running = queue.running if queue else 0
            kind.ended = max(kind.ended, acknowledged[name] - kind.waiting - kind.running)

    def tell(self, event: str) -> None:
        self.events.append((time.perf_counter() - self.began, event))

    async def run(self) -> None:
        """Send everything. Returns when the last submission is acknowledged and the batch has ended."""
        picture = (await self.client.files.upload(PICTURE)).id
        book = (await self.client.files.upload(guest_book_file(self.items), name="guest-book.jsonl")).id
        async with asyncio.TaskGroup() as group:
            group.create_task(self.send_steadily(picture))
            group.create_task(self.run_batch(book))
            group.create_task(self.make_postcard(picture))
            group.create_task(self.misbehave())
            for language in ("German", "Finnish", "Welsh")[: self.kinds.get("ai_completion", Kind("", 0)).planned]:
                payload = {"prompt": f"Say hello in {language}.", "max_tokens": 40}
                group.create_task(self.submit_and_follow("ai_completion", "ai_completion", payload))

    # The steady part

    async def send_steadily(self, picture: str) -> None:
        """A round at each turn."""
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, (name, submission) in enumerate(planned_rounds(self.rounds, picture)):
                await asyncio.sleep(max(0.0, started + number / ROUNDS_PER_SECOND - time.perf_counter()))
                group.create_task(self.round(name, submission))

    async def round(self, name: str, submission: Submission) -> None:
        """What a client does: create a task, look at it, at the list and at the health.

        Rounds come at a fixed pace that does not depend on the answers, so a slow one makes later ones no rarer and cannot
        hide.
        """
        task = await self.stopwatch.time("create", "POST", "/tasks/", 201, submission)
        self.kinds[name].ids.append(task["id"])
        await self.stopwatch.time("status", "GET", f"/tasks/{task['id']}", 200)
        await self.stopwatch.time("list", "GET", "/tasks/", 200, limit=20)
        await self.stopwatch.time("health", "GET", "/health", 200)

    async def send_in_bulk(self) -> None:
        """Many tasks in one call, then one that is critical: it does not wait for the others."""
        texts = guest_book(self.bulk)
        tasks = [work("bulk", "text_processing", {"text": text, "operations": BULK_OPERATIONS}) for text in texts]
        began = time.perf_counter()
        self.kinds["bulk"].ids = [handle.id for handle in await self.client.submit_many(tasks)]
        took = (time.perf_counter() - began) * 1000
        self.tell(f"{self.bulk:,} tasks in one call, on disk after {took:.0f} ms")
        waiting = (await self.client.stats()).ready
        payload = {"text": LETTERS[2], "operations": OPERATIONS}
        task = await self.submit_and_follow("urgent", "text_processing", payload, priority="critical")
        late = milliseconds(task.created_at, task.started_at)
        self.tell(f"a critical task overtook {waiting:,} that waited: started after {late:.0f} ms")

    # Single tasks

    async def submit(self, kind: str, task_type: str, payload: dict[str, Any], **more: Any) -> AsyncTaskHandle:
        """Submit a task whose queue is its kind."""
        handle = await self.client.submit(task_type, payload, queue=kind, **more)
        self.kinds[kind].ids.append(handle.id)
        return handle

    async def submit_and_follow(self, kind: str, task_type: str, payload: dict[str, Any], **more: Any) -> Task:
        return await (await self.submit(kind, task_type, payload, **more)).wait()

    async def make_postcard(self, picture: str) -> None:
        """One picture that is looked at afterwards."""
        payload = {"file_id": picture, "operations": POSTCARD}
        task = await self.submit_and_follow("image_processing", "image_processing", payload)
        expect(task.completed, f"The postcard, task {task.id}, is {task.status}: {task.error}")
        self.postcard = await self.client.files.read(task.result["file_id"])

    async def misbehave(self) -> None:
        """A submission that is refused, a task that fails, one that is cancelled."""
        try:
            await self.client.submit("text_processing", {"text": ""}, queue="broken")
        except InvalidRequest as refusal:
            fault = refusal.errors[0]
            self.tell(f"a task was refused with 422: {'.'.join(map(str, fault['location']))}: {fault['message']}")
        else:
            expect(False, "A task with an empty text was not refused.")
        task = await self.submit_and_follow("broken", "image_processing", {"image_base64": BROKEN_PICTURE})
        self.kinds["broken"].failed += task.status == "failed"
        reason = task.error.message if task.error else "no reason"
        self.tell(f"task {task.id} {task.status}, as it should: {reason[:60]}")
        later = await self.submit("cancelled", "text_processing", {"text": "Not today."}, delay_seconds=3600)
        task = await later.cancel()
        self.tell(f"task {task.id} {task.status} an hour before it was due")

    # The batch and the kill

    async def run_batch(self, book: str) -> None:
        """A batch, and a bulk beside it. The batch's worker is killed, another goes on, and the killed one is started again."""
        payload = {"items_file_id": book, "concurrency": 1}
        # A lost task is ready anew when its lease is over, behind all that arrived before; a high priority takes it ahead.
        batch = await self.submit("batch_processing", "batch_processing", payload, priority="high")
        self.batch = batch.task
        await self.wait_for_checkpoint(batch)
        await self.send_in_bulk()  # so that the worker dies with its hands full
        await self.kill(batch)
        await self.wait_for_second_attempt(batch)
        self.tell(f"{self.recovery.worker} is started again")
        await self.service.start_worker(self.recovery.worker).says(r"(worker started)")
        self.batch = await batch.wait()
        self.tell(f"the batch of {self.items:,} items is {self.batch.status}")

    async def wait_for_checkpoint(self, batch: AsyncTaskHandle) -> None:
        """Until the batch is under way and has stored some of its results."""
        while True:
            task = await batch.refresh()
            expect(not task.ended, "The batch ended before its worker was killed. Give it more --items.")
            percent = (task.progress and task.progress.percent) or 0
            if percent >= KILL_AT_PERCENT and any(file.role == "temporary" for file in await batch.files()):
                return
            await asyncio.sleep(0.1)

    async def kill(self, batch: AsyncTaskHandle) -> None:
        task = await batch.refresh()
        held = [one async for one in self.client.list(status="running") if one.worker_id == task.worker_id]
        workers = {worker.id: worker.name for worker in await self.client.workers()}
        self.recovery.worker_id = task.worker_id or ""
        self.recovery.worker = workers[self.recovery.worker_id]
        self.recovery.running = len(held)
        self.service.kill_worker(self.recovery.worker)
        done = f"the batch at {task.progress.message if task.progress else None}"
        self.tell(f"kill -9 {self.recovery.worker}, which had {number_of(self.recovery.running, 'task')}, {done}")

    async def wait_for_second_attempt(self, batch: AsyncTaskHandle) -> None:
        """Until another worker has the batch and says where it goes on."""
        killed_at = self.service.killed_at[self.recovery.worker]
        limit = time.perf_counter() + PATIENCE_SECONDS
        other = next(worker for name, worker in self.service.workers.items() if name != self.recovery.worker)
        pattern = r'"items_done": ?"?(\d+)'
        while (stored := other.logged(pattern)) is None:
            task = await batch.refresh()
            expect(
                not task.ended and time.perf_counter() < limit,
                f"The batch did not go on from a checkpoint: it is {task.status}, attempt {task.attempts}.",
            )
            await asyncio.sleep(0.1)
        self.recovery.stored = int(stored)
        self.recovery.seconds = time.perf_counter() - killed_at
        lease = f"lease {LEASE_SECONDS} s, sweep {SWEEP_SECONDS} s"
        self.tell(
            f"{other.name} has the batch after {self.recovery.seconds:.1f} s ({lease}), goes on at {int(stored):,}"
        )


def number_of(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def work(kind: str, task_type: str, payload: dict[str, Any], **more: Any) -> Submission:
    """A submission whose queue is its kind."""
    submission: Any = {"task_type": task_type, "queue": kind, "payload": payload, **more}
    return submission  # type: ignore[no-any-return]  # the options are given by name


def kind_of(number: int) -> str:
    """The kind of a round: of twenty, twelve texts, four summaries, three pictures, one text for later."""
    match number % 20:
        case 3 | 8 | 13 | 18:
            return "ai_summarization"
        case 5 | 11 | 16:
            return "image_processing"
        case 19:
            return "delayed"
        case _:
            return "text_processing"


def planned_rounds(count: int, picture: str) -> Iterator[tuple[str, Submission]]:
    """`count` submissions, each with its kind."""
    letters, articles, changes = itertools.cycle(LETTERS), itertools.cycle(ARTICLES), itertools.cycle(CHANGES)
    priorities = itertools.cycle(("normal", "low", "normal", "high", 7))
    for number in range(count):
        name, priority = kind_of(number), next(priorities)
        match name:
            case "ai_summarization":
                payload: dict[str, Any] = {"text": next(articles), "sentences": 1 + number % 3}
                yield name, work(name, name, payload, priority=priority)
            case "image_processing":
                payload = {"file_id": picture, "operations": next(changes)}
                yield name, work(name, name, payload, priority=priority)
            case "delayed":
                payload = {"text": next(letters), "operations": ["language"]}
                yield name, work(name, "text_processing", payload, delay_seconds=1 + number % 3 / 2)
            case _:
                payload = {"text": next(letters), "operations": OPERATIONS}
                yield name, work(name, name, payload, priority=priority)
