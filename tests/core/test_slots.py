"""What may be claimed, as tables."""

import pytest

from app.core.slots import MOST_AHEAD, Kind, Load, Room, Waiting, ahead, places, room, run_short, to_drain

IDLE, RESERVED = Load(), Load(reserved=True)


def plain(count: int) -> Load:
    return Load(plain=count)


def shared(count: int) -> Load:
    return Load(shared=count)


@pytest.mark.parametrize(
    ("loads", "kinds", "alone", "expected"),
    [
        # Idle runners go to whatever waits.
        ([IDLE, IDLE], ["plain"], 0, Room(2, 0)),
        ([IDLE, IDLE], ["shared"], 0, Room(0, 32)),
        # Both wait: they share the idle ones, the one next in line takes the odd one.
        ([IDLE, IDLE], ["plain", "shared"], 0, Room(1, 16)),
        ([IDLE], ["plain", "shared"], 0, Room(1, 0)),
        ([IDLE], ["shared", "plain"], 0, Room(0, 16)),
        ([IDLE, IDLE, IDLE], ["shared", "plain"], 0, Room(1, 32)),
        # Busy ones take more of their own kind only.
        ([plain(1), shared(10)], ["plain"], 0, Room(0, 0)),
        ([plain(1), shared(10)], ["shared"], 0, Room(0, 6)),
        ([plain(1), shared(16)], ["shared", "plain"], 0, Room(0, 0)),
        # Nothing waits, or nothing is there to take it.
        ([IDLE], [], 0, Room(0, 0)),
        ([RESERVED], ["plain", "shared"], 0, Room(0, 0)),
        ([], ["plain"], 0, Room(0, 0)),
        # One that drains takes nothing more.
        ([Load(shared=3, reserved=True, draining=True), shared(9)], ["plain", "shared"], 0, Room(0, 7)),
        ([Load(plain=1, reserved=True, draining=True)], ["plain"], 0, Room(0, 0)),
        # What must run alone gets its idle runner first.
        ([IDLE, IDLE], ["plain"], 1, Room(1, 0)),
        ([IDLE], ["shared"], 1, Room(0, 0)),
    ],
)
def test_how_much_may_be_claimed(loads: list[Load], kinds: list[Kind], alone: int, expected: Room) -> None:
    assert room(loads, kinds, concurrency=16, waiting_alone=alone) == expected


@pytest.mark.parametrize(
    ("loads", "kinds", "alone", "expected"),
    [
        # The kind that is next has no place and never would: the least loaded runner of the other kind drains.
        ([shared(3), shared(9)], ["plain", "shared"], 0, 0),
        ([shared(9), shared(3), shared(4)], ["plain"], 0, 1),
        ([plain(40)], ["shared", "plain"], 0, 0),
        ([plain(40), plain(2)], ["shared"], 0, 1),
        # It has a place, or will have one: nobody drains.
        ([shared(3), plain(1)], ["plain", "shared"], 0, None),
        ([shared(3), plain(1)], ["shared", "plain"], 0, None),
        ([shared(3), IDLE], ["plain"], 0, None),
        ([shared(3), RESERVED], ["plain"], 0, None),
        ([shared(3)], ["shared", "plain"], 0, None),
        ([shared(3)], [], 0, None),
        # One drains already.
        ([shared(3), Load(shared=1, reserved=True, draining=True)], ["plain"], 0, None),
        # What must run alone needs an idle runner, whatever the others do.
        ([shared(3), plain(1)], [], 1, 1),
        ([plain(5)], ["plain"], 1, 0),
        ([IDLE, plain(1)], ["plain"], 1, None),
    ],
)
def test_which_runner_drains_so_that_nothing_starves(
    loads: list[Load], kinds: list[Kind], alone: int, expected: int | None
) -> None:
    assert to_drain(loads, kinds, waiting_alone=alone) == expected


def test_short_work_is_held_ahead_of_busy_runners_too() -> None:
    assert room([plain(2), IDLE], ["plain"], concurrency=16, plain_ahead=4) == Room(3 + 5, 0)
    assert room([shared(10), IDLE], ["shared"], concurrency=16, shared_ahead=4) == Room(0, 10 + 20)


def test_nothing_is_held_ahead_behind_something_slow() -> None:
    slow_plain, slow_shared = Load(plain=1, slow=True), Load(shared=10, slow=True)
    assert room([slow_plain], ["plain"], concurrency=16, plain_ahead=4) == Room(0, 0)
    assert room([slow_shared], ["shared"], concurrency=16, shared_ahead=4) == Room(0, 6)


@pytest.mark.parametrize(
    ("mean_seconds", "expected"),
    [(None, 0), (10.0, 0), (0.2, 0), (0.1, 2), (0.01, 20), (0.00001, MOST_AHEAD), (0.0, MOST_AHEAD)],
)
def test_only_short_work_is_held_ahead(mean_seconds: float | None, expected: int) -> None:
    assert ahead(mean_seconds, 2) == expected


@pytest.mark.parametrize(("characters", "expected"), [(0.0, MOST_AHEAD), (100.0, MOST_AHEAD), (2**18, 16), (2**30, 0)])
def test_of_large_payloads_few_are_held_ahead(characters: float, expected: int) -> None:
    assert ahead(0.00001, characters) == expected
    assert ahead(None, characters) == 0


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([], False),
        ([IDLE], True),
        ([RESERVED], False),
        ([Load(plain=3, seconds=0.11)], False),
        ([Load(plain=3, seconds=0.09)], True),
        ([Load(plain=3, seconds=0.11), Load(shared=3, seconds=0.09)], True),
        ([Load(plain=3, seconds=0.11), Load(plain=3, seconds=0.09, reserved=True)], False),
    ],
)
def test_runners_with_enough_to_do_need_no_haste(loads: list[Load], expected: bool) -> None:
    assert run_short(loads) is expected


PLAIN, SHARED = Waiting("plain"), Waiting("shared")
ALONE = Waiting("plain", alone=True)


@pytest.mark.parametrize(
    ("loads", "waiting", "expected"),
    [
        # The emptiest one takes the next, the first of several.
        ([IDLE, IDLE], [PLAIN, PLAIN, PLAIN], [0, 1, 0]),
        ([plain(2), IDLE], [PLAIN, PLAIN, PLAIN, PLAIN], [1, 1, 0, 1]),
        ([shared(1), shared(5)], [SHARED] * 6, [0, 0, 0, 0, 0, 1]),
        # A runner keeps to one kind at a time.
        ([plain(1)], [SHARED], [None]),
        ([shared(1)], [PLAIN], [None]),
        ([IDLE], [PLAIN, SHARED, PLAIN], [0, None, 0]),
        ([IDLE, IDLE], [SHARED, PLAIN, SHARED], [0, 1, 0]),
        # What runs alone wants an idle one, and keeps it to itself.
        ([IDLE, IDLE], [ALONE, PLAIN, PLAIN], [0, 1, 1]),
        ([plain(1), shared(1)], [ALONE], [None]),
        ([IDLE], [PLAIN, ALONE, PLAIN], [0, None, 0]),
        # Closed ones take nothing; full ones neither.
        ([RESERVED], [PLAIN, SHARED, ALONE], [None, None, None]),
        ([plain(MOST_AHEAD)], [PLAIN, PLAIN], [0, None]),
        ([shared(16 + MOST_AHEAD - 1)], [SHARED, SHARED], [0, None]),
        ([], [PLAIN], [None]),
    ],
)
def test_which_runner_takes_what(loads: list[Load], waiting: list[Waiting], expected: list[int | None]) -> None:
    assert places(loads, waiting, concurrency=16, rooms=[None] * len(loads)) == expected


def test_a_runner_is_given_no_more_attempts_than_it_may_have() -> None:
    assert places([IDLE, IDLE], [PLAIN] * 4, concurrency=16, rooms=[1, 2]) == [0, 1, 1, None]
