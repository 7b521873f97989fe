from datetime import UTC, datetime, timedelta

from app.core.task import rank_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_higher_priority_runs_first() -> None:
    assert rank_of(NOW, 1, 60) < rank_of(NOW, 0, 60) < rank_of(NOW, -1, 60)


def test_an_older_task_runs_first_at_the_same_priority() -> None:
    assert rank_of(NOW, 5, 60) < rank_of(NOW + timedelta(milliseconds=1), 5, 60)


def test_the_lowest_priority_waits_a_bounded_time_longer_than_the_highest() -> None:
    low = rank_of(NOW, -100, 60)
    assert rank_of(NOW + timedelta(seconds=200 * 60), 100, 60) == low
    assert rank_of(NOW + timedelta(seconds=200 * 60 + 1), 100, 60) > low
