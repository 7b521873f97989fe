from datetime import UTC, datetime

import pytest

from app.core.tally import ALWAYS, BOUNDS, BUCKETS, HOUR, MINUTE, Durations, Tally, floor, total


def durations(*seconds: float) -> Durations:
    made = Durations()
    made.add(seconds)
    return made


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.005, 0), (0.0051, 1), (7200, BUCKETS - 2), (9000, BUCKETS - 1)]
)
def test_a_bucket_has_what_is_not_above_its_bound(seconds: float, bucket: int) -> None:
    assert durations(seconds).buckets[bucket] == 1


def test_quantiles_lie_in_the_bucket_of_the_true_one() -> None:
    values = [number / 100 for number in range(1, 1001)]
    made = durations(*values)
    for part in (0.0, 0.5, 0.95, 0.99, 1.0):
        true = values[max(0, round(part * len(values)) - 1)]
        bucket = next(number for number, bound in enumerate(BOUNDS) if true <= bound)
        found = made.quantile(part)
        assert found is not None
        assert (BOUNDS[bucket - 1] if bucket else 0.0) <= found <= BOUNDS[bucket]
    assert made.mean == pytest.approx(5.005)


def test_there_is_no_quantile_of_nothing_and_none_above_the_last_bound() -> None:
    assert durations().quantile(0.5) is None
    assert durations().mean is None
    assert durations(1e9).quantile(0.99) == BOUNDS[-1]


def test_tallies_add_up() -> None:
    one = Tally(submitted=2, completed=1, failed=1, wait=durations(1), run=durations(2, 3))
    other = Tally(submitted=1, retried=4, cancelled=5, run=durations(4))
    both = total([one, other])
    assert both == Tally(3, 1, 1, 4, 5, durations(1), durations(2, 3, 4))
    assert both.ended == 7
    assert one.submitted == 2


def test_spans_begin_at_multiples_of_their_length() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    assert floor(moment, MINUTE) == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    assert floor(moment, HOUR) == datetime(2026, 1, 2, 3, tzinfo=UTC)
    assert floor(moment, ALWAYS) == datetime(1970, 1, 1, tzinfo=UTC)
