"""USAGE.md and README.md are run: every curl line with its answer, the executors they show, the backup."""

import asyncio
import json
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.models import sqlite
from tests.conftest import until
from tests.walk.conftest import ROOT, House, ended

USAGE = (ROOT / "USAGE.md").read_text()
README = (ROOT / "README.md").read_text()
HOST = "localhost:8000"
PLUG_IN = "my_executors"

# Differ from run to run or from machine to machine; their kind stays.
VOLATILE = {"at", "open_until", "worker_id", "pid", "host", "sqlite", "memory_bytes"}
FILE = re.compile(r"[0-9a-f]{32}")
TOKEN = re.compile(rf"{FILE.pattern}|wh[0-9a-f]{{12}}")
SAME_HEADERS = {"content-type", "content-length", "retry-after", "idempotency-replayed"}

SOON = {"look_again_seconds": 0.05}

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@dataclass(frozen=True)
class Example:
    """A command of the documentation and the answer below it."""

    command: str
    answer: str


@dataclass(frozen=True)
class Answer:
    """What curl got."""

    status: int
    headers: dict[str, str]
    body: str


def examples(document: str) -> Iterator[Example]:
    for block in re.findall(r"^```console\n(.*?)^```", document, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            length = next(n for n in range(1, len(lines) + 1) if _is_whole("\n".join(lines[:n])))
            yield Example("\n".join(lines[:length]), "\n".join(lines[length:]).strip())


def _is_whole(command: str) -> bool:
    """False while a line ends in a backslash or a quotation is open."""
    try:
        shlex.split(command)
    except ValueError:
        return False
    return not command.endswith("\\")


# -q: the developer's .curlrc does not reach the test; -sS: no meter. The status goes where no `| tee` sees it.
CURL = """curl() { command curl -q -sS "$@" --noproxy '*' --max-time 40 -w '%{stderr}%{http_code}'; }"""


async def curl(command: str, address: httpx.URL, folder: Path = ROOT) -> Answer:
    """Run curl lines of the documentation against `address`, in a shell in `folder`. The status is the last one's."""
    status, output = await shell(f"{CURL}\n{command.replace(HOST, f'{address.host}:{address.port}')}", folder)
    return Answer(int(status[-3:]), *_split(output))


async def shell(script: str, folder: Path) -> tuple[str, str]:
    """What a script said on standard error, and on standard output."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", script), cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, trouble = await process.communicate()
    assert process.returncode == 0, f"{script}: {trouble.decode()}"
    return trouble.decode(), output.decode().replace("\r\n", "\n")


def _split(text: str) -> tuple[dict[str, str], str]:
    if not text.startswith("HTTP/"):
        return {}, text
    head, _, body = text.partition("\n\n")
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in head.splitlines()[1:])}, body


def parsed(text: str) -> Any:
    """JSON as the documentation shows it: `...` in an object or a list stands for what was left out."""
    text = re.sub(r"\.\.\.(?=\s*\})", '"...": null', text)
    return json.loads(re.sub(r"\.\.\.(?=\s*\])", '"..."', text))


class Comparison:
    """Compares answers with what is documented, ids of tasks included. What nobody can know before, ids of files and of
    webhooks and tags, is learnt where it first appears."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}

    def translated(self, text: str) -> str:
        """The text with the tokens of this run."""
        for documented, actual in self._tokens.items():
            text = text.replace(documented, actual)
        return text

    def check(self, example: Example, answer: Answer) -> None:
        headers, body = _split(example.answer)
        if example.answer.startswith("HTTP/"):
            assert answer.status == int(example.answer.split()[1])
        for name, value in headers.items():
            self._check_header(name, value, answer.headers[name])
        if body.startswith("taskservice_"):
            assert set(body.splitlines()) <= {*answer.body.splitlines(), "..."}
        elif body.startswith("<"):
            assert answer.body.lstrip().startswith(body.splitlines()[0])
        elif body.startswith("id: "):
            self._check_event(body, answer.body)
        elif body:
            documented, actual = parsed(body), json.loads(answer.body)
            self._check_status(documented, answer.status)
            self._check(documented, actual, ())
        else:
            assert not answer.body

    def _check_status(self, documented: Any, status: int) -> None:
        if isinstance(documented, dict) and str(documented.get("type")).startswith("urn:"):
            assert status == documented["status"]
        else:
            assert 200 <= status < 300

    def _check_header(self, name: str, documented: str, actual: str) -> None:
        if name == "etag":
            self._tokens[documented] = actual
        elif name == "location":
            assert re.fullmatch(r"/tasks/\d+", actual)
        else:
            assert name in SAME_HEADERS
            assert actual == documented

    def _check_event(self, documented: str, actual: str) -> None:
        shown, got = (dict(line.split(": ", 1) for line in text.strip().splitlines()) for text in (documented, actual))
        assert (got["id"], got["event"]) == (shown["id"], shown["event"])
        self._check(parsed(shown["data"]), json.loads(got["data"]), ("data",))

    def _check(self, documented: Any, actual: Any, where: tuple[str | int, ...]) -> None:
        name = str(next((step for step in reversed(where) if isinstance(step, str)), ""))
        if isinstance(documented, dict):
            self._check_object(documented, actual, where)
        elif isinstance(documented, list):
            self._check_list(documented, actual, where)
        elif documented is None or name in VOLATILE or name.endswith("_at"):
            assert type(actual) is type(documented), where
        elif isinstance(documented, str) and TOKEN.fullmatch(documented):
            assert TOKEN.fullmatch(actual), where
            assert self._tokens.setdefault(documented, actual) == actual, where
        elif name == "id" and isinstance(documented, str):  # of a worker
            assert actual.split("-")[0] == documented.split("-")[0], where
        elif isinstance(documented, str):
            pattern = ".*".join(re.escape(part) for part in self.translated(documented).split("..."))
            assert re.fullmatch(pattern, actual, re.DOTALL), (where, documented, actual)
        elif isinstance(documented, float):
            assert math.isclose(documented, actual, rel_tol=0.02, abs_tol=0.02), (where, documented, actual)
        else:
            assert actual == documented, (where, documented, actual)

    def _check_object(self, documented: dict[str, Any], actual: Any, where: tuple[str | int, ...]) -> None:
        assert isinstance(actual, dict), where
        shown = [key for key in documented if key != "..."]
        if "..." in documented:
            assert set(shown) < set(actual), where
        else:
            assert set(shown) == set(actual), where
        for key in shown:
            self._check(documented[key], actual[key], (*where, key))

    def _check_list(self, documented: list[Any], actual: Any, where: tuple[str | int, ...]) -> None:
        assert isinstance(actual, list), where
        shown = documented[:-1] if documented[-1:] == ["..."] else documented
        assert len(shown) == len(actual) or (shown is not documented and len(shown) < len(actual)), where
        for place, one in enumerate(shown):
            self._check(one, actual[place], (*where, place))


@needs_curl
async def test_every_curl_line_of_the_usage_gets_the_answer_below_it(house: House) -> None:
    _, client = await house.api(EXECUTOR_MODULES="examples.greetings")
    worker = await house.start(
        "run_worker.py", "--name", "demo", "--processes", "2", EXECUTOR_MODULES="examples.greetings"
    )
    await worker.says("worker started")

    async def has_beaten() -> bool:
        return bool((await client.get("/workers")).json()["items"][0]["memory_bytes"])

    await until(has_beaten)
    comparison = Comparison()
    commands = 0
    here = house.folder / "here"  # what the examples write lands there
    here.mkdir()
    (here / "examples").symlink_to(ROOT / "examples")
    variables: list[str] = []
    for example in examples(USAGE):
        if example.command.endswith(f"{HOST}/events"):
            continue  # it never ends; tests/api/test_overview.py reads it
        if re.match(r"[A-Z]+=", example.command):
            variables.append(example.command)
            continue
        # As whoever pastes the page has it: nothing is put in but the variables.
        answer = await curl("\n".join([*variables, example.command]), client.base_url, here)
        if not sqlite.wal_is_safe() and "/health" in example.command:
            continue  # a library that is not to be trusted makes it degraded, as USAGE.md says elsewhere
        try:
            comparison.check(example, answer)
        except (AssertionError, KeyError, ValueError) as wrong:
            raise AssertionError(f"{example.command}\n{wrong}\n{answer.status} {answer.body}") from wrong
        commands += 1
    assert commands > 40


@needs_curl
async def test_the_quick_start_of_the_readme_gives_a_result(house: House) -> None:
    _, client = await house.api(EXECUTOR_MODULES="")
    await house.worker(EXECUTOR_MODULES="")
    submit, wait = re.findall(r"^(curl (?:.*\\\n)*.*)", README, re.MULTILINE)
    assert (await curl(submit, client.base_url)).status == 201
    task = json.loads((await curl(wait, client.base_url)).body)
    assert task["status"] == "completed"
    assert task["result"]["statistics"]["words"] == 2


@needs_curl
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_the_secret_of_webhooks_reaches_the_programs_that_are_started_after_it(house: House) -> None:
    make_secret, submit_task, ask = (
        block for block in re.findall(r"^```sh\n(.*?)^```", USAGE, re.MULTILINE | re.DOTALL) if _is_of_notices(block)
    )
    await shell(make_secret, house.folder)
    _, client = await house.api(EXECUTOR_MODULES="")
    await house.worker(EXECUTOR_MODULES="")
    answer = await curl(submit_task, client.base_url, house.folder)
    task = json.loads(answer.body)
    assert (task["status"], task["webhook_url"]) == ("completed", "https://hooks.example.com/tasks")
    notices = (await client.get("/tasks/", params={"parent_id": task["id"]})).json()["items"]
    assert [notice["task_type"] for notice in notices] == ["webhook"]
    first, *_ = ask.splitlines()
    answer = await curl(f"TASK={task['id']}\n{first}", client.base_url, house.folder)
    assert [notice["id"] for notice in json.loads(answer.body)["items"]] == [notices[0]["id"]]


def _is_of_notices(block: str) -> bool:
    return "WEBHOOK_SECRETS" in block or "$TASK" in block


def python_block(first_words: str) -> str:
    (block,) = (
        block for block in re.findall(r"^```python\n(.*?)^```", USAGE, re.M | re.S) if block.startswith(first_words)
    )
    return str(block)


@pytest.fixture
async def plugged(house: House) -> httpx.AsyncClient:
    """The service with the executors of USAGE.md, as their reader would start it."""
    folder = house.folder / "plug-ins"
    folder.mkdir()
    (folder / f"{PLUG_IN}.py").write_text(python_block('"""Two executors'))
    settings = {"EXECUTOR_MODULES": PLUG_IN, "PYTHONPATH": str(folder)}
    _, client = await house.api(**settings)
    await house.worker(**settings)
    return client


async def submit(client: httpx.AsyncClient, task_type: str, **payload: Any) -> int:
    answer = await client.post("/tasks/", json={"task_type": task_type, "payload": payload})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


async def outcomes(client: httpx.AsyncClient, task_id: int) -> list[str]:
    return [one["outcome"] for one in (await client.get(f"/tasks/{task_id}/attempts")).json()["items"]]


async def test_the_executor_with_checkpoints_goes_on_where_it_stopped(plugged: httpx.AsyncClient) -> None:
    task_id = await submit(plugged, "add_up", numbers=[1, 2, 13, 4])
    task = await ended(plugged, task_id)
    assert task["result"] == {"total": 20, "started_with": 2, "attempt": 2}
    assert await outcomes(plugged, task_id) == ["error", "completed"]


async def test_the_executor_that_waits_for_a_file_does_what_is_said_of_each_exception(
    plugged: httpx.AsyncClient, house: House
) -> None:
    wanted = house.folder / "wanted.txt"
    task_id = await submit(plugged, "wait_for_file", path=str(wanted), **SOON)

    async def snoozed() -> bool:
        return "snoozed" in await outcomes(plugged, task_id)

    await until(snoozed)
    assert (await plugged.get(f"/tasks/{task_id}")).json()["attempts"] in (0, 1)
    wanted.write_text("12345")
    task = await ended(plugged, task_id)
    assert task["result"] == {"bytes": 5}
    assert task["attempts"] == 1

    (house.folder / "empty.txt").touch()
    task = await ended(plugged, await submit(plugged, "wait_for_file", path=str(house.folder / "empty.txt"), **SOON))
    assert (task["status"], task["failure_reason"], task["attempts"]) == ("failed", "exhausted", 3)

    task = await ended(plugged, await submit(plugged, "wait_for_file", path=str(house.folder / ".hidden")))
    assert (task["status"], task["failure_reason"], task["attempts"]) == ("failed", "error", 1)

    (house.folder / "gone.cancelled").touch()
    task = await ended(plugged, await submit(plugged, "wait_for_file", path=str(house.folder / "gone.txt")))
    assert (task["status"], task["error"]["message"]) == ("cancelled", "nobody will write this file any more")


async def test_the_commands_that_back_up_and_restore_a_database_do_so(house: House) -> None:
    data = house.folder / "data"
    data.mkdir()
    house.settings["DATABASE_URL"] = f"sqlite:///{data}/tasks.db"
    program, client = await house.api(EXECUTOR_MODULES="examples.greetings")
    await submit(client, "greet", names=["Ada"])
    blocks = re.findall(r"^```sh\n(.*?)^```", USAGE, re.MULTILINE | re.DOTALL)
    back_up, restore = (block for block in blocks if "tasks-backup.db" in block)

    async def run(commands: str) -> None:
        shell = f"set -e\n{commands.replace('.venv/bin/python', sys.executable)}"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        process = await asyncio.create_subprocess_exec("sh", "-c", shell, cwd=house.folder, env=environment)
        assert await process.wait() == 0

    await run(back_up)
    await submit(client, "greet", names=["Grace"])
    await program.kill()
    await run(restore)
    assert sorted(path.name for path in data.iterdir()) == ["tasks.db"]
    _, client = await house.api(EXECUTOR_MODULES="examples.greetings")
    page = (await client.get("/tasks", params={"include": "payload"})).json()
    assert [task["payload"]["names"] for task in page["items"]] == [["Ada"]]


def test_the_answers_show_no_path_of_the_machine_they_were_made_on() -> None:
    assert not [line for line in USAGE.splitlines() if str(Path.home()) in line or 'File "' in line]
