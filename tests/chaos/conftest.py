"""What chaos tests share: the seed, how much to do, journals of what clients were told, the checker, and the evidence.

CHAOS_SEED=7      another seed; every failure names the one it had
CHAOS=long        the long form: more of everything, for a job of its own (`make chaos`)
CHAOS_KEEP=DIR    where databases, journals and logs of failed tests go; without it they stay in pytest's folder
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog

from app.models.database import Database
from app.services.checker import Checker
from tests.walk.conftest import house

__all__ = ["house"]

SEED = int(os.environ.get("CHAOS_SEED", "20261125"))
LONG = os.environ.get("CHAOS") == "long"


def amount(quick: int, long: int) -> int:
    """How many: `quick` where every change is tested, `long` with CHAOS=long."""
    return long if LONG else quick


class Journal:
    """What clients were told, one JSON line each, on disk before the next request. `python -m app.check` reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def told(self, task_id: int, key: str | None = None, **more: Any) -> None:
        """A task was acknowledged. One write, so that many processes may share the file."""
        line = {"id": task_id} | ({} if key is None else {"key": key}) | more
        os.write(self._handle, json.dumps(line).encode() + b"\n")
        os.fsync(self._handle)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def close(self) -> None:
        os.close(self._handle)


async def broken(url: str, *, files: Path | None = None, journal: Path | None = None, final: bool = False) -> list[str]:
    """What `python -m app.check` would complain about, one sentence each."""
    database = Database(url)
    checker = Checker(database, files=str(files) if files else None, acknowledged=journal, final=final)
    try:
        return [f"{one.promise}: {one.broken}" async for one in checker.findings() if one.broken]
    finally:
        await database.close()


async def checked(url: str, *, files: Path | None = None, journal: Path | None = None, final: bool = False) -> None:
    """Fail unless the database keeps every promise. The end of every chaos test."""
    wrong = await broken(url, files=files, journal=journal, final=final)
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """Chance of the test's own, the same in every run with the same seed."""
    print(f"CHAOS_SEED={SEED}")
    return Random(f"{SEED} {request.node.name}")


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log lines: a hundred thousand of them cost more than the work."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "told.jsonl")
    yield journal
    journal.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test that failed keeps what it worked on, as it is at that moment, and says where and by which seed."""
    report: Any = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.when == "call" and report.failed:
        kept = folder
        if folder is not None and "CHAOS_KEEP" in os.environ:
            kept = Path(os.environ["CHAOS_KEEP"]) / re.sub(r"[^\w.-]+", "-", f"{item.name}-{SEED}")
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(shutil.Error):  # sockets cannot be copied; everything else is by then
                shutil.copytree(folder, kept, symlinks=True, ignore_dangling_symlinks=True)
        command = f"CHAOS_SEED={SEED}{' CHAOS=long' if LONG else ''} python -m pytest '{item.nodeid}'"
        report.sections.append(("chaos", f"again: {command}\nkept: {kept}"))
    return report
