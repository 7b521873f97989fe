"""A limit on the memory that a block of code may add to this process. Linux only: elsewhere the block runs without."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.services.executors import Fail

_DATA_PAGES = 5  # the field of /proc/self/statm


@contextmanager
def limited_memory(limit_bytes: int) -> Iterator[None]:
    """Let the block use at most `limit_bytes` more than the process has now; a MemoryError in it ends in Fail.

    What malloc holds free, 64 MiB at most, belongs to what the process has.

    The limit before is back afterwards. It holds for the whole process: only for executors that have a runner to
    themselves.
    """
    spent = False
    with _data_limit(limit_bytes):
        try:
            yield
        except MemoryError:
            # Raised below: from here the traceback would keep the pictures in memory until the outcome is told.
            spent = True
    if spent:
        raise Fail(f"the picture needs more than the {limit_bytes / 2**20:,.0f} MiB of memory that one task may use")


if sys.platform == "linux":
    import resource

    @contextmanager
    def _data_limit(limit_bytes: int) -> Iterator[None]:
        # RLIMIT_DATA counts private writable memory, malloc's and mmap's alike (setrlimit(2), since Linux 4.7).
        # RLIMIT_AS would count address space too that threads and libraries only reserve.
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        used = int(Path("/proc/self/statm").read_text().split()[_DATA_PAGES]) * os.sysconf("SC_PAGE_SIZE")
        limits = [used + limit_bytes, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

else:

    @contextmanager
    def _data_limit(limit_bytes: int) -> Iterator[None]:
        yield
