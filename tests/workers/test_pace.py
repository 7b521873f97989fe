"""How far ahead work is held, from what a worker has seen of it."""

from app.core.slots import MOST_AHEAD, MOST_CHARACTERS_AHEAD, Kind
from app.core.task import ClaimedTask, JsonText
from app.workers.pace import Pace


def kind_of(task_type: str) -> Kind:
    return "shared" if task_type == "shared" else "plain"


def seen(pace: Pace, task_type: str, seconds: float, characters: int = 2) -> None:
    task = ClaimedTask(1, 1, task_type, "default", JsonText("x" * characters), 1, 10.0, 1, False)
    for _ in range(50):
        pace.see(task)
        pace.learn(task, seconds)


def test_what_was_never_seen_is_not_held_ahead() -> None:
    pace = Pace(kind_of)
    assert (pace.ahead([]), pace.ahead(["quick"]), pace.most_ahead("plain"), pace.mean_seconds()) == (0, 0, 0, None)
    seen(pace, "quick", 0.00001)
    assert pace.ahead(["quick"]) == pace.most_ahead("plain") == MOST_AHEAD
    assert (pace.ahead(["quick", "new"]), pace.most_ahead("shared")) == (0, 0)


def test_the_slowest_and_the_largest_count() -> None:
    pace = Pace(kind_of)
    seen(pace, "quick", 0.00001)
    seen(pace, "slow", 0.01)
    seen(pace, "large", 0.00001, MOST_CHARACTERS_AHEAD // 8)
    assert pace.ahead(["quick", "slow"]) == 20
    assert pace.ahead(["quick", "large"]) == pace.ahead(["slow", "large"]) == 8
    assert pace.most_ahead("plain") == MOST_AHEAD


def test_what_has_become_slow_is_soon_known_to_be() -> None:
    pace = Pace(kind_of)
    seen(pace, "quick", 0.00001)
    pace.learn(ClaimedTask(1, 1, "quick", "default", JsonText("{}"), 1, 10.0, 1, False), 1.0)
    assert pace.ahead(["quick"]) == 0


def test_how_large_payloads_have_become_is_known_when_the_first_is_claimed_and_slowly_forgotten() -> None:
    pace = Pace(kind_of)
    seen(pace, "quick", 0.00001)
    large = MOST_CHARACTERS_AHEAD // 8
    pace.see(ClaimedTask(1, 1, "quick", "default", JsonText("x" * large), 1, 10.0, 1, False))
    assert pace.ahead(["quick"]) == pace.most_ahead("plain") == 8
    seen(pace, "quick", 0.00001)
    assert 8 < pace.ahead(["quick"]) < 30
    for _ in range(5):
        seen(pace, "quick", 0.00001)
    assert pace.ahead(["quick"]) == MOST_AHEAD
