"""A worker as others see it: by what it said last, and how long ago that was."""

from datetime import datetime

SILENT = "silent"
"""The state of a worker that says nothing any more, whatever it said last."""
SILENT_SECONDS = 15.0
"""A worker beats every five seconds; a beat that the store does not take at once costs up to ten more."""


def silent_seconds(beat_at: datetime, now: datetime) -> float | None:
    """For how long a worker has not been heard of, None while it beats."""
    seconds = (now - beat_at).total_seconds()
    return seconds if seconds > SILENT_SECONDS else None
