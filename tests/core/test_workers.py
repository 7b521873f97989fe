from datetime import UTC, datetime, timedelta

import pytest

from app.core.workers import silent_seconds

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(("ago", "expected"), [(-60, None), (0, None), (15, None), (15.5, 15.5), (600, 600)])
def test_a_worker_is_silent_when_its_beat_is_overdue(ago: float, expected: float | None) -> None:
    assert silent_seconds(NOW - timedelta(seconds=ago), NOW) == expected
