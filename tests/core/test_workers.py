from datetime import UTC, datetime, timedelta

import pytest

from app.core.slots import Room
from app.core.workers import room, silent_seconds

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(("ago", "expected"), [(-60, None), (0, None), (15, None), (15.5, 15.5), (600, 600)])
def test_a_worker_is_silent_when_its_beat_is_overdue(ago: float, expected: float | None) -> None:
    assert silent_seconds(NOW - timedelta(seconds=ago), NOW) == expected


@pytest.mark.parametrize(
    ("plain", "shared", "expected"),
    [
        (0, 0, Room(2, 32)),
        (1, 0, Room(1, 16)),
        (2, 0, Room(0, 0)),
        (300, 0, Room(0, 0)),  # short ones, held ahead
        (0, 1, Room(1, 31)),
        (0, 2, Room(0, 30)),
        (1, 1, Room(0, 15)),
        (0, 32, Room(0, 0)),
        (1, 16, Room(0, 0)),
    ],
)
def test_a_plain_attempt_takes_a_whole_runner(plain: int, shared: int, expected: Room) -> None:
    """Of a worker with two runners, of 16 places each."""
    assert room(2, 32, plain=plain, shared=shared) == expected
