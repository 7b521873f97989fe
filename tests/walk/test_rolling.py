"""An upgrade while all goes on: programs of the release before and of this one on one database, schema first.

The release before is the newest tag `v*` behind this commit. As long as there is none, it is the newest commit of the main
line without the newest migration. It runs on the packages of today.
"""

import asyncio
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.models import migrate
from tests.conftest import STORES
from tests.stores import Stores
from tests.walk.conftest import ROOT, House, ended

pytestmark = pytest.mark.timeout(400)  # seven programs start one after the other


LAST_THAT_CHANGES = "0006"
"""The last migration that does more than add (test_only_adding.py): what is older cannot work beside this one."""


def git(*words: str) -> str:
    """What it says; empty if it cannot."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def release_before() -> str | None:
    """A commit; None where the history is not at hand."""
    if tag := git("describe", "--tags", "--abbrev=0", "--match=v*", "HEAD^"):
        return tag
    versions = "app/models/migrations/versions"
    for commit in ("HEAD", *git("log", "--first-parent", "--format=%H^", "--", versions).splitlines()):
        there = git("ls-tree", "--name-only", commit, f"{versions}/")
        if there and f"/{migrate.HEAD}_" not in there:
            return commit if f"/{LAST_THAT_CHANGES}_" in there else None
    return None


@pytest.fixture(scope="module")
def old_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    commit = release_before()
    if commit is None:
        pytest.skip("the history is not here, so there is no release before: an upgrade was NOT walked through")
    folder = tmp_path_factory.mktemp("before")
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
    return folder


@pytest.fixture
async def houses(tmp_path: Path, old_root: Path, stores: Stores) -> AsyncIterator[tuple[House, House]]:
    """Before and after, on one database."""
    url = await stores.bare()
    made = []
    for name, root in (("before", old_root), ("after", ROOT)):
        (tmp_path / name).mkdir()
        made.append(House(tmp_path / name, url, root))
    yield made[0], made[1]
    for house in made:
        await house.close()


def passes(house: House, *module: str) -> None:
    """Run a program that has nothing to complain of."""
    done = subprocess.run([sys.executable, "-m", *module], env=house.settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


async def works(client: httpx.AsyncClient, worker: str) -> None:
    """All that an API and a worker write about tasks, each done by the worker of this name."""
    many = [{"task_type": "echo", "payload": {"number": number}, "tags": ["many"]} for number in range(20)]
    ids = (await client.post("/tasks/bulk", json={"tasks": many})).json()["ids"]
    one = {"task_type": "echo", "payload": {"number": 1}, "unique_key": "once"}
    key = {"Idempotency-Key": secrets.token_hex(8)}
    for status in (201, 200):
        answer = await client.post("/tasks", json=one, headers=key)
        assert answer.status_code == status, answer.text
    ids.append(answer.json()["id"])
    for task_id in ids:
        task = await ended(client, task_id)
        assert task["status"] == "completed", task
        assert task["worker_id"].startswith(f"{worker}-")

    failing = {"task_type": "raise_error", "payload": {"number": 2}}
    failed = await ended(client, (await client.post("/tasks", json=failing)).json()["id"])
    assert (failed["status"], failed["attempts"]) == ("failed", 2), failed
    assert failed["id"] in [each["id"] for each in (await client.get("/dead-letters")).json()["items"]]

    later = (await client.post("/tasks", json=one | {"delay_seconds": 900, "unique_key": None})).json()["id"]
    assert (await client.patch(f"/tasks/{later}", json={"priority": 7})).json()["priority"] == 7
    assert (await client.post(f"/tasks/{later}/cancel")).json()["status"] == "cancelled"


@pytest.mark.parametrize("store", STORES)
async def test_every_pair_of_programs_works_on_the_new_tables(houses: tuple[House, House]) -> None:
    before, after = houses
    _, old_api = await before.api()
    old_worker = await before.worker("--name", "old")
    await works(old_api, "old")

    await asyncio.to_thread(passes, after, "app.migrate")
    _, new_api = await after.api()
    for api in (old_api, new_api):
        await works(api, "old")

    await after.worker("--name", "new")
    old_worker.signal(signal.SIGTERM)
    assert await old_worker.ended() == 0, old_worker.said()
    for api in (old_api, new_api):
        await works(api, "new")

    late = await before.start("run_worker.py")
    assert await late.ended() == 2
    assert "A newer program made it: upgrade this one." in late.said()
    await asyncio.to_thread(passes, after, "app.check", after.database_url)
