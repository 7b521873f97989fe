"""What a program has loaded stays, and what a batch makes goes by itself: Python's collector is kept from walking through
both again and again to find that out."""

import gc

YOUNG = 10_000
"""New objects that make the collector look, in programs whose own code alone runs there. Python's 700 are a fraction of one
batch of tasks, all of which are still wanted then: a twentieth of a worker's time went into looking."""


def keep_what_is_loaded() -> None:
    """Leave everything that exists now out of later collections: a full one took 60 ms in a worker, in which nothing else
    happens. For programs, once, when they are ready; never where what exists now may have to go.

    Without collecting first, which takes those 60 ms once and found 228 objects: every program would start later for it.
    """
    gc.freeze()


def collect_seldom() -> None:
    """Look for garbage in cycles when there are YOUNG new objects, not sooner. What is in none is gone at once in any case."""
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
