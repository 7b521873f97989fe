"""`Roster`: the runner processes of one worker. How many there are, and who takes the place of one that died or is worn."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.core.events import EventBus, RunnerDied, RunnersFailing, RunnerStarted
from app.core.logger import structlog
from app.services.executors import RunnerSetup
from app.workers.background import Background
from app.workers.process import RunnerProcess
from app.workers.surroundings import descendants, resident_bytes

QUICK_DEATH_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 30.0
MOST_SHOWN = 100
"""So many of the tasks in one runner are named."""
FAILED_STARTS = 3
"""So many runners in a row that died before they were ready are not bad luck any more."""


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """What one runner may use, and when it is replaced; 0 is no limit.

    memory_bytes      what the kernel gives it at most
    most_tasks        attempts after which another runner takes its place
    most_memory_bytes memory in use after an attempt above which another runner takes its place
    """

    memory_bytes: int = 0
    most_tasks: int = 0
    most_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """How many runners, how each is started, how long one has to obey, what it may use, how long it may take to load its
    executors, and what is cut out of the lines it prints."""

    processes: int
    setup: RunnerSetup
    stop_grace_seconds: float
    limits: RunnerLimits = RunnerLimits()
    start_seconds: float = 30.0
    redact: Callable[[str], str] = str


@dataclass(frozen=True, slots=True)
class RunnerReport:
    """A runner as the system sees it: its process, memory it and what it has started have in use, and whose tasks are inside."""

    pid: int
    memory_bytes: int
    task_ids: tuple[int, ...]


class Roster:
    """Keeps `processes` runners that serve, beside those that only finish what is in them. `make` makes one that is still to
    be started; whoever it reports to says here when it is `ready`, and when it is `gone`."""

    def __init__(
        self, options: RunnerOptions, bus: EventBus, worker_id: str, make: Callable[[], RunnerProcess]
    ) -> None:
        self._options = options
        self._bus = bus
        self._worker_id = worker_id
        self._make = make
        self._background = Background()
        self._closing = asyncio.Event()
        self._pause_seconds = 0.0
        self._failed_starts = 0
        self.processes = options.processes
        self.runners: list[RunnerProcess] = []

    async def open(self) -> None:
        """Start every runner; they become ready on their own."""
        for _ in range(self.processes):
            await self._start_one()

    async def resize(self, processes: int) -> None:
        """Have so many runners. Those that are too many take nothing more, and end when what is in them has ended."""
        self.processes = processes
        serving = self.serving
        for _ in range(processes - len(serving)):
            await self._start_one()
        for runner in sorted(serving, key=lambda one: len(one.given))[: max(0, len(serving) - processes)]:
            runner.retiring = True
            self.end_if_done(runner)

    async def close(self) -> None:
        """Kill what is left, at once, and start nothing more."""
        self._closing.set()
        await self._background.ended()
        for runner in self.runners:
            runner.kill()
        await asyncio.gather(*(runner.ended() for runner in list(self.runners)), return_exceptions=True)

    @property
    def closing(self) -> bool:
        return self._closing.is_set()

    @property
    def serving(self) -> list[RunnerProcess]:
        """The runners that have a future: one that is about to be replaced will never have room again."""
        return [runner for runner in self.runners if not runner.retiring]

    @property
    def capacity(self) -> int:
        """How many shared attempts there is room for."""
        return self.processes * self._options.setup.concurrency

    @property
    def starting(self) -> bool:
        """Whether some runner is on its way."""
        return len(self.serving) < self.processes or not all(runner.ready for runner in self.serving)

    @property
    def failing(self) -> bool:
        """Whether runners die again and again before they are ready."""
        return self._failed_starts >= FAILED_STARTS

    def reports(self) -> list[RunnerReport]:
        """Every runner that lives, and what it uses now; none where the system does not say."""
        found = []
        for runner in self.runners:
            if processes := descendants(runner.pid):
                memory = sum(map(resident_bytes, processes))
                begun = tuple(given.task.id for given in runner.given.values() if given.began is not None)
                found.append(RunnerReport(processes[0], memory, begun[:MOST_SHOWN]))
        return found

    # How much one may still be given.

    def rest(self, runner: RunnerProcess) -> int | None:
        """How many more attempts it may be given; None for any number."""
        most = self._options.limits.most_tasks
        return max(0, most - runner.finished - len(runner.given)) if most else None

    def used_up(self, runner: RunnerProcess) -> bool:
        """Whether it has, with what is inside, all the attempts it may have."""
        return self.rest(runner) == 0

    # What becomes of one.

    def ready(self, runner: RunnerProcess) -> None:
        """It has loaded its executors."""
        runner.ready, self._pause_seconds, self._failed_starts = True, 0.0, 0
        self._bus.publish(RunnerStarted(self._worker_id, runner.pid))

    def gone(self, runner: RunnerProcess, evidence: str, inside: int) -> None:
        """It has ended with so many attempts inside. Another takes its place, unless that was done before."""
        self.runners.remove(runner)
        expected = self.closing or runner.guilty is not None or (runner.retiring and not inside)
        if not (runner.ready or runner.retiring or self.closing):
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                self._bus.publish(RunnersFailing(self._worker_id, evidence))
        if not expected:
            self._bus.publish(RunnerDied(self._worker_id, runner.pid, evidence, inside))
        if not self.closing and not runner.retiring:
            self._background.start(self._replace(runner))

    def retire_if_used_up(self, runner: RunnerProcess) -> None:
        """Replace it if it takes nothing more although there is room beside its last attempts, which may last for hours."""
        if self.used_up(runner) and runner.load.shared > 0:
            self._retire(runner, f"{runner.finished} attempts")

    def retire_if_worn(self, runner: RunnerProcess, memory_bytes: int, *, out_of_memory: bool) -> None:
        """Replace it if it has had its attempts, uses more memory than it may, or one of its attempts found none."""
        limits = self._options.limits
        if out_of_memory:
            self._retire(runner, "an attempt ran out of memory")
        elif 0 < limits.most_memory_bytes < memory_bytes:
            self._retire(runner, f"{memory_bytes} bytes in use")
        elif 0 < limits.most_tasks <= runner.finished:
            self._retire(runner, f"{runner.finished} attempts")
        else:
            self.retire_if_used_up(runner)
        self.end_if_done(runner)

    def end_if_done(self, runner: RunnerProcess) -> None:
        """End it if it is only finishing what is in it, and has."""
        if runner.retiring and not runner.given:
            runner.kill()

    def _retire(self, runner: RunnerProcess, reason: str) -> None:
        # What is still in runners that retire runs beside what their successors take: no more of it than is in all others.
        crowded = len(self.runners) - len(self.serving) >= self.processes
        if not (runner.retiring or crowded or self.closing):
            runner.retiring = True
            runner.recall()  # others can take what has not begun
            structlog.get_logger("app.runner").info("runner replaced", pid=runner.pid, reason=reason)
            self._background.start(self._start_another())

    async def _replace(self, dead: RunnerProcess) -> None:
        # One that dies as soon as it starts would otherwise be started again for ever, at full speed.
        if not dead.ready or time.monotonic() - dead.started_at < QUICK_DEATH_SECONDS:
            await self._pause()
        await self._start_another()

    async def _start_another(self) -> None:
        while not self.closing:
            try:
                await self._start_one()
                return
            except OSError as error:  # no memory or no process to be had just now
                structlog.get_logger("app.runner").warning("a runner cannot be started now", reason=str(error))
                await self._pause()

    async def _start_one(self) -> None:
        runner = self._make()
        self.runners.append(runner)
        try:
            await runner.start(self._options.setup, self._options.limits.memory_bytes, self._options.start_seconds)
        except OSError:
            self.runners.remove(runner)
            raise

    async def _pause(self) -> None:
        """The longer the more often in a row; closing ends it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause_seconds):
                await self._closing.wait()
        self._pause_seconds = min(LONGEST_PAUSE_SECONDS, max(0.1, 2 * self._pause_seconds))
