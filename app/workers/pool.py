"""`RunnerPool`: the attempts in a worker's runners. Places what is claimed, watches the clocks, says how each one ended."""

import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from app.core import slots
from app.core.attempt_log import Source
from app.core.autoscale import Demand
from app.core.clock import Clock
from app.core.diagnosis import Waiting
from app.core.events import EventBus
from app.core.file import StoredFile
from app.core.lifecycle import Lost, Outcome, Released
from app.core.logger import structlog
from app.core.logs import fields_of_others
from app.core.slots import Kind, Load
from app.core.task import ClaimedTask, JsonText
from app.models.queue import Head, Lease
from app.services.queue import Wish
from app.services.registry import ExecutorRegistry
from app.services.settling import Ended
from app.workers.attempt_logs import AttemptLogs
from app.workers.background import Background
from app.workers.frames import file_from_wire
from app.workers.oom import OomKills
from app.workers.outcomes import NOT_RENEWED, SHUTDOWN, TIME_LIMIT, outcome_of_stop, reported
from app.workers.pace import Pace
from app.workers.process import Given, RunnerProcess
from app.workers.roster import Roster, RunnerOptions

PATIENCE_SECONDS = 1.0
"""What was claimed ahead and has not begun after this long is given back for others to run."""


class RunnerPool:
    """What is in the runners. What ended is in `ended`, the newest progress in `progress`; `wake` tells the worker. The
    runners themselves are the `roster`'s."""

    def __init__(
        self,
        options: RunnerOptions,
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
        self._clock = clock
        self._worker_id = worker_id
        self._wake = wake
        self._store_checkpoint = store_checkpoint
        self._keep_file = keep_file
        self.logs = logs
        self._waiting: list[Given] = []
        self._pace = Pace(self._kind)
        self._background = Background()
        self._oom_kills = OomKills()
        self._log = structlog.get_logger("app.executor")
        self.roster = Roster(options, bus, worker_id, self._new_runner)
        self.ended: list[Ended] = []
        self.progress: dict[Lease, JsonText] = {}
        self.broken: str | None = None

    def demand(self) -> Demand:
        """What the runners are asked for, in runners: those of shared attempts count as many as could hold them all."""
        loads = [runner.load for runner in self.roster.runners]
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
        for given in self._all_given():
            given.stop_reason = given.stop_reason or SHUTDOWN
        await self.roster.close()
        await self._background.ended()
        self._release_waiting()

    def wishes(self, heads: Sequence[Head]) -> list[Wish]:
        """What could be claimed now, given the first waiting task of each pair by rank."""
        kinds = [self._kind(head.task_type) for head in heads]
        self._drain_one(kinds)
        room = slots.room(
            [self._load(runner) for runner in self.roster.serving],
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
        serving = self.roster.serving
        place = slots.to_drain([self._load(one) for one in serving], next_kinds, waiting_alone=self._waiting_alone)
        if place is not None:
            serving[place].draining = True

    def _load(self, runner: RunnerProcess) -> Load:
        load = runner.load
        return replace(load, reserved=True) if self.roster.used_up(runner) else load

    @property
    def has_room(self) -> bool:
        """False when no runner could take anything, whatever waits: then the store need not be asked."""
        room = slots.room(
            [self._load(runner) for runner in self.roster.serving],
            ("shared", "plain"),
            concurrency=self._options.setup.concurrency,
            plain_ahead=self._pace.most_ahead("plain"),
            shared_ahead=self._pace.most_ahead("shared"),
        )
        return room.plain > 0 or room.shared > 0

    @property
    def runs_short(self) -> bool:
        """Whether a runner has room and may soon have nothing to do. Until then nobody waits for what has ended to be settled,
        so it may gather, until the worker's next tick."""
        return slots.run_short([self._load(runner) for runner in self.roster.serving]) and self.has_room

    def place(self, claimed: Sequence[ClaimedTask], checkpoints: dict[int, list[JsonText]]) -> None:
        """Give claimed attempts to runners, lowest rank first; what finds no place waits here a moment."""
        now = time.monotonic()
        for task in claimed:
            self._pace.see(task)
            stored = checkpoints.get(task.id, [])
            expected = self._pace.expected_seconds(task.task_type)
            kind = self._kind(task.task_type)
            self._waiting.append(Given(task, kind, stored, now, checkpointed=bool(stored), expected_seconds=expected))
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
        return bool(self._waiting or self.ended) or any(runner.given for runner in self.roster.runners)

    def running(self) -> list[Given]:
        """What is in the runners now."""
        return list(self._all_given())

    def stop(self, leases: set[Lease], reason: str) -> None:
        """Ask these attempts to end; those that do not within the grace are killed. A lost one reports nothing."""
        kill_at = time.monotonic() + self._options.stop_grace_seconds
        for runner in self.roster.runners:
            runner.stop([given for key, given in runner.given.items() if key in leases], reason, kill_at)
        for given in [given for given in self._waiting if given.key in leases]:
            self._waiting.remove(given)
            given.stop_reason = reason
            self._end(given, outcome_of_stop(given), self._clock())

    def abandon(self, leases: set[Lease]) -> None:
        """Kill the runners of these attempts now: others may have the tasks any moment. They end as released, which the
        store refuses if somebody has them already."""
        for runner in self.roster.runners:
            for key, given in runner.given.items():
                if key in leases:
                    given.stop_reason = NOT_RENEWED
                    runner.kill(given)
        self._release_waiting(lambda given: given.key in leases)

    def give_back_unstarted(self) -> None:
        """Hand back everything that has not begun."""
        for runner in self.roster.runners:
            runner.recall()
        self._release_waiting()

    def tick(self) -> None:
        """Look at the clocks: time limits, graces, attempts that wait behind something slow."""
        now = time.monotonic()
        for runner in list(self.roster.runners):
            self._enforce(runner, now)
            self.roster.retire_if_used_up(runner)
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
            if self.runs_short:
                self._wake()

    def _heard_of_itself(self, runner: RunnerProcess, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.roster.ready(runner)
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
            self._background.start(self._checkpoint(runner, number, id_, lease, JsonText(data)))
        for number, id_, lease, file, temporary in message.get("file", ()):
            self._background.start(self._keep(runner, number, id_, lease, file_from_wire(file), temporary))

    def _log_line(self, task_id: int, given: Given | None, text: str, fields: dict[str, Any]) -> None:
        task = given.task if given else None
        where = {"type": task.task_type, "queue": task.queue, "attempt": task.attempt} if task else {}
        self._log.info(text, task=task_id, **where, worker=self._worker_id, **fields_of_others(fields))
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
            self.roster.retire_if_worn(runner, message.get("memory", 0), out_of_memory=out_of_memory)
        if "returned" in message:
            self.roster.end_if_done(runner)

    def gone(self, runner: RunnerProcess, evidence: str) -> None:
        inside = runner.take_all()
        self.roster.gone(runner, evidence, len(inside))
        for given in inside:
            outcome = self._outcome_of_death(runner, given, evidence, alone=len(inside) == 1)
            self._end(given, outcome, self._clock())
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
        serving = self.roster.serving
        chosen = slots.places(
            [runner.load for runner in serving],
            [slots.Waiting(given.kind, given.task.runs_alone) for given in self._waiting],
            concurrency=self._options.setup.concurrency,
            rooms=[self.roster.rest(runner) for runner in serving],
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
        for runner in self.roster.runners:
            yield from runner.given.values()

    def _new_runner(self) -> RunnerProcess:
        return RunnerProcess(self, oom_kills=self._oom_kills, redact=self._options.redact, keep=self.logs.add)
