"""Limits of queues: how many tasks may run at once, start in a while, and wait. Arithmetic only."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

LONGEST_RETRY_SECONDS = 300.0
"""What a caller is told to wait at most, and where nothing is drained at all."""


@dataclass(frozen=True, slots=True)
class QueueRule:
    """What an operator has laid down for one queue; None is no limit.

    max_running          so many of its tasks run at once, over all workers
    rate_limit           so many of them start ...
    rate_period_seconds  ... in this time: a queue that was idle may start all at once, then one comes after the other
    max_depth            so many may be ready and wait; further ones are refused
    tokens               starts that were left at `refilled_at`; None: all of them
    """

    name: str
    paused: bool = False
    max_running: int | None = None
    rate_limit: int | None = None
    rate_period_seconds: float | None = None
    max_depth: int | None = None
    tokens: float | None = None
    refilled_at: datetime | None = None


def tokens_at(rule: QueueRule, now: datetime) -> float:
    """How many tasks may start now by the rate alone. Only for a queue that has one."""
    assert rule.rate_limit is not None
    if rule.tokens is None or rule.refilled_at is None:
        return float(rule.rate_limit)
    # The clock may have been set back; then nothing is lost but what would have been refilled meanwhile.
    passed = max(0.0, (now - rule.refilled_at).total_seconds())
    return min(float(rule.rate_limit), rule.tokens + passed / _seconds_a_token(rule))


def _seconds_a_token(rule: QueueRule) -> float:
    assert rule.rate_limit is not None
    assert rule.rate_period_seconds is not None
    return rule.rate_period_seconds / rule.rate_limit


def places(rule: QueueRule, running: int, now: datetime) -> int | None:
    """How many more tasks of the queue may start now, beside the `running` ones. None is any number."""
    free = None if rule.max_running is None else max(0, rule.max_running - running)
    if rule.rate_limit is None:
        return free
    # What is stored has a millisecond's grain: a token that is due is there.
    left = int(tokens_at(rule, now) + 1e-6)
    return left if free is None else min(free, left)


def next_token_at(rule: QueueRule, now: datetime) -> datetime | None:
    """When the next task may start by the rate; None if one may now, or there is no rate."""
    if rule.rate_limit is None or (tokens := tokens_at(rule, now)) + 1e-6 >= 1:
        return None
    # A millisecond more, because moments are stored in whole ones.
    return now + timedelta(seconds=(1 - tokens) * _seconds_a_token(rule) + 0.001)


def after_start(rule: QueueRule, started: int, now: datetime) -> QueueRule:
    """The rule once so many tasks were started."""
    if rule.rate_limit is None:
        return rule
    return replace(rule, tokens=max(0.0, tokens_at(rule, now) - started), refilled_at=now)


def seconds_until_room(wanted: int, depth: int, max_depth: int, drained_per_second: float) -> float:
    """After how long `wanted` more tasks should find room, from 1 s to 300 s."""
    over = depth + wanted - max_depth
    if drained_per_second <= 0:
        return LONGEST_RETRY_SECONDS
    return min(LONGEST_RETRY_SECONDS, max(1.0, over / drained_per_second))
