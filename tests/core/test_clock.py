from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.core.clock import JumpDetector, from_milliseconds, to_milliseconds


@pytest.mark.parametrize(
    "moment", [datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)]
)
def test_a_moment_comes_back_as_it_was_stored(moment: datetime) -> None:
    assert from_milliseconds(to_milliseconds(moment)) == moment


def test_the_zone_of_a_moment_does_not_matter() -> None:
    east = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=5)))
    assert to_milliseconds(east) == to_milliseconds(east.astimezone(UTC))


def test_clocks_that_run_together_are_trusted() -> None:
    clocks = JumpDetector(tolerance_seconds=2)
    for second in range(100):
        assert not clocks.observe(1000.0 + second, 5.0 + second)
        assert clocks.settled(5.0 + second, quiet_seconds=30)


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 2.5])
def test_after_a_jump_nobody_is_trusted_for_a_while(jump: float) -> None:
    clocks = JumpDetector(tolerance_seconds=2)
    clocks.observe(1000.0, 5.0)
    assert clocks.observe(1001.0 + jump, 6.0)
    assert not clocks.settled(35.9, quiet_seconds=30)
    assert clocks.settled(36.0, quiet_seconds=30)
    assert not clocks.observe(1002.0 + jump, 7.0)
