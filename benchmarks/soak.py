"""Whether memory stays flat: an API and a worker under steady load for ten minutes, looked at every ten seconds.

    python benchmarks/soak.py            ten minutes
    python benchmarks/soak.py --quick    half a minute, whether it works

Each second some hundred tasks are submitted, one by one and in bulk, some of which fail and are tried again; tasks are read, listed,
cancelled and followed by streams that are hung up on; the metrics are fetched. Growth is the slope through the second half.
"""

import argparse
import contextlib
import http.client
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.models.sqlite import VERSION
from benchmarks.caller import Caller
from benchmarks.house import open_house, pss_mb, tree
from benchmarks.measurements import Measurement, Table, save, show, taken, versions_of

NAME = "soak"
NOTHING = {"task_type": "bench.nothing", "payload": {"number": 1}}
WRONG = {"task_type": "text_processing", "payload": {"text": "a"}, "max_attempts": 1}
LATER = NOTHING | {"delay_seconds": 3600}
BULK = 200
SAMPLE_SECONDS = 10.0


@dataclass
class Watched:
    """A process: megabytes (PSS) and open descriptors of each sample."""

    pid: int
    megabytes: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def look(self) -> None:
        self.megabytes.append(pss_mb(self.pid))
        self.descriptors.append(sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir()))


def work(caller: Caller, address: str) -> int:
    """What happens in one second. Returns how many tasks were submitted."""
    ids = caller.post("/tasks/bulk", {"tasks": [NOTHING] * BULK})["ids"]
    one = caller.post("/tasks", WRONG)["id"]
    later = caller.post("/tasks", LATER)["id"]
    caller.post(f"/tasks/{later}/cancel", {})
    for path in (
        f"/tasks/{one}?wait=1",
        f"/tasks/{ids[-1]}",
        "/tasks?limit=50",
        "/tasks?status=failed",
        "/stats",
        "/queues",
    ):
        caller.get(path)
    caller.text("/metrics")
    for path in (f"/tasks/{ids[-1]}/events", "/events"):
        hung_up(address, path)
    return BULK + 2


def hung_up(address: str, path: str) -> None:
    """Open a stream and leave after its first line."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        connection.getresponse().readline()


def slope(values: list[float]) -> float:
    """Megabytes an hour through these samples (least squares)."""
    hours = [number * SAMPLE_SECONDS / 3600 for number in range(len(values))]
    return statistics.linear_regression(hours, values).slope if len(values) > 1 else 0.0


def measure(minutes: float) -> tuple[dict[str, dict[str, list[float]]], int]:
    """Samples of each process by name, and how many tasks were done."""
    with open_house() as house:
        house.migrate()
        api, address = house.api()
        worker = house.worker(address)
        caller = Caller(address)
        work(caller, address)
        runners = sorted(set(tree(worker.pid)) - {worker.pid}, key=pss_mb)
        watched = {"API": Watched(api.pid), "worker": Watched(worker.pid), "runner": Watched(runners[-1])}
        until, next_look, submitted = time.monotonic() + 60 * minutes, time.monotonic(), 0
        while (now := time.monotonic()) < until:
            if now >= next_look:
                for one in watched.values():
                    one.look()
                next_look += SAMPLE_SECONDS
            submitted += work(caller, address)
            time.sleep(max(0.0, 1 - (time.monotonic() - now)))
        for one in watched.values():
            one.look()
        caller.close()
    data = {
        name: {"megabytes": one.megabytes, "descriptors": [*map(float, one.descriptors)]}
        for name, one in watched.items()
    }
    return data, submitted


def tables(measurement: Measurement) -> list[Table]:
    rows = []
    for name, one in measurement.data["samples"].items():
        memory, descriptors = one["megabytes"], one["descriptors"]
        half = memory[len(memory) // 2 :]
        figures = [f"{memory[0]:.1f} MB", f"{half[0]:.1f} MB", f"{memory[-1]:.1f} MB", f"{slope(half):+.1f} MB an hour"]
        rows.append([name, *figures, f"{descriptors[0]:.0f}, {descriptors[-1]:.0f}"])
    return [Table(NAME, ["process", "at first", "half way", "at last", "growth", "descriptors, first and last"], rows)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half a minute")
    parser.add_argument("--results", type=Path, help="folder to keep the figures in")
    options = parser.parse_args()
    minutes = 0.5 if options.quick else 10.0
    samples, submitted = measure(minutes)
    measurement = taken(
        NAME,
        {"samples": samples, "submitted": submitted},
        quick=options.quick,
        versions=versions_of("fastapi", "sqlalchemy") | {"SQLite": VERSION},
        settings=[f"{minutes:g} minutes, {submitted:,} tasks"],
    )
    show(measurement, tables(measurement))
    save(measurement, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
