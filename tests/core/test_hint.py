from collections.abc import Mapping

import pytest

from app.core.hint import MOST_PASSES, MOST_TASKS, Hint, merged, read, still_to_say


def test_a_message_says_how_many_tasks_may_wait() -> None:
    assert read("q", {b"tasks": b"3", b"passes": b"1"}) == Hint("q", 3, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"tasks": b"3"},
        {b"tasks": b"three", b"passes": b"0"},
        {b"tasks": b"0", b"passes": b"0"},
        {b"tasks": b"-1", b"passes": b"0"},
        {b"tasks": b"1", b"passes": b"-1"},
        {b"tasks": b"1", b"passes": b"%d" % (MOST_PASSES + 1)},
        {b"tasks": b"%d" % (MOST_TASKS + 1), b"passes": b"0"},
        {b"tasks": b"\xff\x00", b"passes": b"0"},
        {b"tasks": b"9" * 10_000, b"passes": b"0"},
    ],
)
def test_a_message_of_somebody_who_speaks_otherwise_says_nothing(fields: Mapping[bytes, bytes]) -> None:
    assert read("q", fields) is None


def test_hints_about_one_queue_are_one_hint() -> None:
    assert merged([Hint("a", 2, 1), Hint("b"), Hint("a", 3, 0)]) == [Hint("a", 5, 0), Hint("b", 1, 0)]
    assert merged([Hint("a", MOST_TASKS), Hint("a", 5)]) == [Hint("a", MOST_TASKS)]


def test_who_could_take_only_some_tells_others_of_the_rest() -> None:
    assert still_to_say([Hint("a", 100)], {"a": 8}, {"a"}) == [Hint("a", 92)]


def test_who_took_all_says_nothing_even_if_something_else_may_wait_there() -> None:
    assert still_to_say([Hint("a", 1)], {"a": 1}, {"a"}) == []
    assert still_to_say([Hint("a", 1)], {"a": 3}, {"a"}) == []


def test_what_nothing_is_left_of_is_not_said_again() -> None:
    assert still_to_say([Hint("a", 100)], {"a": 8}, set()) == []
    assert still_to_say([Hint("a", 100), Hint("b", 2)], {}, {"b"}) == [Hint("b", 2, 1)]


def test_what_nobody_can_take_goes_round_a_bounded_number_of_times() -> None:
    hints, rounds = [Hint("a", 5)], 0
    while hints:
        hints, rounds = still_to_say(hints, {}, {"a"}), rounds + 1
    assert rounds == MOST_PASSES + 1


def test_a_thousand_tasks_of_one_message_reach_one_worker_after_the_other() -> None:
    hints, left, workers = [Hint("a", 1000)], 1000, 0
    while hints:
        taken = min(8, left)
        left -= taken
        hints, workers = still_to_say(hints, {"a": taken}, {"a"} if left else set()), workers + 1
    assert (left, workers) == (0, 125)
