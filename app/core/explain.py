"""Why a task waits: facts in, reasons out. Looking is done elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.core.breaker import BreakerState, Circuit
from app.core.concurrency import shown_key
from app.core.diagnosis import Hand
from app.core.limits import QueueRule, next_token_at
from app.core.slots import Kind
from app.core.task import WAITING, Status, Task

MOST_COUNTED = 1000
"""A place in the queue is counted up to here."""
NAMED = 10
"""So many tasks that hold a task back are named."""


class Why(StrEnum):
    """Every reason there is, most decisive first."""

    NOT_DUE = "not_due"
    QUEUE_PAUSED = "queue_paused"
    BREAKER_OPEN = "breaker_open"
    NO_WORKER = "no_worker"
    CONCURRENCY_LIMIT = "concurrency_limit"
    QUEUE_LIMIT = "queue_limit"
    RATE_LIMIT = "rate_limit"
    WORKERS_BUSY = "workers_busy"
    BEHIND_OTHERS = "behind_others"
    NEXT_IN_LINE = "next_in_line"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why a task waits. `until`: when it is over, None where nobody can tell; `held_by`: the tasks that must end
    first, the first few of them."""

    reason: Why
    message: str
    until: datetime | None = None
    held_by: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a waiting task's surroundings.

    kind                how its executor runs: by itself in a runner, or beside others
    circuit, state      the breaker it waits for
    running             tasks of its queue that run, `running_ids` the first of them
    held_ids            the first of what the workers hold that could take it
    holders             the tasks that have a place of its concurrency key
    key_ahead           how many blocked tasks of its key come before it
    ahead               how many ready tasks of its queue come before it, up to `counted_to`
    drained_per_second  how many tasks of its queue end a second
    counted_to          how far what is before it was counted
    """

    rule: QueueRule
    hands: Sequence[Hand]
    kind: Kind
    circuit: Circuit
    state: BreakerState
    running: int
    running_ids: tuple[int, ...]
    held_ids: tuple[int, ...]
    holders: tuple[int, ...]
    key_ahead: int
    ahead: int
    drained_per_second: float
    counted_to: int = MOST_COUNTED


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task has not started; no reasons once it has. `position` counts from 1 among the ready tasks of its queue, and is
    that or more where `position_is_at_least`. `estimated_start_at` is None where that cannot be told."""

    task: Task
    reasons: tuple[Reason, ...] = ()
    position: int | None = None
    position_is_at_least: bool = False
    drained_per_second: float | None = None
    estimated_start_at: datetime | None = None


def explain(task: Task, facts: Facts, now: datetime) -> Explanation:
    """All reasons why `task` waits, most decisive first; none if it does not wait."""
    if task.status not in WAITING:
        return Explanation(task)
    reasons = list(_reasons(task, facts, now))
    ready = _is_ready(task, now)
    return Explanation(
        task,
        tuple(reasons),
        facts.ahead + 1 if ready else None,
        ready and facts.ahead >= facts.counted_to,
        facts.drained_per_second,
        _estimated_start(reasons, facts, now) if ready or task.status is not Status.BLOCKED else None,
    )


def first_reason(task: Task, facts: Facts, now: datetime) -> Reason | None:
    """The most decisive reason why `task` waits, None if it does not wait."""
    return next(_reasons(task, facts, now), None) if task.status in WAITING else None


def _reasons(task: Task, facts: Facts, now: datetime) -> Iterator[Reason]:
    yield from _not_due(task, now)
    yield from _paused(facts.rule)
    yield from _breaker(facts)
    yield from _no_worker(task, facts.hands)
    yield from _concurrency(task, facts)
    yield from _queue_limit(facts)
    yield from _rate_limit(facts.rule, now)
    if _is_ready(task, now):
        yield from _workers_busy(task, facts)
        yield _place(task, facts)


def _is_ready(task: Task, now: datetime) -> bool:
    return task.status is Status.PENDING or (task.status is not Status.BLOCKED and not _is_early(task, now))


def _is_early(task: Task, now: datetime) -> bool:
    delayed = task.status in (Status.SCHEDULED, Status.RETRYING)
    return delayed and task.scheduled_at is not None and task.scheduled_at > now


def _not_due(task: Task, now: datetime) -> list[Reason]:
    if not _is_early(task, now):
        return []
    what = "It failed before, and is tried again" if task.status is Status.RETRYING else "It starts"
    return [Reason(Why.NOT_DUE, f"{what} at its scheduled_at, not before.", task.scheduled_at)]


def _paused(rule: QueueRule) -> list[Reason]:
    return [Reason(Why.QUEUE_PAUSED, f"Queue {rule.name} is paused.")] if rule.paused else []


def _breaker(facts: Facts) -> list[Reason]:
    circuit = facts.circuit
    if facts.state is BreakerState.CLOSED:
        return []
    because = f": {circuit.reason.rstrip('.')}" if circuit.reason else ""
    if facts.state is BreakerState.HALF_OPEN:
        message = (
            f"Breaker {circuit.name} lets few attempts through, to see whether what they need is there again{because}."
        )
        return [Reason(Why.BREAKER_OPEN, message, held_by=tuple(id_ for id_, _ in circuit.let_through)[:NAMED])]
    return [Reason(Why.BREAKER_OPEN, f"Breaker {circuit.name} is open{because}.", circuit.open_until)]


def _no_worker(task: Task, hands: Sequence[Hand]) -> list[Reason]:
    working = [hand for hand in hands if hand.takes_work]
    serving = [hand for hand in working if hand.serves(task.queue)]
    if able(task, hands):
        return []
    if not hands:
        message = "No worker is alive."
    elif not working:
        message = "Every worker is stopping, cannot start its runners, or has not been heard of lately."
    elif not serving:
        message = f"No live worker serves queue {task.queue}."
    else:
        message = f"No live worker that serves queue {task.queue} knows task type {task.task_type}."
    return [Reason(Why.NO_WORKER, message)]


def able(task: Task, hands: Sequence[Hand]) -> list[Hand]:
    """Those that could take it, if they had room."""
    return [hand for hand in hands if hand.takes_work and hand.serves(task.queue) and task.task_type in hand.task_types]


def _concurrency(task: Task, facts: Facts) -> list[Reason]:
    if task.status is not Status.BLOCKED or task.concurrency_key is None:
        return []
    waits = "waits" if facts.key_ahead == 1 else "wait"
    ahead = f", and {_counted(facts.key_ahead)} {waits} before it" if facts.key_ahead else ""
    have = "has" if len(facts.holders) == 1 else "have"
    message = (
        f"{_counted(len(facts.holders))} of its concurrency key {shown_key(task.tenant, task.concurrency_key)!r} {have} a place, of"
        f" {task.concurrency_limit or 1}{ahead}."
    )
    return [Reason(Why.CONCURRENCY_LIMIT, message, held_by=facts.holders[:NAMED])]


def _counted(number: int, counted_to: int = MOST_COUNTED) -> str:
    if number >= counted_to:
        return f"{number} or more tasks"
    return f"{number} task{'' if number == 1 else 's'}"


def _queue_limit(facts: Facts) -> list[Reason]:
    most = facts.rule.max_running
    if most is None or facts.running < most:
        return []
    message = (
        f"{_counted(facts.running)} of queue {facts.rule.name} {'runs' if facts.running == 1 else 'run'}, of {most}."
    )
    return [Reason(Why.QUEUE_LIMIT, message, held_by=facts.running_ids)]


def _rate_limit(rule: QueueRule, now: datetime) -> list[Reason]:
    until = next_token_at(rule, now)
    if until is None:
        return []
    message = f"Queue {rule.name} starts {rule.rate_limit} in {rule.rate_period_seconds:g} s, which it has."
    return [Reason(Why.RATE_LIMIT, message, until)]


def _workers_busy(task: Task, facts: Facts) -> list[Reason]:
    hands = able(task, facts.hands)
    if not hands or any(hand.room is None or getattr(hand.room, facts.kind) for hand in hands):
        return []
    need = "a runner to itself" if facts.kind == "plain" else "a place in a runner that has no plain executor inside"
    message = f"Every worker that could take it is busy: it needs {need}, and none is free."
    return [Reason(Why.WORKERS_BUSY, message, held_by=facts.held_ids)]


def _place(task: Task, facts: Facts) -> Reason:
    if facts.ahead:
        come = "comes" if facts.ahead == 1 < facts.counted_to else "come"
        message = f"{_counted(facts.ahead, facts.counted_to)} of queue {task.queue} {come} before it."
        return Reason(Why.BEHIND_OTHERS, message)
    return Reason(
        Why.NEXT_IN_LINE, f"It is the first of queue {task.queue}: a worker takes it as soon as it may and has room."
    )


def _estimated_start(reasons: Sequence[Reason], facts: Facts, now: datetime) -> datetime | None:
    """When it should start, if all goes on as in the last minutes."""
    endless = (Why.QUEUE_PAUSED, Why.BREAKER_OPEN, Why.NO_WORKER)
    if any(one.reason in endless and one.until is None for one in reasons):
        return None
    begins_at = max([now, *(one.until for one in reasons if one.until is not None)])
    rates = [facts.drained_per_second]
    if facts.rule.rate_limit is not None and facts.rule.rate_period_seconds is not None:
        rates.append(facts.rule.rate_limit / facts.rule.rate_period_seconds)
    ahead = facts.ahead + any(one.reason in (Why.QUEUE_LIMIT, Why.WORKERS_BUSY) for one in reasons)
    if not ahead:
        return begins_at
    return begins_at + timedelta(seconds=ahead / min(rates)) if min(rates) > 0 else None
