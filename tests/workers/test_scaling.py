"""A worker that has as many runners as the work asks for."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.workers import scaling
from app.workers.main import command
from tests.conftest import until
from tests.workers.conftest import Running, Start


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(scaling, "SHRINK_SECONDS", 0.5)


async def waiting(running: Running, folder: Path, number: int, task_type: str = "wait_plain") -> list[int]:
    payload = {"folder": str(folder), "seconds": 60}
    return [await running.submit(task_type, payload=payload) for _ in range(number)]


def ready(running: Running) -> list[Any]:
    return [runner for runner in running.pool.roster.runners if runner.ready]


async def test_runners_come_with_the_work_and_go_when_it_is_done(start: Start, tmp_path: Path) -> None:
    running = await start(processes=1, most_processes=3)
    await until(lambda: len(ready(running)) == 1)
    ids = await waiting(running, tmp_path, 5)
    await until(lambda: len(running.pool.running()) == 3, 60)
    assert running.pool.roster.processes == 3  # and not more than it may have
    (tmp_path / "go").touch()
    for task_id in ids:
        assert (await running.ended(task_id)).status == "completed"
    await until(lambda: len(running.pool.roster.runners) == 1, 60)
    for task_id in ids:
        assert await running.outcomes(task_id) == ["completed"]  # nobody's attempt was cut short


async def test_a_runner_that_is_too_many_ends_what_it_has_first(start: Start, tmp_path: Path) -> None:
    running = await start(processes=2, concurrency=4)
    await until(lambda: len(ready(running)) == 2)
    ids = await waiting(running, tmp_path, 2, "wait_shared")
    await until(lambda: [len(runner.given) for runner in running.pool.roster.runners] == [1, 1])
    await running.pool.roster.resize(1)
    assert len(running.pool.roster.runners) == 2
    later = await waiting(running, tmp_path, 2, "wait_shared")
    await until(lambda: sorted(len(runner.given) for runner in running.pool.roster.runners) == [1, 3])
    for task_id in (*ids, *later):
        await running.services.tasks.cancel(task_id)
    await until(lambda: len(running.pool.roster.runners) == 1)


async def test_shared_attempts_ask_for_as_many_runners_as_can_hold_them(start: Start, tmp_path: Path) -> None:
    running = await start(processes=1, concurrency=4, most_processes=4)
    await waiting(running, tmp_path, 3, "wait_shared")
    await until(lambda: len(running.pool.running()) == 3)
    assert running.pool.demand().running == 1
    await waiting(running, tmp_path, 5, "wait_shared")
    await until(lambda: len(running.pool.running()) == 8, 60)
    assert running.pool.roster.processes == 2


async def test_the_list_of_workers_shows_how_much_room_there_is_now(start: Start, tmp_path: Path) -> None:
    running = await start(processes=1, concurrency=4, most_processes=2)
    await waiting(running, tmp_path, 2)
    await until(lambda: len(running.pool.running()) == 2, 60)

    async def slots() -> bool:
        return [one.row.slots for one in await running.services.insights.workers()] == [8]

    await until(slots)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--processes", "many"], "neither a number"),
        (["--processes", "0"], "neither a number"),
        (["--processes", "257"], "neither a number"),
        (["--processes", "2", "--max-processes", "4"], "need --processes auto"),
        (["--min-processes", "2"], "need --processes auto"),
        (["--processes", "auto", "--min-processes", "3", "--max-processes", "2"], "is less than"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(command, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())
