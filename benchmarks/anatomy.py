"""Where the time of a task goes that does nothing: processor microseconds by part of the worker, of a drain.

    python benchmarks/anatomy.py            five rounds: a minute
    python benchmarks/anatomy.py --quick    one round

As in peers.py everything waits before the worker starts, and the first tenth does not count. The worker has stopwatches
(stopwatches.py) around what its parent process does for each batch; what they do not cover is the event loop's own work.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.caller import Caller
from benchmarks.house import ROOT, House, cpu_seconds, end, open_house, tree
from benchmarks.measurements import Measurement, Table, save, show, spread, taken, versions_of

NAME = "anatomy"
TASK = {"task_type": "bench.nothing", "payload": {"number": 12345}}
RUNNERS = "runners"
PARTS = {
    "statements": "parent, database's thread: claim and complete, their rows fetched",
    "commit": "the same: the log written and flushed",
    "around": "the same: rows made into values and back, SQLAlchemy",
    "hearing": "parent, event loop: what runners say",
    "placing": "the same: attempts given to runners",
    "telling": "the same: tallies, hints, logs",
    "rest": "the rest of the parent",
    RUNNERS: "all runners: payload checked, function called, result written",
    "parent": "**parent**",
    "wall": "**wall clock**",
}


def drained(house: House, count: int) -> dict[str, float]:
    """Microseconds a task, by part."""
    _, address = house.api()
    caller = Caller(address)
    ids = caller.submit_many(TASK, count)
    told = house.folder / "anatomy.json"
    worker = house.start(
        str(ROOT / "benchmarks" / "stopwatches.py"), BENCH_ANATOMY=str(told), BENCH_FROM=str(count // 10)
    )
    caller.completed(ids[count // 10])
    already, first = _of_runners(worker.pid), caller.get("/stats")["completed"]
    caller.completed(ids[-1])
    runners = (_of_runners(worker.pid) - already) / (count - first)
    end(worker)
    caller.close()
    return {name: 1e6 * seconds for name, seconds in by_part(json.loads(told.read_text()), runners).items()}


def _of_runners(worker: int) -> float:
    return cpu_seconds([pid for pid in tree(worker) if pid != worker])


def by_part(told: dict[str, Any], runners: float) -> dict[str, float]:
    """Seconds a task, by part, from what the stopwatches showed in all."""
    found = {name: seconds / told["tasks"] for name, seconds in told["seconds"].items()}
    trips = found.pop("trips")
    found["around"] = trips - found["statements"] - found["commit"]
    parts = (found[name] for name in ("statements", "commit", "around", "hearing", "placing", "telling"))
    found["parent"] = found.pop("process")
    found["rest"] = found["parent"] - sum(parts)
    return {name: found[name] if name != RUNNERS else runners for name in PARTS}


def tables(measurement: Measurement) -> list[Table]:
    """Each part, and its share of the processor time of parent and runners."""
    rounds: list[dict[str, float]] = measurement.data
    whole = statistics.median(one["parent"] + one[RUNNERS] for one in rounds)
    rows = []
    for name, about in PARTS.items():
        values = [one[name] for one in rounds]
        share = "" if name == "wall" else f"{100 * statistics.median(values) / whole:.0f}%"
        rows.append([about, f"{spread(values, '.1f')} us", share])
    return [Table(NAME, ["of one no-op task", "time", "of all processor time"], rows)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--results", type=Path, help="folder to keep the figures in")
    options = parser.parse_args()
    rounds, count = (1, 10_000) if options.quick else (5, 40_000)
    found = []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds} ...", flush=True)
        with open_house() as house:
            found.append(drained(house, count))
    settings = [f"{rounds} rounds of {count:,} tasks, one worker with two runners, synchronous=FULL"]
    measurement = taken(NAME, found, quick=options.quick, versions=versions_of("sqlalchemy"), settings=settings)
    show(measurement, tables(measurement))
    save(measurement, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
