"""`Worker`: the parent process. Claims, renews, settles and does chores; never runs user code."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import Any

from app.core.attempt_log import LogLimits
from app.core.errors import PluginError, StoreUnavailable
from app.core.events import (
    MetricsServed,
    StoreTroubled,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from app.core.file import StoredFile
from app.core.lifecycle import Completed, Errored
from app.core.retry import RetryPolicy
from app.core.secrets import redactor_of
from app.core.task import JsonText
from app.models.queue import Lease
from app.models.workers import WorkerRow
from app.services.executors import RunnerSetup
from app.services.settling import Ended
from app.services.wakeup import CANCELS
from app.services.wiring import Services
from app.workers.attempt_logs import AttemptLogs
from app.workers.metrics import WorkerMetrics
from app.workers.outcomes import CANCEL, LEASE_LOST, SHUTDOWN
from app.workers.pool import RunnerPool
from app.workers.presence import Presence
from app.workers.roster import RunnerLimits, RunnerOptions
from app.workers.scaling import Scaler

TICK_SECONDS = 0.02
"""How often the clocks of running attempts are looked at; a time limit is kept this exactly."""
PROGRESS_SECONDS = 0.1
BEAT_SECONDS = 5.0
FIRST_BEAT_SECONDS = 1.0
"""By then the runners have processes, whose number says how much it can take."""
IDLE_BEAT_SECONDS = 0.25
SELF_FENCE = 0.8
"""A worker that could not renew for this part of its lease kills what it runs, before anyone else may have it."""
MOST_SETTLED = 500
MOST_SETTLED_CHARACTERS = 4 * 2**20
RENEW_AGAIN_SECONDS = 1.0
"""After a renewal that failed: soon, because the self-fence will not wait for the next regular one."""
PATIENCE = RetryPolicy(base_seconds=0.5, ceiling_seconds=4.0)
"""The wait after each of several failures in a row to use the store: many workers must not come back together, and none
be late when the trouble is over."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What `run_worker.py` was told. `queues` empty means every queue; with `most_processes` the worker begins with
    `processes` runners, and has up to so many; without `metrics_port` no metrics are served."""

    name: str
    queues: tuple[str, ...]
    processes: int
    concurrency: int
    most_processes: int | None = None
    metrics_port: int | None = None


class Worker:
    """One worker process: `run()` works until `stop()` and returns when everything is settled or released."""

    def __init__(self, services: Services, options: WorkerOptions) -> None:
        self._services = services
        self._options = options
        self._settings = services.settings
        self._queue = services.queue
        self._look = asyncio.Event()
        self._busy = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._renewed_at: dict[Lease, float] = {}
        self._next_due_at: datetime | None = None
        self._failures = 0
        self._random = Random()  # noqa: S311 jitter, not secrets
        self.metrics_port: int | None = None
        """Where metrics are served, once they are."""

    def stop(self) -> None:
        """Stop claiming and let tasks finish for the grace time; called again: at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()
        self._look.set()

    async def run(self) -> None:
        """Work until told to stop. Raises PluginError if the runners cannot load the executors."""
        row = await self._services.workers.sign_in(
            self._options.name,
            self._options.queues,
            tuple(self._services.registry),
            self._options.processes * self._options.concurrency,
        )
        self._pool = self._make_pool(row)
        self._presence = Presence(self._services.workers, self._pool, row, self._stopping.is_set)
        self._ear = self._services.wakeup.listen_for_work(self._options.queues)
        self._publish_start(row)
        try:
            async with self._measured():
                await self._pool.roster.open()
                await self._beside(self._helpers(row), self._live(row))
        finally:
            await self._ear.close()
            await self._pool.close()
            await self._settle_the_rest(row)
            self._services.bus.publish(WorkerStopped(row.id))

    @asynccontextmanager
    async def _measured(self) -> AsyncIterator[None]:
        """Serve metrics, if that is wanted."""
        port = self._options.metrics_port
        if port is None:
            yield
            return
        metrics = WorkerMetrics(self._services.bus, self._options.processes * self._options.concurrency)
        metrics.watch(lambda: len(self._pool.running()))
        host = self._settings.metrics_host
        server, self.metrics_port = metrics.serve(host, port)
        self._services.bus.publish(MetricsServed(host, self.metrics_port))
        try:
            yield
        finally:
            await asyncio.to_thread(server.shutdown)
            server.server_close()

    async def _live(self, row: WorkerRow) -> None:
        await self._work(row)
        await self._wind_down(row)

    async def _beside(self, helpers: Sequence[Coroutine[Any, Any, None]], main: Coroutine[Any, Any, None]) -> None:
        """Run `main` with its helpers beside it. A helper that fails ends everything: half a worker is worse than none."""
        tasks = [asyncio.create_task(work) for work in (main, *helpers)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _make_pool(self, row: WorkerRow) -> RunnerPool:
        settings = self._settings
        setup = RunnerSetup(
            self._services.registry.modules,
            self._options.concurrency,
            settings.max_result_bytes,
            settings.max_output_bytes,
            settings.files_place,
            settings.timeout_seconds,
            settings.stop_grace_seconds,
        )
        limits = RunnerLimits(settings.runner_memory_bytes, settings.runner_max_tasks, settings.runner_max_memory_bytes)
        options = RunnerOptions(
            self._options.processes,
            setup,
            settings.stop_grace_seconds,
            limits,
            settings.runner_start_seconds,
            redactor_of(settings),
        )
        services = self._services
        clock = services.database.clock()
        kept = LogLimits(settings.attempt_log_lines, settings.attempt_log_bytes)
        return RunnerPool(
            *(options, services.registry, services.bus, clock, row.id),
            wake=self._look.set,
            store_checkpoint=self._store_checkpoint,
            keep_file=self._keep_file,
            logs=AttemptLogs(kept, clock, options.redact, stir=self._busy.set),
        )

    def _publish_start(self, row: WorkerRow) -> None:
        options, database = self._options, self._services.database.whole_name
        self._services.bus.publish(
            WorkerStarted(
                row.id, row.name, row.queues, row.task_types, options.processes, options.concurrency, database
            )
        )

    def _helpers(self, row: WorkerRow) -> list[Coroutine[Any, Any, None]]:
        return [
            self._services.upkeep.run(self._ear.rest),
            self._listen(),
            self._listen_for_cancels(),
            self._while_busy(TICK_SECONDS, self._tick),
            self._while_busy(PROGRESS_SECONDS, self._save_progress),
            self._keep_renewing(),
            self._every(BEAT_SECONDS, self._presence.beat, first=FIRST_BEAT_SECONDS),
            self._while_busy(IDLE_BEAT_SECONDS, self._presence.beat_when_idle),
            *self._scaling(row),
        ]

    def _scaling(self, row: WorkerRow) -> list[Coroutine[Any, Any, None]]:
        most = self._options.most_processes
        return [] if most is None else [Scaler(self._services, self._pool, row, most, resized=self._look.set).run()]

    # The loop.

    async def _work(self, row: WorkerRow) -> None:
        """Settle what ended and claim what may start, in one transaction, whenever there is reason to."""
        while not self._stopping.is_set():
            self._look.clear()
            if self._pool.broken:
                raise PluginError(self._pool.broken)
            more = await self._exchange(row)
            self._ear.asks(self._pool.has_room)
            if not more:
                await self._wait_for_a_change(self._seconds_to_next_due())

    def _seconds_to_next_due(self) -> float:
        if self._next_due_at is None:
            return 3600.0
        return max(0.001, (self._next_due_at - self._services.database.clock()()).total_seconds())

    async def _exchange(self, row: WorkerRow) -> bool:
        """One exchange with the store. True if there is reason for another one at once."""
        ended = self._next_ended()
        choose = self._pool.wishes if self._pool.has_room else None
        if not ended and choose is None:
            self._next_due_at = None  # whatever is due, nobody could take it; a runner that is free wakes us
            return False
        if ended and self._pool.logs.waiting:
            await self._tried(self._save_progress)  # who sees the end of a task shall see what it said
        asked_at = time.monotonic()
        heard = self._ear.heard() if choose else ()
        try:
            exchange = await self._queue.exchange(row.id, ended, choose, self._options.queues)
        except StoreUnavailable as error:
            await self._endure_once_more("claim and settle", error)
            return True
        except Exception:
            if not ended:
                raise
            await self._settle_one_by_one(row, ended)
            return True
        self._failures = 0
        self._forget(ended)
        self._next_due_at = exchange.next_due_at
        for task in exchange.claimed:
            self._renewed_at[task.id, task.lease] = asked_at
        tracing = self._services.tracing
        claimed = exchange.claimed if tracing is None else [tracing.begun(task) for task in exchange.claimed]
        self._pool.place(claimed, exchange.checkpoints)
        if heard:
            self._ear.still_to_say(heard, Counter(task.queue for task in exchange.claimed), exchange.left)
        if exchange.claimed:
            self._busy.set()
        return bool(self._pool.ended or exchange.claimed) and self._pool.runs_short

    def _next_ended(self) -> list[Ended]:
        """What to settle next: a bounded number of attempts with a bounded amount of results."""
        size = 0
        batch: list[Ended] = []
        for one in self._pool.ended[:MOST_SETTLED]:
            size += len(one.outcome.result) if isinstance(one.outcome, Completed) else 0
            if batch and size > MOST_SETTLED_CHARACTERS:
                break
            batch.append(one)
        return batch

    def _forget(self, ended: Sequence[Ended]) -> None:
        del self._pool.ended[: len(ended)]
        for one in ended:
            self._renewed_at.pop((one.task.id, one.task.lease), None)
            if self._services.tracing is not None:
                self._services.tracing.ended(one)

    async def _settle_one_by_one(self, row: WorkerRow, ended: Sequence[Ended]) -> None:
        """One outcome that no store takes must not keep the others from being settled."""
        for one in ended:
            try:
                await self._settle_one(row, one)
            except StoreUnavailable as error:
                await self._endure_once_more("settle", error)
                return
            self._failures = 0
            self._forget([one])

    async def _settle_one(self, row: WorkerRow, one: Ended) -> None:
        try:
            await self._queue.exchange(row.id, [one])
        except StoreUnavailable:
            raise
        except Exception as refused:
            message = f"the outcome could not be stored: {type(refused).__name__}"
            outcome = Errored("Unstorable", message, None, retryable=False)
            await self._queue.exchange(row.id, [replace(one, outcome=outcome)])

    async def _endure_once_more(self, what: str, error: StoreUnavailable) -> None:
        """Wait, the longer the more often the loop has failed in a row. Being told to stop ends the waiting."""
        self._failures += 1
        self._services.bus.publish(StoreTroubled(what, str(error)))
        seconds = PATIENCE.delay_seconds(self._failures, self._random)
        if self._stopping.is_set():
            await asyncio.sleep(seconds)
        else:
            await _within(seconds, self._stopping.wait())

    async def _persist(self, what: str, lease: Lease, call: Callable[[], Awaitable[bool]]) -> bool:
        """Do what the attempt with `lease` waits for, as long as it is there to wait: its time limit runs. False if the
        lease is lost."""
        failures = 0
        while True:
            try:
                return await call()
            except StoreUnavailable as error:
                failures += 1
                self._services.bus.publish(StoreTroubled(what, str(error)))
            await asyncio.sleep(PATIENCE.delay_seconds(failures, self._random))
            if all(given.key != lease for given in self._pool.running()):
                return False

    # Stopping.

    async def _wind_down(self, row: WorkerRow) -> None:
        """No new work; what runs may finish within the grace, the rest is handed back without using an attempt."""
        self._services.bus.publish(WorkerStopping(row.id, len(self._pool.running())))
        self._ear.asks(False)
        self._pool.give_back_unstarted()
        deadline = time.monotonic() + self._settings.shutdown_grace_seconds
        while (self._pool.running() or self._pool.ended) and time.monotonic() < deadline and not self._hurry.is_set():
            self._look.clear()
            await self._settle_ended(row)
            await self._wait_for_a_change(min(0.2, deadline - time.monotonic()))
        if self._pool.running() and not self._hurry.is_set():
            self._look.clear()
            self._pool.stop({given.key for given in self._pool.running()}, SHUTDOWN)
            await self._wait_for_a_change(min(0.5, self._settings.stop_grace_seconds))

    async def _wait_for_a_change(self, seconds: float) -> None:
        await _within(seconds, self._look.wait())

    async def _settle_ended(self, row: WorkerRow) -> None:
        ended = self._next_ended()
        if not (ended or self._queue.in_doubt):
            return
        try:
            await self._queue.exchange(row.id, ended)
        except StoreUnavailable as error:
            await self._endure_once_more("settle", error)
        except Exception:
            await self._settle_one_by_one(row, ended)
        else:
            self._failures = 0
            self._forget(ended)

    async def _settle_the_rest(self, row: WorkerRow) -> None:
        deadline = time.monotonic() + self._settings.lease_seconds
        await self._tried(self._save_progress)
        while (self._pool.ended or self._queue.in_doubt) and time.monotonic() < deadline:
            await self._settle_ended(row)
        try:
            await self._services.workers.sign_out(row)
        except StoreUnavailable as error:
            # What we could not say, the sweep of others will find out when the leases are over.
            self._services.bus.publish(StoreTroubled("settle before the end", str(error)))

    # Helpers that run beside the loop.

    async def _while_busy(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` every so often while there is anything to look after; an idle worker is not woken for it."""
        failures = 0
        while True:
            if not (self._pool.busy or self._presence.shows_work or self._pool.logs.waiting):
                self._busy.clear()
                await self._busy.wait()
            await asyncio.sleep(seconds + (PATIENCE.delay_seconds(failures, self._random) if failures else 0.0))
            failures = 0 if await self._tried(work) else failures + 1

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]], *, first: float) -> None:
        await asyncio.sleep(first)
        while True:
            await self._tried(work)
            await asyncio.sleep(seconds)

    async def _tried(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do `work`; False if the store could not be used."""
        try:
            await work()
        except StoreUnavailable as error:
            self._services.bus.publish(StoreTroubled(getattr(work, "__name__", "").strip("_"), str(error)))
            return False
        return True

    async def _keep_renewing(self) -> None:
        interval = self._settings.lease_seconds / 3
        renewed = True
        while True:
            again = min(RENEW_AGAIN_SECONDS, interval / 3) * self._random.uniform(0.75, 1.25)
            await asyncio.sleep(interval if renewed else again)
            renewed = await self._renewed()

    async def _renewed(self) -> bool:
        """Renew; False if the store could not be written."""
        try:
            await self._renew()
        except StoreUnavailable as error:
            self._services.bus.publish(StoreTroubled("renew", str(error)))
            return False
        return True

    async def _listen(self) -> None:
        """Look for work at every hint, and every `poll_seconds` in any case; less often while a broker says when."""
        while True:
            await self._ear.wait(self._ear.rest(self._settings.poll_seconds) * self._random.uniform(0.9, 1.1))
            self._look.set()

    async def _listen_for_cancels(self) -> None:
        """A renewal brings back who shall be cancelled, so a hint makes us renew now."""
        ear = self._services.wakeup.listen(CANCELS)
        try:
            while True:
                if await ear.wait(3600):
                    await self._renewed()
        finally:
            ear.close()

    async def _tick(self) -> None:
        self._pool.tick()
        limit = time.monotonic() - SELF_FENCE * self._settings.lease_seconds
        if min(self._renewed_at.values(), default=limit) < limit:
            late = {key for key in self._pool.leases() if self._renewed_at.get(key, limit) < limit}
            if late:
                self._pool.abandon(late)
        if self._pool.ended:
            self._look.set()

    async def _renew(self) -> None:
        leases = self._pool.leases()
        ours = set(leases)
        self._renewed_at = {key: at for key, at in self._renewed_at.items() if key in ours}
        if not leases:
            return
        asked_at = time.monotonic()  # before the statement: the lease counts from the store's now, which is later
        renewals = await self._queue.renew(leases)
        for renewal in renewals:
            self._renewed_at[renewal.id, renewal.lease] = asked_at
        self._pool.stop({(one.id, one.lease) for one in renewals if one.cancel_requested}, CANCEL)
        held = {(one.id, one.lease) for one in renewals}
        settled_meanwhile = ours - set(self._pool.leases())
        self._pool.stop(ours - held - settled_meanwhile, LEASE_LOST)

    async def _save_progress(self) -> None:
        lines = self._pool.logs.take()
        if not (self._pool.progress or lines):
            return
        newest, self._pool.progress = self._pool.progress, {}
        try:
            await self._queue.save_progress([(*key, text) for key, text in newest.items()], lines)
        except StoreUnavailable:
            self._pool.logs.give_back(lines)
            # What has ended meanwhile takes its last word along.
            unsaid = {key: text for key, text in newest.items() if key in set(self._pool.leases())}
            self._pool.progress = unsaid | self._pool.progress
            raise

    async def _store_checkpoint(self, task_id: int, lease: int, data: JsonText) -> bool:
        add = self._queue.add_checkpoint
        return await self._persist("checkpoint", (task_id, lease), lambda: add(task_id, lease, data))

    async def _keep_file(self, task_id: int, lease: int, file: StoredFile, temporary: bool) -> bool:
        keep = self._services.files.keep
        return await self._persist(
            "save a file", (task_id, lease), lambda: keep(task_id, lease, file, temporary=temporary)
        )


async def _within(seconds: float, waiting: Coroutine[Any, Any, object]) -> None:
    """Wait for `waiting`, but not longer."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await waiting
    except TimeoutError:
        return
