from random import Random
from typing import Any

import pytest

from app.core.errors import PluginError
from app.core.retry import RetryPolicy

WIDTHS = [(1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (50, 10.0), (100_000, 10.0)]


@pytest.mark.parametrize(("attempt", "widest"), WIDTHS)
def test_the_delay_is_drawn_from_nothing_to_a_doubling_width_up_to_the_ceiling(attempt: int, widest: float) -> None:
    policy = RetryPolicy(base_seconds=2, ceiling_seconds=10)
    drawn = [policy.delay_seconds(attempt, Random(seed)) for seed in range(2000)]
    assert min(drawn) >= 0
    assert max(drawn) <= widest
    assert max(drawn) > 0.95 * widest
    assert min(drawn) < 0.05 * widest


@pytest.mark.parametrize(("attempt", "width"), WIDTHS)
def test_without_jitter_the_delay_is_the_width(attempt: int, width: float) -> None:
    assert RetryPolicy(2, 10, jitter=False).delay_seconds(attempt, Random(0)) == width


@pytest.mark.parametrize("attempt", [1, 2, 50])
def test_a_fixed_delay_does_not_grow(attempt: int) -> None:
    assert RetryPolicy(2, 10, "fixed", jitter=False).delay_seconds(attempt, Random(0)) == 2
    assert RetryPolicy(2, 10, "fixed").delay_seconds(attempt, Random(0)) <= 2


@pytest.mark.parametrize(
    "wrong", [{"base_seconds": -1}, {"base_seconds": 5, "ceiling_seconds": 4}, {"policy": "random"}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PluginError, match="RetryPolicy"):
        RetryPolicy(**wrong)
