"""Starts the programs that are measured, on free ports and in a temporary folder, and ends them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.load import Load

ROOT = Path(__file__).parents[1]


class House:
    """Programs under measurement. Everything is on loopback and ends with the block that opened it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs: list[subprocess.Popen[bytes]] = []
        clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        self._environment = clean | {
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": f"sqlite:///{folder}/tasks.db",
            "EXECUTOR_MODULES": "benchmarks.executors",
            "LOG_LEVEL": "warning",
            "LOG_FORMAT": "json",
        }

    def start(self, *command: str, **settings: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{len(self._programs)}.log").open("wb")
        program = subprocess.Popen(
            [sys.executable, *command], cwd=self.folder, env=self._environment | settings, stdout=log, stderr=log
        )
        log.close()
        self._programs.append(program)
        return program

    def api(self, **settings: str) -> tuple[subprocess.Popen[bytes], str]:
        """Our API; returns it and its address once it answers."""
        program = self.start(str(ROOT / "run_api.py"), "--port", "0", **settings)
        log = self.folder / f"{len(self._programs) - 1}.log"
        address = _wait(lambda: (found := re.search(r"Listening on (\S+)", log.read_text())) and found[1])
        _wait(lambda: _answers(f"{address}/health"))
        return program, str(address)

    def bare(self) -> tuple[subprocess.Popen[bytes], str]:
        """The yardstick on the same server with the same options."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ("--port", str(port), "--no-access-log", "--log-level", "warning", "--backlog", "2048")
        program = self.start("-m", "uvicorn", "benchmarks.bare_app:app", *options)
        address = f"http://127.0.0.1:{port}"
        _wait(lambda: _answers(f"{address}/health"))
        return program, address

    def worker(self, address: str, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        program = self.start(str(ROOT / "run_worker.py"), *arguments, **settings)
        _wait(lambda: any(row["pid"] == program.pid for row in httpx.get(f"{address}/workers").json()["items"]))
        return program

    def stop(self, program: subprocess.Popen[bytes]) -> None:
        program.send_signal(signal.SIGTERM)
        try:
            program.wait(15)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()

    def close(self) -> None:
        for program in self._programs:
            if program.poll() is None:
                self.stop(program)


@contextmanager
def open_house() -> Iterator[House]:
    """A house in a temporary folder; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        house = House(Path(folder))
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
