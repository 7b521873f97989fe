"""The one place where a process's parts are put together."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from app.core.clock import Clock
from app.core.errors import StoreUnavailable
from app.core.events import EventBus, StoreSuspect
from app.core.logs import LogSubscriber
from app.core.settings import Settings
from app.models.database import Database
from app.services.alerts import Alerts
from app.services.audit import AuditLog
from app.services.breakers import Breakers
from app.services.chores import Chores
from app.services.dead_letters import DeadLetters
from app.services.diagnosis import Diagnosis
from app.services.explain import Explainer
from app.services.files import FileService
from app.services.hints import HintSubscriber
from app.services.insights import Insights
from app.services.keys import KeyRing, Keys
from app.services.limits import QueueLimits
from app.services.metrics import Metrics
from app.services.queue import TaskQueue
from app.services.quota import Quota
from app.services.registry import ExecutorRegistry, installed_modules, load_executors
from app.services.sessions import Sessions
from app.services.settling import Settler
from app.services.submissions import Intake
from app.services.tallies import Tallies
from app.services.tasks import TaskService
from app.services.tracing import Tracing, open_tracing
from app.services.upkeep import Upkeep, every_chore
from app.services.wakeup import Wakeup, open_streams, open_wakeup
from app.services.wall_clock import WallClock
from app.services.watcher import ChangeWatcher
from app.services.webhooks import Webhooks
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
    upkeep: Upkeep
    dead_letters: DeadLetters
    breakers: Breakers
    webhooks: Webhooks
    alerts: Alerts
    audit: AuditLog
    limits: QueueLimits
    tallies: Tallies
    insights: Insights
    keys: Keys
    ring: KeyRing
    sessions: Sessions
    explainer: Explainer
    metrics: Metrics
    diagnosis: Diagnosis
    workers: WorkerBook
    watcher: ChangeWatcher
    tracing: Tracing | None


@asynccontextmanager
async def open_services(
    settings: Settings, *, clock: Clock | None = None, monotonic: Callable[[], float] = time.monotonic
) -> AsyncIterator[Services]:
    """Load the executors, open and migrate the store, connect everything; close it all at the end.

    Raises PluginError, SettingsError or StoreError, each one clear line.
    """
    modules = (*settings.all_executor_modules, *installed_modules())
    registry = load_executors(tuple(dict.fromkeys(modules)))
    database = Database(
        settings.database_url,
        durability=settings.durability,
        clock=clock,
        connections=settings.database_connections,
        reserve_bytes=settings.reserve_bytes,
    )
    async with AsyncExitStack() as closing:
        closing.push_async_callback(database.close)
        await database.open()
        bus = EventBus()
        LogSubscriber(bus)
        for name, warning in database.about().items():
            if name.endswith("_warning"):
                bus.publish(StoreSuspect(warning))
        wakeup = await _opened_wakeup(database, bus, settings)
        closing.push_async_callback(wakeup.close)
        HintSubscriber(bus, wakeup)
        services = _put_together(settings, registry, database, bus, wakeup, monotonic)
        closing.push_async_callback(_close, services)
        await services.files.ensure_usable()
        await services.limits.refresh()
        yield services


def _put_together(
    settings: Settings,
    registry: ExecutorRegistry,
    database: Database,
    bus: EventBus,
    wakeup: Wakeup,
    monotonic: Callable[[], float],
) -> Services:
    random = Random()  # noqa: S311 jitter, not secrets
    wall = WallClock(bus, database.clock(), monotonic)
    files = FileService(database, bus, settings)
    breakers = Breakers(database, bus, registry, random, settings)
    tallies = Tallies(database, bus, settings.priority_step_seconds)
    webhooks = Webhooks(database, bus, settings)
    limits = QueueLimits(database, bus, tallies)
    settler = Settler(registry, settings, random)
    queue = TaskQueue(database, bus, registry, breakers, limits, settler, settings, random)
    alerts = Alerts(database, bus, settings, limits, tallies, breakers, random)
    audit = AuditLog(database, settings)
    insights = Insights(database, settings, registry)
    quota = Quota(settings.max_waiting_per_tenant)
    tasks = TaskService(database, bus, limits, settings.priority_step_seconds, quota)
    ring = KeyRing(database, bus)
    chores = Chores(database, settler, breakers, bus, settings, wall)
    everything = every_chore(settings, chores, files, breakers, limits, tallies, alerts, audit)
    return Services(
        settings=settings,
        registry=registry,
        database=database,
        bus=bus,
        wakeup=wakeup,
        intake=Intake(registry, settings, database.clock()),
        tasks=tasks,
        files=files,
        queue=queue,
        chores=chores,
        upkeep=Upkeep(everything, bus, wall, random),
        dead_letters=DeadLetters(database, bus, limits, settings.priority_step_seconds, quota),
        breakers=breakers,
        webhooks=webhooks,
        alerts=alerts,
        audit=audit,
        limits=limits,
        tallies=tallies,
        insights=insights,
        keys=Keys(database, bus, settings.max_keys_per_tenant),
        ring=ring,
        sessions=Sessions(database, bus, ring, timedelta(seconds=settings.session_seconds)),
        explainer=Explainer(database, registry, tasks, breakers, insights, tallies),
        metrics=Metrics(database, limits, tallies, breakers, webhooks, settings),
        diagnosis=Diagnosis(database, settings, insights, breakers),
        workers=WorkerBook(database),
        watcher=ChangeWatcher(database, bus, wakeup, settings.poll_seconds),
        tracing=open_tracing(settings, database.clock()),
    )


async def _close(services: Services) -> None:
    await asyncio.sleep(0)  # what the last exchange has left to the loop to tell is told first
    await services.watcher.close()
    if services.tracing is not None:
        await services.tracing.close()
    await services.tasks.close()
    with suppress(StoreUnavailable):
        await services.tallies.write()


async def _opened_wakeup(database: Database, bus: EventBus, settings: Settings) -> Wakeup:
    own, streams = open_wakeup(database), open_streams(settings)
    if streams is None:
        return own
    from app.services.broker import BrokerWakeup

    broker = BrokerWakeup(streams, own, bus, settings.default_queue)
    await broker.open()
    return broker
