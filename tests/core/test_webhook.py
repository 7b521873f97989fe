"""Who is told of an end, and when a receiver counts as dead."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.lifecycle import Cancelled, Completed, Errored, Lost, Outcome, Released, Snoozed, TimedOut
from app.core.outbound import status_in
from app.core.task import JsonText, Status
from app.core.webhook import End, Patience, Webhook, judge, switched, takers

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALL = Webhook("wh1", "", "https://a.example/", None, ("completed", "failed", "cancelled"), (), (), (), (), NOW)
END = End(7, "echo", "mail", Status.FAILED, ("red", "blue"), "north", asked=False)
TAKEN = Completed(JsonText('{"status":204}'))
REFUSED = Errored("UnexpectedStatus", "https://a.example/ answered 503 Service Unavailable.")
GONE = Errored("Fail", "https://a.example/ answered 410 Gone: never again", retryable=False)
PATIENCE = Patience(3, 3600)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, True),
        ({"events": ("failed",)}, True),
        ({"events": ("completed", "cancelled")}, False),
        ({"task_types": ("echo", "other")}, True),
        ({"task_types": ("other",)}, False),
        ({"queues": ("mail",)}, True),
        ({"queues": ("default",)}, False),
        ({"tags": ("blue", "green")}, True),
        ({"tags": ("green",)}, False),
        ({"tenant": "north"}, True),
        ({"tenant": "south"}, False),
        ({"task_types": ("echo",), "queues": ("default",)}, False),
    ],
)
def test_an_end_must_fit_every_filter(fields: dict[str, object], told: bool) -> None:
    webhook = replace(ALL, **fields)  # type: ignore[arg-type]  # as the table says
    assert takers(END, [webhook]) == ([webhook] if told else [])


def test_a_tenant_does_not_hear_of_what_belongs_to_nobody() -> None:
    assert takers(replace(END, tenant=""), [replace(ALL, tenant="north")]) == []


def test_nobody_is_told_of_notices() -> None:
    """Each of them would make another one."""
    assert takers(replace(END, task_type="webhook"), [ALL, replace(ALL, task_types=("webhook",))]) == []


@pytest.mark.parametrize("outcome", [Lost("killed"), Released("stopped"), Snoozed(9), Cancelled()])
def test_what_the_receiver_did_not_do_does_not_count(outcome: Outcome) -> None:
    assert judge(ALL, [outcome], Patience(1, 0), NOW) == ALL


def test_a_worker_without_secrets_does_not_count() -> None:
    assert judge(ALL, [Errored("SecretsMissing", "set them")], Patience(1, 0), NOW) == ALL


@pytest.mark.parametrize("outcome", [REFUSED, TimedOut(60), Errored("OutboundFailed", "nobody there", retryable=False)])
def test_failures_in_a_row_are_counted_from_the_first(outcome: Outcome) -> None:
    first = judge(ALL, [outcome], PATIENCE, NOW)
    assert (first.failures, first.failing_since, first.enabled) == (1, NOW, True)
    second = judge(first, [outcome], PATIENCE, NOW + timedelta(seconds=9))
    assert (second.failures, second.failing_since) == (2, NOW)
    assert second.last_error


def test_a_receipt_forgets_them() -> None:
    failing = judge(ALL, [REFUSED, REFUSED], PATIENCE, NOW)
    assert judge(failing, [TAKEN], PATIENCE, NOW) == ALL


@pytest.mark.parametrize(
    ("failures", "seconds", "dead"), [(3, 3600, True), (2, 3600, False), (3, 3599, False), (9, 3599, False)]
)
def test_a_receiver_is_dead_after_enough_failures_over_enough_time(failures: int, seconds: int, dead: bool) -> None:
    failing = judge(ALL, [REFUSED] * (failures - 1), PATIENCE, NOW)
    now = NOW + timedelta(seconds=seconds)
    after = judge(failing, [REFUSED], PATIENCE, now)
    assert after.enabled is not dead
    if dead:
        assert after.switched_off_at == now
        assert after.switched_off_reason == f"3 attempts failed in a row. The last one: {after.last_error}"


def test_one_that_says_it_is_gone_is_believed_at_once() -> None:
    after = judge(ALL, [GONE], PATIENCE, NOW)
    assert (after.enabled, after.switched_off_at) == (False, NOW)
    assert "410" in str(after.switched_off_reason)


def test_a_receipt_does_not_switch_on() -> None:
    off = judge(ALL, [GONE], PATIENCE, NOW)
    after = judge(off, [TAKEN], PATIENCE, NOW)
    assert (after.failures, after.switched_off_at) == (0, NOW)


def test_the_first_moment_and_reason_stay() -> None:
    off = judge(ALL, [GONE], PATIENCE, NOW)
    assert judge(off, [GONE], PATIENCE, NOW + timedelta(days=1)).switched_off_at == NOW
    by_hand = switched(ALL, on=False, now=NOW)
    assert (by_hand.switched_off_at, by_hand.switched_off_reason) == (NOW, None)
    assert switched(off, on=False, now=NOW + timedelta(days=1)) == off


def test_switching_on_forgets_all() -> None:
    assert switched(judge(ALL, [REFUSED, GONE], PATIENCE, NOW), on=True, now=NOW) == ALL


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("https://a.example/x answered 503 Service Unavailable: try later", 503),
        ("https://a.example/x answered 299.", 299),
        ("The connection to a.example failed.", None),
        ("a body that says: it answered 200 OK", None),
        ("https://a.example answered 5000", None),
        ("", None),
    ],
)
def test_the_status_is_read_from_where_it_was_written(message: str, status: int | None) -> None:
    assert status_in(message) == status
