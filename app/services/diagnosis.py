"""Looks at the store, the disk and the workers, and says what is wrong with them. `core/diagnosis` judges what was seen."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.core import diagnosis as core
from app.core.breaker import BreakerState
from app.core.diagnosis import Finding
from app.core.errors import BrokerUnavailable, StoreError
from app.core.settings import Settings
from app.models import checks, migrate, stats
from app.models import dead_letters as dead_rows
from app.models.database import Database
from app.models.dead_letters import DeadFilter
from app.services.breakers import Breakers
from app.services.insights import Insights, hand
from app.services.wakeup import open_streams

Look = Callable[[], Awaitable[list[Finding]]]


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, in order, and what was found."""

    checked: list[str]
    findings: list[Finding]


class PlaceDiagnosis:
    """Examines what a service stands on, whether or not it runs: library or server, disk, database, schema.

    It migrates nothing and makes nothing; it writes what readiness writes, to see that it can.
    """

    def __init__(self, database: Database, settings: Settings, insights: Insights) -> None:
        self._database = database
        self._settings = settings
        self._insights = insights

    async def examine(self) -> Report:
        """What is wrong with the place."""
        return await _looked(self.looks())

    def looks(self) -> Mapping[str, Look]:
        """What there is to look at, in order."""
        first = {"sqlite": self._library} if self._database.path is not None else {"postgresql": self._server}
        broker = {"broker": self._broker} if self._settings.broker_url.get_secret_value() else {}
        return {**first, **broker, "disk": self._disk, "schema": self._schema, "store": self._store}

    async def _library(self) -> list[Finding]:
        about = self._database.about()
        found = core.unsafe_library(about["sqlite"], safe="sqlite_warning" not in about)
        return [found] if found else []

    async def _server(self) -> list[Finding]:
        await self._database.find()
        about = self._database.about()
        found = core.unsafe_server(about["postgresql"], safe="postgresql_warning" not in about)
        return [found] if found else []

    async def _broker(self) -> list[Finding]:
        streams = open_streams(self._settings)
        assert streams is not None
        try:
            await streams.announce([])  # a server whose memory is full answers, and takes nothing
            found = core.forgetful_broker(streams.name, await streams.eviction())
        except BrokerUnavailable as error:
            found = core.broker_unavailable(streams.name, str(error))
        finally:
            await streams.close()
        return [found] if found else []

    async def _disk(self) -> list[Finding]:
        path = self._database.path
        folders = (*([path.parent] if path is not None else []), *self._folder_of_files())
        found = await asyncio.to_thread(
            lambda: {_device(path): (path, _free_bytes(path)) for path in reversed(folders)}
        )
        return [one for path, free in found.values() if (one := core.little_room(str(path), free)) is not None]

    def _folder_of_files(self) -> list[Path]:
        return [] if self._settings.files_url else [self._settings.files_dir]

    async def _schema(self) -> list[Finding]:
        if self._database.path is not None and not self._database.path.exists():
            return [core.no_database(str(self._database.path))]
        async with self._database.read() as connection:
            version = await checks.schema_version(connection)
        found = core.schema_differs(version, migrate.HEAD)
        return [found] if found else []

    async def _store(self) -> list[Finding]:
        await self._insights.store_answers()
        return []


class Diagnosis:
    """Examines a running service: the place, and then who works, what waits and what failed."""

    def __init__(self, database: Database, settings: Settings, insights: Insights, breakers: Breakers) -> None:
        self._database = database
        self._insights = insights
        self._breakers = breakers
        self._place = PlaceDiagnosis(database, settings, insights)
        self._clock = database.clock()

    async def examine(self) -> Report:
        """What is wrong. A store that cannot be asked ends it early, and is a finding."""
        mine = {"workers": self._workers, "failures": self._failures, "breakers": self._open_breakers}
        return await _looked({**self._place.looks(), **mine})

    async def _workers(self) -> list[Finding]:
        now = self._clock()
        async with self._database.read() as connection:
            waiting = await stats.ready_pairs(connection, now)
        hands = [hand(worker) for worker in await self._insights.workers()]
        return [*core.idle_hands(hands, waiting), *core.strange_clocks(hands, now)]

    async def _failures(self) -> list[Finding]:
        async with self._database.read() as connection:
            dead_letters = await dead_rows.count(connection, DeadFilter())
        totals = await self._insights.stats()
        return core.failing(dead_letters, totals.failed_last_hour, totals.completed_last_hour)

    async def _open_breakers(self) -> list[Finding]:
        return [
            core.held_back(one.circuit.name, one.circuit.reason, one.waiting, one.circuit.open_until)
            for one in await self._breakers.listed()
            if one.state is BreakerState.OPEN
        ]


async def _looked(looks: Mapping[str, Look]) -> Report:
    """Look at one after the other, until nothing more can be seen."""
    report = Report([], [])
    for name, look in looks.items():
        report.checked.append(name)
        try:
            report.findings.extend(await look())
        except StoreError as error:
            report.findings.append(core.store_unavailable(str(error)))
        if any(one.code in core.BLINDING for one in report.findings):
            break
    return report


def _device(path: Path) -> int:
    return os.stat(_nearest(path)).st_dev


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(_nearest(path)).free


def _nearest(path: Path) -> Path:
    """The path itself, or the first folder above it that is there."""
    return next(one for one in (path.resolve(), *path.resolve().parents) if one.exists())
