"""The client against a real server behind a bad line: answers that get lost, processes that die. One task for each submit."""

import asyncio
import hashlib
import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import httpx
import pytest

from taskclient import AsyncClient, Client, NoAnswer, StillRunning, Task
from tests.conftest import until
from tests.walk.conftest import ROOT, House, Program

PICTURE = ROOT / "examples" / "lighthouse.jpg"
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-type: application/problem+json\r\n"
    b"content-length: 22\r\nconnection: close\r\n\r\n"
    b'{"detail": "not now."}'
)
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 12\r\nconnection: close\r\n\r\n<h1>Bad</h1>"
FAULTS = ("cut before", "cut after", "cut within", "unavailable", "bad gateway")


class BadLine:
    """A TCP relay to an API that does something else with each connection, as `plan` says. One request a connection."""

    def __init__(self, target: httpx.URL, plan: Callable[[], str]) -> None:
        self._target = (target.host, target.port)
        self._plan = plan
        self.done: Counter[str] = Counter()
        self.keep_bytes = 40
        """What of an answer passes when it is cut within."""

    async def open(self) -> str:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._plan()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
            answer = await self._answered(fault, head.replace(b"keep-alive", b"close"), body)
            self.done[fault] += 1
            writer.write(answer)
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def _answered(self, fault: str, head: bytes, body: bytes) -> bytes:
        """What goes back to the client. In all but two cases the API has got the request by then, and has answered."""
        if fault == "cut before":
            return b""
        if fault == "unavailable":
            return UNAVAILABLE
        reader, writer = await asyncio.open_connection(*self._target)
        writer.write(head + body)
        answer = await reader.read()
        writer.close()
        match fault:
            case "cut after":
                return b""
            case "cut within":
                return answer[: self.keep_bytes]
            case "bad gateway":
                return BAD_GATEWAY
        return answer


@pytest.fixture
async def api(house: House) -> httpx.AsyncClient:
    _, client = await house.api()
    return client


@pytest.fixture
async def line(api: httpx.AsyncClient) -> AsyncIterator[Callable[[Callable[[], str]], BadLine]]:
    lines: list[BadLine] = []

    def make(plan: Callable[[], str]) -> BadLine:
        lines.append(BadLine(api.base_url, plan))
        return lines[-1]

    yield make
    for one in lines:
        await one.close()


async def stored(api: httpx.AsyncClient) -> list[int]:
    """The `number` of every task that is there."""
    async with AsyncClient(str(api.base_url)) as tasks:
        return [int((task.payload or {})["number"]) async for task in tasks.list(include=["payload"])]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_submission_is_stored_once_whatever_happens_to_it(
    api: httpx.AsyncClient, line: Callable[[Callable[[], str]], BadLine], fault: str
) -> None:
    plan = iter([fault, fault, "fine"])
    bad = line(lambda: next(plan))
    url = await bad.open()

    def submit() -> int:
        with Client(url, timeout=20) as tasks:
            return tasks.submit("echo", {"number": 5}).id

    task_id = await asyncio.to_thread(submit)
    assert bad.done == Counter({fault: 2, "fine": 1})
    assert await stored(api) == [5]
    assert (await api.get(f"/tasks/{task_id}")).json()["payload"] == {"number": 5}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_many_clients_on_a_bad_line_make_one_task_for_each_submit(
    api: httpx.AsyncClient, line: Callable[[Callable[[], str]], BadLine], seed: int
) -> None:
    random = Random(seed)
    bad = line(lambda: random.choice([*FAULTS, "fine", "fine", "fine", "fine"]))
    async with AsyncClient(await bad.open(), timeout=60, retries=50) as tasks:
        handles = await asyncio.gather(*(tasks.submit("echo", {"number": number}) for number in range(60)))
    assert sorted(await stored(api)) == list(range(60))
    assert len({handle.id for handle in handles}) == 60
    for number, handle in enumerate(handles):
        assert (await api.get(f"/tasks/{handle.id}")).json()["payload"] == {"number": number}
    assert min(bad.done[fault] for fault in FAULTS) > 0, bad.done


async def test_a_call_that_must_not_be_made_twice_says_that_it_may_have_been_done(
    api: httpx.AsyncClient, line: Callable[[Callable[[], str]], BadLine]
) -> None:
    bad = line(lambda: "cut after")
    async with AsyncClient(await bad.open()) as tasks:
        with pytest.raises(NoAnswer, match="may have been done all the same") as raised:
            await tasks.dead_letters.requeue(all=True)
    assert raised.value.unsure
    assert bad.done["cut after"] == 1


async def test_a_deletion_whose_answer_got_lost_is_done(
    api: httpx.AsyncClient, line: Callable[[Callable[[], str]], BadLine]
) -> None:
    plan = itertools.chain(["fine", "cut after"], itertools.repeat("fine"))
    bad = line(lambda: next(plan))
    async with AsyncClient(await bad.open()) as tasks:
        task = await tasks.submit("echo", {"number": 1})
        await task.delete()
    assert await stored(api) == []


async def test_a_download_that_breaks_off_goes_on_where_it_broke(
    api: httpx.AsyncClient, line: Callable[[Callable[[], str]], BadLine], tmp_path: Path
) -> None:
    plan = itertools.chain(["fine", "cut within", "cut within", "cut after"], itertools.repeat("fine"))
    bad = line(lambda: next(plan))
    bad.keep_bytes = 20_000
    content = PICTURE.read_bytes()
    async with AsyncClient(await bad.open()) as tasks:
        stored_file = await tasks.files.upload(content, name="a.jpg")
        pieces = [piece async for piece in tasks.files.stream(stored_file.id)]
    assert hashlib.sha256(b"".join(pieces)).hexdigest() == stored_file.sha256
    assert bad.done["cut within"] == 2
    assert sum(map(len, pieces)) == len(content), "no byte came twice"


async def test_an_upload_is_sent_again_from_its_beginning(
    api: httpx.AsyncClient, line: Callable[[Callable[[], str]], BadLine]
) -> None:
    plan = itertools.chain(["cut before", "cut after", "unavailable"], itertools.repeat("fine"))
    bad = line(lambda: next(plan))
    url = await bad.open()

    def upload() -> str:
        with Client(url) as tasks:
            return tasks.files.upload(PICTURE).sha256

    assert await asyncio.to_thread(upload) == hashlib.sha256(PICTURE.read_bytes()).hexdigest()


# The API dies


async def killed_between_tries(program: Program, house: House, port: int) -> None:
    """`kill -9`, and a new one in its place."""
    await program.kill()
    await house.api(port=port)


async def test_a_submission_outlives_the_api_that_took_it(
    house: House, line: Callable[[Callable[[], str]], BadLine]
) -> None:
    """The task is stored, the answer is lost, the API is killed with `kill -9` before the next try: still one task."""
    program, api = await house.api()
    port = api.base_url.port
    assert port is not None
    plan = itertools.chain(["cut after"], itertools.repeat("fine"))
    bad = BadLine(api.base_url, lambda: next(plan))
    async with AsyncClient(await bad.open(), timeout=60, retries=100) as tasks:
        submitting = asyncio.create_task(tasks.submit("echo", {"number": 9}))
        await until(lambda: bad.done["cut after"])
        await killed_between_tries(program, house, port)
        handle = await submitting
    await bad.close()
    assert handle.replayed
    assert await stored(api) == [9]


async def test_who_waits_for_a_task_outlives_a_restart_of_the_api(house: House) -> None:
    program, api = await house.api()
    port = api.base_url.port
    assert port is not None

    states: list[str] = []

    def follow() -> int:
        with Client(str(api.base_url), timeout=60, retries=100) as tasks:
            handle = tasks.submit("echo", {"number": 3})
            states.extend(task.status for task in handle.events())
            return handle.result(timeout=60)["number"]

    following = asyncio.create_task(asyncio.to_thread(follow))
    await until(lambda: states)
    await killed_between_tries(program, house, port)
    await house.worker()
    assert await following == 3
    assert (states[0], states[-1]) == ("pending", "completed")


async def test_events_come_as_they_happen(house: House) -> None:
    """Not at the end, all at once: the second task is submitted because of the first one's event."""
    _, api = await house.api()
    async with AsyncClient(str(api.base_url)) as tasks:
        task = await tasks.submit("echo", {"number": 1})
        seen: list[Task] = []
        async for state in task.events():
            seen.append(state)
            if len(seen) == 1:
                await house.worker()
    assert seen[0].status == "pending"
    assert seen[-1].status == "completed"


async def test_a_blocking_client_may_be_shared_by_threads(house: House) -> None:
    _, api = await house.api()
    await house.worker()
    with Client(str(api.base_url)) as tasks:
        results = await asyncio.gather(
            *(asyncio.to_thread(lambda n=n: tasks.submit("echo", {"number": n}).result(30)) for n in range(20))
        )
        assert [result["number"] for result in results] == list(range(20))
        with pytest.raises(StillRunning):
            await asyncio.to_thread(lambda: tasks.submit("echo", delay_seconds=600).wait(0.2))
        assert json.loads(tasks.stats().model_dump_json())["completed"] == 20


# Its page


async def test_every_example_of_the_page_prints_what_is_said(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    _, api = await house.api(EXECUTOR_MODULES="examples.greetings")
    await house.worker(EXECUTOR_MODULES="examples.greetings")
    monkeypatch.chdir(house.folder)
    (house.folder / "examples").symlink_to(ROOT / "examples")
    pages = (ROOT / "docs/client.md").read_text() + (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", pages, re.MULTILINE | re.DOTALL)
    for block in blocks:
        code = block.replace("http://localhost:8000", str(api.base_url))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), stdout=asyncio.subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}
        )
        said, _ = await process.communicate()
        assert said.decode().splitlines() == re.findall(r"^ *print\(.*\)  # (.+)$", block, re.MULTILINE), block
        assert process.returncode == 0, block
    assert len(blocks) == 7
