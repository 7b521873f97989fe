"""RQ, results in Redis."""

import os

from redis import Redis
from rq import Queue
from rq.job import Job

from benchmarks.recorder import record

redis = Redis.from_url(os.environ["REDIS_URL"])
queue = Queue("bench", connection=redis)


def no_op(number):
    return record(number)


def enqueue(number):
    return queue.enqueue(no_op, number, result_ttl=3600).id


def enqueue_many(numbers):
    data = [Queue.prepare_data(no_op, (number,), result_ttl=3600) for number in numbers]
    return [job.id for job in queue.enqueue_many(data)]


def result(job_id):
    return Job.fetch(job_id, connection=redis).return_value()
