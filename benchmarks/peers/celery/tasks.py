"""Celery on Redis, results in Redis."""

import os

from celery import Celery

from benchmarks.recorder import record

app = Celery("tasks", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    # "If you have many tasks with a short duration ...: 64 or 128" (User Guide, Optimizing, Prefetch Limits). Default 4.
    worker_prefetch_multiplier=64,
    # Nothing here asks who works: without them a worker says less to the others.
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def no_op(number):
    return record(number)


def enqueue(number):
    return no_op.delay(number).id


def result(task_id):
    return app.AsyncResult(task_id).result
