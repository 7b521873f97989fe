"""The demos as a newcomer starts them: what they print, how they end, and that they leave nothing behind."""

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conftest import until
from tests.walk.conftest import ROOT, House, Program, is_alive

QUICK = ("--seconds", "1", "--bulk", "100")


@pytest.fixture
def place() -> Iterator[Path]:
    """Where a demo makes its temporary folder. The path is short: sockets are made below it."""
    place = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    yield place
    shutil.rmtree(place)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that refuses: it is bound, and nobody listens there."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class Demo:
    """integrated_demo.py, running, with settings in its environment that would break it if they reached its children."""

    def __init__(self, program: Program, place: Path) -> None:
        self.program = program
        self.place = place

    def children(self) -> list[int]:
        """Pids of every process that runs in or below the folder of the demo, runners included."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "cwd").startswith(str(self.place)):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    async def pid_of(self, name: str) -> int:
        return int((await self.program.says(rf"(?m)^{name} .*\(pid (\d+)\)"))[1])

    async def has_tidied_up(self) -> bool:
        return not self.children() and not list(self.place.iterdir())


@pytest.fixture
async def demo(place: Path, tmp_path: Path) -> AsyncIterator[Demo]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {"TMPDIR": str(place), "DATABASE_URL": "mysql://nowhere", "LEASE_SECONDS": "soon", "API_PORT": "1"}
    (tmp_path / ".env").write_text("SWEEP_SECONDS=never\n")
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "integrated_demo.py"), *QUICK),
            cwd=tmp_path,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    demo = Demo(Program(process, log), place)
    yield demo
    await demo.program.kill()
    for pid in demo.children():
        os.kill(pid, signal.SIGKILL)


async def test_the_integrated_demo_shows_everything_and_leaves_nothing_behind(demo: Demo) -> None:
    pids = [await demo.pid_of("API"), await demo.pid_of("worker")]
    assert set(pids) < set(demo.children()), "the runners are there too"
    assert await demo.program.ended(60) == 0, demo.program.said()
    said = demo.program.said()
    for line in (
        r"text_processing +30( +[\d,.]+){6}",
        r"greet +7( +[\d,.]+){6}",
        r"delayed greet +3( +[\d,.]+){6}",
        r"bulk +100( +[\d,.]+){4} +- +-",
        r"critical +1( +[\d,.]+){6}",
        r"create +41 +[\d.]+ +[\d.]+ +< 50 +(reached|missed)",
        r"status +40 +[\d.]+ +[\d.]+ +< 20 +(reached|missed)",
        r"list +40 +[\d.]+ +[\d.]+ +< 30 +(reached|missed)",
        r"health +40 +[\d.]+ +[\d.]+ +< 10 +(reached|missed)",
        r"refused +greet without names: 422, (body\.)?payload\.names: ",
        r"failed +task \d+: name 2 is empty",
        r"cancelled +task \d+: cancelled",
        r"critical +task \d+, sent when \d+ others waited",
        r"bulk +100 tasks in one call",
        r"╭─ result ─+╮",
        r"Done in [\d.]+ s\.",
    ):
        assert re.search(rf"(?m)^{line}", said), f"{line} is missing:\n{said}"
    assert "\x1b" not in said, "no colours and no cursor movements in a file"
    assert not any(map(is_alive, pids))
    await until(demo.has_tidied_up)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_leaves_nothing_behind(demo: Demo, number: signal.Signals) -> None:
    await demo.pid_of("worker")
    demo.program.signal(number)
    demo.program.signal(number)  # an impatient person
    assert await demo.program.ended() == 128 + number, demo.program.said()
    assert "Traceback" not in demo.program.said()
    await until(demo.has_tidied_up)


@pytest.mark.parametrize("name", ["API", "worker"])
async def test_a_demo_whose_child_dies_says_so_and_leaves_nothing_behind(demo: Demo, name: str) -> None:
    await demo.program.says(r"(?m)^ +\d+ s .*text_processing [1-9]")  # it is at work
    os.kill(await demo.pid_of(name), signal.SIGKILL)
    assert await demo.program.ended() == 1
    said = demo.program.said()
    assert f"The demo failed. The {name} ended with status -9. It said:" in said
    assert "Traceback" not in said
    await until(demo.has_tidied_up)


async def test_the_walk_through_the_api_goes_from_end_to_end(house: House) -> None:
    _, client = await house.api()
    await house.worker()
    program = await house.start("demo.py", "--url", str(client.base_url))
    assert await program.ended(60) == 0, program.said()
    said = program.said()
    titles = re.findall(r"(?m)^(\d+)  \S.* ─+$", said)
    assert titles == [str(number) for number in range(1, 15)]
    for line in (
        r"healthy  version ",
        r"echo +",  # an executor it knows nothing of
        r"← 201 Created  \d+ ms  Location: /tasks/1",
        r"│ language +English",
        r"│ (body\.)?payload\.text +String should have at least 1 character",
        r"│ type +urn:task-service:problem:unknown-task-type",
        r"task 2 the first time, task 2 the second time",
        r"← 202 Accepted +\d+ ms +Retry-After: 1",
        r"started \d+ ms after it was due",
        r"task \d+  cancelled ",
        r"the critical task was number 50 in the bulk and started as number \d+",
        r" +1  timeout +\d+ ms +[\d.]+ s  ran longer than",
        r" +[\d.]+ s  completed",
        r"failed +1",
    ):
        assert re.search(rf"(?m)^ *{line}", said), f"{line} is missing:\n{said}"


async def test_the_walk_without_an_api_says_what_to_start(house: House, unused_port: int) -> None:
    program = await house.start("demo.py", "--url", f"http://127.0.0.1:{unused_port}")
    assert await program.ended() == 1
    (line,) = program.said().splitlines()
    assert line.startswith(f"No API answers at http://127.0.0.1:{unused_port} ")
    assert line.endswith("Start it: python run_api.py")


async def test_the_walk_without_a_worker_says_what_to_start(house: House) -> None:
    _, client = await house.api()
    program = await house.start("demo.py", "--url", str(client.base_url))
    assert await program.ended() == 1
    assert program.said().splitlines().pop().startswith("No worker is alive")
    assert "python run_worker.py" in program.said()
    assert (await client.get("/tasks")).json()["items"] == [], "it found out before it stored a task"


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:99999", "http://[", "ftp://127.0.0.1"])
async def test_the_walk_with_a_wrong_address_says_so(house: House, url: str) -> None:
    program = await house.start("demo.py", "--url", url)
    assert await program.ended() == 1
    assert len(program.said().splitlines()) == 1, program.said()


@pytest.mark.parametrize(
    ("script", "options"), [("demo.py", ["--url", "8000"]), ("integrated_demo.py", ["--seconds", "--bulk", "4000"])]
)
async def test_help_tells_every_option_and_default(house: House, script: str, options: list[str]) -> None:
    program = await house.start(script, "--help")
    assert await program.ended() == 0
    for option in options:
        assert option in program.said()
