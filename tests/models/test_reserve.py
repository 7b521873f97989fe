"""The file that only takes room until an operator needs it."""

import os
from pathlib import Path

import pytest

from app.models import reserve
from app.models.database import Database


def size_on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0


async def test_a_reserve_is_set_aside_where_there_is_ample_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, path = f"sqlite:///{tmp_path}/t.db", tmp_path / "t.db.reserve"

    async def start(size: int) -> int:
        database = Database(url, reserve_bytes=size)
        await database.open()
        await database.close()
        return size_on_disk(path)

    assert await start(0) == 0
    monkeypatch.setattr(reserve, "AMPLE", 2**60)
    assert await start(1_000_000) == 0
    monkeypatch.undo()
    assert await start(1_000_000) >= 1_000_000
    path.unlink()
    assert await start(1_000_000) >= 1_000_000, "it was not made again"


async def test_a_reserve_that_cannot_be_had_does_not_keep_the_service_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    for change in (
        lambda: monkeypatch.setattr(os, "posix_fallocate", full),
        lambda: monkeypatch.delattr(os, "posix_fallocate"),
    ):
        change()
        database = Database(f"sqlite:///{tmp_path}/t.db", reserve_bytes=1_000_000)
        await database.open()
        await database.close()
        assert not (tmp_path / "t.db.reserve").exists()
