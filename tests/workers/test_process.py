import time
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from app.core.slots import AHEAD_SECONDS, Kind
from app.core.task import ClaimedTask, JsonText
from app.workers.process import CHARACTERS_A_FRAME, LONGEST_LINE, Given, RunnerProcess, WholeLines
from tests.workers.test_pool import Said


class Nobody:
    """Hears of a runner, and does nothing."""

    def heard(self, runner: RunnerProcess, message: dict[str, Any]) -> None: ...

    def gone(self, runner: RunnerProcess, evidence: str) -> None: ...


def one(number: int, kind: Kind, *, alone: bool) -> Given:
    return Given(ClaimedTask(number, 1, "echo", "default", JsonText("{}"), 1, 10.0, number, alone), kind)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_and_characters_cut_anywhere_come_out_whole(size: int) -> None:
    said = "cleaned up the task was cancelled\né€🙂\n\nlast".encode()
    whole = WholeLines()
    lines = [line for at in range(0, len(said), size) for line in whole.feed(said[at : at + size])]
    assert lines == ["cleaned up the task was cancelled", "é€🙂", ""]
    assert whole.feed(b"") == ["last"]


def test_what_never_ends_is_not_kept_for_ever() -> None:
    whole = WholeLines()
    assert whole.feed(b"x" * LONGEST_LINE) == []
    assert whole.feed(b"x") == ["x" * (LONGEST_LINE + 1)]
    assert whole.feed(b"y\n") == ["y"]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert WholeLines().feed(b"\xff\n") == ["\ufffd"]


@pytest.mark.parametrize("seed", range(3))
def test_a_load_is_what_was_given_and_not_taken(seed: int) -> None:
    random = Random(seed)
    runner = RunnerProcess(Nobody())
    runner.ready = True
    for number in range(500):
        if random.random() < 0.55:
            kinds: tuple[Kind, ...] = ("plain", "shared")
            runner.give([one(number, random.choice(kinds), alone=random.random() < 0.1)])
        elif runner.given:
            runner.take(random.choice(list(runner.given)))
        inside, load = list(runner.given.values()), runner.load
        assert load.plain == sum(given.kind == "plain" for given in inside)
        assert load.shared == len(inside) - load.plain
        assert load.reserved == any(given.task.runs_alone for given in inside)
    assert runner.take((-1, 1)) is None
    inside = list(runner.given.values())
    assert runner.take_all() == inside
    assert runner.load.idle


def test_a_load_is_slow_while_its_oldest_attempt_has_run_for_long() -> None:
    runner = RunnerProcess(Nobody())
    runner.ready = True
    runner.give([one(number, "plain", alone=False) for number in range(3)])
    first, second, _ = runner.given.values()
    assert first.began is not None
    assert second.began is None
    first.began -= 2 * AHEAD_SECONDS
    assert runner.load.slow
    runner.take(first.key)
    assert not runner.load.slow
    second.began = time.monotonic() - 2 * AHEAD_SECONDS
    assert runner.load.slow


def test_large_payloads_go_in_several_frames_in_their_order() -> None:
    runner, said = RunnerProcess(Nobody()), Said()
    runner.connection_made(said)
    sizes = (10, CHARACTERS_A_FRAME, 10, 10, CHARACTERS_A_FRAME // 2, CHARACTERS_A_FRAME)
    batch = [
        Given(ClaimedTask(number, 1, "echo", "default", JsonText("x" * size), 1, 10.0, number, False), "plain")
        for number, size in enumerate(sizes)
    ]
    runner.give([replace(batch[0], checkpoints=[JsonText("y" * CHARACTERS_A_FRAME)]), *batch[1:]])
    assert [[entry[0] for entry in message["run"]] for message in said.messages] == [[0], [1, 2], [3, 4, 5]]
    said.messages.clear()
    runner.give(batch[2:4])
    assert [len(message["run"]) for message in said.messages] == [2]
