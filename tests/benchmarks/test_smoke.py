"""The benchmarks run: on little, with nobody but this project, so that they do not rot."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import anatomy, budgets, endpoints, growth, overhead, pages, peers, soak, streams
from benchmarks.measurements import Measurement, load

ROOT = Path(__file__).parents[2]


def run(script: str, folder: Path, *arguments: str) -> Measurement:
    command = [sys.executable, f"benchmarks/{script}.py", "--quick", "--results", str(folder), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    measurement = load(script, folder)
    assert measurement is not None, done.stdout + done.stderr
    return measurement


def test_endpoints(tmp_path: Path) -> None:
    measurement = run("endpoints", tmp_path, "--alone", "--rounds", "1", "--seconds", "0.05")
    (table,) = endpoints.tables(measurement)
    assert {row[0] for row in table.rows} == set(endpoints.LOADS)
    assert {row[1] for row in table.rows} == {endpoints.BARE, endpoints.OURS}
    assert endpoints.drawings(measurement)


def test_peers(tmp_path: Path) -> None:
    measurement = run("peers", tmp_path, "--only", "nobody else", "--count", "100")
    assert measurement.data["faults"] == {}
    (turn,) = measurement.data["turns"][peers.ours("sqlite")]
    assert (turn["lost"], turn["doubled"]) == (0, 0)
    assert turn["results_found"] == turn["results_asked"] > 0
    assert peers.drawings(measurement)


def test_anatomy(tmp_path: Path) -> None:
    measurement = run("anatomy", tmp_path)
    (found,) = measurement.data
    assert list(found) == list(anatomy.PARTS)
    assert all(microseconds > 0 for microseconds in found.values()), found
    (table,) = anatomy.tables(measurement)
    assert [row[0] for row in table.rows] == list(anatomy.PARTS.values())


def test_overhead(tmp_path: Path) -> None:
    measurement = run("overhead", tmp_path, "--only", "text analysis")
    (table,) = overhead.tables(measurement)
    assert [row[1] for row in table.rows] == ["executor", "queue"]
    assert overhead.drawings(measurement)


def test_budgets(tmp_path: Path) -> None:
    measurement = run("budgets", tmp_path, "--only", "bulk")
    (table,) = budgets.tables(measurement)
    assert len(table.rows) == 1


def test_growth(tmp_path: Path) -> None:
    made: dict[str, growth.Shape] = {
        "empty": {},
        "some": {"completed": 300, "pending": 300, "scheduled": 300, "running": 300},
    }
    urls = {name: f"sqlite:///{tmp_path}/{name}.db" for name in made}
    data = growth.measure(urls, made, rounds=1, times=2)
    measurement = Measurement("growth", "now", "here", True, {}, [], data)
    table, _ = growth.tables(measurement)
    assert [row[0] for row in table.rows] == ["empty", "some"]
    assert growth.drawings(measurement)


def test_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "BROWSERS", ())
    url = f"sqlite:///{tmp_path}/few.db"
    asyncio.run(pages.build(url, pages.FEW))
    data = pages.measure({"few": url, "many": url}, rounds=1, times=1)
    calls, shown = pages.tables(Measurement("pages", "now", "here", True, {}, [], data))
    assert [row[0] for row in calls.rows] == list(pages.CALLS)
    assert shown.rows == []


def test_soak(tmp_path: Path) -> None:
    samples, submitted = soak.measure(minutes=0.03)
    assert submitted >= soak.BULK
    data = {"samples": samples, "submitted": submitted}
    (table,) = soak.tables(Measurement("soak", "now", "here", True, {}, [], data))
    assert [row[0] for row in table.rows] == ["API", "worker", "runner"]


def test_streams(tmp_path: Path) -> None:
    measurement = run("streams", tmp_path)
    (table,) = streams.tables(measurement)
    assert [row[0] for row in table.rows] == list(streams.FIGURES)
    assert measurement.data["told_per_second"][0] > 0


def test_hot_calls_take_the_same_steps_whatever_the_table_holds(tmp_path: Path) -> None:
    """What the benchmark shows up to a million rows, at some thousands."""
    shapes: dict[str, growth.Shape] = {"empty": {}, **{kind: {kind: 5_000} for kind in growth.KINDS}}
    steps = {}
    for name, shape in shapes.items():
        url = f"sqlite:///{tmp_path}/{name}.db"
        asyncio.run(growth.build(url, shape))
        steps[name] = asyncio.run(growth.steps(url))
    for call in ("claim 10", "submit", "read", "list the newest 50", "list 50 that failed"):
        assert max(taken[call] for taken in steps.values()) <= 1.01 * steps["empty"][call], call


@pytest.mark.parametrize(
    "script",
    [
        "all",
        "batches",
        "budgets",
        "endpoints",
        "growth",
        "hot_paths",
        "overhead",
        "pages",
        "peers",
        "report",
        "scaling",
        "soak",
        "streams",
    ],
)
def test_a_script_tells_how_it_is_called(script: str) -> None:
    command = [sys.executable, f"benchmarks/{script}.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert f"python benchmarks/{script}.py" in done.stdout
