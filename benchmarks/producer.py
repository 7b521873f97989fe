"""Puts tasks into a peer's queue, from a process in the peer's own environment. Does what standard input says, a JSON array a
line, and answers with a JSON line. Nothing but the standard library and the peer's module `tasks`, which has

    enqueue(number)            put in one task; gives what `result` wants to know
    enqueue_many(numbers)      the same for many, in the quickest way the peer has; may be missing
    result(given)              the stored result of one; may be missing
    prepare()                  make the schema; may be missing

each plain or `async def`.
"""

import asyncio
import inspect
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import tasks


class Producer:
    def __init__(self) -> None:
        self._given: dict[int, Any] = {}

    async def prepare(self) -> None:
        if hasattr(tasks, "prepare"):
            await done(tasks.prepare())

    async def one_by_one(self, first: int, count: int) -> float:
        """Seconds that it took."""
        began = time.perf_counter()
        for number in range(first, first + count):
            self._given[number] = await done(tasks.enqueue(number))
        return time.perf_counter() - began

    async def many(self, first: int, count: int) -> float:
        """Seconds that it took."""
        if not hasattr(tasks, "enqueue_many"):
            return await self.one_by_one(first, count)
        numbers = range(first, first + count)
        began = time.perf_counter()
        given = await done(tasks.enqueue_many(numbers))
        took = time.perf_counter() - began
        self._given |= zip(numbers, given, strict=True)
        return took

    async def now_and_then(self, first: int, count: int) -> list[tuple[int, int]]:
        """One at a time, 20 to 40 ms apart; the number of each and the monotonic nanoseconds when it was about to be sent."""
        sent = []
        for number in range(first, first + count):
            await asyncio.sleep(random.uniform(0.02, 0.04))
            sent.append((number, time.monotonic_ns()))
            self._given[number] = await done(tasks.enqueue(number))
        return sent

    async def stored(self, numbers: list[int]) -> int | None:
        """How many of these have the right result stored; None where the peer stores none."""
        if not hasattr(tasks, "result"):
            return None
        return sum([await done(tasks.result(self._given[number])) == {"number": number} for number in numbers])


async def done(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def main() -> None:
    producer = Producer()
    while line := await asyncio.to_thread(sys.stdin.readline):
        verb, *arguments = json.loads(line)
        act: Callable[..., Any] = getattr(producer, verb)
        print(json.dumps(await act(*arguments)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
