"""Who takes part in benchmarks/peers.py, and with which settings. Each has what its documentation advises for many short tasks;
where it says nothing, what did best in a few tries here. A worker is what one command starts, told to use every core where the
command has an option for that."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.servers import POSTGRESQL, REDIS

Store = Literal["sqlite", "redis", "postgresql"]


@dataclass(frozen=True)
class Contender:
    """One row of the table. `worker` is a command of its environment; `settings` says in words what is not default, `safety`
    what is on disk when a task has been taken in, and what becomes of tasks that a killed worker had.

    many    the quickest way in that it has
    count   how many times the usual tasks: fewer for who would take minutes, more for who needs less than a second
    """

    name: str
    folder: str
    packages: tuple[str, ...]
    store: Store
    worker: tuple[str, ...]
    settings: str
    safety: str
    many: str
    environment: Mapping[str, str] = field(default_factory=dict)
    count: float = 1.0


CORES = str(os.cpu_count() or 1)
AT_ONCE = "64 callers at once"
NONE = "no other way"
CELERY = ("-A", "tasks", "worker", "--loglevel", "error", "--without-gossip", "--without-mingle", "--without-heartbeat")
# One queue and nobody who watches: gossip, mingle and heartbeat are for many workers that know of each other.

CONTENDERS = (
    Contender(
        "Huey, SQLite",
        "huey",
        ("huey",),
        "sqlite",
        # It polls when idle, at first after -d and at most every -m seconds; the defaults (0.1 and 10) make pick-up slow, these
        # cost a little idle time. More threads or processes only fight for the file: one was the fastest.
        ("huey_consumer", "tasks.huey", "-w", "1", "-n", "-d", "0.005", "-m", "0.02", "-q"),
        "1 thread, polls every 5 to 20 ms, fsync=True",
        "every task flushed to disk; deleted when taken, so lost with its worker",
        NONE,
    ),
    Contender(
        "Huey, Redis",
        "huey",
        ("huey", "redis"),
        "redis",
        ("huey_consumer", "tasks.huey", "-w", CORES, "-k", "process", "-n", "-q"),
        f"{CORES} processes",
        f"{REDIS}; popped when taken, so lost with its worker",
        NONE,
    ),
    Contender(
        "Celery, prefork",
        "celery",
        ("celery", "kombu", "redis"),
        "redis",
        ("celery", *CELERY, "-P", "prefork", "-c", CORES),
        f"{CORES} processes, prefetch multiplier 64, no gossip, mingle or heartbeat",
        f"{REDIS}; acknowledged before it runs, so lost with its worker (acks_late is off by default)",
        NONE,
    ),
    Contender(
        "Celery, threads",
        "celery",
        ("celery", "kombu", "redis"),
        "redis",
        ("celery", *CELERY, "-P", "threads", "-c", "4"),
        "4 threads, prefetch multiplier 64, no gossip, mingle or heartbeat",
        f"{REDIS}; acknowledged before it runs, so lost with its worker (acks_late is off by default)",
        NONE,
    ),
    Contender(
        "Dramatiq",
        "dramatiq",
        ("dramatiq", "redis"),
        "redis",
        # Its defaults.
        ("dramatiq", "tasks", "-p", CORES, "-t", "8", "--skip-logging"),
        f"{CORES} processes of 8 threads",
        f"{REDIS}; acknowledged after it ran, comes back when the worker's heartbeat is 60 s old",
        NONE,
    ),
    Contender(
        "RQ, in the worker",
        "rq",
        ("rq", "redis"),
        "redis",
        ("rq", "worker", "-u", "{REDIS_URL}", "-w", "rq.worker.SimpleWorker", "-q", "bench"),
        "SimpleWorker",
        f"{REDIS}; a task lost with its worker is marked failed",
        "enqueue_many",
    ),
    Contender(
        "RQ, a fork for each",
        "rq",
        ("rq", "redis"),
        "redis",
        ("rq", "worker", "-u", "{REDIS_URL}", "-q", "bench"),
        "the default worker",
        f"{REDIS}; a task lost with its worker is marked failed",
        "enqueue_many",
        count=0.05,
    ),
    Contender(
        "arq",
        "arq",
        ("arq", "redis"),
        "redis",
        ("arq", "tasks.WorkerSettings"),
        "polls every 10 ms, 50 at once",
        f"{REDIS}; stays queued until done, taken again when the killed worker's claim ends",
        AT_ONCE,
    ),
    Contender(
        "taskiq",
        "taskiq",
        ("taskiq", "taskiq-redis", "redis"),
        "redis",
        # Its default are 2 processes, 100 at once in each; it acknowledges when the result is saved.
        ("taskiq", "worker", "tasks:broker", "--workers", CORES, "--log-level", "ERROR"),
        f"{CORES} processes, 100 at once in each, Redis Streams",
        f"{REDIS}; acknowledged when the result is saved, taken again after 10 minutes",
        AT_ONCE,
    ),
    # One process: with `--workers 2`, and 10 or 50 at once in each, up to 20 of 1,000 tasks were taken and never run here.
    Contender(
        "SAQ, Redis",
        "saq",
        ("saq", "redis"),
        "redis",
        ("saq", "tasks.settings", "-q"),
        "10 at once",
        f"{REDIS}; what is stuck is swept, and runs again if it has retries",
        AT_ONCE,
    ),
    Contender(
        "SAQ, PostgreSQL",
        "saq",
        ("saq", "psycopg"),
        "postgresql",
        ("saq", "tasks.settings", "-q"),
        "50 at once",
        f"{POSTGRESQL}; what is stuck is swept, and runs again if it has retries",
        AT_ONCE,
    ),
    Contender(
        "Procrastinate",
        "procrastinate",
        ("procrastinate", "psycopg"),
        "postgresql",
        ("procrastinate", "--app", "tasks.app", "worker", "--concurrency", "10"),
        "10 at once",
        f"{POSTGRESQL}; stalled tasks must be looked for; what a task returns is not stored",
        "batch_defer",
    ),
    Contender(
        "PgQueuer",
        "pgqueuer",
        ("pgqueuer", "asyncpg"),
        "postgresql",
        ("python", "tasks.py"),
        "batches of 100",
        f"{POSTGRESQL}; taken again when its heartbeat is 30 s old; what a task returns is not stored",
        "one call for all",
        count=4.0,
    ),
)
