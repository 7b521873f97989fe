"""Whether the kernel has killed for want of memory: control groups count such kills (Linux)."""

import re
import time
from pathlib import Path

NEWS_SECONDS = 2.0
"""After this long a kill that was counted does not explain another death."""

_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class OomKills:
    """The count of out-of-memory kills in this process's control group, its runners included.

    `proc` and `root` are where /proc and the control groups are mounted.
    """

    def __init__(self, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> None:
        self._counter = next((file for file in _candidates(proc, root) if _count(file) is not None), None)
        self._told = self._counted = self._read()
        self._counted_at = 0.0

    def more(self) -> bool:
        """True for each that was not told yet: two runners may be killed at once. False where nobody counts."""
        count, now = self._read(), time.monotonic()
        if count > self._counted:
            self._counted, self._counted_at = count, now
        elif now - self._counted_at > NEWS_SECONDS:
            self._told = self._counted  # what was killed then was nobody's runner
        if self._told == self._counted:
            return False
        self._told += 1
        return True

    def _read(self) -> int:
        return (_count(self._counter) if self._counter else None) or 0


def _candidates(proc: Path, root: Path) -> list[Path]:
    """Where the count may be: version 2, version 1, and each as seen from inside a container, where the group is the root."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    groups = {controllers: group.lstrip("/") for _, controllers, group in (line.split(":", 2) for line in lines)}
    found = [folder / "memory.events" for folder in (root / groups.get("", ""), root)]
    return found + [root / "memory" / group / "memory.oom_control" for group in (groups.get("memory", ""), "")]


def _count(file: Path) -> int | None:
    try:
        found = _COUNT.search(file.read_text())
    except OSError:
        return None
    return int(found[1]) if found else None
