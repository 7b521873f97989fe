"""taskiq on Redis Streams (the broker of its Redis package that acknowledges), results in Redis."""

import asyncio
import os

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.recorder import record

AT_ONCE = 64
URL = os.environ["REDIS_URL"]
# By default a worker reads the stream from the moment of its own start; these tasks are there before it.
broker = RedisStreamBroker(URL, consumer_id="0").with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=3600))
_started = False


@broker.task
async def no_op(number):
    return record(number)


async def enqueue(number):
    global _started
    if not _started:
        await broker.startup()
        _started = True
    return (await no_op.kiq(number)).task_id


async def enqueue_many(numbers):
    """It has no call for many: so many callers at once as a busy program has."""
    given = []
    for start in range(0, len(numbers), AT_ONCE):
        given += await asyncio.gather(*(enqueue(number) for number in numbers[start : start + AT_ONCE]))
    return given


async def result(task_id):
    return (await broker.result_backend.get_result(task_id)).return_value
