"""The files of the database are damaged: the service refuses to start, answers 503, or the checker tells; it never crashes.

Matrix B5. SQLite has no checksums over the database: a bit that flips inside of a text, or makes a number another one, is
not noticed by anyone. Of what cannot be noticed, only that may pass.
"""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from app.api.app import create_app
from app.core.errors import StoreError, StoreUnavailable
from app.core.lifecycle import Completed, Errored, Outcome
from app.core.settings import Settings
from app.core.task import JsonText
from app.models.sqlite import sqlite
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.wiring import Services
from tests.chaos.conftest import Journal, amount, broken
from tests.chaos.test_processes import QUICK
from tests.conftest import SAMPLES, until
from tests.walk.conftest import House, ended

TASKS = 90
PAGE = 4096

Mutation = Callable[[Path, Random], str]


def settings_in(folder: Path) -> Settings:
    return Settings(
        database_url=f"sqlite:///{folder}/tasks.db",
        files_dir=folder / "files",
        executor_modules=(SAMPLES,),
        reserve_bytes=0,
    )


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    app = create_app(settings_in(folder))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)  # what the application does not turn into an answer is raised here
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client, app.state.services


def choose(heads: Any) -> list[Wish]:
    return [Wish(tuple((head.queue, head.task_type) for head in heads), 7)]


@dataclass
class Image:
    """The files of a database that was in use, half of it written back and half of it in the log; what was served of each
    task at the end, and before."""

    folder: Path
    journal: Journal
    served: dict[int, Any] = field(default_factory=dict)
    history: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))

    async def look(self, client: httpx.AsyncClient) -> None:
        self.served, _ = await read_all(client)
        for id_, task in self.served.items():
            self.history[id_].append(task)

    def copy_to(self, folder: Path) -> str:
        """A fresh copy. Returns its URL."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        return f"sqlite:///{folder}/tasks.db"


async def live(client: httpx.AsyncClient, services: Services, image: Image, numbers: range) -> None:
    """Work of every kind."""
    for number in numbers:
        body: dict[str, Any] = {"task_type": "echo", "payload": {"number": number, "text": f"{number:05d}" * 40}}
        body |= {"tags": ["a", "b"], "metadata": {"number": number}}
        if number % 7 == 0:
            body |= {"unique_key": f"u{number}", "delay_seconds": 3600}
        if number % 11 == 0:
            body |= {"payload": {"text": f"{number:05d}" * 4000}}
        answer = await client.post("/tasks", json=body, headers={"Idempotency-Key": f"key-{number}"})
        assert answer.status_code == 201, answer.text
        image.journal.told(answer.json()["id"], f"key-{number}")
    await image.look(client)
    await work(services, lambda: image.look(client))


async def nothing() -> None:
    return


async def work(services: Services, after_each: Callable[[], Awaitable[None]] = nothing) -> None:
    """Claim a few tasks and settle all but one."""
    queue = services.queue
    claimed = (await queue.exchange("w", [], choose)).claimed
    await after_each()
    for task in claimed[:3]:
        await queue.add_checkpoint(task.id, task.lease, JsonText('{"page":[1,2,3]}'))
        await queue.save_progress([(task.id, task.lease, JsonText('{"percent":50}'))])
    await after_each()
    await queue.renew([(task.id, task.lease) for task in claimed])
    now = services.database.clock()()
    ended = [
        Ended(task, outcome_of(task.id), now, 0.1, progress=JsonText("1"), checkpointed=True) for task in claimed[:-1]
    ]
    await queue.exchange("w", ended)
    await after_each()


def outcome_of(task_id: int) -> Outcome:
    if task_id % 3 == 0:
        return Errored("E", "no good", retryable=task_id % 2 == 0)
    return Completed(JsonText(json.dumps({"id": task_id, "text": "done" * 30})))


async def read_all(client: httpx.AsyncClient) -> tuple[dict[int, Any], bool]:
    """Every task that is served, and whether an answer was refused for the state of the store."""
    whole = await asked(client, "GET", f"/tasks?include=payload,result&limit={TASKS}")
    if whole.status_code == 200:
        with suppress(ValueError):
            return {task["id"]: task for task in whole.json()["items"]}, False
    answers = {id_: await asked(client, "GET", f"/tasks/{id_}") for id_ in range(1, TASKS + 1)}
    found = {id_: content(answer) for id_, answer in answers.items() if answer.status_code == 200}
    return found, any(answer.status_code == 503 for answer in answers.values())


def content(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return "no JSON"


async def asked(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response:
    answer = await client.request(method, path, **more)
    assert answer.status_code < 500 or answer.status_code == 503, f"{method} {path}: {answer.text}"
    return answer


@pytest.fixture
async def image(tmp_path: Path, journal: Journal, quiet: None) -> Image:
    image = Image(tmp_path / "image", journal)
    used = tmp_path / "used"
    used.mkdir()
    async with serving(used) as (client, services):
        await live(client, services, image, range(TASKS // 2))
        await services.database.shorten_log()
        await live(client, services, image, range(TASKS // 2, TASKS))
        await asked(client, "POST", "/files", files={"file": ("a.txt", b"text")})
        shutil.copytree(used, image.folder, ignore=shutil.ignore_patterns("*.wake", "*.lock", "*-shm"))
    assert len(image.served) == TASKS
    assert await told(image, tmp_path / "sound") == []
    return image


async def told(image: Image, folder: Path) -> list[str]:
    """What the checker says of a copy of these files: `folder` is made of the image if it is not there."""
    if not folder.exists():
        image.copy_to(folder)
    try:
        return await broken(f"sqlite:///{folder}/tasks.db", files=folder / "files", journal=image.journal.path)
    except StoreError as error:
        return [str(error)]


# What is done to the files


def flip(path: Path, random: Random) -> str:
    data = bytearray(path.read_bytes())
    at, bit = random.randrange(len(data)), random.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {at}"


def flip_structure(path: Path, random: Random) -> str:
    """Where SQLite keeps its own things: the head of the file, of a page, of a frame of the log."""
    data = bytearray(path.read_bytes())
    at = random.randrange(-(-len(data) // PAGE)) * PAGE + random.randrange(64)
    at = min(at, len(data) - 1)
    data[at] ^= 1 << random.randrange(8)
    path.write_bytes(data)
    return f"byte {at}"


def overwrite(path: Path, random: Random) -> str:
    data = bytearray(path.read_bytes())
    length = random.randrange(1, 600)
    at = random.randrange(len(data))
    data[at : at + length] = random.randbytes(min(length, len(data) - at))
    path.write_bytes(data)
    return f"{length} bytes from {at}"


def wipe_page(path: Path, random: Random) -> str:
    data = bytearray(path.read_bytes())
    page = random.randrange(len(data) // PAGE)
    data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE) if random.random() < 0.5 else random.randbytes(PAGE)
    path.write_bytes(data)
    return f"page {page}"


def swap_pages(path: Path, random: Random) -> str:
    data = bytearray(path.read_bytes())
    one, other = (random.randrange(len(data) // PAGE) * PAGE for _ in range(2))
    data[one : one + PAGE], data[other : other + PAGE] = data[other : other + PAGE], data[one : one + PAGE]
    path.write_bytes(data)
    return f"pages {one // PAGE} and {other // PAGE}"


def cut(path: Path, random: Random) -> str:
    data = path.read_bytes()
    at = random.randrange(len(data)) if random.random() < 0.5 else random.randrange(len(data) // PAGE) * PAGE
    path.write_bytes(data[:at])
    return f"at {at}"


VERSIONS = (
    "DELETE FROM alembic_version",
    "UPDATE alembic_version SET version_num = '0001'",
    "UPDATE alembic_version SET version_num = '0003'",
    "UPDATE alembic_version SET version_num = '000$'",
    "UPDATE alembic_version SET version_num = CAST(x'3030ff34' AS TEXT)",
    "UPDATE alembic_version SET version_num = x'30303034'",
    "UPDATE alembic_version SET version_num = ''",
    "INSERT INTO alembic_version VALUES ('0003')",
    "DROP TABLE alembic_version",
    "ALTER TABLE alembic_version RENAME COLUMN version_num TO version",
)


def change_version(path: Path, random: Random) -> str:
    statement = random.choice(VERSIONS)
    connection = sqlite.connect(path.with_name("tasks.db"), isolation_level=None)
    connection.execute(statement)
    connection.close()
    return statement


MUTATIONS: tuple[tuple[str, Mutation], ...] = (
    *(("tasks.db", one) for one in (flip, flip, flip_structure, flip_structure, overwrite, wipe_page, swap_pages, cut)),
    *(("tasks.db-wal", one) for one in (flip, flip_structure, overwrite, wipe_page, cut)),
    ("tasks.db", change_version),
)


async def use(client: httpx.AsyncClient, services: Services) -> bool:
    """Everything there is to do, once. True if anything was refused for the state of the store."""
    body = {"task_type": "echo", "payload": {"text": "x" * 3000}}
    requests: list[tuple[str, str, Any]] = [
        *(("GET", path, None) for path in ("/tasks?status=failed", "/queues", "/stats", "/workers", "/breakers")),
        *(("GET", path, None) for path in ("/dead-letters", "/dead-letters/groups", "/tasks/3/attempts", "/health")),
        *(("GET", path, None) for path in ("/tasks/1/files", "/tasks/2/result")),
        *(("POST", f"/tasks/{id_}/{verb}", {}) for id_, verb in ((8, "cancel"), (15, "cancel"), (3, "retry"))),
        *(("POST", "/tasks", body) for _ in range(10)),
        ("DELETE", "/tasks/20", None),
        ("PATCH", "/tasks/22", {"priority": 5}),
        ("POST", "/dead-letters/requeue", {"all": True}),
    ]
    answers = [await asked(client, method, path, json=body) for method, path, body in requests]
    calls = [*(chore.run for chore in services.upkeep.chores.values()), *[lambda: work(services)] * 3]
    refusals = [await refused(call) for call in calls]
    return any(refusals) or any(answer.status_code == 503 for answer in answers)


async def refused(call: Callable[[], Awaitable[Any]]) -> bool:
    try:
        await call()
    except StoreUnavailable:
        return True
    return False


@dataclass
class Found:
    """What became of a mutated image: whether the service started, whether it refused anything, what it served wrongly."""

    start: str = ""
    refused: bool = False
    different: dict[int, Any] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @property
    def word(self) -> str:
        word = "did not start" if self.start else "refused" if self.refused else "served"
        return f"{word}{', lost' * bool(self.missing)}{', told' * bool(self.told)}"

    @property
    def silent(self) -> bool:
        return not (self.start or self.refused or self.told) and bool(self.different or self.missing)


async def look_at(image: Image, folder: Path) -> Found:
    found = Found()
    copy = folder.with_name("to-be-checked")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    found.told = await told(image, copy)
    try:
        async with serving(folder) as (client, services):
            served, found.refused = await read_all(client)
            found.different = {id_: task for id_, task in served.items() if image.served.get(id_) != task}
            found.missing = [] if found.refused else sorted(image.served.keys() - served.keys())
            found.refused = await use(client, services) or found.refused
    except StoreError as error:
        found.start = str(error)
    return found


async def assert_refuses_to_start(script: str, folder: Path) -> None:
    """A real program, on the files in `folder`: one clear line, status 1."""
    house = House(folder)
    try:
        arguments = ("--port", "0") if script == "run_api.py" else ()
        program = await house.start(script, *arguments)
        assert await program.ended() == 2, program.said()
        assert len(program.said().splitlines()) == 1, program.said()
        assert str(folder) in program.said()
    finally:
        await house.close()


@pytest.mark.timeout(1800)
async def test_a_damaged_file_crashes_nothing_and_passes_for_nothing_it_is_not(
    tmp_path: Path, image: Image, random: Random
) -> None:
    outcomes: Counter[str] = Counter()
    starts, silent = amount(2, 20), 0
    folder = tmp_path / "mutant"
    for number in range(amount(20, 200)):
        name, mutate = MUTATIONS[number % len(MUTATIONS)]
        image.copy_to(folder)
        note = f"{number}: {mutate.__name__} {name}: {mutate(folder / name, random)}"
        try:
            found = await look_at(image, folder)
            outcomes[found.word] += 1
            assert "\n" not in found.start, found.start
            if found.silent:
                silent += 1
                assert not found.missing, "an acknowledged task is gone, and the checker does not tell"
                if name == "tasks.db":
                    assert len(found.different) <= 2, "more than what a text or a number can hide"
                else:
                    older = [id_ for id_, task in found.different.items() if task in image.history[id_]]
                    assert older == list(found.different), "a task that never was so"
            if found.start and starts:
                starts -= 1
                await assert_refuses_to_start(("run_api.py", "run_worker.py")[starts % 2], folder)
        except BaseException as error:
            error.add_note(note)
            raise
    print(f"{dict(outcomes)}; {silent} changed a text, a number, or the end of the log, which nobody can notice")


async def test_programs_that_run_take_nothing_once_their_file_is_gone_or_broken(house: House) -> None:
    """A file that is put back is used again; a broken one is not written to any more, and read where it is whole."""
    api, client = await house.api(**QUICK)
    worker = await house.start("run_worker.py", "--processes", "1", **QUICK)
    body = {"task_type": "traced", "payload": {"file": "/dev/null", "number": 1}}

    async def answers(status: int, says: str) -> bool:
        answer = await client.post("/tasks", json=body)
        ready = await client.get("/health/ready")
        return (answer.status_code, ready.status_code) == (status, 503) and says in answer.text and says in ready.text

    first = (await client.post("/tasks", json=body)).json()["id"]
    await ended(client, first)
    path = house.folder / "tasks.db"
    path.rename(house.folder / "elsewhere")
    await until(lambda: answers(503, "deleted, moved or replaced"))
    assert not path.exists(), "a new one was made"
    (house.folder / "elsewhere").rename(path)
    second = (await client.post("/tasks", json=body)).json()["id"]
    assert (await ended(client, second))["status"] == "completed"

    tasks = [body | {"payload": body["payload"] | {"text": "x" * 3000}, "delay_seconds": 9999}] * 1000
    ids = (await client.post("/tasks/bulk", json={"tasks": tasks})).json()["ids"]
    connection = sqlite.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(path.read_bytes())
    for page in range(400 * PAGE, 500 * PAGE, PAGE):
        data[page : page + 8] = b"\xee" * 8
    with path.open("r+b") as stream:
        stream.write(data)
    statuses = Counter([(await client.get(f"/tasks/{id_}")).status_code for id_ in ids])
    assert set(statuses) == {200, 503}
    await until(lambda: answers(503, "The database is damaged: "))
    for program in (api, worker):
        assert program.process.returncode is None
        assert "Traceback" not in program.said()
    told = await until(lambda: [line for line in api.said().splitlines() if "is damaged" in line])
    assert len(told) <= 4, told  # one for each kind of request
    wrong = await broken(f"sqlite:///{path}")
    assert wrong, "the checker finds nothing"
