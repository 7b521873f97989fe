"""Procrastinate on PostgreSQL. It stores that a task has succeeded, not what it returned."""

import os

from procrastinate import App, PsycopgConnector

from benchmarks.recorder import record

app = App(connector=PsycopgConnector(conninfo=os.environ["POSTGRES_URL"], min_size=1, max_size=8))
_opened = False


@app.task
async def no_op(number):
    return record(number)


async def prepare():
    global _opened
    if not _opened:
        await app.open_async()
        _opened = True
    await app.schema_manager.apply_schema_async()


async def enqueue(number):
    return await no_op.defer_async(number=number)


async def enqueue_many(numbers):
    return await no_op.batch_defer_async(*({"number": number} for number in numbers))
