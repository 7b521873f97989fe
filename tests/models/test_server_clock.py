from datetime import UTC, datetime, timedelta

from app.models.server_clock import ServerClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Steady:
    """A clock that goes on by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_it_goes_on_from_what_the_server_said_whatever_this_host_believes() -> None:
    steady = Steady()
    clock = ServerClock(steady)
    clock.learn(1000.0, NOON, 1000.0)
    assert clock() == NOON
    steady.seconds += 90
    assert clock() == NOON + 90 * SECOND


def test_half_of_the_round_trip_is_added() -> None:
    steady = Steady()
    clock = ServerClock(steady)
    clock.learn(1000.0, NOON, 1001.0)
    steady.seconds = 1001.0
    assert clock() == NOON + 0.5 * SECOND


def test_a_slow_answer_does_not_move_a_clock_that_may_be_right() -> None:
    steady = Steady()
    clock = ServerClock(steady)
    clock.learn(1000.0, NOON, 1000.002)
    before = clock()
    clock.learn(1000.0, NOON + 1.9 * SECOND, 1002.0)  # said at some moment within two seconds
    assert clock() == before


def test_a_clock_that_was_set_is_followed_in_both_directions() -> None:
    steady = Steady()
    clock = ServerClock(steady)
    clock.learn(1000.0, NOON, 1000.0)
    for hours in (1, -2):
        clock.learn(1000.0, NOON + timedelta(hours=hours), 1000.0)
        assert clock() == NOON + timedelta(hours=hours)


def test_before_it_was_told_anything_it_is_this_hosts_clock() -> None:
    assert abs(ServerClock()() - datetime.now(UTC)) < 60 * SECOND
