"""Starts the programs that are measured, on free ports and in a temporary folder, and ends them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.load import Load
from benchmarks.servers import spare_port

ROOT = Path(__file__).parents[1]


class House:
    """Programs under measurement. Everything is on loopback and ends with the block that opened it."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._programs: list[subprocess.Popen[Any]] = []
        self._logs: dict[int, Path] = {}
        clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        self._environment = {
            **clean,
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": f"sqlite:///{folder}/tasks.db",
            "EXECUTOR_MODULES": "benchmarks.executors",
            "LOG_LEVEL": "warning",
            "LOG_FORMAT": "json",
            **settings,
        }

    def start(self, *command: str, **settings: str) -> subprocess.Popen[bytes]:
        """A Python program of this environment."""
        return self.run(sys.executable, *command, environment=self._environment | settings)

    def run(self, *command: str, environment: Mapping[str, str], cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Any program."""
        path = self.folder / f"{len(self._programs)}.log"
        with path.open("wb") as log:
            program = subprocess.Popen(command, cwd=cwd or self.folder, env=dict(environment), stdout=log, stderr=log)
        self._logs[program.pid] = path
        self.keep(program)
        return program

    def keep(self, program: subprocess.Popen[Any]) -> None:
        """End this one too when the house is closed."""
        self._programs.append(program)

    def said(self, program: subprocess.Popen[bytes]) -> str:
        """All that a program has written so far."""
        return self._logs[program.pid].read_text(errors="replace")

    def last_words(self, program: subprocess.Popen[bytes]) -> str:
        return (self.said(program).strip().splitlines() or ["it said nothing"])[-1]

    def migrate(self) -> None:
        """Make the tables, so that no program under measurement has to: whoever does keeps the 9 MB of the library for it."""
        program = self.start("-m", "app.migrate")
        if program.wait(timeout=60) != 0:
            raise RuntimeError(f"no tables: {self.last_words(program)}")

    def api(self, *arguments: str, **settings: str) -> tuple[subprocess.Popen[bytes], str]:
        """Our API; returns it and its address once it answers."""
        program = self.start(str(ROOT / "run_api.py"), "--port", "0", *arguments, **settings)

        def address() -> str | None:
            if program.poll() is not None:
                raise RuntimeError(f"the API ended: {self.last_words(program)}")
            found = re.search(r"Listening on (\S+)", self.said(program))
            return found and found[1]

        told = str(_wait(address))
        _wait(lambda: _answers(f"{told}/health"))
        return program, told

    def bare(self) -> tuple[subprocess.Popen[bytes], str]:
        """The yardstick on the same server with the same options."""
        return self.served("benchmarks.bare_app:app", sys.executable, self._environment)

    def served(
        self, application: str, python: str, environment: Mapping[str, str], cwd: Path | None = None
    ) -> tuple[subprocess.Popen[bytes], str]:
        """An ASGI application, which has /health, under the server and with the options that our API has."""
        port = spare_port()
        options = ("--port", str(port), "--no-access-log", "--log-level", "warning", "--backlog", "2048")
        program = self.run(python, "-m", "uvicorn", application, *options, environment=environment, cwd=cwd)
        address = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            if program.poll() is not None:
                raise RuntimeError(f"{application} ended: {self.last_words(program)}")
            return _answers(f"{address}/health")

        _wait(ready)
        return program, address

    def worker(self, address: str, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        """Our worker, once the API knows of it and its runners have begun."""
        program = self.start(str(ROOT / "run_worker.py"), *arguments, **settings)

        def signed_in() -> bool:
            if program.poll() is not None:
                raise RuntimeError(f"the worker ended: {self.last_words(program)}")
            return any(row["pid"] == program.pid for row in httpx.get(f"{address}/workers").json()["items"])

        _wait(signed_in)
        return program

    def close(self) -> None:
        end(*self._programs)


def end(*programs: subprocess.Popen[Any], polite_seconds: float = 5.0, patient_seconds: float = 10.0) -> None:
    """Ask programs to end; then, as a service manager does, all that they started too; at last make them."""
    living = {program: tree(program.pid) for program in programs if program.poll() is None}
    for program in living:
        program.send_signal(signal.SIGTERM)
    for seconds, number in ((polite_seconds, signal.SIGTERM), (patient_seconds, signal.SIGKILL)):
        deadline = time.monotonic() + seconds
        for program, pids in living.items():
            try:
                program.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
    for program in living:
        program.wait()


@contextmanager
def open_house(**settings: str) -> Iterator[House]:
    """A house in a temporary folder, its programs with these settings; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        house = House(Path(folder), settings)
        try:
            yield house
        finally:
            house.close()


def load(url: str, method: str = "GET", body: Any = None, connections: int = 64, seconds: float = 3.0) -> Load:
    """Put load on `url` from another process."""
    asked = {
        "url": url,
        "method": method,
        "body": None if body is None else json.dumps(body),
        "connections": connections,
        "seconds": seconds,
    }
    command = [sys.executable, "-m", "benchmarks.load", json.dumps(asked)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    if done.stderr:
        print(done.stderr, file=sys.stderr)
    return Load(**json.loads(done.stdout))


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    pids, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        pids.append(one)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may end meanwhile
            for thread in Path(f"/proc/{one}/task").glob("*/children"):
                waiting += [int(child) for child in thread.read_text().split()]
    return pids


def pss_mb(pid: int) -> float:
    """Proportional set size of one process in MB (Linux)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no PSS for {pid}")


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that these processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def _wait(condition: Any, seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise TimeoutError("a program did not get ready")
