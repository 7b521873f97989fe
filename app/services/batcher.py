"""`Batcher`: calls that arrive together are carried out together, so that one commit serves all who wait for one."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from app.core.errors import Overloaded, StoreDamaged, StoreUnavailable

Request = TypeVar("Request")
Answer = TypeVar("Answer")
_Entry = tuple[Request, asyncio.Future[Answer]]
"""What is asked, and who waits for the answer."""


def _one(_: object) -> int:
    return 1


class Batcher(Generic[Request, Answer]):
    """Collects concurrent calls, runs them as one batch, and answers each when the batch is done.

    There is no deliberate delay: while one batch runs, the next one gathers. `run` gets the requests and returns their
    answers in the same order; an answer that is an exception is raised to its caller alone. If `run` itself raises, the
    batch is run again request by request, so that one bad request, or one broken row, fails one caller; only a store that
    cannot be had fails all, those who wait for the next batch included: they have waited as long as the others.

    `size` says how much room a request takes. A batch is closed at `largest` requests or `fullest` of size; calls beyond
    `most_waiting` requests or `most_size` of size are refused.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Request]], Awaitable[Sequence[Answer | Exception]]],
        *,
        size: Callable[[Request], int] = _one,
        largest: int = 500,
        fullest: int = 8 * 2**20,
        most_waiting: int = 20_000,
        most_size: int = 64 * 2**20,
    ) -> None:
        self._run = run
        self._size = size
        self._largest, self._fullest = largest, fullest
        self._most_waiting, self._most_size = most_waiting, most_size
        self._waiting: deque[tuple[int, _Entry[Request, Answer]]] = deque()
        self._waiting_size = 0
        self._per_second: float | None = None
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, request: Request) -> Answer:
        """Have `request` carried out with the next batch. Raises Overloaded when too many wait already."""
        size = self._size(request)
        if len(self._waiting) >= self._most_waiting or self._waiting_size + size > self._most_size:
            raise Overloaded("Too many requests are waiting for the database.", self._seconds_to_drain())
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, (request, answer)))
        self._waiting_size += size
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def close(self) -> None:
        """Return when everyone who waits has been answered."""
        if self._worker is not None:
            await self._worker

    def _seconds_to_drain(self) -> float | None:
        """When those who wait now should have been served, as fast as it went of late."""
        return len(self._waiting) / self._per_second if self._per_second else None

    async def _work(self) -> None:
        while self._waiting:
            batch = self._next()
            if batch:
                began = time.monotonic()
                await self._serve(batch)
                self._learn(len(batch) / max(time.monotonic() - began, 1e-6))

    def _next(self) -> list[_Entry[Request, Answer]]:
        batch: list[_Entry[Request, Answer]] = []
        room = self._fullest
        while self._waiting and len(batch) < self._largest and (not batch or self._waiting[0][0] <= room):
            size, entry = self._waiting.popleft()
            self._waiting_size -= size
            # A caller that has gone away is not served: it was answered by nobody, so nothing was promised.
            if not entry[1].done():
                batch.append(entry)
                room -= size
        return batch

    def _learn(self, per_second: float) -> None:
        known = self._per_second
        self._per_second = per_second if known is None else 0.9 * known + 0.1 * per_second

    async def _serve(self, batch: list[_Entry[Request, Answer]], later: Sequence[_Entry[Request, Answer]] = ()) -> None:
        """Carry out `batch`; `later` is what comes after it because it was one batch with it before."""
        try:
            answers = await self._run([request for request, _ in batch])
        except Exception as error:  # whatever it was, no caller may be left waiting for ever
            if isinstance(error, StoreUnavailable) and not isinstance(error, StoreDamaged):
                for _, future in [*batch, *later, *(entry for _, entry in self._waiting)]:
                    _settle(future, error)
            elif len(batch) == 1:
                _settle(batch[0][1], error)
            else:
                for place, entry in enumerate(batch):
                    if not entry[1].done():
                        await self._serve([entry], batch[place + 1 :])
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                _settle(future, answer)


def _settle(future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
