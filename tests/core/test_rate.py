"""Buckets by tables of moments."""

import pytest

from app.core.rate import Rate


class Bucket:
    """One that remembers its moment."""

    def __init__(self, per_second: float) -> None:
        self.rate = Rate(per_second)
        self.full_at = 0.0

    def allows(self, now: float) -> bool:
        self.full_at, standing = self.rate.take(self.full_at, now)
        return standing.allowed


def test_a_full_bucket_allows_a_burst_and_then_what_comes_in() -> None:
    bucket = Bucket(10)
    assert [bucket.allows(1) for _ in range(21)] == [True] * 20 + [False]
    assert bucket.rate.take(bucket.full_at, 1.05)[1].wait_seconds == pytest.approx(0.05)
    assert [bucket.allows(1.1) for _ in range(2)] == [True, False]
    assert [bucket.allows(100) for _ in range(21)] == [True] * 20 + [False], "it holds no more than that"


@pytest.mark.parametrize("rate", [0.5, 1, 10, 333])
def test_over_time_as_many_are_allowed_as_come_in(rate: float) -> None:
    bucket = Bucket(rate)
    seconds, tries = 60, int(60 * rate * 10)
    allowed = sum(bucket.allows(number * seconds / tries) for number in range(tries))
    assert allowed == pytest.approx(bucket.rate.capacity + rate * seconds, rel=0.02, abs=1)


def test_standing_says_how_long_to_wait() -> None:
    full_at, first = Rate(0.1).take(0, 100)
    _, second = Rate(0.1).take(full_at, 104)
    assert (first.allowed, first.limit, first.remaining, first.reset_seconds) == (True, 1, 0, 10)
    assert (second.allowed, second.remaining, second.wait_seconds) == (False, 0, pytest.approx(6))


def test_a_moment_that_cannot_be_heals() -> None:
    full_at, standing = Rate(10).take(1e300, 5)
    assert not standing.allowed
    assert full_at == 7
