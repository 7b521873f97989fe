"""The comparison with others is honest: lost and doubled tasks are found, failures are named, environments are what they say."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import peers, venvs
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.house import House, end
from benchmarks.measurements import Measurement
from benchmarks.peers import Arena, Round, Turn
from benchmarks.recorder import record, recorded
from tests.conftest import until
from tests.walk.conftest import is_alive

ROOT = Path(__file__).parents[2]
WORKER = """
import json, os, sys, time
folder, habit, first, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
from benchmarks.recorder import record
while True:
    with open(folder + "/queue") as file:
        numbers = [int(line) for line in file.read().splitlines()]
    for number in numbers[first:]:
        if number % workers == int(os.environ["BENCH_WORKER"]):
            for _ in range({"lose": 0, "double": 2}.get(habit, 1) if number == 7 else 1):
                record(number)
    first = len(numbers)
    time.sleep(0.01)
"""


class FileQueue:
    """A queue in a file; two workers share it by odd and even."""

    def __init__(self, house: House, habit: str) -> None:
        self._house, self._habit = house, habit
        self._file = house.folder / "queue"
        self._put_in = self._taken = 0
        self._workers = 0

    def one_by_one(self, first: int, count: int) -> float:
        self._taken = self._put_in
        self._put_in += count
        with self._file.open("a") as file:
            file.writelines(f"{number}\n" for number in range(first, first + count))
        return 0.001

    many = one_by_one

    def now_and_then(self, first: int, count: int) -> list[tuple[int, int]]:
        self.one_by_one(first, count)
        return [(number, 0) for number in range(first, first + count)]

    def stored(self, numbers: Sequence[int]) -> int | None:
        return None

    def start_worker(self, number: int) -> subprocess.Popen[bytes]:
        alone = self._workers == 0
        self._workers += 1
        environment = {
            "PYTHONPATH": str(ROOT),
            "BENCH_RECORD": str(self._house.folder / "record"),
            "BENCH_WORKER": str(number),
        }
        arguments = [str(self._house.folder), self._habit, "0" if alone else str(self._taken), "1" if alone else "2"]
        return self._house.run(sys.executable, "-c", WORKER, *arguments, environment=environment)


@pytest.mark.parametrize(("habit", "lost", "doubled"), [("none", 0, 0), ("lose", 1, 0), ("double", 0, 1)])
def test_lost_and_doubled_tasks_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, habit: str, lost: int, doubled: int
) -> None:
    monkeypatch.setattr(peers, "STALLED_SECONDS", 1.0)
    monkeypatch.setattr(peers, "SETTLE_SECONDS", 0.0)
    house = House(tmp_path, {})
    try:
        turn = Round(FileQueue(house, habit), house, tmp_path / "record", 40, 5, 0.1).take()
    finally:
        house.close()
    assert (turn.lost, turn.doubled) == (lost, doubled)
    assert turn.drains["1"] > 0
    assert turn.results_found is None


def test_what_ran_twice_does_not_stand_for_what_did_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RECORD", str(tmp_path / "record"))
    tally = peers.Tally(tmp_path / "record")
    assert tally.different() == 0
    for number in (1, 1, 2):
        record(number)
    assert tally.different() == 2
    record(3)
    assert tally.different() == 3


def test_who_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    arena = Arena(NoServers(), tmp_path, options())  # type: ignore[arg-type]  # no server is asked for
    broken = Contender("Broken", "no_such_folder", (), "sqlite", ("nothing",), "", "", "")
    arena.play("Broken", broken, "sqlite")
    arena.play("Broken", broken, "sqlite")
    assert list(arena.faults) == ["Broken"]
    assert "no_such_folder" in arena.faults["Broken"]
    assert arena.turns == {}


class NoServers:
    versions: dict[str, str] = {}  # noqa: RUF012 never changed


def options() -> object:
    return peers.argparse.Namespace(quick=True, count=100)


def test_tables_have_everyone_and_every_fault() -> None:
    turn = asdict(Turn(100.0, 1000.0, {"1": 500.0, "2": 600.0}, 0.4, [1.0, 2.0], 0.1, 50.0, 2, 1, 2, 100, 99))
    slow = turn | {"drains": {"1": 50.0, "2": 60.0}}
    about = {"versions": "x 1", "settings": "none", "many": "a call", "safety": "on disk"}
    data = {
        "turns": {peers.ours("sqlite"): [turn], "Other": [slow], peers.FASTEST: [turn]},
        "faults": {"Third": "cannot be installed"},
        "about": {"Other": about},
    }
    compared, settings, budget, failed = peers.tables(Measurement("peers", "now", "here", False, {}, [], data))
    assert [row[0] for row in compared.rows] == [peers.ours("sqlite"), "Other", peers.FASTEST]
    assert {"10.0 x", "1, 2", "99 of 100"} <= set(compared.rows[1])
    assert settings.rows == [["Other", "x 1", "none", "a call", "on disk"]]
    assert [row[1:] for row in budget.rows] == [["1.0 x", ">= 2 x", "NO"], ["10.0 x", ">= 8 x", "yes"]]
    assert failed.rows == [["Third", "cannot be installed"]]
    assert set(peers.drawings(Measurement("peers", "now", "here", False, {}, [], data))) == {
        "peers-drain.svg",
        "peers-pickup.svg",
    }


def test_a_run_is_recorded_with_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("BENCH_WORKER", "1")
    assert record(5) == {"number": 5}
    (run,) = recorded(tmp_path / "record")
    assert (run.number, run.worker) == (5, 1)


def test_the_producer_does_what_it_is_told(tmp_path: Path) -> None:
    """With a queue whose calls are plain and one whose calls are asynchronous."""
    (tmp_path / "tasks.py").write_text(
        "given = []\n"
        "async def prepare():\n    given.clear()\n"
        "def enqueue(number):\n    given.append(number)\n    return number\n"
        "async def enqueue_many(numbers):\n    return [enqueue(number) for number in numbers]\n"
        "def result(number):\n    return {'number': number if number != 3 else 0}\n"
    )
    said = [["prepare"], ["one_by_one", 0, 3], ["many", 3, 3], ["now_and_then", 6, 2], ["stored", [0, 3, 7]]]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.producer"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
        input="".join(json.dumps(line) + "\n" for line in said),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [number for number, _ in answers[3]] == [6, 7]
    assert answers[4] == 2


@pytest.mark.parametrize("folder", sorted({*(one.folder for one in CONTENDERS), "pyvips"}))
def test_requirements_of_a_peer_are_pinned_and_name_no_address(folder: str) -> None:
    lines = (venvs.PEERS / folder / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.]*", line)] == []


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda one: one.name)
def test_what_is_told_of_a_peer_is_what_is_installed(contender: Contender) -> None:
    assert (venvs.PEERS / contender.folder / "tasks.py").exists()
    assert set(venvs.pinned(contender.folder, *contender.packages)) == set(contender.packages)


def test_an_environment_is_made_once_and_anew_for_other_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venvs, "PEERS", tmp_path / "peers")
    requirements = tmp_path / "peers" / "nobody" / "requirements.txt"
    requirements.parent.mkdir(parents=True)
    requirements.write_text("# nothing\n")
    made = venvs.environment("nobody", tmp_path / "kept")
    mark = made / "left by the first"
    mark.touch()
    assert venvs.environment("nobody", tmp_path / "kept") == made
    assert mark.exists()
    requirements.write_text("./there-is-no-such-folder\n")
    with pytest.raises(venvs.CannotInstall, match="there-is-no-such-folder"):
        venvs.environment("nobody", tmp_path / "kept")
    assert not mark.exists()
    assert not (made / "made-by").exists()


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


async def test_a_program_that_does_not_obey_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    house = House(tmp_path, {})
    program = house.run(sys.executable, "-c", STUBBORN, environment=dict(os.environ))
    while not house.said(program).endswith("\n"):
        assert program.poll() is None
    end(program, polite_seconds=0.1, patient_seconds=0.1)
    assert program.returncode == -signal.SIGKILL
    child = int(house.said(program))
    await until(lambda: not is_alive(child))  # the kernel takes a moment
