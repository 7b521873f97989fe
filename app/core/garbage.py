"""What a program has loaded stays. Python's collector would walk through all of it again and again to find that out."""

import gc


def keep_what_is_loaded() -> None:
    """Leave everything that exists now out of later collections: a full one took 60 ms in a worker, in which nothing else
    happens. For programs, once, when they are ready; never where what exists now may have to go.

    Without collecting first, which takes those 60 ms once and found 228 objects: every program would start later for it.
    """
    gc.freeze()
