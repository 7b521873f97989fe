"""The demos as a newcomer starts them: what they print, how they end, and that they leave nothing behind."""

import asyncio
import io
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from rich.console import Console

import demo as demo_script
from tests.conftest import until
from tests.walk.conftest import ROOT, House, Program, is_alive

QUICK = ("--seconds", "2", "--bulk", "100", "--items", "1000")


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

    def __init__(self, program: Program, place: Path, folder: Path) -> None:
        self.program = program
        self.place = place
        self.folder = folder

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
    demo = Demo(Program(process, log), place, tmp_path)
    yield demo
    await demo.program.kill()
    for pid in demo.children():
        os.kill(pid, signal.SIGKILL)


async def test_the_integrated_demo_shows_everything_and_leaves_nothing_behind(demo: Demo) -> None:
    pids = [await demo.pid_of(name) for name in ("API", "worker-1", "worker-2")]
    assert set(pids) < set(demo.children()), "the runners are there too"
    assert await demo.program.ended(100) == 0, demo.program.said()
    said = demo.program.said()
    for line in (
        r" +[\d.]+ s  a task was refused with 422: (body\.)?payload\.text: String should have",
        r" +[\d.]+ s  task \d+ failed, as it should: the png file is broken",
        r" +[\d.]+ s  task \d+ cancelled an hour before it was due",
        r" +[\d.]+ s  100 tasks in one call, on disk after \d+ ms",
        r" +[\d.]+ s  a critical task overtook \d+ that waited",
        r" +[\d.]+ s  kill -9 worker-\d, which had \d+ tasks?, the batch at \d+ of 1,000",
        r" +[\d.]+ s  worker-\d has the batch after [\d.]+ s \(lease 3 s, sweep 0\.5 s\), goes on at \d+",
        r" +[\d.]+ s  the batch of 1,000 items is completed",
        r"text_processing +24 +\d+( +[\d,.]+){4}",
        r"ai_summarization +8 +\d+( +[\d,.]+){4}",
        r"image_processing +7 +\d+( +[\d,.]+){4}",
        r"batch_processing +1 +1( +[\d,.]+){4}",
        r"delayed +2 +\d+( +[\d,.]+){4}",
        r"bulk +100 +\d+( +[\d,.]+){4}",
        r"urgent +1 +\d+( +[\d,.]+){4}",
        r"cancelled +1 +0( +-){4}",
        r"broken +1 +\d+( +[\d,.]+){4}",
        r"create +40 +[\d.]+ +[\d.]+ +< 50 +(met|missed)",
        r"status +40 +[\d.]+ +[\d.]+ +< 20 +(met|missed)",
        r"list +40 +[\d.]+ +[\d.]+ +< 30 +(met|missed)",
        r"health +40 +[\d.]+ +[\d.]+ +< 10 +(met|missed)",
        r"The goals are meant for an idle machine",
        r"a picture +data/demo/postcard\.jpg ",
        r"Done in [\d.]+ s\.",
    ):
        assert re.search(rf"(?m)^{line}", said), f"{line} is missing:\n{said}"
    text = " ".join(said.split())
    assert re.search(r"all 145 acknowledged tasks have ended .*143 completed.*; lost: 0; run twice: [1-9]", text), said
    assert re.search(r"killed with [1-9]\d* tasks?; [1-9]\d* lost attempts? of it ran again", text)
    stored = int(re.search(r"the batch went on at item (\d+) of 1,000", text)[1])  # type: ignore[index]
    assert stored > 1, "not from the beginning"
    assert re.search(r"guest book: \d+ positive, \d+ negative, \d+ neutral", text)
    assert "\x1b" not in said, "no colours and no cursor movements in a file"
    with Image.open(demo.folder / "data" / "demo" / "postcard.jpg") as picture:
        picture.load()
        assert (picture.format, picture.size) == ("JPEG", (900, 600))
    assert not any(map(is_alive, pids))
    await until(demo.has_tidied_up)


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, r"(?m)^worker-2 "),
        (signal.SIGINT, "a task was refused"),
        (signal.SIGINT, "kill -9"),
    ],
)
async def test_an_interrupted_demo_leaves_nothing_behind(demo: Demo, number: signal.Signals, moment: str) -> None:
    await demo.program.says(moment)
    demo.program.signal(number)
    demo.program.signal(number)  # an impatient person
    assert await demo.program.ended() == 128 + number, demo.program.said()
    assert "Traceback" not in demo.program.said()
    await until(demo.has_tidied_up)


async def test_a_demo_interrupted_while_it_starts_leaves_nothing_behind(demo: Demo) -> None:
    await until(demo.children)
    demo.program.signal(signal.SIGINT)
    assert await demo.program.ended() == 128 + signal.SIGINT, demo.program.said()
    assert "Traceback" not in demo.program.said()
    await until(demo.has_tidied_up)


@pytest.mark.parametrize("name", ["API", "worker-2"])
async def test_a_demo_whose_child_dies_says_so_and_leaves_nothing_behind(demo: Demo, name: str) -> None:
    await demo.program.says("a task was refused")  # it is at work
    os.kill(await demo.pid_of(name), signal.SIGKILL)
    assert await demo.program.ended() == 1
    said = demo.program.said()
    assert f"The demo failed. {name} ended with status -9. It said:" in said
    assert "Traceback" not in said
    await until(demo.has_tidied_up)


async def test_the_walk_through_the_api_goes_from_end_to_end(house: House) -> None:
    _, client = await house.api()
    await house.worker()
    program = await house.start("demo.py", "--url", str(client.base_url), "--output", "made")
    assert await program.ended(100) == 0, program.said()
    said = program.said()
    titles = re.findall(r"(?m)^(\d+)  \S.* ─+$", said)
    assert titles == [str(number) for number in range(1, 18)]
    for line in (
        r"healthy  version ",
        r"echo +",  # an executor it knows nothing of
        r"\$ curl -X POST http://127\.0\.0\.1:\d+/tasks/ \\$",
        r"← 201 Created  \d+ ms  Location: /tasks/1",
        r"│ language +English",
        r">>> client\.submit\(.*\n +2$",
        r"╭─ \d+% of 700 characters ─",
        r"thumbnail  made/thumbnail-\d+\.jpg  \(300 x 200, [\d,]+ bytes of 47,923\)",
        r"[\d.]+ s  completed 100\.0 %  400 of 400",
        r"moods +\d+ positive, \d+ negative, \d+ neutral",
        r"│ (body\.)?payload\.text +String should have at least 1 character",
        r"│ type +urn:task-service:problem:unknown-task-type",
        r"task \d+  failed .* failure_reason error",
        r"error  Fail: the png file is broken",
        r" +1  timeout +\d+ ms +[\d.]+ s  ran longer than",
        r"task (\d+) the first time, task \1 the second time",
        r"← 202 Accepted +\d+ ms +Retry-After: 1",
        r"started \d+ ms after it was due",
        r"task \d+  cancelled ",
        r"the critical task was number 50 in the bulk and started as number \d+",
        r"failed +2",
    ):
        assert re.search(rf"(?m)^ *{line}", said), f"{line} is missing:\n{said}"
    (thumbnail,) = (house.folder / "made").iterdir()
    with Image.open(thumbnail) as picture:
        picture.load()
        assert (picture.format, picture.size) == ("JPEG", (300, 200))


@pytest.fixture
def impostor(tmp_path: Path) -> Callable[[dict[str, Any]], demo_script.Api]:
    """The walk's client for an API that gives one answer to everything."""

    def make(answer: dict[str, Any]) -> demo_script.Api:
        api = demo_script.Api("http://test", Console(file=io.StringIO()), tmp_path)
        api.client = httpx.Client(
            transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer)), base_url="http://test"
        )
        return api

    return make


def test_the_walk_says_which_task_types_an_api_lacks(impostor: Callable[[dict[str, Any]], demo_script.Api]) -> None:
    api = impostor({"items": [{"task_type": "text_processing", "description": "Analyse a text."}]})
    with pytest.raises(demo_script.CannotGoOn, match="lacks ai_summarization, image_processing, batch_processing"):
        demo_script.see_task_types(api)


def test_the_walk_says_which_task_types_no_worker_serves(
    impostor: Callable[[dict[str, Any]], demo_script.Api],
) -> None:
    one = {"pid": 1, "slots": 1, "queues": []}
    workers = [one | {"id": "a", "task_types": list(demo_script.NEEDED[:2])}, one | {"id": "b", "task_types": []}]
    with pytest.raises(demo_script.CannotGoOn, match="No worker alive serves image_processing, batch_processing"):
        demo_script.see_workers(impostor({"items": workers}))


async def test_the_walk_says_where_it_cannot_write(house: House) -> None:
    _, client = await house.api()
    await house.worker()
    (house.folder / "taken").touch()
    program = await house.start("demo.py", "--url", str(client.base_url), "--output", "taken")
    assert await program.ended(60) == 1
    line = program.said().splitlines().pop()
    assert line.startswith("taken/thumbnail-")
    assert line.endswith("Choose a folder with --output.")


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
    ("script", "options"),
    [
        ("demo.py", ["--url", "8000", "--output"]),
        ("integrated_demo.py", ["--seconds", "--bulk", "1500", "--items", "4000", "--output"]),
    ],
)
async def test_help_tells_every_option_and_default(house: House, script: str, options: list[str]) -> None:
    program = await house.start(script, "--help")
    assert await program.ended() == 0
    for option in options:
        assert option in program.said()
