"""Which work a worker may claim now, given what its runners are doing. Arithmetic only.

A plain attempt has a runner to itself; attempts of `async def` executors share one. A runner is idle, plain or shared at
a time. Short work is held a little ahead (depth above one) so that a runner never waits for the database.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.core.values import value

Kind = Literal["plain", "shared"]

AHEAD_SECONDS = 0.2
"""Work held ahead of a runner: a few hundred milliseconds' worth, so that little waits behind something slow."""
ENOUGH_SECONDS = 0.1
"""With so much work in a runner nothing is done in haste for it: this outlasts most exchanges with the store."""
MOST_AHEAD = 256
MOST_CHARACTERS_AHEAD = 4 * 2**20
"""Of payloads that are held ahead of one runner: on their way they are in memory several times."""
SLOWEST_AHEAD_SECONDS = 0.1
"""Nothing is held ahead when one attempt takes longer than this."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one runner has been given and has not finished.

    `slow`: something in it has been running for a while, so nothing is held ahead behind it. `reserved`: it takes nothing
    more for now. `draining`: reserved until it is idle, for something that is next in line and has no other place.
    `seconds`: how long what it has takes all together, as far as that is known.
    """

    plain: int = 0
    shared: int = 0
    slow: bool = False
    reserved: bool = False
    draining: bool = False
    seconds: float = 0.0

    @property
    def idle(self) -> bool:
        return not (self.plain or self.shared or self.reserved)


@dataclass(frozen=True, slots=True)
class Room:
    """How many attempts of each kind could be given to runners now."""

    plain: int
    shared: int


@value
class Waiting:
    """An attempt that is claimed and in no runner yet. `alone`: nothing else may be in its runner."""

    kind: Kind
    alone: bool = False


def places(
    loads: Sequence[Load], waiting: Sequence[Waiting], *, concurrency: int, rooms: Sequence[int | None]
) -> list[int | None]:
    """Which runner takes each of `waiting`, in that order, as a place in `loads`; None where it has to wait on.

    The emptiest runner that fits takes it. `rooms` says how many more each runner may be given at all, None any number.
    """
    plain = [load.plain for load in loads]
    shared = [load.shared for load in loads]
    closed = [load.reserved for load in loads]
    left = [sys.maxsize if room is None else room for room in rooms]
    chosen: list[int | None] = []
    for one in waiting:
        best, least = None, sys.maxsize
        for place, is_closed in enumerate(closed):
            inside = plain[place] + shared[place]
            if is_closed or inside >= least or left[place] <= 0:
                continue
            if one.alone:
                fits = not inside
            elif one.kind == "plain":
                fits = not shared[place] and plain[place] <= MOST_AHEAD
            else:
                fits = not plain[place] and shared[place] < concurrency + MOST_AHEAD
            if fits:
                best, least = place, inside
        chosen.append(best)
        if best is not None:
            (plain if one.kind == "plain" else shared)[best] += 1
            left[best] -= 1
            closed[best] = one.alone
    return chosen


def ahead(slowest_mean_seconds: float | None, most_characters: float) -> int:
    """How many attempts to hold ahead of a runner when the slowest type waiting takes this long on average, and the largest
    has payloads of up to so many characters.

    None (never measured) holds nothing ahead.
    """
    if slowest_mean_seconds is None or slowest_mean_seconds > SLOWEST_AHEAD_SECONDS:
        return 0
    in_time = int(AHEAD_SECONDS / max(slowest_mean_seconds, 1e-6))
    return min(MOST_AHEAD, in_time, int(MOST_CHARACTERS_AHEAD / max(most_characters, 1.0)))


def run_short(loads: Sequence[Load]) -> bool:
    """Whether one of these runners, if not soon given more, would have nothing to do."""
    return any(load.seconds < ENOUGH_SECONDS and not load.reserved for load in loads)


def to_drain(loads: Sequence[Load], next_kinds: Sequence[Kind], *, waiting_alone: int = 0) -> int | None:
    """The place in `loads` of the runner that should take nothing more until it is idle, None if none need be.

    Something is next in line (or waits to run alone) that no runner could ever take, because each one is kept busy with
    the other kind: without this, a steady stream of one kind would starve the other.
    """
    if not (next_kinds or waiting_alone) or any(load.draining or not (load.plain or load.shared) for load in loads):
        return None  # nothing waits, or one is or will be idle
    open_ones = [place for place, load in enumerate(loads) if not load.reserved]
    if not waiting_alone:
        plain_is_next = next_kinds[0] == "plain"
        open_ones = [place for place in open_ones if bool(loads[place].plain) != plain_is_next]
        if len(open_ones) < len(loads):
            return None  # a runner of the right kind will have room again
    return min(open_ones, key=lambda place: loads[place].plain + loads[place].shared, default=None)


def room(
    loads: Sequence[Load],
    next_kinds: Sequence[Kind],
    *,
    concurrency: int,
    plain_ahead: int = 0,
    shared_ahead: int = 0,
    waiting_alone: int = 0,
) -> Room:
    """How much to claim. `next_kinds` are the kinds of the waiting heads by rank: the first one is next in line.

    `waiting_alone` attempts wait for an idle runner of their own and come first. When both kinds wait, idle runners are
    shared out, the kind next in line taking the odd one.
    """
    first: Kind | None = next_kinds[0] if next_kinds else None
    idle = max(0, sum(load.idle for load in loads) - waiting_alone)
    plain_idle, shared_idle = _split(idle, first, next_kinds)
    plain = plain_idle * (1 + plain_ahead)
    plain += sum(max(0, plain_ahead + 1 - load.plain) for load in loads if load.plain and not _closed(load))
    shared = shared_idle * (concurrency + shared_ahead)
    shared += sum(
        max(0, concurrency + (0 if load.slow else shared_ahead) - load.shared)
        for load in loads
        if load.shared and not load.reserved
    )
    return Room(plain if "plain" in next_kinds else 0, shared if "shared" in next_kinds else 0)


def _closed(load: Load) -> bool:
    return load.reserved or load.slow


def _split(idle: int, first: Kind | None, next_kinds: Sequence[Kind]) -> tuple[int, int]:
    if "plain" not in next_kinds:
        return 0, idle
    if "shared" not in next_kinds:
        return idle, 0
    larger, smaller = idle - idle // 2, idle // 2
    return (larger, smaller) if first == "plain" else (smaller, larger)
