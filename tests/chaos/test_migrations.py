"""A migration that is killed, or fails, at any of its calls to the database: the next start finds all there was, and ends it."""

import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from random import Random

import pytest

from app.core.errors import StoreError
from app.models import migrate
from app.models.sqlite import sqlite
from tests.chaos.conftest import amount, broken
from tests.chaos.dying import interrupted, start
from tests.models.test_old_schemas import VERSIONS, Rows, as_before, rows
from tests.schemas.keep import restored

ROOT = Path(__file__).parents[2]
NOTHING = "nothing"
"""Where there is no database yet."""
STARTS = (NOTHING, *(version for version in VERSIONS if version != migrate.HEAD))

Point = tuple[str, int, str]
"""The version that was there, a call into the library, and whether the trouble comes `before` or `after` it."""


class Place:
    """A database as an older program left it, and what must be in it afterwards."""

    def __init__(self, folder: Path, version: str) -> None:
        self.path = Path(tempfile.mkdtemp(dir=folder)) / "tasks.db"
        self._before: Rows = {}
        if version != NOTHING:
            restored(version, self.path)
            self._before = rows(self.path)
            del self._before["alembic_version"]

    async def is_whole_after_the_next_start(self) -> None:
        await start(self.path)
        after = rows(self.path)
        assert after["alembic_version"] == [{"version_num": migrate.HEAD}]
        assert as_before(self._before, after) == self._before
        assert await broken(f"sqlite:///{self.path}") == []
        shutil.rmtree(self.path.parent)


async def points(folder: Path, random: Random, quick: int) -> list[Point]:
    """Some of all points there are, or all."""
    found: list[Point] = []
    for version in STARTS:
        with interrupted(lambda: None, 0, after=False) as calls:
            await start(Place(folder, version).path)
        found += [(version, at, when) for at in range(1, len(calls) + 1) for when in ("before", "after")]
    chosen = random.sample(found, min(len(found), amount(quick, 10_000)))
    print(f"{len(chosen)} of {len(found)} points, from {len(STARTS)} versions")
    return chosen


@pytest.mark.timeout(1800)
async def test_a_migration_killed_at_any_call_is_done_by_the_next_start(tmp_path: Path, random: Random) -> None:
    """Matrix B6."""
    chosen = await points(tmp_path, random, 15)
    killer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.dying"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert killer.stdin is not None
    assert killer.stdout is not None
    for version, at, when in chosen:
        place = Place(tmp_path, version)
        killer.stdin.write(f"{place.path}\t{when}\t{at}\n".encode())
        ended = int(await asyncio.wait_for(killer.stdout.readline(), 60))
        assert ended == -signal.SIGKILL, f"{version}: call {at} was never made"
        await place.is_whole_after_the_next_start()
    killer.stdin.close()
    assert await killer.wait() == 0


@pytest.mark.timeout(1800)
async def test_a_migration_that_fails_at_any_call_says_so_and_is_done_by_the_next_start(
    tmp_path: Path, random: Random
) -> None:
    def fail() -> None:
        raise sqlite.OperationalError("disk I/O error")

    for version, at, when in await points(tmp_path, random, 15):
        place = Place(tmp_path, version)
        with interrupted(fail, at, after=when == "after") as calls, pytest.raises(StoreError, match="disk I/O error"):
            await start(place.path)
        assert len(calls) >= at
        await place.is_whole_after_the_next_start()
