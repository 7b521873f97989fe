from random import Random

import pytest

from app.core.retry import RetryPolicy


@pytest.mark.parametrize(("attempt", "widest"), [(1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (50, 10.0), (100_000, 10.0)])
def test_the_delay_is_drawn_from_nothing_to_a_doubling_width_up_to_the_ceiling(attempt: int, widest: float) -> None:
    policy = RetryPolicy(base_seconds=2, ceiling_seconds=10)
    drawn = [policy.delay_seconds(attempt, Random(seed)) for seed in range(2000)]
    assert min(drawn) >= 0
    assert max(drawn) <= widest
    assert max(drawn) > 0.95 * widest
    assert min(drawn) < 0.05 * widest
