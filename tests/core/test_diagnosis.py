from datetime import UTC, datetime, timedelta

import pytest

from app.core import diagnosis
from app.core.diagnosis import Finding, Hand, Severity, Waiting

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MIB = diagnosis.MEBIBYTE


def hand(
    queues: tuple[str, ...] = (), task_types: tuple[str, ...] = ("echo",), *, late: float = 1, works: bool = True
) -> Hand:
    return Hand("w-1", queues, task_types, works, NOW - timedelta(seconds=late))


def waiting(queue: str = "default", task_type: str = "echo", ready: int = 3) -> Waiting:
    return Waiting(queue, task_type, ready, NOW - timedelta(minutes=5))


def codes(findings: list[Finding]) -> list[str]:
    return [one.code for one in findings]


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("0004", None),
        ("none", "schema-behind"),
        ("0003", "schema-behind"),
        ("0005", "schema-ahead"),
        ("9999", "schema-ahead"),
    ],
)
def test_a_schema_of_another_version_is_told_from_the_right_one(version: str, code: str | None) -> None:
    found = diagnosis.schema_differs(version, "0004")
    assert (found and found.code) == code


def test_a_library_that_is_safe_is_no_finding() -> None:
    assert diagnosis.unsafe_library("3.53.4", safe=True) is None
    assert diagnosis.unsafe_server("15.4", safe=True) is None
    found = diagnosis.unsafe_library("3.40.1", safe=False)
    assert found is not None
    assert "3.40.1" in found.what


@pytest.mark.parametrize(
    ("free", "severity"),
    [
        (0, Severity.CRITICAL),
        (99 * MIB, Severity.CRITICAL),
        (100 * MIB, Severity.WARNING),
        (1023 * MIB, Severity.WARNING),
        (1024 * MIB, None),
    ],
)
def test_little_room_is_worse_the_less_there_is(free: int, severity: Severity | None) -> None:
    found = diagnosis.little_room("/srv/data", free)
    assert (found and found.severity) == severity
    assert found is None or "/srv/data" in found.what


@pytest.mark.parametrize(
    ("hands", "work", "expected"),
    [
        ([hand()], [], []),
        ([hand()], [waiting()], []),
        ([hand(("a",)), hand(("b",))], [waiting("a"), waiting("b")], []),
        ([], [], ["no-worker"]),
        ([], [waiting(), waiting("b")], ["no-worker"]),
        ([hand(works=False)], [waiting()], ["no-worker"]),
        ([hand(("a",))], [waiting("b")], ["unserved-queue"]),
        ([hand(task_types=("other",))], [waiting()], ["unserved-task-type"]),
        # One worker has the queue and another knows the type: neither does the task.
        ([hand(("a",), ("other",)), hand(("b",), ("echo",))], [waiting("a")], ["unserved-task-type"]),
        ([hand(), hand(works=False, task_types=("slow",))], [waiting(task_type="slow")], ["unserved-task-type"]),
    ],
)
def test_work_that_nobody_alive_will_do(hands: list[Hand], work: list[Waiting], expected: list[str]) -> None:
    assert codes(diagnosis.idle_hands(hands, work)) == expected


def test_a_missing_worker_is_critical_only_where_work_waits() -> None:
    (idle,) = diagnosis.idle_hands([], [])
    (needed,) = diagnosis.idle_hands([], [waiting(ready=1)])
    assert (idle.severity, needed.severity) == (Severity.WARNING, Severity.CRITICAL)
    assert "1 task could start" in needed.what


@pytest.mark.parametrize(
    ("late", "expected"),
    [(-60, ["worker-clock-ahead"]), (-2, []), (0, []), (15, []), (16, ["worker-silent"])],
)
def test_a_worker_whose_clock_or_pulse_is_off(late: float, expected: list[str]) -> None:
    assert codes(diagnosis.strange_clocks([hand(late=late)], NOW)) == expected


@pytest.mark.parametrize(
    ("dead_letters", "failed", "completed", "expected"),
    [
        (0, 0, 0, []),
        (99, 9, 0, []),
        (100, 0, 0, ["dead-letters"]),
        (10, 10, 90, []),
        (11, 11, 89, ["many-failures"]),
        (5000, 50, 10, ["dead-letters", "many-failures"]),
    ],
)
def test_failures_that_pile_up_or_come_often(
    dead_letters: int, failed: int, completed: int, expected: list[str]
) -> None:
    assert codes(diagnosis.failing(dead_letters, failed, completed)) == expected


def test_an_open_breaker_says_until_when() -> None:
    assert "until 2026-01-02 03:04:05 UTC" in diagnosis.held_back("mail", "down", 2, NOW).what
    assert "until it is reset" in diagnosis.held_back("mail", None, 1, None).what


def test_a_reason_that_is_a_sentence_ends_with_one_full_stop() -> None:
    assert diagnosis.held_back("mail", "The host moves.", 2, NOW).what.endswith(": The host moves.")


def test_every_finding_says_what_why_and_what_to_do() -> None:
    findings = [
        diagnosis.store_unavailable("disk I/O error"),
        diagnosis.no_database("/srv/tasks.db"),
        diagnosis.schema_differs("0003", "0004"),
        diagnosis.schema_differs("0005", "0004"),
        diagnosis.unsafe_library("3.40.1", safe=False),
        diagnosis.unsafe_server("15.4", safe=False),
        diagnosis.little_room("/", 0),
        *diagnosis.idle_hands([], []),
        *diagnosis.idle_hands([hand(("a",))], [waiting("b")]),
        *diagnosis.idle_hands([hand(task_types=())], [waiting()]),
        *diagnosis.strange_clocks([hand(late=-60), hand(late=60)], NOW),
        *diagnosis.failing(100, 100, 0),
        diagnosis.held_back("mail", "down", 1, None),
    ]
    assert len({one.code for one in findings if one}) == 15
    for one in findings:
        assert one is not None
        assert all(
            text.endswith(".") or one.code == "store-unavailable" for text in (one.what, one.why, one.what_to_do)
        ), one
