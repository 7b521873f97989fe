"""The HTTP interface against what one would build instead, in one run: a bare FastAPI application that stores nothing, FastAPI
with Celery, and FastAPI with arq, both on Redis. Medians of rounds in which they take turns.

    python benchmarks/endpoints.py             about six minutes
    python benchmarks/endpoints.py --quick     shorter and rougher
    python benchmarks/endpoints.py --alone     only the bare application and this project: needs no Redis
    python benchmarks/endpoints.py --ours postgresql

All run under uvicorn with the same options, one process each, 64 clients in a process of their own; no worker runs meanwhile.
Processor time is the server process's own (the workers of a pool included), without Redis, PostgreSQL and the clients.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import plots, venvs
from benchmarks.caller import Caller
from benchmarks.house import ROOT, House, cpu_seconds, end, load, open_house, tree
from benchmarks.measurements import Measurement, Table, save, show, spread, taken, versions_of
from benchmarks.peers import OURS
from benchmarks.servers import REDIS, Missing, Servers

NAME = "endpoints"
BARE = "bare FastAPI"
PEERS = {
    "FastAPI + Celery": ("celery", "web:app"),
    "FastAPI + Celery, in the loop": ("celery", "web:in_the_loop"),
    "FastAPI + arq": ("arq", "web:app"),
}
TASK = {"task_type": "bench.nothing", "payload": {"number": 12345}}
MANY = 1000


@dataclass(frozen=True)
class Place:
    """An application that runs: where, as which process, and a task of it that has ended."""

    address: str
    pid: int
    ended: str


@dataclass(frozen=True)
class Run:
    """One application under one kind of load. Of bulk submissions a request is one task."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


Load = Callable[[Place, float], Run]


def requests(method: str, path: str, body: Any = None) -> Load:
    """64 clients that ask for one thing over and over. `{ended}` in the path is a task that has ended."""

    def under_load(place: Place, seconds: float) -> Run:
        used = cpu_seconds(tree(place.pid))
        done = load(place.address + path.format(ended=place.ended), method, body, seconds=seconds)
        if done.errors:
            raise RuntimeError(f"{done.errors} of {done.requests} answers to {method} {path} were none")
        spent = cpu_seconds(tree(place.pid)) - used
        return Run(done.per_second, done.p50_ms, done.p99_ms, 1e6 * spent / done.requests)

    return under_load


def in_bulk(place: Place, seconds: float) -> Run:
    """One client, a thousand tasks a request."""
    caller, body = Caller(place.address), json.dumps({"tasks": [TASK] * MANY})
    used, began = cpu_seconds(tree(place.pid)), time.perf_counter()
    took: list[float] = []
    while not took or time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        caller.post("/tasks/bulk", body)
        took.append(time.perf_counter() - asked)
    caller.close()
    count, spent = MANY * len(took), cpu_seconds(tree(place.pid)) - used
    return Run(count / sum(took), 1000 * statistics.median(took), 1000 * max(took), 1e6 * spent / count)


LOADS: Mapping[str, Load] = {
    "POST /tasks": requests("POST", "/tasks", TASK),
    "POST /tasks/bulk, tasks": in_bulk,
    "GET /tasks/{id}": requests("GET", "/tasks/{ended}"),
    "GET /tasks, 50 of them": requests("GET", "/tasks"),
    "GET /health": requests("GET", "/health"),
}
WITHOUT_LIST = tuple(PEERS)
"""Neither Celery nor arq can list the tasks that it has."""


@contextmanager
def running(servers: Servers, options: argparse.Namespace) -> Iterator[dict[str, Place]]:
    """Everyone who takes part, with a task that has ended."""
    settings = {"DATABASE_URL": servers.postgresql()} if options.ours == "postgresql" else {}
    with open_house(**settings) as house:
        places = {BARE: bare(house), OURS: ours(house)}
        if not options.alone:
            for name, (folder, application) in PEERS.items():
                # A database of its own for each: they must not read each other's keys.
                places[name] = peer(house, options.environments, folder, application, servers.redis(len(places)))
        yield places


def bare(house: House) -> Place:
    program, address = house.bare()
    return Place(address, program.pid, "1")


def ours(house: House) -> Place:
    program, address = house.api()
    worker = house.worker(address)
    caller = Caller(address)
    task_id = caller.post("/tasks", TASK)["id"]
    if caller.get(f"/tasks/{task_id}?wait=30")["status"] != "completed":
        raise RuntimeError("the task did not end")
    end(worker)
    caller.post("/tasks/bulk", {"tasks": [TASK] * MANY})  # something to list
    caller.close()
    return Place(address, program.pid, str(task_id))


def peer(house: House, environments: Path, folder: str, application: str, redis: str) -> Place:
    venv = venvs.environment(folder, environments)
    module = venvs.PEERS / folder
    environment = {
        "PATH": f"{venv / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": f"{module}:{ROOT}",
        "REDIS_URL": redis,
        "BENCH_RECORD": str(house.folder / "record"),
    }
    python = str(venv / "bin" / "python")
    program, address = house.served(application, python, environment, cwd=module)
    command = {
        "celery": ("-m", "celery", "-A", "tasks", "worker", "-c", "1"),
        "arq": ("-m", "arq", "tasks.WorkerSettings"),
    }
    worker = house.run(python, *command[folder], environment=environment, cwd=module)
    caller = Caller(address)
    task_id = caller.post("/tasks", TASK)["id"]
    deadline = time.monotonic() + 30
    while caller.get(f"/tasks/{task_id}")["result"] is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{folder} did not run its task: {house.last_words(worker)}")
        time.sleep(0.1)
    end(worker)
    caller.close()
    return Place(address, program.pid, task_id)


def measure(places: Mapping[str, Place], rounds: int, seconds: float) -> dict[str, dict[str, list[Run]]]:
    """By load and application, one run for each round."""
    taken: dict[str, dict[str, list[Run]]] = {}
    for what, run in LOADS.items():
        print(f"measuring {what} ...", flush=True)
        able = [name for name in places if not (run is LOADS["GET /tasks, 50 of them"] and name in WITHOUT_LIST)]
        for name in able:
            run(places[name], min(1.0, seconds))  # the first round is never like the others
        taken[what] = {name: [] for name in able}
        for number in range(rounds):
            for name in able if number % 2 else reversed(able):
                taken[what][name].append(run(places[name], seconds))
    return taken


def tables(measurement: Measurement) -> list[Table]:
    rows = []
    for what, by_name in measurement.data.items():
        base = by_name[BARE]
        for name, runs in by_name.items():
            ratio = statistics.median(
                one["per_second"] / other["per_second"] for one, other in zip(runs, base, strict=True)
            )
            rows.append(
                [
                    what,
                    name,
                    f"{spread([run['per_second'] for run in runs])}/s",
                    f"{ratio:.2f}",
                    f"{middle(runs, 'p50_ms'):.1f}, {middle(runs, 'p99_ms'):.1f} ms",
                    f"{middle(runs, 'cpu_us'):,.0f} us",
                ]
            )
    return [Table("endpoints", ["request", "application", "answered", "of bare", "p50, p99", "processor, each"], rows)]


def middle(runs: Sequence[Mapping[str, float]], field: str) -> float:
    return statistics.median(run[field] for run in runs)


def drawings(measurement: Measurement) -> dict[str, str]:
    """Plots by file name."""
    drawn = {}
    for name, what in (("submit", "POST /tasks"), ("read", "GET /tasks/{id}")):
        bars = [
            plots.Bar(application, middle(runs, "per_second"), application == OURS)
            for application, runs in measurement.data[what].items()
        ]
        drawn[f"endpoints-{name}.svg"] = plots.bars(f"{what} a second, 64 clients, one process", bars, form=",.0f")
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--seconds", type=float, help="of one application in one round (default: 3)")
    parser.add_argument("--alone", action="store_true", help="without Celery and arq")
    parser.add_argument("--ours", choices=("sqlite", "postgresql"), default="sqlite", help="store of this project")
    parser.add_argument("--redis", help="URL of a server that runs already; its databases 2 to 4 are used")
    parser.add_argument("--postgresql", help="URL of a server that runs already")
    parser.add_argument("--environments", type=Path, default=venvs.KEPT, help="where the peers' environments are kept")
    parser.add_argument("--results", type=Path, help="folder to keep the figures in")
    options = parser.parse_args()
    rounds, seconds = (2, 0.5) if options.quick else (5, 3.0)
    rounds, seconds = options.rounds or rounds, options.seconds or seconds
    servers = Servers(options.redis, options.postgresql)
    try:
        with running(servers, options) as places:
            found = measure(places, rounds, seconds)
    except (Missing, venvs.CannotInstall) as error:
        print(f"FAILED: {error}; --alone needs neither Redis nor Celery and arq")
        return 1
    finally:
        servers.close()
    durable = "synchronous=FULL" if options.ours == "sqlite" else "PostgreSQL, synchronous_commit on"
    settings = [
        f"{rounds} rounds of {seconds:g} s in which all take turns, 64 clients, one server process each",
        f"this project: answered after the commit, {durable}",
        f"Celery and arq: {REDIS}, so that up to a second of acknowledged tasks is lost if the machine dies",
    ]
    versions = versions_of("fastapi", "uvicorn", "uvloop", "pydantic", "sqlalchemy", "orjson") | servers.versions
    if not options.alone:
        versions |= venvs.pinned("celery", "celery") | venvs.pinned("arq", "arq")
    data = {
        what: {name: [asdict(run) for run in runs] for name, runs in by_name.items()} for what, by_name in found.items()
    }
    measurement = taken(NAME, data, quick=options.quick, versions=versions, settings=settings)
    show(measurement, tables(measurement))
    save(measurement, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
