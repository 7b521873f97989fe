"""taskctl against a running service: every line of docs/taskctl.md, exit statuses, a terminal, what is wrong."""

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import httpx
import pytest

from app.core.events import EventBus
from app.core.keys import Scope
from app.core.settings import Settings
from app.models.database import Database
from app.services.keys import Keys
from taskctl.main import main
from tests.conftest import until
from tests.walk.conftest import ROOT, House
from tests.walk.test_usage import Example, examples

PAGE = (ROOT / "docs" / "taskctl.md").read_text()
HOST = "http://localhost:8000"
NOBODY = "http://localhost:9"
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
async def api(house: House, monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    """The service that taskctl speaks with; the test runs in a folder of its own."""
    _, client = await house.api(EXECUTOR_MODULES="examples.greetings")
    monkeypatch.setenv("TASKCTL_URL", str(client.base_url))
    here = house.folder / "here"
    here.mkdir()
    (here / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(here)
    return client


@pytest.fixture
async def worker(house: House, api: httpx.AsyncClient) -> None:
    settings = {"EXECUTOR_MODULES": "examples.greetings"}
    program = await house.start("run_worker.py", "--name", "demo", "--processes", "2", **settings)
    await program.says("worker started")


def run(*arguments: str, said: io.StringIO | None = None) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of one taskctl. `said` gets both, as a terminal would."""
    out, err = said or io.StringIO(), said or io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(list(arguments))
    return status, out.getvalue(), err.getvalue()


async def taskctl(*arguments: str) -> tuple[int, str, str]:
    return await asyncio.to_thread(run, *arguments)


class Shapes:
    """Compares outputs, but for what differs from run to run. Ids of files are learnt where they first appear."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}

    def translated(self, command: str) -> str:
        for documented, actual in self._files.items():
            command = command.replace(documented, actual)
        return command

    def check(self, example: Example, output: str) -> None:
        for documented, actual in zip(_file_ids(example.answer), _file_ids(output), strict=True):
            assert self._files.setdefault(documented, actual) == actual
        assert _shape(output) == _shape(self.translated(example.answer))


def _file_ids(text: str) -> list[str]:
    return re.findall(r"\b[0-9a-f]{32}\b", text)


def _shape(text: str) -> str:
    room = r"\d+ plain or \d+ shared|-"
    text = re.sub(rf"(running  every +\d+ +\d+ +)({room}) +(\d+ MiB|-)", r"\1ROOM MEMORY", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?Z?|\b\d\d:\d\d:\d\d\b", "MOMENT", text)
    text = re.sub(r"\b[\d.]+ (ms|s|min|h|d)\b", "SPAN", text)
    text = re.sub(r"demo-[0-9a-f]{8}(\s+\S+\s+\d+(?=\s+running))?", "WORKER", text)
    return " ".join(text.split())


def words_of(command: str) -> tuple[list[str], str]:
    """The arguments of a documented line, and what the shell's pipe before it gives it to read."""
    before, pipe, line = command.rpartition(" | taskctl ") if " | taskctl " in command else ("", "", command)
    given = subprocess.run(["sh", "-c", before], capture_output=True, text=True, check=True).stdout if pipe else ""
    line = line if pipe else line.removeprefix("taskctl ")
    split = subprocess.run(
        ["sh", "-c", f"for word in {line}; do printf '%s\\0' \"$word\"; done"],
        capture_output=True,
        text=True,
        check=True,
    )
    return split.stdout.split("\0")[:-1], given


async def test_every_line_of_the_page_gives_the_output_below_it(
    api: httpx.AsyncClient, worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, lines = Shapes(), 0
    monkeypatch.setenv("COLUMNS", "160")
    for example in examples(PAGE):
        words, given = words_of(shapes.translated(example.command))
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        said = io.StringIO()
        await asyncio.to_thread(run, *words, said=said)
        output = said.getvalue().replace(str(api.base_url).rstrip("/"), HOST)
        try:
            shapes.check(example, output)
        except (AssertionError, ValueError) as wrong:
            raise AssertionError(f"$ {example.command}\n{output}\n{wrong}") from wrong
        lines += 1
    assert lines > 40


def test_every_command_is_on_the_page() -> None:
    found = set(
        re.findall(
            r"^(?:\$ |.*\| )taskctl ((?:(?:dead-letters|breakers|alerts|keys|files|webhooks) )?[a-z-]+)",
            PAGE,
            re.MULTILINE,
        )
    )
    found |= set(re.findall(r"`(?:taskctl )?((?:(?:alerts|files|keys|webhooks) )?[a-z-]+)[ `]", PAGE))
    for group in ("", "dead-letters", "breakers", "alerts", "keys", "files", "webhooks"):
        _, said, _ = run(*([group, "--help"] if group else ["--help"]))
        for name in re.findall(r"^  ([a-z-]+) {2,}", said.split("Commands:")[1], re.MULTILINE):
            if name not in ("dead-letters", "breakers", "alerts", "keys", "files", "webhooks"):
                assert f"{group} {name}".strip() in found, f"{group} {name}"


def test_every_exit_status_is_on_the_page() -> None:
    from taskctl.session import Exit

    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert documented == {int(status) for status in Exit} | {130}


def test_every_finding_of_the_doctor_is_on_the_page() -> None:
    source = (ROOT / "taskctl/doctor.py").read_text() + (ROOT / "taskctl/local.py").read_text()
    made = set(re.findall(r'(?:_critical\(\s*|code=)"([a-z-]+)"', source))
    documented = re.findall(r"^\| `([a-z-]+)` \|", PAGE.split("| Finding |")[1].split("\n\n")[0], re.MULTILINE)
    assert set(documented) == made


STATUSES: list[tuple[list[str], int, str]] = [
    (["get", "1"], 0, "status"),
    (["wait", "1"], 0, "completed"),
    (["wait", "2"], 1, "name 1 is empty"),
    (["watch", "1", "2"], 1, "task 2"),
    (["watch", "1"], 0, "task 1"),
    (["get", "2", "--result"], 1, "Task 2 failed (error): Fail: name 1 is empty"),
    (["get", "3", "--result"], 7, "has no result yet"),
    (["wait", "3", "--timeout", "0.1"], 7, "still scheduled after 0.1 s"),
    (["submit", "greet", "names=x"], 2, "payload.names: Input should be a valid array"),
    (["submit", "dance"], 2, "Unknown task_type 'dance'"),
    (["submit"], 2, "Missing argument"),
    (["submit", "greet", "x"], 2, "is none of"),
    (["submit", "greet", "a=1", "--lines", "f"], 2, "--lines goes with neither"),
    (["list", "--status", "finished"], 2, "Input should be 'pending'"),
    (["list", "--limit", "0"], 2, "greater than or equal to 1"),
    (["lst"], 2, "Did you mean 'list'?"),
    (["get", "one"], 2, "ID"),
    (["edit", "3"], 2, "Say what is to be changed"),
    (["dead-letters", "purge"], 2, "or say --all"),
    (["dead-letters", "purge", "--all"], 2, "Say --yes"),
    (["files", "upload", "/no/such/file"], 2, "/no/such/file: No such file or directory"),
    (["files", "download", "0" * 32, "-o", "x"], 3, "There is no file"),
    (["get", "4711"], 3, "There is no task 4711."),
    (["watch", "4711"], 3, "There is no task 4711."),
    (["task-types", "dance"], 3, "There is no task type dance."),
    (["stats", "--url", NOBODY], 4, "No answer from http://localhost:9"),
    (["list", "--url", "nonsense"], 2, "is not the address of a service"),
    (["cancel", "1"], 5, "can no longer be cancelled"),
    (["delete", "4"], 0, "deleted"),
    (["--version"], 0, "taskctl "),
    ([], 0, "Commands:"),
]


async def test_exit_statuses_and_one_clear_line(statuses: None) -> None:
    for arguments, status, says in STATUSES:
        got, out, err = await taskctl(*arguments)
        assert (got, says in out + err) == (status, True), (arguments, got, out, err)
        if status >= 2:
            assert len(err.splitlines()) == 1, err
            assert out == ""


SEVERAL: list[tuple[list[str], int, list[str], list[str]]] = [
    (["cancel", "1", "5", "4711", "6"], 5, ["task 5", "task 6"], ["Task 1 is completed", "There is no task 4711."]),
    (["retry", "3", "5", "1", "6"], 5, ["task 5", "task 6"], ["Task 3 is scheduled", "Task 1 is completed"]),
    (["wait", "4711", "2", "1"], 3, ["task 2  failed", "task 1"], ["There is no task 4711."]),
    (["wait", "3", "1", "--timeout", "0.1"], 7, ["task 1"], ["Task 3 is still scheduled after 0.1 s."]),
    (["wait", "2", "3", "--timeout", "0.1"], 1, ["task 2  failed"], ["Task 3 is still scheduled after 0.1 s."]),
    (["watch", "4711", "2", "1"], 3, ["task 2  failed", "task 1"], ["There is no task 4711."]),
    (["delete", "4711", "1", "4712", "2"], 3, ["task 1", "task 2"], ["no task 4711.", "no task 4712."]),
]


async def test_a_task_that_refuses_does_not_keep_the_others_from_their_turn(
    api: httpx.AsyncClient, statuses: None
) -> None:
    """The exit status is that of the first."""
    for _ in range(2):
        await api.post("/tasks", json={"task_type": "greet", "payload": {"names": ["Ada"]}, "delay_seconds": 900})
    for arguments, status, shown, told in SEVERAL:
        got, out, err = await taskctl(*arguments)
        assert got == status, (arguments, out, err)
        for lines, beginnings in ((out.splitlines(), shown), (err.splitlines(), told)):
            assert len(lines) == len(beginnings), (arguments, out, err)
            assert all(says in line for says, line in zip(beginnings, lines, strict=True)), (arguments, out, err)


async def test_refusals_of_several_are_a_document_each_in_json(statuses: None) -> None:
    status, out, err = await taskctl("cancel", "1", "3", "4711", "--json")
    assert (status, [json.loads(line)["id"] for line in out.splitlines()]) == (5, [3])
    assert [json.loads(line)["status"] for line in err.splitlines()] == [409, 404]


async def test_a_queue_that_is_full_keeps_no_task_of_another_from_its_turn(api: httpx.AsyncClient) -> None:
    for queue in ("full", "open"):
        await api.post("/tasks", json={"task_type": "greet", "payload": {"names": ["Ada"]}, "queue": queue})
    assert (await taskctl("cancel", "1", "2"))[0] == 0
    await api.patch("/queues/full", json={"max_depth": 1})
    await api.post("/tasks", json={"task_type": "greet", "payload": {"names": ["Ada"]}, "queue": "full"})
    status, out, err = await taskctl("retry", "1", "2")
    assert (status, len(out.splitlines()), len(err.splitlines())) == (4, 1, 1), (out, err)
    assert "full" in err


async def test_a_service_that_is_not_there_is_told_once_for_all(api: httpx.AsyncClient) -> None:
    status, _, err = await taskctl("cancel", "1", "2", "3", "--url", NOBODY)
    assert (status, len(err.splitlines())) == (4, 1)


@pytest.fixture
async def statuses(api: httpx.AsyncClient, worker: None) -> None:
    """Task 1 is completed, 2 failed, 3 waits for its time, 4 is cancelled."""
    for payload, more in (
        ({"names": ["Ada"]}, {}),
        ({"names": [" "]}, {}),
        ({"names": ["Ada"]}, {"delay_seconds": 900}),
    ):
        await api.post("/tasks", json={"task_type": "greet", "payload": payload, **more})
    await api.post("/tasks", json={"task_type": "greet", "payload": {"names": ["Ada"]}, "delay_seconds": 900})
    await api.post("/tasks/4/cancel")
    for task_id in (1, 2):
        await api.get(f"/tasks/{task_id}", params={"wait": 30})


COMMANDS = [
    ["get", "1"],
    ["wait", "1"],
    ["list", "--limit", "2"],
    ["attempts", "2"],
    ["explain", "3"],
    ["events", "1"],
    ["watch", "1"],
    ["queues"],
    ["pause", "mail"],
    ["resume", "mail"],
    ["limit", "mail", "--max-running", "5", "--rate", "100/60", "--max-depth", "none"],
    ["workers"],
    ["stats"],
    ["task-types"],
    ["task-types", "greet"],
    ["dead-letters", "list"],
    ["dead-letters", "groups"],
    ["dead-letters", "requeue", "--all", "--dry-run"],
    ["breakers", "list"],
    ["breakers", "trip", "greet", "--reason", "x", "--seconds", "1"],
    ["breakers", "reset", "greet"],
    ["audit"],
    ["alerts", "list"],
    ["alerts", "history"],
    ["alerts", "silence", "--all", "--seconds", "1", "--note", "x"],
    ["alerts", "silences"],
    ["files", "list", "1"],
    ["files", "upload", "examples/lighthouse.jpg"],
    ["edit", "3", "--priority", "high"],
    ["submit", "greet", 'names:=["Ada"]'],
    ["retry", "4"],
    ["delete", "4"],
]


EMPTY = (["breakers", "list"], ["files", "list", "1"], ["alerts", "list"], ["alerts", "history"])


async def test_json_is_one_object_a_line(statuses: None) -> None:
    for arguments in COMMANDS:
        status, out, err = await taskctl(*arguments, "--json")
        assert (status, err) == (0, ""), (arguments, status, err)
        assert all(isinstance(json.loads(line), dict) for line in out.splitlines())
        assert out or arguments in EMPTY, arguments


async def test_json_is_what_the_api_says(statuses: None, api: httpx.AsyncClient) -> None:
    def same(line: str, theirs: object) -> bool:
        moments = re.compile(r"(\.\d+?)0*Z")  # one writes .5Z and the other .500000Z
        ours, theirs = (moments.sub(r"\1Z", json.dumps(value, sort_keys=True)) for value in (json.loads(line), theirs))
        return bool(ours == theirs)

    _, out, _ = await taskctl("get", "2", "--json")
    assert same(out, (await api.get("/tasks/2")).json())
    _, out, _ = await taskctl("list", "--json")
    listed = (await api.get("/tasks")).json()["items"]
    assert all(same(line, item) for line, item in zip(out.splitlines(), listed, strict=True))
    status, _, err = await taskctl("get", "99", "--json")
    assert (status, json.loads(err)) == (3, (await api.get("/tasks/99")).json())


async def test_a_script_gets_the_result_alone(api: httpx.AsyncClient, worker: None) -> None:
    status, out, err = await taskctl("submit", "greet", 'names:=["Ada"]', "--wait")
    assert (status, json.loads(out)) == (0, {"greetings": ["Hello, Ada!"]})
    assert "completed" in err
    status, out, _ = await taskctl("wait", "1", "--result")
    assert (status, json.loads(out)) == (0, {"greetings": ["Hello, Ada!"]})


async def test_what_moves_is_a_line_for_each_change_without_a_terminal(api: httpx.AsyncClient, worker: None) -> None:
    await api.post("/tasks", json={"task_type": "greet", "payload": {"names": ["Ada"]}})
    status, out, _ = await taskctl("watch", "1", "--interval", "0.1")
    assert status == 0
    lines = out.splitlines()
    assert lines[-1].startswith("task 1  completed")
    assert len(lines) == len(set(lines)), "only changes"
    status, out, _ = await taskctl("watch", "--once")
    assert (status, out) == (0, "")


async def test_a_line_about_errors_carries_no_secret(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCTL_API_KEY", "tk.very-secret")
    for arguments in (["list"], ["get", "99"], ["list", "--url", NOBODY], ["doctor", "--url", NOBODY]):
        _, out, err = await taskctl(*arguments)
        assert "secret" not in out + err


async def test_keys_are_made_and_used(house: House, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(house.database_url)
    _, token = await Keys(database, EventBus(), most_per_tenant=1).create("root", [Scope.ADMIN])
    await database.close()

    async def locked() -> bool:
        return (await api.get("/tasks")).status_code == 401

    await until(locked)
    status, out, err = await taskctl("stats")
    assert (status, out) == (6, "")
    assert "TASKCTL_API_KEY or TASKS_API_KEY" in err
    monkeypatch.setenv("TASKS_API_KEY", token)
    status, made, _ = await taskctl("keys", "create", "ci", "--scopes", "read,submit", "--tenant", "north")
    assert status == 0
    monkeypatch.setenv("TASKCTL_API_KEY", made.strip())
    assert (await taskctl("stats"))[0] == 0
    assert (await taskctl("keys", "list"))[0] == 6
    monkeypatch.delenv("TASKCTL_API_KEY")
    assert (await taskctl("keys", "revoke", made.split(".")[0]))[0] == 0
    status, out, _ = await taskctl("keys", "list")
    assert "north" in out
    assert made.split(".")[1].strip() not in out


# In a terminal


class Terminal:
    """A pseudo terminal with a program in it."""

    def __init__(self, *arguments: str, columns: int = 100, **environment: str) -> None:
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TASKCTL_URL") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taskctl", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=clean | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment},
            start_new_session=True,
            # A shell takes this signal from what it starts with &, tests and all.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(theirs)
        os.set_blocking(self._mine, False)
        self.said = ""

    def read(self) -> str:
        try:
            while piece := os.read(self._mine, 65536):
                self.said += piece.decode()
        except OSError:
            pass
        return self.said

    def type(self, text: str) -> None:
        os.write(self._mine, text.encode())

    async def ended(self) -> int:
        await until(lambda: (self.read(), self.process.poll() is not None)[1], 40)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._mine)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for one in opened:
        one.close()


async def test_watching_in_a_terminal_draws_and_redraws(
    api: httpx.AsyncClient, worker: None, terminals: list[Terminal]
) -> None:
    await api.post("/tasks", json={"task_type": "greet", "payload": {"names": ["Ada"]}, "delay_seconds": 900})
    terminals.append(Terminal("watch", "1", "--interval", "0.1"))
    await until(lambda: "scheduled" in terminals[0].read(), 40)
    await api.patch("/tasks/1", json={"scheduled_at": None})
    assert await terminals[0].ended() == 0
    assert "completed" in terminals[0].said
    assert re.search(r"\x1b\[\d+A", terminals[0].said), "the cursor goes up to draw anew"


async def test_colours_are_for_terminals_and_can_be_switched_off(statuses: None, terminals: list[Terminal]) -> None:
    terminals.append(Terminal("list"))
    terminals.append(Terminal("list", NO_COLOR="1"))
    assert [await one.ended() for one in terminals] == [0, 0]
    plain = [ANSI.sub("", one.said) for one in terminals]
    assert plain[0] == plain[1]
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert [bool(colour.search(one.said)) for one in terminals] == [True, False]


async def test_a_narrow_terminal_cuts_the_last_column_and_no_other(statuses: None, terminals: list[Terminal]) -> None:
    terminals += [Terminal("list", columns=80), Terminal("get", "1", columns=12)]
    assert [await one.ended() for one in terminals] == [0, 0]
    listed, shown = (ANSI.sub("", one.said).splitlines() for one in terminals)
    assert max(map(len, listed)) <= 80
    assert re.fullmatch(r" 2  failed     greet      default         0       1/3  [\d:]+  error: name 1 …\s*", listed[3])
    assert '    "Hello, Ada!"' in shown, "JSON is not folded"


async def test_ctrl_c_ends_a_watch_of_everything_as_it_should_and_a_wait_with_130(
    api: httpx.AsyncClient, terminals: list[Terminal]
) -> None:
    await api.post("/tasks", json={"task_type": "greet", "payload": {"names": ["Ada"]}})
    terminals += [Terminal("watch", "--interval", "0.1"), Terminal("watch", "1", "--interval", "0.1")]
    for terminal in terminals:
        await until(lambda terminal=terminal: "pending" in terminal.read(), 40)
        terminal.process.send_signal(signal.SIGINT)
    assert [await one.ended() for one in terminals] == [0, 130]
    assert not [one.said for one in terminals if "Traceback" in one.said]


async def test_a_purge_asks_first(statuses: None, api: httpx.AsyncClient, terminals: list[Terminal]) -> None:
    for answer, left in (("n\n", 1), ("y\n", 0)):
        terminals.append(Terminal("dead-letters", "purge", "--all"))
        await until(lambda: "Delete 1 dead letters" in terminals[-1].read(), 40)
        terminals[-1].type(answer)
        await terminals[-1].ended()
        assert (await api.get("/dead-letters/groups")).json()["total"] == left


# What is wrong


@pytest.fixture
async def stranger() -> AsyncIterator[str]:
    """A web server that is none of ours."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<h1>Hi</h1>"[:-2])
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.fixture
def silence() -> Iterator[str]:
    """Something that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def found(*arguments: str) -> list[str]:
    """The codes of what doctor finds."""
    status, out, err = await taskctl("doctor", "--json", *arguments)
    codes = [json.loads(line)["code"] for line in out.splitlines()]
    assert (status, err) == (1 if codes else 0, "")
    return codes


async def test_the_doctor_knows_wrong_addresses_apart(
    stranger: str, silence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskctl.doctor.LONGEST_SECONDS", 0.3)
    assert await found("--url", stranger) == ["not-the-service"]
    assert await found("--url", silence) == ["no-answer"]
    assert await found("--url", NOBODY) == ["not-running"]


async def test_the_doctor_sees_that_nobody_does_the_work(house: House, api: httpx.AsyncClient) -> None:
    assert await found() == ["no-worker"]
    await api.post("/tasks", json={"task_type": "greet", "payload": {"names": ["Ada"]}, "queue": "mail"})
    await house.worker("--queues", "other")
    assert await found() == ["unserved-queue"]
    # No executor of examples.greetings is loaded here.
    await house.worker("--queues", "mail")
    assert await found() == ["unserved-task-type"]
    await house.worker(EXECUTOR_MODULES="examples.greetings")
    assert await found() == []


def misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is no setting, in the `.env` of the folder."""
    Path(".env").write_text("DATABSE_URL=sqlite:///x.db\n")
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")


async def test_the_doctor_looks_at_the_machine_when_told(
    api: httpx.AsyncClient, worker: None, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await found("--local") == ["no-database"], "the folder is another than the service's"
    monkeypatch.setenv("DATABASE_URL", house.database_url)
    monkeypatch.setenv("FILES_DIR", str(house.folder / "files"))
    assert await found("--local") == []
    misspelt(monkeypatch)
    assert await found("--local") == ["unknown-setting"]
    monkeypatch.setenv("LEASE_SECONDS", "soon")
    assert await found("--local", "--url", NOBODY) == ["wrong-setting", "not-running"]


async def test_check_looks_at_a_database(api: httpx.AsyncClient, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, _ = await taskctl("check", house.database_url, "--quiet")
    assert (status, out) == (0, "")
    status, out, _ = await taskctl("check", house.database_url)
    assert (status, "promises kept, 0 broken" in out) == (0, True)
    status, _, err = await taskctl("check", f"sqlite:///{house.folder}/none.db")
    assert (status, "There is no database" in err) == (2, True)
    monkeypatch.setenv("DATABASE_URL", house.database_url)
    misspelt(monkeypatch)
    status, out, err = await taskctl("check", "--json")
    assert (status, "DATABSE_URL (is DATABASE_URL meant?)" in err) == (0, True)
    assert all(json.loads(line)["broken"] == [] for line in out.splitlines())
    status, out, _ = await taskctl("check", "--help")
    assert (status, "--acknowledged" in out) == (0, True)


async def test_transfer_moves_a_database(tmp_path: Path, migrated: Path) -> None:
    source, target = f"sqlite:///{shutil.copy(migrated, tmp_path)}", f"sqlite:///{tmp_path}/moved.db"
    status, out, err = await taskctl("transfer", source, target, "--json")
    assert (status, json.loads(out)["done"]) == (0, True), err
    status, out, err = await taskctl("transfer", source)
    assert (status, out, "Missing argument" in err) == (2, "", True)
    status, out, err = await taskctl("transfer", source, source)
    assert (status, out, len(err.splitlines())) == (2, "", 1)


# Completion


async def test_the_shell_is_offered_commands_and_what_the_service_has(api: httpx.AsyncClient) -> None:
    def offered(words: str) -> str:
        environment = {
            **os.environ,
            "_TASKCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": f"taskctl {words}",
            "COMP_CWORD": str(len(words.split(" "))),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "taskctl"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    assert "dead-letters" in await asyncio.to_thread(offered, "dea")
    assert (await asyncio.to_thread(offered, "submit gre")).split() == ["greet"]


async def test_completion_says_nothing_about_a_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from taskctl import completion

    monkeypatch.setenv("TASKCTL_URL", NOBODY)
    assert await asyncio.to_thread(completion.task_types, "") == []
    monkeypatch.setenv("TASKCTL_URL", "nonsense")
    assert completion.queues("") == []


def test_commands_over_http_load_nothing_of_the_service(tmp_path: Path) -> None:
    """They start in a quarter of a second because of that."""
    code = (
        "import sys; from taskctl.main import main; main(['stats', '--url', 'http://localhost:9']);"
        " print([name for name in ('fastapi', 'sqlalchemy', 'app.core.settings') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout == "[]\n"
