"""What a message of the broker says, and who has to say it again. Values and decisions; `services/broker.py` does the rest."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

MOST_TASKS = 10**9
MOST_PASSES = 3
"""So many workers in a row may hear of tasks that none of them can take; then they wait until somebody looks by itself."""


@dataclass(frozen=True, slots=True)
class Hint:
    """So many tasks may wait in a queue. `passes`: how many workers in a row have heard of them and could take none.

    It names no tasks on purpose: a worker takes what is first in the order of work, whatever came last.
    """

    queue: str
    tasks: int = 1
    passes: int = 0


def read(queue: str, fields: Mapping[bytes, bytes]) -> Hint | None:
    """The hint of a message; None for a message that is none of ours."""
    try:
        tasks, passes = int(fields[b"tasks"]), int(fields[b"passes"])
    except (KeyError, ValueError):
        return None
    return Hint(queue, tasks, passes) if 0 < tasks <= MOST_TASKS and 0 <= passes <= MOST_PASSES else None


def merged(hints: Collection[Hint]) -> list[Hint]:
    """One hint for each queue, which says what all of its hints say."""
    found: dict[str, Hint] = {}
    for hint in hints:
        before = found.get(hint.queue, Hint(hint.queue, 0, MOST_PASSES))
        tasks = min(MOST_TASKS, before.tasks + hint.tasks)
        found[hint.queue] = Hint(hint.queue, tasks, min(before.passes, hint.passes))
    return list(found.values())


def still_to_say(heard: Sequence[Hint], claimed: Mapping[str, int], left: Collection[str]) -> list[Hint]:
    """What a worker passes on that has heard of tasks, has then claimed so many of each queue, and has left others waiting
    in these queues. So a thousand tasks of one message reach one worker after the other until all are busy."""
    rest = []
    for hint in merged(heard):
        taken = claimed.get(hint.queue, 0)
        passes = hint.passes if taken else hint.passes + 1
        if hint.queue in left and hint.tasks > taken and passes <= MOST_PASSES:
            rest.append(Hint(hint.queue, hint.tasks - taken, passes))
    return rest
