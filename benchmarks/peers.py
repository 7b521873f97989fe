"""This project against other task queues in one run: 10,000 tasks that do nothing and have a small result that is stored.

    python benchmarks/peers.py                       everyone, three rounds: about an hour
    python benchmarks/peers.py --quick               1,000 tasks, one round: some minutes
    python benchmarks/peers.py --only celery,rq      those whose name has the word; this project always takes part
    python benchmarks/peers.py --ours postgresql     this project on these stores (default: sqlite)
    python benchmarks/peers.py --redis URL --postgresql URL      servers that run already (their data is thrown away)

Each peer has an environment of its own, made from benchmarks/peers/*/requirements.txt and kept in .venv-peers; Redis and
PostgreSQL are started on spare ports. Everyone's turn in a round, with an empty store and no worker:

    one by one   a tenth of the tasks put in by one caller, one after the other
    many         the rest, in the quickest way it has
    1 worker     starts, and runs them all: tasks a second from the first tenth to the last
    idle         processor share and memory (PSS) of all its processes, after that
    pick-up      from just before the call that puts in one task to the first line of its code, worker idle
    2 workers    as 1 worker, with as many tasks again, from when both have begun; the part that the less busy one did

The task notes that it ran, so lost and doubled ones are found; then some results are read back. Nobody's worker is killed.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))


from benchmarks import plots, venvs
from benchmarks.caller import Caller
from benchmarks.contenders import CONTENDERS, Contender, Store
from benchmarks.house import ROOT, House, cpu_seconds, end, open_house, pss_mb, tree
from benchmarks.measurements import Measurement, Table, save, show, spread, taken, versions_of
from benchmarks.recorder import ENTRY, recorded
from benchmarks.servers import Missing, Servers

NAME = "peers"
OURS = "Task service"
FASTEST = "PgQueuer"
MOST_A_CALL = 10_000
FAST = 4.0
"""So many times the tasks of the others for who is done with them before a second worker has started."""
SETTLE_SECONDS = 1.0
"""What has run is not yet all written down."""
STALLED_SECONDS = 30.0
"""Nothing has run for so long: what is missing is lost."""


@dataclass
class Turn:
    """What one contender did in one round. Rates are tasks a second, times milliseconds, memory MB. `least_share` is the
    part that the less busy one of two workers did."""

    one_by_one: float = 0.0
    many: float = 0.0
    drains: dict[str, float] = field(default_factory=dict)
    least_share: float = 0.0
    pickups: list[float] = field(default_factory=list)
    idle_percent: float = 0.0
    memory_mb: float = 0.0
    processes: int = 0
    lost: int = 0
    doubled: int = 0
    results_asked: int = 0
    results_found: int | None = None


class Side(Protocol):
    """How one contender is driven."""

    def one_by_one(self, first: int, count: int) -> float: ...

    def many(self, first: int, count: int) -> float: ...

    def now_and_then(self, first: int, count: int) -> Sequence[tuple[int, int]]: ...

    def stored(self, numbers: Sequence[int]) -> int | None: ...

    def start_worker(self, number: int) -> subprocess.Popen[bytes]: ...


class Ours:
    """This project: an API process beside the workers, everything over HTTP."""

    def __init__(self, house: House, record: Path) -> None:
        self._house, self._record = house, record
        _, self._address = house.api()
        self._caller = Caller(self._address)
        self._ids: dict[int, int] = {}

    def one_by_one(self, first: int, count: int) -> float:
        began = time.perf_counter()
        for number in range(first, first + count):
            self._ids[number] = self._caller.post("/tasks", task(number))["id"]
        return time.perf_counter() - began

    def many(self, first: int, count: int) -> float:
        numbers = range(first, first + count)
        began = time.perf_counter()
        ids: list[int] = []
        for start in range(0, count, MOST_A_CALL):
            body = {"tasks": [task(number) for number in numbers[start : start + MOST_A_CALL]]}
            ids += self._caller.post("/tasks/bulk", body)["ids"]
        took = time.perf_counter() - began
        self._ids |= zip(numbers, ids, strict=True)
        return took

    def now_and_then(self, first: int, count: int) -> list[tuple[int, int]]:
        sent = []
        for number in range(first, first + count):
            time.sleep(random.uniform(0.02, 0.04))
            sent.append((number, time.monotonic_ns()))
            self._ids[number] = self._caller.post("/tasks", task(number))["id"]
        return sent

    def stored(self, numbers: Sequence[int]) -> int:
        return sum(
            self._caller.get(f"/tasks/{self._ids[number]}?wait=5")["result"] == {"number": number} for number in numbers
        )

    def start_worker(self, number: int) -> subprocess.Popen[bytes]:
        settings = {"BENCH_RECORD": str(self._record), "BENCH_WORKER": str(number)}
        return self._house.start(str(ROOT / "run_worker.py"), **settings)


def task(number: int) -> dict[str, Any]:
    return {"task_type": "bench.record", "payload": {"number": number}}


class Peer:
    """Another queue, in its own environment: a producer and workers."""

    def __init__(self, contender: Contender, house: House, venv: Path, record: Path, store: dict[str, str]) -> None:
        self._contender, self._house, self._venv, self._store = contender, house, venv, store
        module = venvs.PEERS / contender.folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")},
            **contender.environment,
            **store,
            "PATH": f"{venv / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": f"{module}:{ROOT}",
            "PYTHONUNBUFFERED": "1",
            "BENCH_RECORD": str(record),
        }
        self._module = module
        self._errors = house.folder / "producer.log"
        self._producer = subprocess.Popen(
            [venv / "bin" / "python", "-m", "benchmarks.producer"],
            cwd=house.folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors.open("wb"),
            text=True,
        )
        house.keep(self._producer)
        self._ask("prepare")

    def _ask(self, verb: str, *arguments: Any) -> Any:
        assert self._producer.stdin is not None
        assert self._producer.stdout is not None
        self._producer.stdin.write(json.dumps([verb, *arguments]) + "\n")
        self._producer.stdin.flush()
        answer = self._producer.stdout.readline()
        if not answer:
            raise RuntimeError(f"its producer ended at {verb}: {last_line(self._errors)}")
        return json.loads(answer)

    def one_by_one(self, first: int, count: int) -> float:
        return float(self._ask("one_by_one", first, count))

    def many(self, first: int, count: int) -> float:
        return float(self._ask("many", first, count))

    def now_and_then(self, first: int, count: int) -> list[tuple[int, int]]:
        return [(number, sent) for number, sent in self._ask("now_and_then", first, count)]

    def stored(self, numbers: Sequence[int]) -> int | None:
        found: int | None = self._ask("stored", list(numbers))
        return found

    def start_worker(self, number: int) -> subprocess.Popen[bytes]:
        program, *arguments = (part.format(**self._store) for part in self._contender.worker)
        # Scripts are started by the interpreter: the first line of one names the place where it was installed.
        command = [
            str(self._venv / "bin" / "python"),
            *([] if program == "python" else [str(self._venv / "bin" / program)]),
        ]
        environment = self._environment | {"BENCH_WORKER": str(number)}
        return self._house.run(*command, *arguments, cwd=self._module, environment=environment)


def last_line(log: Path) -> str:
    text = log.read_text(errors="replace").strip().splitlines()
    return text[-1] if text else "it said nothing"


class Tally:
    """How many different tasks have run. Looks each time only at what is new."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._read = 0
        self._numbers: set[int] = set()

    def different(self) -> int:
        if self._record.exists():
            with self._record.open("rb") as file:
                file.seek(self._read)
                data = file.read()
            data = data[: len(data) // ENTRY.size * ENTRY.size]
            self._read += len(data)
            self._numbers |= {number for number, *_ in ENTRY.iter_unpack(data)}
        return len(self._numbers)


class Round:
    """One turn of one contender."""

    def __init__(self, side: Side, house: House, record: Path, count: int, pickups: int, idle_seconds: float) -> None:
        self._side, self._house, self._record = side, house, record
        self._count, self._pickups, self._idle_seconds = count, pickups, idle_seconds
        self._put_in = 0
        self._tally = Tally(record)
        self._turn = Turn()

    def take(self) -> Turn:
        single = self._count // 10
        self._turn.one_by_one = single / self._put(self._side.one_by_one, single)
        self._turn.many = (self._count - single) / self._put(self._side.many, self._count - single)
        workers = self._drain(1)
        self._look_at_idle(workers)
        self._pick_up(workers)
        self._end(workers)
        self._put(self._side.many, self._count)
        workers = self._drain(2)
        self._ask_for_results()
        self._end(workers)
        runs = [run.number for run in recorded(self._record)]
        self._turn.doubled = len(runs) - len(set(runs))
        self._turn.lost = self._put_in - len(set(runs))
        return self._turn

    def _put(self, put: Callable[[int, int], float], count: int) -> float:
        first, self._put_in = self._put_in, self._put_in + count
        return put(first, count)

    def _drain(self, number: int) -> list[subprocess.Popen[bytes]]:
        """Start workers on what waits, and note how fast they run it."""
        already = len(recorded(self._record))
        workers = [self._side.start_worker(place) for place in range(number)]
        self._wait_for_all(workers)
        runs = sorted(recorded(self._record)[already:], key=lambda run: run.at)
        if len(runs) < 20:
            raise RuntimeError(f"only {len(runs)} tasks ran: {self._house.last_words(workers[0])}")
        # One that starts later than the other must not count as slow.
        places = [next((place for place, run in enumerate(runs) if run.worker == one), 0) for one in range(number)]
        first = max(len(runs) // 10, *places, 0)
        counted = runs[first:]
        self._turn.drains[str(number)] = (len(counted) - 1) / ((counted[-1].at - counted[0].at) / 1e9)
        self._turn.least_share = min(sum(run.worker == one for run in counted) for one in range(number)) / len(counted)
        return workers

    def _wait_for_all(self, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        seen, since = -1, time.monotonic()
        while (now := self._tally.different()) < self._put_in:
            if now != seen:
                seen, since = now, time.monotonic()
            if all(worker.poll() is not None for worker in workers):
                raise RuntimeError(f"its worker ended: {self._house.last_words(workers[0])}")
            if time.monotonic() - since > STALLED_SECONDS:
                return
            time.sleep(0.02)

    def _look_at_idle(self, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        time.sleep(SETTLE_SECONDS)
        pids = [pid for worker in workers for pid in tree(worker.pid)]
        used, began = cpu_seconds(pids), time.perf_counter()
        time.sleep(self._idle_seconds)
        self._turn.idle_percent = 100 * (cpu_seconds(pids) - used) / (time.perf_counter() - began)
        self._turn.memory_mb, self._turn.processes = sum(pss_mb(pid) for pid in pids), len(pids)

    def _pick_up(self, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        warm = 10
        first, self._put_in = self._put_in, self._put_in + self._pickups + warm
        sent = dict(self._side.now_and_then(first, self._pickups + warm))
        self._wait_for_all(workers)
        ran = {run.number: run.at for run in reversed(recorded(self._record))}  # of one that ran twice, the first time
        self._turn.pickups = [
            (ran[number] - at) / 1e6 for number, at in sent.items() if number >= first + warm and number in ran
        ]

    def _ask_for_results(self) -> None:
        asked = random.sample(range(self._put_in), min(100, self._put_in))
        time.sleep(SETTLE_SECONDS)
        self._turn.results_asked, self._turn.results_found = len(asked), self._side.stored(asked)

    def _end(self, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        time.sleep(SETTLE_SECONDS)
        end(*workers)


class Arena:
    """Servers and environments, and who takes part."""

    def __init__(self, servers: Servers, folder: Path, options: argparse.Namespace) -> None:
        self._servers, self._folder = servers, folder
        self.count = options.count or (1_000 if options.quick else 10_000)
        self._pickups, self._idle_seconds = (50, 2.0) if options.quick else (200, 5.0)
        self.turns: dict[str, list[Turn]] = {}
        self.faults: dict[str, str] = {}

    def play(self, name: str, contender: Contender | None, store: Store) -> None:
        """One turn; who fails is named, and takes no further part."""
        if name in self.faults:
            return
        print(f"{time.strftime('%H:%M:%S')} {name} ...", flush=True)
        try:
            turn = self._turn(contender, store)
        except (Missing, venvs.CannotInstall) as error:
            self._fail(name, str(error))
        except Exception as error:  # a peer may fail in any way; the others go on, and it is told at the end
            traceback.print_exc()
            self._fail(name, f"{type(error).__name__}: {error}")
        else:
            self.turns.setdefault(name, []).append(turn)

    def _fail(self, name: str, reason: str) -> None:
        self.faults[name] = " ".join(reason.split())[:300]
        print(f"  {name} FAILED: {self.faults[name]}", flush=True)

    def _turn(self, contender: Contender | None, store: Store) -> Turn:
        settings = self._store(store)
        with open_house(**({} if store == "sqlite" else {"DATABASE_URL": settings.get("POSTGRES_URL", "")})) as house:
            record = house.folder / "record"
            count = self.count
            if store == "sqlite":
                settings = {"SQLITE_FILE": str(house.folder / "queue.db")}
            if contender is None:
                side: Side = Ours(house, record)
                count = round(count * FAST)
            else:
                venv = venvs.environment(contender.folder, self._folder)
                side = Peer(contender, house, venv, record, settings)
                count = max(100, round(count * contender.count))
            return Round(side, house, record, count, self._pickups, self._idle_seconds).take()

    def _store(self, store: Store) -> dict[str, str]:
        match store:
            case "redis":
                return {"REDIS_URL": self._servers.redis()}
            case "postgresql":
                return {"POSTGRES_URL": self._servers.postgresql()}
            case "sqlite":
                return {}


def measure(options: argparse.Namespace, arena: Arena) -> None:
    words = [word.lower() for word in options.only.split(",") if word]
    others = [one for one in CONTENDERS if not words or any(word in one.name.lower() for word in words)]
    for _ in range(options.rounds or (1 if options.quick else 3)):
        for store in options.ours.split(","):
            arena.play(ours(store), None, store)
        for contender in others:
            arena.play(contender.name, contender, contender.store)


def ours(store: str) -> str:
    return f"{OURS}, {'SQLite' if store == 'sqlite' else 'PostgreSQL'}"


def tables(measurement: Measurement) -> list[Table]:
    """The comparison, what everyone is set to and keeps, and who failed."""
    data = measurement.data
    turns = {name: [Turn(**turn) for turn in given] for name, given in data["turns"].items()}
    base = next((name for name in turns if name.startswith(OURS)), None)
    columns = [
        *(
            "who",
            "put in one by one",
            "many",
            "1 worker",
            "2 workers, share of one",
            "ours, 1 worker",
            "pick-up p50, p99",
        ),
        *("idle", "memory", "lost, doubled", "results"),
    ]
    rows = [compared(name, given, turns[base] if base else []) for name, given in turns.items()]
    about = [
        [name, said["versions"], said["settings"], said["many"], said["safety"]] for name, said in data["about"].items()
    ]
    failed = [[name, reason] for name, reason in data["faults"].items()] or [["nobody", ""]]
    return [
        Table("peers", columns, rows),
        Table("peers-settings", ["who", "versions", "settings", "many means", "what is safe"], about),
        Table("peers-budget", ["a drain, one worker", "measured", "budget", "met"], budget(turns, base)),
        Table("peers-failed", ["who took no part, or not to the end", "why"], failed),
    ]


def drained_by(base: Sequence[Turn], turns: Sequence[Turn]) -> list[float]:
    """How many times as fast `base` drained: round by round, which holds when the machine's speed drifts."""
    return [one.drains["1"] / other.drains["1"] for one, other in zip(base, turns, strict=False)]


def budget(turns: Mapping[str, Sequence[Turn]], base: str | None) -> list[list[str]]:
    """What a drain is to reach beside the fastest peer, and beside every other."""
    if base is None:
        return []
    times = {
        name: statistics.median(ratios)
        for name, given in turns.items()
        if not name.startswith(OURS) and (ratios := drained_by(turns[base], given))
    }
    others = {name: ratio for name, ratio in times.items() if name != FASTEST}
    rows = [] if FASTEST not in times else [_met(f"beside {FASTEST}, the fastest", times[FASTEST], 2)]
    return rows + [_met(f"beside {name}", ratio, 8) for name, ratio in sorted(others.items(), key=lambda one: one[1])]


def _met(what: str, ratio: float, wanted: float) -> list[str]:
    return [what, f"{ratio:.1f} x", f">= {wanted:g} x", "yes" if ratio >= wanted else "NO"]


def compared(name: str, turns: Sequence[Turn], base: Sequence[Turn]) -> list[str]:
    pickups = [delay for turn in turns for delay in turn.pickups]
    ratios = drained_by(base, turns)
    asked = sum(turn.results_asked for turn in turns)
    found = [turn.results_found for turn in turns if turn.results_found is not None]
    return [
        name,
        f"{spread([turn.one_by_one for turn in turns])}/s",
        f"{spread([turn.many for turn in turns])}/s",
        f"{spread([turn.drains['1'] for turn in turns])}/s",
        f"{spread([turn.drains['2'] for turn in turns])}/s, {statistics.median(turn.least_share for turn in turns):.0%}",
        "" if name.startswith(OURS) or not ratios else f"{statistics.median(ratios):.1f} x",
        f"{quantile(pickups, 50):.1f}, {quantile(pickups, 99):.1f} ms",
        f"{statistics.median(turn.idle_percent for turn in turns):.1f} %",
        f"{statistics.median(turn.memory_mb for turn in turns):.0f} MB in {turns[-1].processes}",
        f"{sum(turn.lost for turn in turns)}, {sum(turn.doubled for turn in turns)}",
        f"{sum(found)} of {asked}" if found else "none stored",
    ]


def quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else math.nan


def drawings(measurement: Measurement) -> dict[str, str]:
    """Plots by file name."""
    turns = measurement.data["turns"]
    ranked = sorted(turns, key=lambda name: -statistics.median(turn["drains"]["1"] for turn in turns[name]))
    drained = {name: [turn["drains"]["1"] for turn in turns[name]] for name in ranked}
    delays = {name: [delay for turn in turns[name] for delay in turn["pickups"]] for name in turns}
    quickest = sorted((name for name in delays if delays[name]), key=lambda name: quantile(delays[name], 50))
    return {
        "peers-drain.svg": plots.bars(
            "Tasks a second with one worker, results stored where they can be",
            [plots.Bar(name, statistics.median(given), name.startswith(OURS)) for name, given in drained.items()],
            form=",.0f",
        ),
        "peers-pickup.svg": plots.bars(
            "From putting a task in to the first line of its code, worker idle: p50 and p99 in ms",
            [
                plots.Bar(name, quantile(delays[name], 50), name.startswith(OURS), quantile(delays[name], 99))
                for name in quickest
            ],
            form=",.1f",
            logarithmic=True,
        ),
    }


def about(name: str, contender: Contender | None) -> dict[str, str]:
    if contender is None:
        return {
            "versions": "this one",
            "settings": f"{os.cpu_count()} runners (its default: one a core), an API process",
            "many": "POST /tasks/bulk",
            "safety": (
                "synchronous=FULL: answered after the flush; what a killed worker had runs again after 35 s at most"
                if name.endswith("SQLite")
                else "answered after the commit; what a killed worker had runs again after 35 s at most"
            ),
        }
    pins = venvs.pinned(contender.folder, *contender.packages)
    return {
        "versions": ", ".join(f"{package} {version}" for package, version in pins.items()),
        "settings": contender.settings,
        "many": contender.many,
        "safety": contender.safety,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 tasks, one round")
    parser.add_argument("--only", default="", help="peers whose name has one of these words, separated by commas")
    parser.add_argument("--ours", default="sqlite", help="stores of this project: sqlite, postgresql or both")
    parser.add_argument("--count", type=int, help="tasks of a drain (default: 10,000)")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--redis", help="URL of a server that runs already; its database 0 is used")
    parser.add_argument("--postgresql", help="URL of a server that runs already")
    parser.add_argument("--environments", type=Path, default=venvs.KEPT, help="where the peers' environments are kept")
    parser.add_argument("--results", type=Path, help="folder to keep the figures in")
    options = parser.parse_args()
    servers = Servers(options.redis, options.postgresql)
    try:
        arena = Arena(servers, options.environments, options)
        measure(options, arena)
    finally:
        servers.close()
    names = [*arena.turns, *(name for name in arena.faults if name not in arena.turns)]
    known = {one.name: one for one in CONTENDERS}
    data = {
        "turns": {name: [asdict(turn) for turn in turns] for name, turns in arena.turns.items()},
        "faults": arena.faults,
        "about": {name: about(name, known.get(name)) for name in names},
    }
    settings = [
        f"{options.rounds or (1 if options.quick else 3)} rounds in which all take turns; {arena.count:,} tasks a drain"
    ]
    versions = versions_of("fastapi", "uvicorn", "pydantic", "sqlalchemy") | servers.versions
    measurement = taken(NAME, data, quick=options.quick, versions=versions, settings=settings)
    show(measurement, tables(measurement))
    save(measurement, options.results)
    wrong = [name for name, turns in arena.turns.items() for turn in turns if turn.lost or turn.doubled]
    for name in dict.fromkeys(wrong):
        print(f"LOST OR DOUBLED TASKS: {name}")
    for name, reason in arena.faults.items():
        print(f"FAILED: {name}: {reason}")
    return 1 if any(name.startswith(OURS) for name in (*arena.faults, *wrong)) else 0


if __name__ == "__main__":
    sys.exit(main())
