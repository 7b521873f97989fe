"""`Batch`: one attempt of a batch from its first item to its result. It decides; the crew runs, the results keep."""

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from app.core.lifecycle import Errored, Outcome, TimedOut
from app.core.retry import RetryPolicy
from app.services.executors import Context, Executor, Fail, StopRequested
from app.workers.batch.checkpoints import Checkpoints
from app.workers.batch.crew import Crew, Job, Try
from app.workers.batch.items import FileItems, InlineItems, Items
from app.workers.batch.payload import BatchProcessing
from app.workers.batch.results import Results
from app.workers.results import Unstorable, result_text

TICK_SECONDS = 0.05
"""How late a stop and the clocks of items are seen."""
PROGRESS_SECONDS = 0.2
CHECKED_AT_ONCE = 200
MOST_WAITING = 1000
"""Items that wait for their next try are in memory; with so many nothing new is started."""


class Batch:
    """Runs the items, stores what came of them on the way, makes the result."""

    def __init__(
        self,
        payload: BatchProcessing,
        context: Context,
        executors: Mapping[str, Executor],
    ) -> None:
        executor = executors.get(payload.task_type)
        if executor is None:
            raise Fail(f"unknown task type {payload.task_type!r}")
        self._payload = payload
        self._context = context
        self._items = _items_of(payload, context)
        self._retry = executor.retry or RetryPolicy()
        timeout_seconds = executor.timeout_seconds or context.setup.timeout_seconds
        job = Job(executor, payload.concurrency, timeout_seconds, context.setup.stop_grace_seconds)
        self._crew = Crew(job, context)
        self._random = Random()  # noqa: S311 jitter, not secrets
        self._later: list[tuple[float, int, Try]] = []
        self._order = itertools.count()
        self._said: dict[str, int] = {}
        self._said_at = 0.0

    async def run(self) -> dict[str, Any]:
        """The task's result. Raises Fail for a broken items file, and for a failed item where that stops the batch."""
        async with self._crew:
            total = await self._count()
            with contextlib.closing(Results(total, Path(self._context.setup.files_place))) as results:
                self._results = results
                self._checkpoints = Checkpoints(self._context, results)
                if found := self._checkpoints.restore():
                    self._context.log("the batch goes on", items_done=found, items=total)
                await self._work()
                self._say_progress(last=True)
                return await self._result()

    async def _count(self) -> int:
        total = 0
        for total in self._items.counted():
            self._crew.grow(total)  # the children start while the rest is checked
            if total % CHECKED_AT_ONCE == 0:
                self._raise_if_stopped()
                await asyncio.sleep(0)
        return total

    async def _work(self) -> None:
        self._fresh = self._unfinished()
        storing: asyncio.Task[None] | None = None
        try:
            while not self._over():
                self._raise_if_stopped()
                self._crew.tick()
                self._crew.feed(self._next)
                if storing is not None and storing.done():
                    await storing
                    storing = None
                if storing is None and self._checkpoints.due():
                    storing = asyncio.create_task(self._checkpoints.store())
                self._say_progress()
                await self._news()
            if storing is not None:
                await storing
        finally:
            if storing is not None:
                storing.cancel()
                await asyncio.gather(storing, return_exceptions=True)

    def _over(self) -> bool:
        """Take in what has ended, and see whether there is more to do."""
        for one, outcome in self._crew.take_ended():
            self._take_in(one, outcome)
        if self._payload.on_error == "stop" and self._results.failed:
            self._crew.finish()
            return not self._crew.running
        return self._results.ended == self._results.total

    async def _news(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS):
                await self._crew.news.wait()
        self._crew.news.clear()

    def _raise_if_stopped(self) -> None:
        if self._context.cancelled:
            raise StopRequested(str(self._context.stop_reason))

    # Items.

    def _unfinished(self) -> Iterator[Try]:
        for index, text in enumerate(self._items):
            if not self._results.has(index):
                yield Try(index, text)

    def _next(self) -> Try | None:
        """What to start now: a try that is due again, or the next item."""
        if self._later and self._later[0][0] <= time.monotonic():
            return heapq.heappop(self._later)[2]
        return next(self._fresh, None) if len(self._later) < MOST_WAITING else None

    def _take_in(self, one: Try, outcome: Outcome) -> None:
        delay = self._delay(one, outcome)
        if delay is None:
            self._results.add(one.index, outcome)
            if self._results.size > self._context.setup.max_output_bytes:
                raise Fail(f"the results are larger than {self._context.setup.max_output_bytes:,} bytes")
        else:
            again = replace(one, attempt=one.attempt + 1)
            heapq.heappush(self._later, (time.monotonic() + delay, next(self._order), again))

    def _delay(self, one: Try, outcome: Outcome) -> float | None:
        """Seconds before the next try of an item, None if there is none."""
        retryable = isinstance(outcome, TimedOut) or (isinstance(outcome, Errored) and outcome.retryable)
        if not retryable or one.attempt >= self._payload.item_attempts:
            return None
        if isinstance(outcome, Errored) and outcome.after_seconds is not None:
            return outcome.after_seconds
        return self._retry.delay_seconds(one.attempt, self._random)

    # What is said.

    def _say_progress(self, *, last: bool = False) -> None:
        """Say how far it is, if that has changed; not too often, unless it is the last word."""
        results = self._results
        data = self._counts() | {"running": min(self._crew.running, self._payload.concurrency)}
        now = time.monotonic()
        if data == self._said or (now - self._said_at < PROGRESS_SECONDS and not last):
            return
        percent = round(100 * results.ended / results.total, 1)
        self._context.progress(percent, f"{results.ended:,} of {results.total:,}", data)
        self._said, self._said_at = data, now

    def _counts(self) -> dict[str, Any]:
        return {name: getattr(self._results, name) for name in ("total", "completed", "failed")}

    async def _result(self) -> dict[str, Any]:
        if self._payload.on_error == "stop" and self._results.failed:
            raise await self._failure()
        most = self._context.setup.max_result_bytes
        if self._results.size <= most:
            result = self._counts() | {"items": self._results.items()}
            with contextlib.suppress(Unstorable):
                result_text(result, most)
                return result
        await self._checkpoints.store()  # a crash while the file is written costs no item
        errors = [{"index": index, "error": error} for index, error in self._results.first_errors]
        return self._counts() | {"results_file_id": await self._results_file(), "first_errors": errors}

    async def _failure(self) -> Fail:
        index, error = self._results.first_errors[0]
        results = self._results
        counts = (
            f"{results.completed:,} completed, {results.failed:,} failed, {results.total - results.ended:,} not run"
        )
        reason = f"item {index} failed: {error['type']}: {error['message']}"
        return Fail(f"{_short(reason)} ({counts}; results in file {await self._results_file()})")

    async def _results_file(self) -> str:
        with self._results.in_order() as lines:
            return (await self._context.save_file_async(lines, "results.jsonl", "application/jsonl")).id


def _items_of(payload: BatchProcessing, context: Context) -> Items:
    if payload.items is not None:
        return InlineItems(payload.items.payloads)
    file_id = str(payload.items_file_id)
    return FileItems(lambda: context.open_file(file_id))


def _short(text: str, longest: int = 500) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
