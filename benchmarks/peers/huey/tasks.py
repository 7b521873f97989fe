"""Huey, on Redis where REDIS_URL is set, on a SQLite file otherwise."""

import os

from huey import RedisHuey, SqliteHuey

from benchmarks.recorder import record

if "REDIS_URL" in os.environ:
    huey = RedisHuey("bench", url=os.environ["REDIS_URL"])
else:
    # WAL is its default; fsync=True makes synchronous=FULL certain, as this project has it.
    huey = SqliteHuey("bench", filename=os.environ["SQLITE_FILE"], fsync=True)


@huey.task()
def no_op(number):
    return record(number)


def enqueue(number):
    return no_op(number).id


def result(task_id):
    return huey.result(task_id, preserve=True)
