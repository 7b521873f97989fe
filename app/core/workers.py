"""A worker as others see it: by what it said last, how long ago that was, and what it holds."""

from datetime import datetime

from app.core.slots import Room

SILENT = "silent"
"""The state of a worker that says nothing any more, whatever it said last."""
SILENT_SECONDS = 15.0
"""A worker beats every five seconds; a beat that the store does not take at once costs up to ten more."""


def silent_seconds(beat_at: datetime, now: datetime) -> float | None:
    """For how long a worker has not been heard of, None while it beats."""
    seconds = (now - beat_at).total_seconds()
    return seconds if seconds > SILENT_SECONDS else None


def room(runners: int, slots: int, *, plain: int, shared: int) -> Room:
    """How many more attempts of one kind or of the other a worker could take that holds so many, begun or not.

    A plain one has a runner to itself. Shared ones go to the emptiest runner, so each of them is taken to keep one from
    plain ones: where several are in one, a runner is idle, and has something else within milliseconds if there is anything.
    """
    left = max(0, runners - plain)
    return Room(max(0, left - shared), max(0, left * slots // runners - shared) if runners else 0)
