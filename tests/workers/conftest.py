"""A real worker with real runners, inside the test's own loop, on the real clock with short times."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from app.core.settings import Settings
from app.core.task import Status, Task
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from app.workers.worker import Worker, WorkerOptions
from tests.conftest import SAMPLES, until
from tests.file_places import FilePlace


class Running:
    """A worker at work, and what a test does with it."""

    def __init__(self, services: Services, worker: Worker, work: asyncio.Task[None]) -> None:
        self.services = services
        self.worker = worker
        self.work = work

    @property
    def pool(self) -> Any:
        return self.worker._pool

    async def submit(self, task_type: str, **fields: Any) -> int:
        new = self.services.intake.prepare(Submission(task_type=task_type, **fields))
        return (await self.services.tasks.submit(new)).task.id

    async def get(self, task_id: int) -> Task:
        return await self.services.tasks.get(task_id)

    async def ended(self, task_id: int, seconds: float = 30) -> Task:
        """The task once it has ended."""

        async def look() -> Task | None:
            task = await self.get(task_id)
            return task if task.finished else None

        found: Task = await until(look, seconds)
        return found

    async def run(self, task_type: str, **fields: Any) -> Task:
        return await self.ended(await self.submit(task_type, **fields))

    async def outcomes(self, task_id: int) -> list[str | None]:
        return [one.outcome for one in await self.services.tasks.attempts(task_id)]

    async def in_status(self, task_id: int, status: Status) -> Task:
        async def look() -> Task | None:
            task = await self.get(task_id)
            return task if task.status is status else None

        found: Task = await until(look)
        return found

    async def stop(self) -> None:
        self.worker.stop()
        await self.work


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(tmp_path: Path, migrated: Path, file_place: FilePlace) -> AsyncIterator[Start]:
    """Starts a worker; every one is stopped at the end of the test."""
    shutil.copy(migrated, tmp_path / "tasks.db")
    async with AsyncExitStack() as stack:

        async def start_worker(
            processes: int = 1,
            concurrency: int = 4,
            queues: tuple[str, ...] = (),
            most_processes: int | None = None,
            metrics_port: int | None = None,
            **changes: Any,
        ) -> Running:
            values: dict[str, Any] = {
                "database_url": f"sqlite:///{tmp_path}/tasks.db",
                **file_place.settings,
                "executor_modules": (SAMPLES,),
                "stop_grace_seconds": 0.4,
                "shutdown_grace_seconds": 5,
            }
            services = await stack.enter_async_context(open_services(Settings(**values | changes)))
            options = WorkerOptions("test", queues, processes, concurrency, most_processes, metrics_port)
            worker = Worker(services, options)
            running = Running(services, worker, asyncio.create_task(worker.run()))
            stack.push_async_callback(_finish, running)
            await until(lambda: running.work.done() or hasattr(worker, "_pool"))  # it has signed in
            return running

        yield start_worker


async def _finish(running: Running) -> None:
    if not running.work.done():
        running.worker.stop()
        running.worker.stop()
    await asyncio.gather(running.work, return_exceptions=True)
