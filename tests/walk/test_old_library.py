"""The interpreter's own SQLite library, where the wheel is not to be had: matrix C10.

On a machine whose own library is safe too this walks the ordinary way.
"""

import sqlite3
from pathlib import Path

import pytest

from app.models import sqlite
from tests.walk.conftest import ROOT, House, ended


@pytest.fixture
def without_the_wheel(house: House, tmp_path: Path) -> House:
    """Programs that find no `pysqlite3`."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "pysqlite3.py").write_text("raise ImportError('not for this platform')\n")
    house.settings["PYTHONPATH"] = f"{tmp_path / 'hidden'}:{ROOT}"
    return house


async def test_a_library_that_can_corrupt_a_log_is_told_and_works_without_one(without_the_wheel: House) -> None:
    house = without_the_wheel
    unsafe = not sqlite.wal_is_safe(sqlite3.sqlite_version)
    program, client = await house.api()
    worker = await house.worker()
    health = (await client.get("/health/ready")).json()
    assert health["checks"]["sqlite"] == sqlite3.sqlite_version
    assert health["status"] == ("degraded" if unsafe else "healthy")
    ids = [(await client.post("/tasks", json={"task_type": "echo"})).json()["id"] for _ in range(20)]
    for id_ in ids:
        assert (await ended(client, id_))["status"] == "completed"
    assert (house.folder / "tasks.db-wal").exists() is not unsafe
    for one in (program, worker):
        assert ("This SQLite library can corrupt a write-ahead log" in one.said()) is unsafe
        assert "Traceback" not in one.said()
