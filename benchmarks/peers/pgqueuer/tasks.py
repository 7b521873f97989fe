"""PgQueuer on PostgreSQL. It logs that a task has succeeded, not what it returned."""

import asyncio
import os

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchmarks.recorder import record

_queries = None


async def queries():
    global _queries
    if _queries is None:
        _queries = Queries(AsyncpgDriver(await asyncpg.connect(os.environ["POSTGRES_URL"])))
    return _queries


async def prepare():
    await (await queries()).install()


async def enqueue(number):
    return (await (await queries()).enqueue("no_op", str(number).encode()))[0]


async def enqueue_many(numbers):
    payloads = [str(number).encode() for number in numbers]
    return await (await queries()).enqueue(["no_op"] * len(payloads), payloads, [0] * len(payloads))


async def work():
    """The worker, by its Python interface."""
    pgq = PgQueuer(AsyncpgDriver(await asyncpg.connect(os.environ["POSTGRES_URL"])))

    @pgq.entrypoint("no_op")
    async def no_op(job):
        record(int(job.payload))

    await pgq.run(batch_size=100)


if __name__ == "__main__":
    asyncio.run(work())
