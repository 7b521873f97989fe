import pytest

from app.core.concurrency import AS_IT_IS, Contender, Shift, shift
from app.core.task import Status

RUNS, READY, BLOCKED = Status.RUNNING, Status.PENDING, Status.BLOCKED
Given = tuple[Status, int, int]


@pytest.mark.parametrize(
    ("contenders", "admitted", "displaced"),
    [
        ([], (), ()),
        ([(BLOCKED, 5, 1), (BLOCKED, 4, 1)], (1,), ()),  # the lowest rank
        ([(RUNS, 9, 1), (BLOCKED, 4, 1)], (), ()),  # who runs keeps the place
        ([(RUNS, 9, 2), (BLOCKED, 4, 2), (BLOCKED, 5, 2)], (1,), ()),
        ([(READY, 9, 1), (BLOCKED, 4, 1)], (1,), (0,)),  # who waits gives it to one with a higher priority
        ([(READY, 4, 1), (BLOCKED, 9, 1)], (), ()),
        ([(READY, 4, 2), (READY, 9, 2), (BLOCKED, 5, 2)], (2,), (1,)),
        ([(RUNS, 1, 9), (BLOCKED, 2, 1), (BLOCKED, 3, 9)], (), ()),  # nobody passes one that is bound more tightly
        ([(BLOCKED, 2, 9), (BLOCKED, 3, 1)], (0,), ()),
        ([(BLOCKED, 7, 1), (BLOCKED, 7, 1)], (0,), ()),  # of the same rank the older one
    ],
)
def test_places_go_to_the_lowest_ranks(
    contenders: list[Given], admitted: tuple[int, ...], displaced: tuple[int, ...]
) -> None:
    given = [Contender(id_, "k", status, rank, limit) for id_, (status, rank, limit) in enumerate(contenders)]
    assert shift(given) == Shift(admitted, displaced)
    after = {one.id: one for one in given}
    for moved, status in ((admitted, READY), (displaced, BLOCKED)):
        for id_ in moved:
            one = after[id_]
            after[id_] = Contender(one.id, one.key, status, one.rank, one.limit)
    assert shift(list(after.values())) == AS_IT_IS
