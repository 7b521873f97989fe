"""What a program has loaded is not walked through again, and it looks for garbage seldom: the programs themselves are asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.garbage import YOUNG
from tests.workers.conftest import Start

ROOT = Path(__file__).parents[2]
MANY = 10_000
"""Of objects: a fraction of what each program loads."""
IN_RUNNER = """
import gc

from pydantic import BaseModel

from app.services.executors import executor


class Nothing(BaseModel):
    pass


@executor("frozen", payload=Nothing)
def frozen(payload, context):
    return gc.get_freeze_count()
"""
IN_WORKER = """
import gc

from app.workers.worker import Worker


async def run(worker):
    print(gc.get_freeze_count(), gc.get_threshold()[0])


Worker.run = run
import run_worker

run_worker.main()
"""


def printed(tmp_path: Path, code: str) -> list[int]:
    environment = os.environ | {"DATABASE_URL": f"sqlite:///{tmp_path}/tasks.db", "FILES_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return [int(word) for word in ran.stdout.split()]


@pytest.mark.parametrize(
    "code",
    ["import gc, app.main; print(gc.get_freeze_count(), gc.get_threshold()[0])", IN_WORKER],
    ids=["API", "worker"],
)
def test_what_a_program_has_loaded_stays(tmp_path: Path, code: str) -> None:
    frozen, young = printed(tmp_path, code)
    assert frozen > MANY
    assert young == YOUNG


async def test_what_a_runner_has_loaded_stays(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frozen_executors.py").write_text(IN_RUNNER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    running = await start(executor_modules=("frozen_executors",))
    task = await running.run("frozen")
    assert json.loads(task.result or "0") > MANY
