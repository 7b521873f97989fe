from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.breaker import BreakerState, Circuit
from app.core.diagnosis import Hand
from app.core.explain import MOST_COUNTED, Facts, Why, explain, first_reason
from app.core.limits import QueueRule
from app.core.slots import Room
from app.core.task import Status, Task

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SOON = NOW + timedelta(seconds=30)
WORKER = Hand("w", (), ("echo",), True, NOW)
BUSY = replace(WORKER, room=Room(0, 0))
TASK = Task(7, "echo", "q", Status.PENDING, 0, 1000, 0, 3, 30.0, 0, NOW)
FREE = Facts(QueueRule("q"), (WORKER,), "plain", Circuit("echo"), BreakerState.CLOSED, 0, (), (), (), 0, 0, 0.0)


def reasons(task: Task = TASK, **facts: Any) -> list[tuple[Why, datetime | None]]:
    return [(one.reason, one.until) for one in explain(task, replace(FREE, **facts), NOW).reasons]


@pytest.mark.parametrize(
    ("task", "facts", "expected"),
    [
        ({}, {}, [(Why.NEXT_IN_LINE, None)]),
        ({}, {"ahead": 3}, [(Why.BEHIND_OTHERS, None)]),
        ({"status": Status.SCHEDULED, "scheduled_at": SOON}, {}, [(Why.NOT_DUE, SOON)]),
        ({"status": Status.RETRYING, "scheduled_at": SOON}, {}, [(Why.NOT_DUE, SOON)]),
        ({"status": Status.SCHEDULED, "scheduled_at": NOW}, {}, [(Why.NEXT_IN_LINE, None)]),
        ({}, {"rule": QueueRule("q", paused=True)}, [(Why.QUEUE_PAUSED, None), (Why.NEXT_IN_LINE, None)]),
        ({}, {"rule": QueueRule("q", max_running=2), "running": 1}, [(Why.NEXT_IN_LINE, None)]),
        (
            {},
            {"rule": QueueRule("q", max_running=2), "running": 2},
            [(Why.QUEUE_LIMIT, None), (Why.NEXT_IN_LINE, None)],
        ),
        (
            {},
            {"circuit": Circuit("echo", BreakerState.OPEN, open_until=SOON), "state": BreakerState.OPEN},
            [(Why.BREAKER_OPEN, SOON), (Why.NEXT_IN_LINE, None)],
        ),
        ({}, {"hands": ()}, [(Why.NO_WORKER, None), (Why.NEXT_IN_LINE, None)]),
        ({}, {"hands": (replace(WORKER, queues=("other",)),)}, [(Why.NO_WORKER, None), (Why.NEXT_IN_LINE, None)]),
        ({}, {"hands": (replace(WORKER, task_types=("greet",)),)}, [(Why.NO_WORKER, None), (Why.NEXT_IN_LINE, None)]),
        ({}, {"hands": (replace(WORKER, room=Room(1, 0)),)}, [(Why.NEXT_IN_LINE, None)]),
        (
            {},
            {"hands": (replace(WORKER, room=Room(0, 5)),), "ahead": 1},
            [(Why.WORKERS_BUSY, None), (Why.BEHIND_OTHERS, None)],
        ),
        ({}, {"hands": (replace(WORKER, room=Room(0, 5)),), "kind": "shared"}, [(Why.NEXT_IN_LINE, None)]),
        ({}, {"hands": (BUSY,), "kind": "shared"}, [(Why.WORKERS_BUSY, None), (Why.NEXT_IN_LINE, None)]),
        ({}, {"hands": (BUSY, WORKER)}, [(Why.NEXT_IN_LINE, None)]),  # of one it is not known
        (
            {},
            {"hands": (BUSY, replace(WORKER, queues=("other",)))},
            [(Why.WORKERS_BUSY, None), (Why.NEXT_IN_LINE, None)],
        ),
        ({"status": Status.SCHEDULED, "scheduled_at": SOON}, {"hands": (BUSY,)}, [(Why.NOT_DUE, SOON)]),
        ({}, {"hands": (replace(WORKER, takes_work=False),)}, [(Why.NO_WORKER, None), (Why.NEXT_IN_LINE, None)]),
        (
            {"status": Status.BLOCKED, "concurrency_key": "k", "concurrency_limit": 1},
            {"holders": (3,)},
            [(Why.CONCURRENCY_LIMIT, None)],
        ),
    ],
)
def test_every_reason_is_told(
    task: dict[str, Any], facts: dict[str, Any], expected: list[tuple[Why, datetime | None]]
) -> None:
    changed = {name: getattr(TASK, name) for name in Task.__dataclass_fields__} | task
    assert reasons(Task(**changed), **facts) == expected


@pytest.mark.parametrize("status", [Status.RUNNING, Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_what_does_not_wait_has_no_reasons(status: Status) -> None:
    changed = {name: getattr(TASK, name) for name in Task.__dataclass_fields__} | {"status": status}
    assert explain(Task(**changed), replace(FREE, hands=()), NOW).reasons == ()


def test_all_reasons_are_told_at_once_most_decisive_first() -> None:
    rule = QueueRule("q", True, 1, 1, 60.0, tokens=0.0, refilled_at=NOW)
    circuit = Circuit("echo", BreakerState.OPEN, open_until=None, reason="down")
    found = reasons(rule=rule, running=1, circuit=circuit, state=BreakerState.OPEN, hands=(), ahead=5)
    assert [one for one, _ in found] == [
        *(Why.QUEUE_PAUSED, Why.BREAKER_OPEN, Why.NO_WORKER, Why.QUEUE_LIMIT, Why.RATE_LIMIT, Why.BEHIND_OTHERS)
    ]


def test_what_opened_a_breaker_may_be_a_sentence() -> None:
    circuit = Circuit("echo", BreakerState.OPEN, reason="The host moves.")
    told = explain(TASK, replace(FREE, circuit=circuit, state=BreakerState.OPEN), NOW).reasons[0].message
    assert told == "Breaker echo is open: The host moves."


@pytest.mark.parametrize(
    ("facts", "seconds"),
    [
        ({}, 0),
        ({"ahead": 20, "drained_per_second": 4.0}, 5),
        ({"ahead": 20}, None),  # nothing is worked off
        ({"hands": ()}, None),
        ({"hands": (BUSY,)}, None),  # nobody knows when one of them is free
        ({"hands": (BUSY,), "drained_per_second": 0.5}, 2),
        ({"rule": QueueRule("q", paused=True)}, None),
        ({"circuit": Circuit("echo", BreakerState.OPEN), "state": BreakerState.OPEN}, None),
        ({"circuit": Circuit("echo", BreakerState.OPEN, open_until=SOON), "state": BreakerState.OPEN}, 30),
        ({"rule": QueueRule("q", rate_limit=1, rate_period_seconds=2), "ahead": 5, "drained_per_second": 9.0}, 10),
        ({"rule": QueueRule("q", max_running=1), "running": 1, "drained_per_second": 0.5}, 2),
    ],
)
def test_the_start_is_estimated_by_how_fast_the_queue_was_worked_off(
    facts: dict[str, Any], seconds: float | None
) -> None:
    found = explain(TASK, replace(FREE, **facts), NOW).estimated_start_at
    assert found == (None if seconds is None else NOW + timedelta(seconds=seconds))


def test_a_place_is_counted_to_a_bound() -> None:
    found = explain(TASK, replace(FREE, ahead=MOST_COUNTED), NOW)
    assert (found.position, found.position_is_at_least) == (MOST_COUNTED + 1, True)
    assert found.reasons[-1].message == "1000 or more tasks of queue q come before it."
    found = explain(TASK, replace(FREE, ahead=1), NOW)
    assert (found.position, found.position_is_at_least) == (2, False)
    assert found.reasons[-1].message == "1 task of queue q comes before it."


def test_who_holds_a_place_is_named() -> None:
    blocked = Task(
        7, "echo", "q", Status.BLOCKED, 0, 1000, 0, 3, 30.0, 0, NOW, concurrency_key="k", concurrency_limit=2
    )
    (reason,) = explain(blocked, replace(FREE, holders=(3, 4), key_ahead=1), NOW).reasons
    assert reason.held_by == (3, 4)
    assert reason.message == "2 tasks of its concurrency key 'k' have a place, of 2, and 1 task waits before it."


def test_the_first_reason_is_the_most_decisive() -> None:
    facts = replace(FREE, rule=QueueRule("q", paused=True), hands=())
    found = first_reason(TASK, facts, NOW)
    assert found == explain(TASK, facts, NOW).reasons[0]
    assert found is not None
    assert found.reason is Why.QUEUE_PAUSED


def test_what_was_not_counted_is_not_said_to_be() -> None:
    found = first_reason(TASK, replace(FREE, ahead=1, counted_to=1), NOW)
    assert found is not None
    assert found.message == "1 or more tasks of queue q come before it."


@pytest.mark.parametrize("status", [Status.RUNNING, Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_what_does_not_wait_has_no_first_reason(status: Status) -> None:
    changed = {name: getattr(TASK, name) for name in Task.__dataclass_fields__} | {"status": status}
    assert first_reason(Task(**changed), FREE, NOW) is None
