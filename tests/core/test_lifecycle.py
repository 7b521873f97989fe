"""The state machine, as tables: what a running task becomes, for every outcome and every state of its budget."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from app.core import lifecycle
from app.core.errors import Conflict, InvalidRequest
from app.core.lifecycle import (
    Cancelled,
    Completed,
    Edit,
    Errored,
    Lost,
    Outcome,
    Policy,
    Released,
    Snoozed,
    TimedOut,
    settle,
)
from app.core.retry import RetryPolicy
from app.core.task import FailureReason, JsonText, Status, Task, rank_of

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
POLICY = Policy(RetryPolicy(base_seconds=10, ceiling_seconds=100), poison_after=3, priority_step_seconds=60)

COMPLETED = Completed(JsonText("1"))
ERROR = Errored("ValueError", "no good")
HOPELESS = Errored("Fail", "no use", retryable=False)
TIMEOUT = TimedOut(5)
LOST = Lost("killed by SIGSEGV")
CANCELLED = Cancelled()
RELEASED = Released("the worker stopped")
SNOOZED = Snoozed(30)


def running(**changes: Any) -> Task:
    task = Task(
        id=7,
        task_type="echo",
        queue="default",
        status=Status.RUNNING,
        priority=10,
        rank=123,
        attempts=1,
        max_attempts=3,
        timeout_seconds=5.0,
        lease=4,
        created_at=NOW - timedelta(seconds=60),
        started_at=NOW - timedelta(seconds=2),
    )
    return replace(task, **changes)


class ThreeQuarters(Random):
    """Always draws three quarters of the way."""

    def uniform(self, low: float, high: float) -> float:
        return low + 0.75 * (high - low)


def settled(task: Task, outcome: Outcome) -> lifecycle.Change:
    return settle(task, outcome, POLICY, NOW, ThreeQuarters())


@pytest.mark.parametrize(
    ("attempts", "deaths", "outcome", "status", "reason"),
    [
        (1, 0, COMPLETED, Status.COMPLETED, None),
        (3, 0, COMPLETED, Status.COMPLETED, None),
        (1, 0, ERROR, Status.RETRYING, None),
        (2, 0, ERROR, Status.RETRYING, None),
        (3, 0, ERROR, Status.FAILED, FailureReason.EXHAUSTED),
        (1, 0, HOPELESS, Status.FAILED, FailureReason.ERROR),
        (3, 0, HOPELESS, Status.FAILED, FailureReason.ERROR),
        (1, 0, TIMEOUT, Status.RETRYING, None),
        (3, 0, TIMEOUT, Status.FAILED, FailureReason.TIMEOUT),
        (1, 0, LOST, Status.RETRYING, None),
        (3, 0, LOST, Status.FAILED, FailureReason.LOST),
        (1, 2, LOST, Status.FAILED, FailureReason.POISONED),
        (1, 2, ERROR, Status.RETRYING, None),
        (1, 0, CANCELLED, Status.CANCELLED, None),
        (3, 0, RELEASED, Status.PENDING, None),
        (3, 0, SNOOZED, Status.SCHEDULED, None),
    ],
)
def test_what_a_running_task_becomes(
    attempts: int, deaths: int, outcome: Outcome, status: Status, reason: FailureReason | None
) -> None:
    change = settled(running(attempts=attempts, deaths=deaths), outcome)
    assert (change.status, change.failure_reason) == (status, reason)
    assert (change.finished_at is not None) == (status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED))
    assert (change.id, change.lease) == (7, 4)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (COMPLETED, Status.COMPLETED),
        (ERROR, Status.CANCELLED),
        (HOPELESS, Status.CANCELLED),
        (TIMEOUT, Status.CANCELLED),
        (LOST, Status.CANCELLED),
        (RELEASED, Status.CANCELLED),
        (SNOOZED, Status.CANCELLED),
    ],
)
def test_after_a_cancel_request_only_completion_still_wins(outcome: Outcome, status: Status) -> None:
    assert settled(running(cancel_requested_at=NOW), outcome).status is status


def test_a_retry_waits_by_the_policy_and_is_ranked_by_its_new_moment() -> None:
    change = settled(running(attempts=2), ERROR)
    assert change.delay_seconds == 15  # three quarters of 10 * 2
    assert change.scheduled_at == NOW + timedelta(seconds=15)
    assert change.rank == rank_of(NOW + timedelta(seconds=15), 10, 60)
    assert change.attempts == 2
    assert change.error is not None
    assert (change.error.type, change.error.message, change.error.attempt) == ("ValueError", "no good", 2)


def test_an_executor_may_choose_its_own_wait() -> None:
    assert settled(running(), replace(ERROR, after_seconds=7)).delay_seconds == 7


def test_a_release_gives_the_attempt_back_and_keeps_the_old_rank() -> None:
    change = settled(running(attempts=2), RELEASED)
    assert (change.attempts, change.rank, change.scheduled_at) == (1, 123, None)


def test_a_task_released_before_it_ran_alone_still_has_to() -> None:
    assert settled(running(runs_alone=True), RELEASED).runs_alone
    assert settled(running(), Released("died", runs_alone=True)).runs_alone
    assert not settled(running(runs_alone=True), ERROR).runs_alone


def test_a_snooze_gives_the_attempt_back() -> None:
    change = settled(running(attempts=2), SNOOZED)
    assert (change.attempts, change.scheduled_at) == (1, NOW + timedelta(seconds=30))


def test_deaths_are_counted_and_only_deaths() -> None:
    assert settled(running(deaths=1), LOST).deaths == 2
    assert settled(running(deaths=1), ERROR).deaths == 1
    assert settled(running(deaths=1), RELEASED).deaths == 1


def test_a_task_never_ends_before_it_began_whatever_the_clock_did() -> None:
    began = NOW + timedelta(seconds=50)
    assert settled(running(started_at=began), COMPLETED).finished_at == began


@pytest.mark.parametrize("status", list(Status))
def test_what_clients_may_do_in_each_state(status: Status) -> None:
    task = running(status=status)
    waiting = {Status.PENDING, Status.SCHEDULED, Status.RETRYING, Status.BLOCKED}
    allowed = {
        lifecycle.ensure_editable: waiting,
        lifecycle.ensure_cancellable: waiting | {Status.RUNNING, Status.CANCELLED},
        lifecycle.ensure_retryable: {Status.FAILED, Status.CANCELLED},
        lifecycle.ensure_deletable: set(Status) - {Status.RUNNING},
    }
    for ensure, states in allowed.items():
        if status in states:
            ensure(task)
        else:
            with pytest.raises(Conflict) as caught:
                ensure(task)
            assert caught.value.status is status


@pytest.mark.parametrize(
    ("status", "values", "expected"),
    [
        (Status.PENDING, {"priority": 11}, {"priority": 11, "rank": 123 - 60_000}),
        (Status.PENDING, {"priority": 10}, {"priority": 10}),
        (Status.PENDING, {"tags": ("a",)}, {"tags": ("a",)}),
        (
            Status.PENDING,
            {"scheduled_at": NOW + timedelta(seconds=9)},
            {
                "scheduled_at": NOW + timedelta(seconds=9),
                "status": Status.SCHEDULED,
                "rank": rank_of(NOW + timedelta(seconds=9), 10, 60),
            },
        ),
        (
            Status.SCHEDULED,
            {"scheduled_at": None},
            {"scheduled_at": None, "status": Status.PENDING, "rank": rank_of(NOW, 10, 60)},
        ),
        (
            Status.RETRYING,
            {"scheduled_at": NOW + timedelta(seconds=9)},
            {
                "scheduled_at": NOW + timedelta(seconds=9),
                "status": Status.RETRYING,
                "rank": rank_of(NOW + timedelta(seconds=9), 10, 60),
            },
        ),
        (
            Status.SCHEDULED,
            {"scheduled_at": NOW - timedelta(seconds=9), "priority": 0},
            {
                "scheduled_at": NOW - timedelta(seconds=9),
                "priority": 0,
                "status": Status.PENDING,
                "rank": rank_of(NOW, 0, 60),
            },
        ),
    ],
)
def test_what_an_edit_changes(status: Status, values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert lifecycle.edited(running(status=status), Edit(values), NOW, 60) == expected


def test_an_edit_may_not_put_a_task_off_until_it_has_expired() -> None:
    task = running(status=Status.PENDING, attempts=0, started_at=None, expires_at=NOW + timedelta(hours=1))
    with pytest.raises(InvalidRequest, match="before expires_at"):
        lifecycle.edited(task, Edit({"scheduled_at": NOW + timedelta(hours=1)}), NOW, 60)
    assert lifecycle.edited(task, Edit({"scheduled_at": NOW + timedelta(minutes=59)}), NOW, 60)


def test_an_edit_may_not_lower_the_budget_below_what_is_used() -> None:
    task = running(status=Status.RETRYING, attempts=2)
    assert lifecycle.edited(task, Edit({"max_attempts": 3}), NOW, 60) == {"max_attempts": 3}
    with pytest.raises(InvalidRequest, match="above the 2 attempts"):
        lifecycle.edited(task, Edit({"max_attempts": 2}), NOW, 60)
