"""SAQ, on Redis where REDIS_URL is set, on PostgreSQL otherwise; results in the same store."""

import asyncio
import os

from saq import Queue

from benchmarks.recorder import record

AT_ONCE = 64
queue = Queue.from_url(os.environ.get("REDIS_URL") or os.environ["POSTGRES_URL"])
_connected = False


async def no_op(ctx, *, number):
    return record(number)


# PostgreSQL: it takes as many tasks in one statement as there are idle places. Redis: its default.
settings = {"queue": queue, "functions": (no_op,), "concurrency": 10 if "REDIS_URL" in os.environ else 50}


async def prepare():
    global _connected
    if not _connected:
        await queue.connect()
        _connected = True


async def enqueue(number):
    return (await queue.enqueue("no_op", number=number, ttl=3600)).key


async def enqueue_many(numbers):
    """It has no call for many that does not wait for their results: so many callers at once as a busy program has."""
    given = []
    for start in range(0, len(numbers), AT_ONCE):
        given += await asyncio.gather(*(enqueue(number) for number in numbers[start : start + AT_ONCE]))
    return given


async def result(key):
    return (await queue.job(key)).result
