"""The one place where a process's parts are put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from app.core.clock import Clock, system_clock
from app.core.events import EventBus
from app.core.logs import LogSubscriber
from app.core.settings import Settings
from app.models.database import Database
from app.services.breakers import Breakers
from app.services.chores import Chores
from app.services.dead_letters import DeadLetters
from app.services.executors import ExecutorRegistry, installed_modules, load_executors
from app.services.files import FileService
from app.services.hints import HintSubscriber
from app.services.insights import Insights
from app.services.queue import TaskQueue
from app.services.submissions import Intake
from app.services.tasks import TaskService
from app.services.wakeup import Wakeup, open_wakeup
from app.services.watcher import ChangeWatcher
from app.services.workers import WorkerBook


@dataclass(frozen=True, slots=True)
class Services:
    """What the API and the worker are made of."""

    settings: Settings
    registry: ExecutorRegistry
    database: Database
    bus: EventBus
    wakeup: Wakeup
    intake: Intake
    tasks: TaskService
    files: FileService
    queue: TaskQueue
    chores: Chores
    dead_letters: DeadLetters
    breakers: Breakers
    insights: Insights
    workers: WorkerBook
    watcher: ChangeWatcher


@asynccontextmanager
async def open_services(settings: Settings, *, clock: Clock = system_clock) -> AsyncIterator[Services]:
    """Load the executors, open and migrate the store, connect everything; close it all at the end.

    Raises PluginError or StoreError, each one clear line.
    """
    modules = (*settings.all_executor_modules, *installed_modules())
    registry = load_executors(tuple(dict.fromkeys(modules)))
    database = Database(settings.database_url, durability=settings.durability, clock=clock)
    try:
        await database.open()
        bus = EventBus()
        LogSubscriber(bus)
        wakeup = open_wakeup(database.path.resolve())
        HintSubscriber(bus, wakeup)
        random = Random()  # noqa: S311 jitter, not secrets
        breakers = Breakers(database, bus, registry, random)
        queue = TaskQueue(database, bus, registry, breakers, settings, random)
        files = FileService(database, bus, settings)
        services = Services(
            settings=settings,
            registry=registry,
            database=database,
            bus=bus,
            wakeup=wakeup,
            intake=Intake(registry, settings, database.clock()),
            tasks=TaskService(database, bus, settings.priority_step_seconds),
            files=files,
            queue=queue,
            chores=Chores(database, queue, files, bus, settings, random),
            dead_letters=DeadLetters(database, bus, settings.priority_step_seconds),
            breakers=breakers,
            insights=Insights(database, settings),
            workers=WorkerBook(database),
            watcher=ChangeWatcher(database, wakeup, settings.poll_seconds),
        )
        try:
            yield services
        finally:
            await services.watcher.close()
            await services.tasks.close()
            wakeup.close()
    finally:
        await database.close()
