"""A file beside the database that only takes room, to be deleted when the disk is full.

Then even deleting a task needs room, because the log must grow first. Whoever deletes this file has enough for that.
"""

import contextlib
import os
from pathlib import Path

AMPLE = 4
"""It is made only where there is room for this many of it: on a small disk it would be what fills it."""


def path_of(database: Path) -> Path:
    """Where the reserve of a database lies."""
    return database.with_name(database.name + ".reserve")


def make(database: Path, size: int) -> None:
    """Have the disk set `size` bytes aside, if there is ample room; not having them is no error. For one process at a
    time."""
    path = path_of(database)
    if size == 0 or (path.exists() and path.stat().st_size >= size) or not hasattr(os, "posix_fallocate"):  # macOS
        return
    disk = os.statvfs(path.parent)
    if disk.f_bavail * disk.f_frsize < AMPLE * size:
        return
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(handle, 0, size)
        finally:
            os.close(handle)
    except OSError:  # taken meanwhile, beyond a quota, or a file system that cannot
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
