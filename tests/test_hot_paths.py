"""No hot path gets twice as slow unnoticed: counted, not timed by the clock, so that a busy machine changes nothing.

`python benchmarks/hot_paths.py` shows the costs beside those on record, `--record` puts new ones on record: do so when a
change pays for what it costs, and when it makes a path much cheaper, so that the gain is kept.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.hot_paths import Expense, findings, read_record

ROOT = Path(__file__).parents[1]
PROGRAM = "import sys; from benchmarks import hot_paths; sys.exit(hot_paths.main({arguments!r}))"
USUAL = Expense(of_bare=4.0, statements=4, steps=300, processor_of_bare=12.0)


def measured(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The program's end, in a process of its own: what is counted must not depend on which tests ran before."""
    command = [sys.executable, "-c", before + "\n" + PROGRAM.format(arguments=list(arguments))]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def test_the_hot_paths_cost_no_more_than_is_on_record() -> None:
    done = measured()
    assert done.returncode == 0, done.stdout + done.stderr


TWICE = """
from {module} import {owner}
once = {owner}.{method}
async def twice(self, *arguments):
    await once(self, *arguments)
    return await once(self, *arguments)
{owner}.{method} = twice
"""
SLOWER = {
    "a submission stored twice": (
        "submit",
        TWICE.format(module="app.services.tasks", owner="TaskService", method="submit"),
        "submit: Python instructions",
    ),
    "a row read twice": (
        "read",
        TWICE.format(module="app.services.tasks", owner="TaskService", method="get"),
        "read: Python instructions",
    ),
    "one more statement in a batch": (
        "exchange of 100",
        """
from app.models import queue
once = queue.complete
async def twice(connection, completions):
    written = await once(connection, completions)
    await once(connection, completions)
    return written
queue.complete = twice
""",
        "exchange of 100: 6 SQL statements",
    ),
    "an index that is gone": (
        "exchange of 100",
        """
from app.models.database import Database
once = Database.open
async def without_index(self):
    await once(self)
    async with self.write() as connection:
        await connection.exec_driver_sql("DROP INDEX ix_tasks_pending")
Database.open = without_index
""",
        "exchange of 100: steps of SQLite",
    ),
    "a result encoded over and over": (
        "wire of 100",
        """
from app.workers import runner
once = runner.result_text
runner.result_text = lambda value, most: [once(value, most) for _ in range(50)][0]
""",
        "wire of 100: Python instructions",
    ),
    "work in a library that is not written in Python": (
        "read",
        """
import hashlib
from app.api import tasks
once = tasks.task_json
def task_json(task):
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2000)
    return once(task)
tasks.task_json = task_json
""",
        "read: processor time",
    ),
}


@pytest.mark.parametrize("what", SLOWER)
def test_a_slower_path_is_found(what: str) -> None:
    operation, patch, sentence = SLOWER[what]
    done = measured("--only", operation, before=patch)
    assert done.returncode == 1, done.stdout + done.stderr
    assert sentence in done.stdout


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (USUAL, ""),
        (Expense(5.1, 4, 380, 19.0), ""),
        (Expense(5.3, 4, 300, 12.0), "Python instructions 1.32 times"),
        (Expense(4.0, 4, 400, 12.0), "steps of SQLite 1.33 times"),
        (Expense(4.0, 4, 300, 20.0), "processor time 1.67 times"),
        (Expense(4.0, 5, 300, 12.0), "5 SQL statements, 4 on record"),
        (Expense(2.6, 3, 300, 12.0), "1.54 times cheaper than on record"),
    ],
)
def test_costs_are_compared_with_those_on_record(now: Expense, found: str) -> None:
    assert [one for one in findings("submit", now, USUAL) if found not in one] == []
    assert bool(findings("submit", now, USUAL)) == bool(found)


def test_an_operation_that_is_not_on_record_is_found() -> None:
    assert findings("submit", USUAL, None) == ["submit: not on record"]


def test_steps_of_another_version_of_sqlite_are_not_compared() -> None:
    assert findings("submit", Expense(4.0, 4, 900, 12.0), USUAL, same_library=False) == []


def test_every_operation_is_on_record() -> None:
    record, _ = read_record()
    assert {"submit", "read", "exchange of 100", "wire of 100", "submit 1000 in bulk"} <= set(record)
