from datetime import UTC, datetime, timedelta

import pytest

from app.core.leases import HeldLease, LeaseWatch

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
LASTS = 30


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def lease(ends: float, id_: int = 1, number: int = 1) -> HeldLease:
    """Its end, in seconds after noon by the clock of its worker."""
    return HeldLease(id_, number, at(ends))


def look(watch: LeaseWatch, held: list[HeldLease], second: float, wall_ahead: float = 0) -> list[HeldLease]:
    """What is over, of all that is held, at a second of monotonic time."""
    wall = at(second + wall_ahead)
    before, after = watch.stands_out(wall)
    return watch.over([one for one in held if one.expires_at < before or one.expires_at > after], wall, second)


def first_over(watch: LeaseWatch, held: HeldLease, since: int, wall_ahead: float = 0) -> int:
    """The second at which a lease that is never renewed is over, looked at every second, from `since` on."""
    return next(second for second in range(since, since + 100_000) if look(watch, [held], second, wall_ahead))


@pytest.fixture
def watch() -> LeaseWatch:
    """One that has looked every second for as long as a lease lasts."""
    watch = LeaseWatch(LASTS)
    for second in range(-LASTS, 1):
        assert look(watch, [], second) == []
    return watch


def test_a_lease_is_over_when_it_says_so(watch: LeaseWatch) -> None:
    assert first_over(watch, lease(ends=31), since=1) == 32


def test_a_lease_that_is_renewed_is_never_over(watch: LeaseWatch) -> None:
    for second in range(200):
        renewed_at = second // 10 * 10
        assert look(watch, [lease(ends=renewed_at + LASTS)], second) == []


def test_who_has_just_started_watches_for_a_lease_first() -> None:
    assert first_over(LeaseWatch(LASTS), lease(ends=-500), since=0) == 31
    assert first_over(LeaseWatch(LASTS), lease(ends=7), since=0) == 39


def test_what_ended_while_nobody_could_look_is_over_at_once(watch: LeaseWatch) -> None:
    """The store was away for a quarter of an hour."""
    assert look(watch, [lease(ends=31)], 900) == [lease(ends=31)]


@pytest.mark.parametrize("skew", [-86400, -3600, -100, 40, 3600, 86400])
def test_a_worker_whose_clock_is_wrong_keeps_what_it_renews_and_nothing_else(watch: LeaseWatch, skew: int) -> None:
    for second in range(1, 100):
        renewed_at = second // 10 * 10
        assert look(watch, [lease(ends=renewed_at + LASTS + skew)], second) == []
    assert first_over(watch, lease(ends=90 + LASTS + skew), since=100) in range(91 + LASTS, 100 + LASTS + 2)


@pytest.mark.parametrize("jump", [-86400, -3600, -40, -20, 20, 40, 3600, 86400])
def test_our_own_clock_may_be_set_at_any_time(watch: LeaseWatch, jump: int) -> None:
    """A worker that lives renews by the new time within a third of a lease; one that died is found out."""
    for second in range(1, 200):
        renewed_at = second // 10 * 10
        written = renewed_at + (jump if renewed_at >= 50 else 0) + LASTS
        assert look(watch, [lease(ends=written)], second, jump if second >= 45 else 0) == []
    assert first_over(watch, lease(ends=190 + jump + LASTS), since=200, wall_ahead=jump) == 191 + LASTS


@pytest.mark.parametrize("jump", [-86400, -3600, 3600, 86400])
def test_a_worker_that_died_before_the_clock_was_set_is_found_out_within_two_leases(
    watch: LeaseWatch, jump: int
) -> None:
    for second in range(1, 45):
        assert look(watch, [lease(ends=40 + LASTS)] if second >= 40 else [], second) == []
    assert first_over(watch, lease(ends=40 + LASTS), since=45, wall_ahead=jump) in range(70, 45 + LASTS + 2)


def test_the_next_lease_of_a_task_is_another_one(watch: LeaseWatch) -> None:
    look(watch, [lease(ends=-500, number=1)], 1)
    assert look(watch, [lease(ends=-500, number=2)], 20) == []
    assert first_over(watch, lease(ends=-500, number=2), since=21) == 51


def test_the_longest_over_comes_first(watch: LeaseWatch) -> None:
    older, newer = lease(ends=31, id_=2), lease(ends=32, id_=1)
    assert look(watch, [newer, older], 100) == [older, newer]


def test_a_short_lease_is_watched_as_closely() -> None:
    watch = LeaseWatch(0.3)
    for tick in range(8):
        assert look(watch, [], tick * 0.05) == []
    assert look(watch, [lease(ends=0.7)], 0.69) == []
    assert look(watch, [lease(ends=0.7)], 0.71) == [lease(ends=0.7)]
