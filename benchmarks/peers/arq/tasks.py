"""arq, results in Redis."""

import asyncio
import os

from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job

from benchmarks.recorder import record

AT_ONCE = 64
_pool = None


async def no_op(ctx, number):
    return record(number)


class WorkerSettings:
    functions = (no_op,)
    redis_settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
    # It polls; the default of 0.5 s makes every idle pick-up 0.25 s late on average and caps the rate at that of a poll.
    poll_delay = 0.01
    # Default 10. These never wait for anything, so that more at once only help to fill the pipe to Redis.
    max_jobs = 50
    log_results = False


async def pool():
    global _pool
    if _pool is None:
        _pool = await create_pool(WorkerSettings.redis_settings)
    return _pool


async def enqueue(number):
    return (await (await pool()).enqueue_job("no_op", number)).job_id


async def enqueue_many(numbers):
    """It has no call for many: so many callers at once as a busy program has."""
    given = []
    for start in range(0, len(numbers), AT_ONCE):
        given += await asyncio.gather(*(enqueue(number) for number in numbers[start : start + AT_ONCE]))
    return given


async def result(job_id):
    return await Job(job_id, await pool()).result(timeout=5)
