"""The child process that runs user code. Forked by its guard (`guard.py`), which the worker starts.

The main thread does nothing but run executors: a plain one has it to itself; `async def` ones share an event loop on
it. A second thread, the wire, talks to the worker, so that stop requests, progress and finished work go through while
user code computes. Whatever happens here can only cost the attempts inside.

What follows an outcome in `done`: completed, result as JSON text · error, type, message, traceback, retryable, after
seconds or null, dependency that is down or null · snoozed, seconds, message · cancelled, message · stopped, reason.
"""

import asyncio
import contextlib
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from app.core.errors import PluginError, SettingsError, StoreUnavailable
from app.core.garbage import keep_what_is_loaded
from app.core.secrets import Redactor, redactor_of
from app.core.settings import load_settings
from app.core.trace import trace_of
from app.services.executors import Cancel, Context, DependencyDown, Fail, Retry, RunnerSetup, Snooze, StopRequested
from app.services.file_address import open_file_store
from app.services.registry import ExecutorRegistry, load_executors
from app.workers.frames import FrameBuffer, encode
from app.workers.guard import OUT_OF_MEMORY_STATUS
from app.workers.output import MarkedLines, mark_output, speaker
from app.workers.results import PayloadRefused, Unstorable, described, redacted_beginning, result_text, storable
from app.workers.surroundings import Surroundings
from app.workers.wire import Job, JobReports, Wire

TICK_SECONDS = 0.02
"""How often the wire reports while something runs: bounds how late progress and a start are known."""


class Runner:
    """Runs jobs on the main thread until the worker hangs up."""

    def __init__(self, connection: socket.socket, output: Sequence[MarkedLines]) -> None:
        self.wire = Wire(connection)
        self._output = output
        self._surroundings = Surroundings()
        self._setup = RunnerSetup()
        self._redact = Redactor()
        self._files = open_file_store(self._setup.files_place)
        self._registry = ExecutorRegistry({})
        self._inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._held: deque[Job] = deque()
        self._set_aside: deque[Job] = deque()
        self._jobs: dict[tuple[int, int], Job] = {}
        self._active: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    # On the main thread.

    def serve(self) -> None:
        """Run what comes, for ever; the wire ends the process when the worker is gone."""
        with asyncio.Runner() as loops:
            while True:
                job = _taken(self._set_aside.popleft) or self._inbox.get()
                if job.executor.shares_runner:
                    loops.run(self._share(job))
                else:
                    self._run_plain(job)

    def _run_plain(self, job: Job) -> None:
        self._begin(job)
        for stream in self._output:
            stream.alone = job.key
        try:
            payload = self._payload(job)
            outcome = self._completed(job.executor.function(payload, job.context))
        except BaseException as error:  # user code may raise anything, SystemExit included
            outcome = self._outcome_of(error, job)
        for stream in self._output:
            stream.alone = None
        self._end(job, outcome)
        self._surroundings.restore()
        if self._inbox.empty() or self.wire.overdue:
            self.wire.flush()

    async def _share(self, first: Job) -> None:
        """Run `async def` jobs side by side until none is left."""
        self._loop = asyncio.get_running_loop()
        self._held.append(first)
        self._start_held()
        while self._active:
            await asyncio.wait(self._active, return_when=asyncio.FIRST_COMPLETED)
            self._start_held()
            self.wire.flush()
        self._loop = None
        self._surroundings.restore()

    def _start_held(self) -> None:
        # The wire may take jobs back at the same moment, so looking first and taking then would not do.
        while (job := _taken(self._inbox.get_nowait)) is not None:
            # A plain one can come while the loop is only closing; it gets the thread to itself afterwards.
            (self._held if job.executor.shares_runner else self._set_aside).append(job)
        while len(self._active) < self._setup.concurrency and (job := _taken(self._held.popleft)) is not None:
            job.task = asyncio.create_task(self._run_shared(job))
            self._active.add(job.task)
            job.task.add_done_callback(self._active.discard)

    def _start_more(self) -> None:
        # A loop that is closing runs this too, but nothing that starts here: the inbox is where `serve` will look.
        if self._loop is not None:
            self._start_held()

    async def _run_shared(self, job: Job) -> None:
        speaker.set(job.key)
        self._begin(job)
        try:
            payload = self._payload(job)
            outcome = self._completed(await job.executor.function(payload, job.context))
        except BaseException as error:
            outcome = self._outcome_of(error, job)
        self._end(job, outcome)

    def _begin(self, job: Job) -> None:
        job.began = time.monotonic()
        self.wire.began(job)

    def _payload(self, job: Job) -> BaseModel:
        if job.context.cancelled:  # told to stop before it began
            raise StopRequested(str(job.context.stop_reason))
        try:
            return job.executor.payload.model_validate_json(job.payload, context={"executors": self._registry})
        except ValidationError as error:
            raise PayloadRefused(str(error)) from None

    def _end(self, job: Job, outcome: list[Any]) -> None:
        self._jobs.pop(job.key, None)
        for stream in self._output:
            stream.finish(job.key)
        self.wire.ended(job, *outcome)

    def _completed(self, value: Any) -> list[Any]:
        return ["completed", result_text(value, self._setup.max_result_bytes)]

    def _outcome_of(self, error: BaseException, job: Job) -> list[Any]:
        if job.context.cancelled and isinstance(error, (StopRequested, asyncio.CancelledError)):
            return ["stopped", job.context.stop_reason]
        match error:
            case Snooze():
                return ["snoozed", error.after, storable(redacted_beginning(str(error), self._redact.message), 500)]
            case Cancel():
                return [
                    "cancelled",
                    storable(redacted_beginning(str(error), self._redact.message), 500)
                    or "the executor cancelled the task",
                ]
            case Retry():
                return ["error", *self._described(error), True, error.after]
            case Unstorable():
                # Raised by us around the executor: a traceback would show our code, not the user's.
                kind, message, _ = self._described(error)
                return ["error", kind, message, None, False, None]
            case Fail():
                return ["error", *self._described(error), False, None]
            case StoreUnavailable():  # the folder of files, for our own calls: the executor's rules say nothing of that
                return ["error", *self._described(error), True, None]
            case DependencyDown():
                return ["error", *self._described(error), True, error.after, job.executor.dependency_down(error)]
            case _:
                dependency = job.executor.dependency_down(error)
                return ["error", *self._described(error), job.executor.retries(error), None, dependency]

    def _described(self, error: BaseException) -> tuple[str, str, str]:
        return described(error, self._redact.message)

    # On the wire's thread.

    def listen(self) -> None:
        """Read what the worker says, and report while something runs. Ends the process when the worker has gone."""
        try:
            self._listen()
        except MemoryError:
            os._exit(OUT_OF_MEMORY_STATUS)
        except BaseException:
            # The worker may be gone, and with it whoever would read this; and user code may have put anything in place of
            # `sys.stderr`.
            with contextlib.suppress(OSError, ValueError):
                traceback.print_exc(file=sys.__stderr__)
        finally:
            # Without its wire a runner is deaf; dying at once lets the worker start another.
            os._exit(1)

    def _listen(self) -> None:
        frames = FrameBuffer()
        poller = select.poll()
        poller.register(self.wire.connection, select.POLLIN)
        while True:
            if poller.poll(TICK_SECONDS * 1000 if self._jobs else None):
                chunk = self.wire.connection.recv(1 << 18)
                if not chunk:
                    os._exit(0)
                for message in frames.feed(chunk):
                    self._obey(message)
            else:
                self.wire.flush()

    def _obey(self, message: dict[str, Any]) -> None:
        if "start" in message:
            self._start(**message["start"])
        for entry in message.get("run", ()):
            self._accept(*entry)
        for id_, lease, reason in message.get("stop", ()):
            self._stop(id_, lease, reason)
        for number, stored in message.get("stored", ()):
            self.wire.acknowledge(number, stored)
        if message.get("recall"):
            self._give_back()
        loop = self._loop
        if loop is not None and "run" in message:
            loop.call_soon_threadsafe(self._start_more)

    def _start(self, **setup: Any) -> None:
        self._setup = RunnerSetup(**setup)
        self._files = open_file_store(self._setup.files_place)
        try:
            self._redact = redactor_of(load_settings())
            self._registry = load_executors(self._setup.modules)
            keep_what_is_loaded()
            self.wire.connection.sendall(encode({"ready": True}))
        except (PluginError, SettingsError) as error:
            self.wire.connection.sendall(encode({"broken": str(error)}))

    def _accept(
        self,
        id_: int,
        lease: int,
        task_type: str,
        payload: str,
        attempt: int,
        timeout_seconds: float,
        checkpoints: list[str],
        traceparent: str | None,
        tracestate: str | None,
    ) -> None:
        context = Context(
            task_id=id_,
            attempt=attempt,
            deadline=datetime.now(UTC) + timedelta(seconds=timeout_seconds),
            checkpoints=[orjson.loads(text) for text in checkpoints],
            setup=self._setup,
            trace=trace_of(traceparent, tracestate),
            reports=JobReports(self.wire, id_, lease, self._setup, self._files, self._redact),
        )
        job = Job(id_, lease, self._registry[task_type], payload, context)
        self._jobs[id_, lease] = job
        self._inbox.put(job)

    def _stop(self, id_: int, lease: int, reason: str) -> None:
        job = self._jobs.get((id_, lease))
        if job is None:
            return
        job.context.stop(reason)
        loop = self._loop
        if job.task is not None and loop is not None:
            loop.call_soon_threadsafe(job.task.cancel)

    def _give_back(self) -> None:
        for take in (self._inbox.get_nowait, self._held.popleft, self._set_aside.popleft):
            while (job := _taken(take)) is not None:
                self._jobs.pop((job.id, job.lease), None)
                self.wire.add("returned", [job.id, job.lease])
        self.wire.flush()


def _taken(take: Callable[[], Job]) -> Job | None:
    try:
        return take()
    except (queue.Empty, IndexError):
        return None


def main(descriptor: int) -> None:
    """Serve the worker at the other end of the socket `descriptor` until it hangs up."""
    # Terminals and service managers signal the whole group; only the worker decides when we end. A handler instead of
    # SIG_IGN, because programs that user code starts would inherit the ignoring.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    runner = Runner(socket.socket(fileno=descriptor), mark_output())
    threading.Thread(target=runner.listen, name="wire", daemon=True).start()
    try:
        runner.serve()
    except MemoryError:
        os._exit(OUT_OF_MEMORY_STATUS)
