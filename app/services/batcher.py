"""`Batcher`: calls that arrive together are carried out together, so that one commit serves all who wait for one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from app.core.errors import StoreUnavailable

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Batcher(Generic[Request, Answer]):
    """Collects concurrent calls, runs them as one batch, and answers each when the batch is done.

    There is no deliberate delay: while one batch runs, the next one gathers. `run` gets the requests and returns their
    answers in the same order; an answer that is an exception is raised to its caller alone. If `run` itself raises, the
    batch is run again request by request, so that one bad request fails one caller; only StoreUnavailable fails all.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Request]], Awaitable[Sequence[Answer | Exception]]],
        *,
        largest: int = 500,
        most_waiting: int = 20_000,
    ) -> None:
        self._run = run
        self._largest = largest
        self._most_waiting = most_waiting
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, request: Request) -> Answer:
        """Have `request` carried out with the next batch. Raises StoreUnavailable when too many wait already."""
        if len(self._waiting) >= self._most_waiting:
            raise StoreUnavailable("Too many requests are waiting for the database.")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def close(self) -> None:
        """Return when everyone who waits has been answered."""
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        while self._waiting:
            # A caller that has gone away is not served: it was answered by nobody, so nothing was promised.
            batch = [entry for entry in self._waiting[: self._largest] if not entry[1].done()]
            del self._waiting[: self._largest]
            if batch:
                await self._serve(batch)

    async def _serve(self, batch: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._run([request for request, _ in batch])
        except StoreUnavailable as error:
            for _, future in batch:
                _settle(future, error)
        except Exception as error:  # whatever it was, no caller may be left waiting for ever
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
            for entry in batch:
                await self._serve([entry])
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
