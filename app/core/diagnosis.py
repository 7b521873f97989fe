"""What is wrong with a service, and what to do about it: facts in, findings out. Looking is done elsewhere."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.core.breaker import is_of_host
from app.core.slots import Room
from app.core.workers import silent_seconds

MEBIBYTE = 2**20
LITTLE_BYTES = 1024 * MEBIBYTE
TOO_LITTLE_BYTES = 100 * MEBIBYTE
"""Free space below which a disk is nearly full, and below which it may be full within minutes."""
AHEAD_SECONDS = 2.0
"""A beat this far in the future comes from a clock that is wrong, not from one that is read a little later."""
MANY_DEAD_LETTERS = 100
FAILED_SHARE, FAILED_AT_LEAST = 0.1, 10
"""Tasks failing for good: this share of those that ended within an hour, and so many."""

BLINDING = frozenset({"no-database", "store-unavailable", "schema-behind"})
"""Findings that keep everything behind them from being seen."""


class Severity(StrEnum):
    CRITICAL = "critical"
    """Something does not work now."""
    WARNING = "warning"
    """It works, and somebody should see to it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. `code` is a word for programs, and does not change."""

    code: str
    severity: Severity
    what: str
    why: str
    what_to_do: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Ready tasks of one kind in one queue."""

    queue: str
    task_type: str
    ready: int
    oldest_ready_at: datetime


@dataclass(frozen=True, slots=True)
class Hand:
    """A live worker. No `queues` means every queue. `room`: how much more it could take, None where that is not known."""

    id: str
    queues: tuple[str, ...]
    task_types: tuple[str, ...]
    takes_work: bool
    beat_at: datetime
    room: Room | None = None

    def serves(self, queue: str) -> bool:
        return not self.queues or queue in self.queues


def store_unavailable(reason: str) -> Finding:
    return Finding(
        "store-unavailable",
        Severity.CRITICAL,
        reason,
        "Nothing can be submitted, claimed or finished. Whoever asks is told to try again.",
        "If the disk is full, make room; if the file may not be written, give it back to the user that runs the service;"
        " if another program holds it, end that.",
    )


def no_database(path: str) -> Finding:
    return Finding(
        "no-database",
        Severity.CRITICAL,
        f"There is no database at {path}.",
        "A relative DATABASE_URL counts from the folder that a program is started in: API and workers started in different"
        " folders do not see each other's tasks.",
        "Start the API or a worker, which makes it; or go to the folder they are started in.",
    )


def schema_differs(version: str, needed: str) -> Finding | None:
    """Versions of the schema, `none` where there is no table of ours. None where they are the same."""
    if version == needed:
        return None
    if version == "none" or version < needed:
        return Finding(
            "schema-behind",
            Severity.CRITICAL,
            f"The database has schema version {version}, and this program needs {needed}.",
            "Columns and tables that it asks for are not there.",
            "Start the API or a worker of this version anew: each brings the schema up to date when it starts.",
        )
    return Finding(
        "schema-ahead",
        Severity.WARNING,
        f"The database has schema version {version}, and this program knows versions up to {needed}.",
        "A newer program has migrated it. This one goes on as long as it finds what it knows, and cannot start again.",
        "Finish the upgrade: restart every API and worker process with the newer version.",
    )


def unsafe_library(version: str, *, safe: bool) -> Finding | None:
    """The SQLite library in use, and whether a write-ahead log is safe with it."""
    if safe:
        return None
    return Finding(
        "unsafe-sqlite",
        Severity.WARNING,
        f"SQLite {version} is in use.",
        "It can corrupt a write-ahead log that two processes share, so a rollback journal is used, which is slower.",
        "Install the pysqlite3 wheel, or Python with SQLite 3.51.3 or later.",
    )


def unsafe_server(version: str, *, safe: bool) -> Finding | None:
    """The PostgreSQL server in use, and whether it waits for its disk."""
    if safe:
        return None
    return Finding(
        "unsafe-postgresql",
        Severity.WARNING,
        f"PostgreSQL {version} is in use, with fsync off.",
        "A power cut may lose tasks that were acknowledged, or damage the whole database.",
        "Set fsync = on in the server's configuration and reload it.",
    )


def broker_unavailable(name: str, reason: str) -> Finding:
    return Finding(
        "broker-unavailable",
        Severity.WARNING,
        f"The broker {name} cannot be used: {reason}.",
        "Nothing is lost, but workers are woken by the store alone, and look for work by themselves more often.",
        "See that the server of BROKER_URL runs, can be reached, has memory left, and lets this user use the commands on"
        " streams whose names begin with BROKER_PREFIX.",
    )


def forgetful_broker(name: str, policy: str | None) -> Finding | None:
    """`policy`: what the broker does when its memory is full; None if it never is, or does not say."""
    if policy is None or not policy.startswith("allkeys"):
        return None
    return Finding(
        "broker-evicts",
        Severity.WARNING,
        f"The broker {name} throws streams away when its memory is full (maxmemory-policy {policy}).",
        "Hints that are thrown away cost up to five seconds each; nothing is lost.",
        "Set its maxmemory-policy to noeviction, or use a server that is no cache.",
    )


def little_room(folder: str, free_bytes: int) -> Finding | None:
    """What is free on the file system that `folder` is on."""
    if free_bytes >= LITTLE_BYTES:
        return None
    return Finding(
        "low-disk",
        Severity.CRITICAL if free_bytes < TOO_LITTLE_BYTES else Severity.WARNING,
        f"{free_bytes // MEBIBYTE:,} MiB are free where {folder} is.",
        "When the disk is full nothing can be submitted or finished; tasks that run then run again later.",
        "Make room, delete what is kept for long (RETENTION_COMPLETED_SECONDS), or move the database to a larger disk.",
    )


def idle_hands(hands: Sequence[Hand], waiting: Collection[Waiting]) -> list[Finding]:
    """Work that nobody alive will do."""
    able = [hand for hand in hands if hand.takes_work]
    ready = sum(one.ready for one in waiting)
    if not able:
        return [
            Finding(
                "no-worker",
                Severity.CRITICAL if ready else Severity.WARNING,
                f"No worker is alive, and {ready:,} {_tasks(ready)} could start now.",
                "Nothing is done until one is there.",
                "Start one: taskworker, or python run_worker.py. It must have the DATABASE_URL of the API.",
            )
        ]
    return [found for one in waiting if (found := _unserved(one, able)) is not None]


def _unserved(waiting: Waiting, able: Sequence[Hand]) -> Finding | None:
    serving = [hand for hand in able if hand.serves(waiting.queue)]
    if any(waiting.task_type in hand.task_types for hand in serving):
        return None
    what = (
        f"{waiting.ready:,} {_tasks(waiting.ready)} of type {waiting.task_type} in queue {waiting.queue} since"
        f" {waiting.oldest_ready_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    if not serving:
        return Finding(
            "unserved-queue",
            Severity.CRITICAL,
            f"No live worker serves a queue with waiting tasks: {what}.",
            "They wait until one does.",
            f"Start a worker that serves it: taskworker --queues {waiting.queue}, or one without --queues.",
        )
    return Finding(
        "unserved-task-type",
        Severity.CRITICAL,
        f"No live worker of the queue knows the task type of waiting tasks: {what}.",
        "They wait until one does.",
        "Start a worker with the EXECUTOR_MODULES of the API; one that runs already learns no new task types.",
    )


def _tasks(number: int) -> str:
    return "task" if number == 1 else "tasks"


def strange_clocks(hands: Sequence[Hand], now: datetime) -> list[Finding]:
    """Workers whose last beat lies in the future of `now`, or long ago."""
    found = []
    for hand in hands:
        seconds = (now - hand.beat_at).total_seconds()
        if seconds < -AHEAD_SECONDS:
            found.append(
                Finding(
                    "worker-clock-ahead",
                    Severity.WARNING,
                    f"The clock of worker {hand.id} is {-seconds:.0f} s ahead of the API's.",
                    "Its leases last longer than they should: a task that it loses runs again that much later.",
                    "Set the clocks of all machines by NTP.",
                )
            )
        elif silent_seconds(hand.beat_at, now) is not None:
            found.append(
                Finding(
                    "worker-silent",
                    Severity.WARNING,
                    f"Worker {hand.id} was last heard of {seconds:.0f} s ago.",
                    "It is dead or frozen, or its clock is behind the API's. What it runs will run again elsewhere.",
                    "Look at its log and at its machine's clock; if it is gone, its row goes within two leases.",
                )
            )
    return found


def failing(dead_letters: int, failed_last_hour: int, completed_last_hour: int) -> list[Finding]:
    """Failures that nobody has dealt with, or that come too often."""
    found = []
    if dead_letters >= MANY_DEAD_LETTERS:
        found.append(
            Finding(
                "dead-letters",
                Severity.WARNING,
                f"{dead_letters:,} dead letters wait for somebody.",
                "They are deleted after RETENTION_FAILED_SECONDS, whether or not anybody looked.",
                "taskctl dead-letters groups shows their causes; requeue, resolve or purge them, a group at a time.",
            )
        )
    ended = failed_last_hour + completed_last_hour
    if failed_last_hour >= FAILED_AT_LEAST and failed_last_hour > FAILED_SHARE * ended:
        found.append(
            Finding(
                "many-failures",
                Severity.WARNING,
                f"{failed_last_hour:,} of the {ended:,} tasks that ended within the last hour failed.",
                "Something they need is broken, or what is submitted does not fit.",
                "taskctl dead-letters groups shows the causes.",
            )
        )
    return found


def held_back(name: str, reason: str | None, waiting: int, until: datetime | None) -> Finding:
    """A breaker that is open."""
    end = "until it is reset" if until is None else f"until {until:%Y-%m-%d %H:%M:%S} UTC"
    held = "the tasks that call it" if is_of_host(name) else f"{waiting:,} {_tasks(waiting)}"
    because = (reason or "no reason was given").rstrip(".")
    return Finding(
        "breaker-open",
        Severity.WARNING,
        f"Breaker {name} is open {end} and holds back {held}: {because}.",
        "Tasks that need this dependency wait.",
        f"Mend the dependency; taskctl breakers reset {name} lets the tasks run at once.",
    )
