"""`RunnerPool`: the worker's runners. Places claimed attempts, watches their clocks, says how each one ended."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from app.core import slots
from app.core.attempt_log import Source
from app.core.autoscale import Demand
from app.core.clock import Clock
from app.core.diagnosis import Waiting
from app.core.events import EventBus, RunnerDied, RunnersFailing, RunnerStarted
from app.core.file import StoredFile
from app.core.lifecycle import Lost, Outcome, Released
from app.core.logger import structlog
from app.core.slots import Kind, Load
from app.core.task import ClaimedTask, JsonText
from app.models.queue import Head, Lease
from app.services.executors import RunnerSetup
from app.services.queue import Ended, Wish
from app.services.registry import ExecutorRegistry
from app.workers.attempt_logs import AttemptLogs
from app.workers.frames import file_from_wire
from app.workers.oom import OomKills
from app.workers.outcomes import NOT_RENEWED, SHUTDOWN, TIME_LIMIT, outcome_of_stop, reported
from app.workers.pace import Pace
from app.workers.process import Given, RunnerProcess
from app.workers.surroundings import descendants, resident_bytes

PATIENCE_SECONDS = 1.0
"""What was claimed ahead and has not begun after this long is given back for others to run."""
OUR_LOG_NAMES = frozenset(
    (
        *("event", "level", "timestamp", "logger", "task", "type", "queue", "attempt", "worker"),
        *(
            "exc_info",
            "exception",
            "exc_text",
            "stack",
            "stack_info",
            "positional_args",
            "self",
            "args",
            "kw",
            "method_name",
        ),
    )
)
"""What a log line says by itself, or what means something to who writes it; a field of the same name gets a prefix."""
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
class PoolOptions:
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


class RunnerPool:
    """Owns the runner processes. What ended is in `ended`, the newest progress in `progress`; `wake` tells the worker."""

    def __init__(
        self,
        options: PoolOptions,
        registry: ExecutorRegistry,
        bus: EventBus,
        clock: Clock,
        worker_id: str,
        wake: Callable[[], None],
        store_checkpoint: Callable[[int, int, JsonText], Awaitable[bool]],
        keep_file: Callable[[int, int, StoredFile, bool], Awaitable[bool]],
        logs: AttemptLogs,
    ) -> None:
        self._options = options
        self._registry = registry
        self._bus = bus
        self._clock = clock
        self._worker_id = worker_id
        self._wake = wake
        self._store_checkpoint = store_checkpoint
        self._keep_file = keep_file
        self.logs = logs
        self._runners: list[RunnerProcess] = []
        self._waiting: list[Given] = []
        self._pace = Pace(self._kind)
        self.processes = options.processes
        self._background: set[asyncio.Task[None]] = set()
        self._pause_seconds = 0.0
        self._failed_starts = 0
        self._closing = False
        self._oom_kills = OomKills()
        self._log = structlog.get_logger("app.executor")
        self.ended: list[Ended] = []
        self.progress: dict[Lease, JsonText] = {}
        self.broken: str | None = None

    async def open(self) -> None:
        """Start every runner; they become ready on their own."""
        for _ in range(self.processes):
            await self._start_runner()

    async def resize(self, processes: int) -> None:
        """Have so many runners. Those that are too many take nothing more, and end when what is in them has ended."""
        self.processes = processes
        serving = self._serving
        for _ in range(processes - len(serving)):
            await self._start_runner()
        for runner in sorted(serving, key=lambda one: len(one.given))[: max(0, len(serving) - processes)]:
            runner.retiring = True
            self._end_if_done(runner)

    @property
    def capacity(self) -> int:
        """How many shared attempts its runners have room for."""
        return self.processes * self._options.setup.concurrency

    @property
    def starting(self) -> bool:
        """Whether some runner is on its way."""
        return len(self._serving) < self.processes or not all(runner.ready for runner in self._serving)

    def demand(self) -> Demand:
        """What the runners are asked for, in runners: those of shared attempts count as many as could hold them all."""
        loads = [runner.load for runner in self._runners]
        shared = math.ceil(sum(load.shared for load in loads) / self._options.setup.concurrency)
        return Demand(
            running=sum(load.plain > 0 for load in loads) + shared,
            completed_per_second=self._pace.per_second(time.monotonic()),
            mean_seconds=self._pace.mean_seconds(),
        )

    def runners_for(self, waiting: Sequence[Waiting]) -> int:
        """How many runners tasks that wait would fill."""
        plain = sum(one.ready for one in waiting if self._kind(one.task_type) == "plain")
        shared = sum(one.ready for one in waiting) - plain
        return plain + math.ceil(shared / self._options.setup.concurrency)

    async def close(self) -> None:
        """Kill what is left, at once. Attempts still inside end as released."""
        self._closing = True
        for runner in self._runners:
            for given in runner.given.values():
                given.stop_reason = given.stop_reason or SHUTDOWN
            runner.kill()
        for task in [*self._background, *(asyncio.create_task(runner.ended()) for runner in self._runners)]:
            await asyncio.gather(task, return_exceptions=True)
        self._release_waiting()

    def wishes(self, heads: Sequence[Head]) -> list[Wish]:
        """What could be claimed now, given the first waiting task of each pair by rank."""
        kinds = [self._kind(head.task_type) for head in heads]
        self._drain_one(kinds)
        room = slots.room(
            [self._load(runner) for runner in self._serving],
            kinds,
            concurrency=self._options.setup.concurrency,
            plain_ahead=self._ahead(heads, "plain"),
            shared_ahead=self._ahead(heads, "shared"),
            waiting_alone=self._waiting_alone,
        )
        wishes = []
        for kind, places in (("plain", room.plain), ("shared", room.shared)):
            pairs = tuple((head.queue, head.task_type) for head, its in zip(heads, kinds, strict=True) if its == kind)
            if pairs and places:
                wishes.append(Wish(pairs, places))
        return wishes

    @property
    def _waiting_alone(self) -> int:
        return sum(given.task.runs_alone for given in self._waiting)

    def _drain_one(self, next_kinds: Sequence[Kind]) -> None:
        serving = self._serving
        place = slots.to_drain([self._load(one) for one in serving], next_kinds, waiting_alone=self._waiting_alone)
        if place is not None:
            serving[place].draining = True

    @property
    def _serving(self) -> list[RunnerProcess]:
        """The runners that have a future: one that is about to be replaced will never have room again."""
        return [runner for runner in self._runners if not runner.retiring]

    def _load(self, runner: RunnerProcess) -> Load:
        load = runner.load
        return replace(load, reserved=True) if self._used_up(runner) else load

    def _waits_for_shared(self, runner: RunnerProcess) -> bool:
        """Whether it takes nothing more although there is room beside its last attempts, which may last for hours."""
        return self._used_up(runner) and runner.load.shared > 0

    def _used_up(self, runner: RunnerProcess) -> bool:
        """Whether it has, with what is inside, all the attempts it may have."""
        return self._rest(runner) == 0

    def _rest(self, runner: RunnerProcess) -> int | None:
        """How many more attempts it may be given; None for any number."""
        most = self._options.limits.most_tasks
        return max(0, most - runner.finished - len(runner.given)) if most else None

    @property
    def failing(self) -> bool:
        """Whether runners die again and again before they are ready."""
        return self._failed_starts >= FAILED_STARTS

    @property
    def has_room(self) -> bool:
        """False when no runner could take anything, whatever waits: then the store need not be asked."""
        room = slots.room(
            [self._load(runner) for runner in self._serving],
            ("shared", "plain"),
            concurrency=self._options.setup.concurrency,
            plain_ahead=self._pace.most_ahead("plain"),
            shared_ahead=self._pace.most_ahead("shared"),
        )
        return room.plain > 0 or room.shared > 0

    def place(self, claimed: Sequence[ClaimedTask], checkpoints: dict[int, list[JsonText]]) -> None:
        """Give claimed attempts to runners, lowest rank first; what finds no place waits here a moment."""
        now = time.monotonic()
        for task in claimed:
            stored = checkpoints.get(task.id, [])
            self._waiting.append(Given(task, self._kind(task.task_type), stored, now, checkpointed=bool(stored)))
        self._place_waiting()

    def leases(self) -> list[Lease]:
        """Every lease that must be kept alive: running, waiting here, or ended and not yet settled."""
        return [
            *(given.key for given in self._all_given()),
            *(given.key for given in self._waiting),
            *((one.task.id, one.task.lease) for one in self.ended),
        ]

    @property
    def busy(self) -> bool:
        """Whether there is any lease to keep alive."""
        return bool(self._waiting or self.ended) or any(runner.given for runner in self._runners)

    def running(self) -> list[Given]:
        """What is in the runners now."""
        return list(self._all_given())

    def reports(self) -> list[RunnerReport]:
        """Every runner that lives, and what it uses now; none where the system does not say."""
        found = []
        for runner in self._runners:
            if processes := descendants(runner.pid):
                memory = sum(map(resident_bytes, processes))
                begun = tuple(given.task.id for given in runner.given.values() if given.began is not None)
                found.append(RunnerReport(processes[0], memory, begun[:MOST_SHOWN]))
        return found

    def stop(self, leases: set[Lease], reason: str) -> None:
        """Ask these attempts to end; those that do not within the grace are killed. A lost one reports nothing."""
        kill_at = time.monotonic() + self._options.stop_grace_seconds
        for runner in self._runners:
            runner.stop([given for key, given in runner.given.items() if key in leases], reason, kill_at)
        for given in [given for given in self._waiting if given.key in leases]:
            self._waiting.remove(given)
            given.stop_reason = reason
            self._end(given, outcome_of_stop(given), self._clock())

    def abandon(self, leases: set[Lease]) -> None:
        """Kill the runners of these attempts now: others may have the tasks any moment. They end as released, which the
        store refuses if somebody has them already."""
        for runner in self._runners:
            for key, given in runner.given.items():
                if key in leases:
                    given.stop_reason = NOT_RENEWED
                    runner.kill(given)
        self._release_waiting(lambda given: given.key in leases)

    def give_back_unstarted(self) -> None:
        """Hand back everything that has not begun."""
        for runner in self._runners:
            runner.recall()
        self._release_waiting()

    def tick(self) -> None:
        """Look at the clocks: time limits, graces, attempts that wait behind something slow."""
        now = time.monotonic()
        for runner in list(self._runners):
            self._enforce(runner, now)
            if self._waits_for_shared(runner):
                self._retire_if_worn(runner, 0, False)
            if any(given.began is None and now - given.given_at > PATIENCE_SECONDS for given in runner.given.values()):
                runner.recall()
        self._place_waiting()
        self._release_waiting(lambda given: not given.task.runs_alone and now - given.given_at > PATIENCE_SECONDS)

    # What runners say.

    def heard(self, runner: RunnerProcess, message: dict[str, Any]) -> None:
        self._heard_of_itself(runner, message)
        self._heard_of_attempts(runner, message)
        if "done" in message or "returned" in message:
            self._heard_of_ends(runner, message)
            self._place_waiting()
            self._wake()

    def _heard_of_itself(self, runner: RunnerProcess, message: dict[str, Any]) -> None:
        if "ready" in message:
            runner.ready, self._pause_seconds, self._failed_starts = True, 0.0, 0
            self._bus.publish(RunnerStarted(self._worker_id, runner.pid))
            self._wake()
        if "broken" in message:
            self.broken = message["broken"]
            self._wake()

    def _heard_of_attempts(self, runner: RunnerProcess, message: dict[str, Any]) -> None:
        now = time.monotonic()
        for id_, lease, ago in message.get("running", ()):
            if given := runner.given.get((id_, lease)):
                given.began = now - ago
        for id_, lease, text in message.get("progress", ()):
            if given := runner.given.get((id_, lease)):
                given.progress = self.progress[id_, lease] = JsonText(text)
        for id_, lease, text, fields in message.get("log", ()):
            self._log_line(id_, runner.given.get((id_, lease)), text, fields)
        for number, id_, lease, data in message.get("checkpoint", ()):
            self._in_background(self._checkpoint(runner, number, id_, lease, JsonText(data)))
        for number, id_, lease, file, temporary in message.get("file", ()):
            self._in_background(self._keep(runner, number, id_, lease, file_from_wire(file), temporary))

    def _log_line(self, task_id: int, given: Given | None, text: str, fields: dict[str, Any]) -> None:
        task = given.task if given else None
        where = {"type": task.task_type, "queue": task.queue, "attempt": task.attempt} if task else {}
        self._log.info(text, task=task_id, **where, worker=self._worker_id, **_own_names(fields))
        if given:
            self.logs.add(given, Source.LOG, text, fields)

    def _heard_of_ends(self, runner: RunnerProcess, message: dict[str, Any]) -> None:
        out_of_memory = False
        now = self._clock()
        for id_, lease, seconds, *words in message.get("done", ()):
            if given := runner.take((id_, lease)):
                runner.finished += 1
                self._pace.learn(given.task, seconds)
                self._end(given, reported(given, words), now, seconds)
                out_of_memory = out_of_memory or words[:2] == ["error", "MemoryError"]
        for id_, lease in message.get("returned", ()):
            if given := runner.take((id_, lease)):
                self._end(given, Released("it had not begun"), now)
        if "done" in message:
            self._retire_if_worn(runner, message.get("memory", 0), out_of_memory)
        if "returned" in message:
            self._end_if_done(runner)

    def gone(self, runner: RunnerProcess, evidence: str) -> None:
        inside = runner.take_all()
        self._runners.remove(runner)
        expected = self._closing or runner.guilty is not None or (runner.retiring and not inside)
        if not (runner.ready or runner.retiring or self._closing):
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                self._bus.publish(RunnersFailing(self._worker_id, evidence))
        if not expected:
            self._bus.publish(RunnerDied(self._worker_id, runner.pid, evidence, len(inside)))
        for given in inside:
            outcome = self._outcome_of_death(runner, given, evidence, alone=len(inside) == 1)
            self._end(given, outcome, self._clock())
        if not self._closing and not runner.retiring:  # else its successor is there, or on its way
            self._in_background(self._replace(runner))
        self._wake()

    def _outcome_of_death(self, runner: RunnerProcess, given: Given, evidence: str, *, alone: bool) -> Outcome | None:
        if given.stop_reason is not None:
            return outcome_of_stop(given)
        if runner.guilty is not None:
            return Released("another attempt in its runner had to be killed")
        if alone:
            return Lost(evidence)
        # Which of them did it is not known: each runs alone next time, and only then is a death charged.
        return Released(f"{evidence} with several attempts inside", runs_alone=True)

    async def _checkpoint(self, runner: RunnerProcess, number: int, id_: int, lease: int, data: JsonText) -> None:
        if given := runner.given.get((id_, lease)):
            given.checkpointed = True
        runner.acknowledge(number, await self._store_checkpoint(id_, lease, data))

    async def _keep(
        self, runner: RunnerProcess, number: int, id_: int, lease: int, file: StoredFile, temporary: bool
    ) -> None:
        if given := runner.given.get((id_, lease)):
            given.saved_files = True
        runner.acknowledge(number, await self._keep_file(id_, lease, file, temporary))

    # Placing.

    def _place_waiting(self) -> None:
        if not self._waiting:
            return
        serving = self._serving
        chosen = slots.places(
            [runner.load for runner in serving],
            [slots.Waiting(given.kind, given.task.runs_alone) for given in self._waiting],
            concurrency=self._options.setup.concurrency,
            rooms=[self._rest(runner) for runner in serving],
        )
        batches: list[list[Given]] = [[] for _ in serving]
        waiting: list[Given] = []
        for given, place in zip(self._waiting, chosen, strict=True):
            (waiting if place is None else batches[place]).append(given)
        self._waiting = waiting
        for runner, batch in zip(serving, batches, strict=True):
            if batch:
                runner.give(batch)

    def _release_waiting(self, which: Callable[[Given], bool] = lambda _: True) -> None:
        for given in [given for given in self._waiting if which(given)]:
            self._waiting.remove(given)
            self._end(given, Released("no runner was free"), self._clock())

    # Clocks.

    def _enforce(self, runner: RunnerProcess, now: float) -> None:
        for given in list(runner.given.values()):
            if given.kill_at is not None and now >= given.kill_at:
                if given.began is None:  # it only waits there; whoever runs before it is not to blame
                    runner.recall()
                    continue
                runner.kill(given)
                return
            if given.began is not None and now - given.began >= given.task.timeout_seconds:
                runner.stop([given], TIME_LIMIT, now + self._options.stop_grace_seconds)

    def _kind(self, task_type: str) -> Kind:
        return "shared" if self._registry[task_type].shares_runner else "plain"

    def _ahead(self, heads: Sequence[Head], kind: Kind) -> int:
        return self._pace.ahead([head.task_type for head in heads if self._kind(head.task_type) == kind])

    # Ends and beginnings.

    def _end(self, given: Given, outcome: Outcome | None, now: datetime, seconds: float | None = None) -> None:
        if given.progress is not None:
            self.progress.pop(given.key, None)  # its last word goes with its end
        if outcome is None:  # the lease is lost: nothing we say about it counts
            return
        started_at = now - timedelta(seconds=seconds) if seconds else now
        self.ended.append(
            Ended(given.task, outcome, started_at, seconds, given.progress, given.checkpointed, given.saved_files)
        )

    def _all_given(self) -> Iterator[Given]:
        for runner in self._runners:
            yield from runner.given.values()

    async def _start_runner(self) -> None:
        redact, keep = self._options.redact, self.logs.add
        runner = RunnerProcess(self, oom_kills=self._oom_kills, redact=redact, keep=keep)
        self._runners.append(runner)
        try:
            await runner.start(self._options.setup, self._options.limits.memory_bytes, self._options.start_seconds)
        except OSError:
            self._runners.remove(runner)
            raise

    async def _replace(self, dead: RunnerProcess) -> None:
        # One that dies as soon as it starts would otherwise be started again for ever, at full speed.
        if not dead.ready or time.monotonic() - dead.started_at < QUICK_DEATH_SECONDS:
            await self._pause()
        await self._start_another()

    def _retire_if_worn(self, runner: RunnerProcess, memory_bytes: int, out_of_memory: bool) -> None:
        limits = self._options.limits
        if out_of_memory:
            reason = "an attempt ran out of memory"
        elif 0 < limits.most_memory_bytes < memory_bytes:
            reason = f"{memory_bytes} bytes in use"
        elif 0 < limits.most_tasks <= runner.finished or self._waits_for_shared(runner):
            reason = f"{runner.finished} attempts"
        else:
            reason = None
        # What is still in runners that retire runs beside what their successors take: no more of it than is in all others.
        crowded = len(self._runners) - len(self._serving) >= self.processes
        if reason and not (runner.retiring or crowded or self._closing):
            runner.retiring = True
            runner.recall()  # others can take what has not begun
            structlog.get_logger("app.runner").info("runner replaced", pid=runner.pid, reason=reason)
            self._in_background(self._start_another())
        self._end_if_done(runner)

    def _end_if_done(self, runner: RunnerProcess) -> None:
        if runner.retiring and not runner.given:
            runner.kill()

    async def _start_another(self) -> None:
        while not self._closing:
            try:
                await self._start_runner()
                return
            except OSError as error:  # no memory or no process to be had just now
                structlog.get_logger("app.runner").warning("a runner cannot be started now", reason=str(error))
                await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self._pause_seconds)
        self._pause_seconds = min(LONGEST_PAUSE_SECONDS, max(0.1, 2 * self._pause_seconds))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _own_names(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of `context.log` under names that no part of a log line has."""
    return {f"field_{name}" if name in OUR_LOG_NAMES or name[:1] == "_" else name: fields[name] for name in fields}
