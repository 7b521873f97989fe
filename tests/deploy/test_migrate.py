"""`python -m app.migrate` makes the tables, says so, and ends as its help says."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.core.settings import sqlite_path
from tests.conftest import STORES
from tests.deploy.conftest import ROOT
from tests.stores import Stores


def migrate(tmp_path: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app.migrate"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "RESERVE_BYTES": "0"} | settings,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("store", STORES)
async def test_the_database_is_ready_afterwards_and_a_second_run_changes_nothing(
    stores: Stores, store: str, tmp_path: Path
) -> None:
    url = await stores.fresh() if store == "postgres" else f"sqlite:///{tmp_path}/new/tasks.db"
    for _ in range(2):
        done = migrate(tmp_path, DATABASE_URL=url)
        assert (done.returncode, done.stdout) == (0, "The database is ready for this release.\n"), done.stderr
    assert store == "postgres" or sqlite_path(url).exists()


@pytest.mark.parametrize(
    ("setting", "value", "status"),
    [
        ("DATABASE_URL", "postgresql://tasks@127.0.0.1:1/tasks", 2),
        ("LEASE_SECONDS", "soon", 2),
        ("EXECUTOR_MODULES", "nowhere.to_be_found", 1),
    ],
)
def test_what_is_wrong_is_one_line(setting: str, value: str, status: int, tmp_path: Path) -> None:
    done = migrate(tmp_path, **{"DATABASE_URL": f"sqlite:///{tmp_path}/tasks.db", setting: value})
    assert done.returncode == status
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
