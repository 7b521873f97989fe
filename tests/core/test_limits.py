from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.limits import QueueRule, after_start, next_token_at, places, seconds_until_room, tokens_at

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RATE = QueueRule("q", rate_limit=10, rate_period_seconds=5)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("rule", "running", "expected"),
    [
        (QueueRule("q"), 5, None),
        (QueueRule("q", max_running=3), 0, 3),
        (QueueRule("q", max_running=3), 2, 1),
        (QueueRule("q", max_running=3), 5, 0),
        (RATE, 500, 10),
        (replace(RATE, max_running=4), 1, 3),
        (replace(RATE, tokens=2.9, refilled_at=NOW), 0, 2),
        (replace(RATE, tokens=0.5, refilled_at=NOW), 0, 0),
    ],
)
def test_places_are_what_both_limits_leave(rule: QueueRule, running: int, expected: int | None) -> None:
    assert places(rule, running, NOW) == expected


@pytest.mark.parametrize(("seconds", "tokens"), [(0, 0.0), (0.25, 0.5), (1, 2.0), (5, 10.0), (500, 10.0), (-3600, 0.0)])
def test_tokens_come_back_evenly_up_to_the_limit_and_no_clock_takes_them_away(seconds: float, tokens: float) -> None:
    assert tokens_at(replace(RATE, tokens=0.0, refilled_at=NOW), later(seconds)) == pytest.approx(tokens)


def test_no_more_start_than_the_rate_allows_however_often_is_asked() -> None:
    """A hundred seconds, a claim each 0.1 s: the first ten at once, and then two a second."""
    rule, started = RATE, 0
    for step in range(1001):
        now = later(step / 10)
        free = places(rule, 0, now) or 0
        rule, started = after_start(rule, free, now), started + free
    assert started == 10 + 200


def test_the_next_start_is_neither_early_nor_late() -> None:
    rule = after_start(RATE, 10, NOW)
    at = next_token_at(rule, NOW)
    assert at is not None
    assert timedelta(seconds=0.5) <= at - NOW <= timedelta(seconds=0.502)
    assert places(rule, 0, at) == 1
    assert next_token_at(rule, at) is None
    assert next_token_at(QueueRule("q", max_running=1), NOW) is None


@pytest.mark.parametrize(
    ("wanted", "depth", "most", "drained", "seconds"),
    [
        (1, 100, 100, 2.0, 1.0),
        (1, 100, 100, 0.1, 10.0),
        (50, 100, 100, 2.0, 25.0),
        (1, 100, 100, 0.0, 300.0),
        (1, 100, 100, 0.001, 300.0),
    ],
)
def test_who_finds_no_room_is_told_when_there_will_be(
    wanted: int, depth: int, most: int, drained: float, seconds: float
) -> None:
    assert seconds_until_room(wanted, depth, most, drained) == pytest.approx(seconds)
