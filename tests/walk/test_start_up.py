"""What an operator sees when something is wrong at the start: one clear line, a status, no traceback."""

import asyncio
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from app.models.database import Database
from tests.conftest import STORES
from tests.stores import Stores
from tests.walk.conftest import House, ended


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


async def refused(house: House, script: str, *arguments: str, **settings: str) -> tuple[int, str]:
    program = await house.start(script, *arguments, **settings)
    status = await program.ended(40)
    said = program.said()
    assert "Traceback" not in said
    return status, said


async def test_a_port_in_use(house: House, taken_port: int) -> None:
    status, said = await refused(house, "run_api.py", "--port", str(taken_port))
    assert status == 1
    assert said.splitlines() == [f"Cannot listen on 127.0.0.1:{taken_port}: Address already in use"]


async def test_an_address_that_is_not_ours(house: House) -> None:
    status, said = await refused(house, "run_api.py", "--host", "192.0.2.1", "--port", "0")
    assert status == 1
    assert "Cannot listen on 192.0.2.1" in said


@pytest.mark.parametrize("script", ["run_api.py", "run_worker.py"])
@pytest.mark.parametrize(
    ("settings", "status", "says"),
    [
        ({"LEASE_SECONDS": "soon"}, 2, "Wrong setting: LEASE_SECONDS"),
        ({"DATABASE_URL": "mysql://x"}, 2, "Wrong setting: DATABASE_URL"),
        ({"EXECUTOR_MODULES": "no.such.module"}, 1, "Executor module 'no.such.module' cannot be loaded"),
        ({"DATABASE_URL": "sqlite:////proc/nowhere/tasks.db"}, 2, "Cannot create the folder of the database"),
        ({"DATABASE_URL": "sqlite:////dev/null/tasks.db"}, 2, "Cannot create the folder of the database"),
        ({"DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/d"}, 2, "u@127.0.0.1:1/d cannot be used: nothing listens"),
        ({"DATABASE_URL": "postgresql://u:secret@no-such-host.invalid/d"}, 2, "cannot be used: there is no such host"),
        ({"DATABASE_URL": "postgresql://u:sec/ret@h/d"}, 2, "its address cannot be understood"),
        ({"DATABASE_URL": "postgresq://u:secret@h/d"}, 2, "Wrong setting: DATABASE_URL"),
    ],
)
async def test_a_wrong_setting(house: House, script: str, settings: dict[str, str], status: int, says: str) -> None:
    arguments = ("--port", "0") if script == "run_api.py" else ()
    got, said = await refused(house, script, *arguments, **settings)
    assert got == status, said
    assert says in said
    assert not re.search(r"secret|sec/ret", said)
    assert len(said.strip().splitlines()) == 1, said


@pytest.mark.parametrize(
    ("script", "arguments", "started"),
    [
        ("run_api.py", ("--port", "0", "--workers", "2"), "Listening on"),
        ("run_worker.py", ("--processes", "1"), "worker started"),
    ],
)
async def test_a_misspelt_name_in_the_file_of_settings(
    house: House, script: str, arguments: tuple[str, ...], started: str
) -> None:
    (house.folder / ".env").write_text("DATABSE_URL=sqlite:///secret.db\nTASKCTL_URL=http://localhost:1\n")
    program = await house.start(script, *arguments)
    await program.says(started)
    lines = [line for line in program.said().splitlines() if "Ignored in .env" in line]
    assert [json.loads(line)["level"] for line in lines] == ["warning"], "once, whatever the number of processes"
    assert "DATABSE_URL (is DATABASE_URL meant?)." in lines[0]
    assert "secret" not in lines[0]
    assert "TASKCTL_URL" not in lines[0]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("script", ["run_api.py", "run_worker.py"])
async def test_a_schema_from_the_future(house: House, stores: Stores, script: str) -> None:
    url = await stores.fresh()
    database = Database(url)
    await database.open()
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    arguments = ("--port", "0") if script == "run_api.py" else ()
    status, said = await refused(house, script, *arguments, DATABASE_URL=url)
    assert status == 2
    assert "schema version '9999'" in said
    assert len(said.strip().splitlines()) == 1, said


@pytest.mark.parametrize("script", ["run_api.py", "run_worker.py"])
async def test_a_file_that_is_no_database(house: House, script: str) -> None:
    (house.folder / "tasks.db").write_text("not a database, " * 100)
    arguments = ("--port", "0") if script == "run_api.py" else ()
    status, said = await refused(house, script, *arguments)
    assert status == 2
    assert "tasks.db is damaged: file is not a database. `python -m app.check`" in said
    assert len(said.splitlines()) == 1


@pytest.fixture
def read_only(house: House) -> Iterator[None]:
    """The folder of the house on a file system that takes nothing."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root: a read-only one was NOT tested")
    folder = house.folder / "fixed"
    folder.mkdir()
    house.settings["DATABASE_URL"] = f"sqlite:///{folder}/tasks.db"
    (folder / "tasks.db").touch()
    mount = ("mount", "--bind", str(folder), str(folder))
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine mounts nothing: a read-only file system was NOT tested")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    yield
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("script", ["run_api.py", "run_worker.py"])
@pytest.mark.usefixtures("read_only")
async def test_a_read_only_file_system(house: House, script: str) -> None:
    arguments = ("--port", "0") if script == "run_api.py" else ()
    status, said = await refused(house, script, *arguments)
    assert status == 2
    assert said.splitlines() == [
        f"The database {house.folder}/fixed/tasks.db cannot be written: the file system is read-only"
    ]


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
async def test_trouble_that_comes_between_the_check_and_the_start(house: House, arguments: tuple[str, ...]) -> None:
    """The server opens the database a second time, and would log a traceback."""
    (house.folder / "trouble.py").write_text(
        "import app.api.main\n"
        "check = app.api.main._check\n"
        "async def check_and_break(settings):\n"
        "    checked = await check(settings)\n"
        f"    open({str(house.folder / 'tasks.db')!r}, 'wb').write(b'no database' * 1000)\n"
        "    return checked\n"
        "app.api.main._check = check_and_break\n"
        "if __name__ == '__main__':\n"
        "    app.api.main.main()\n"
    )
    program = await house.start(str(house.folder / "trouble.py"), "--port", "0", *arguments)
    assert await program.ended(40) == 1
    said = program.said()
    assert "Traceback" not in said
    assert "tasks.db is damaged: file is not a database" in said


@pytest.mark.parametrize("store", ["postgres"])
@pytest.mark.parametrize("script", ["run_api.py", "run_worker.py"])
async def test_a_database_that_is_not_there(house: House, stores: Stores, script: str) -> None:
    arguments = ("--port", "0") if script == "run_api.py" else ()
    status, said = await refused(house, script, *arguments, DATABASE_URL=await stores.nowhere())
    assert status == 2
    assert 'database "no_such_database" does not exist' in said
    assert len(said.strip().splitlines()) == 1, said


@pytest.mark.parametrize("store", ["postgres"])
async def test_the_first_to_start_makes_the_tables(house: House, stores: Stores) -> None:
    house.settings["DATABASE_URL"] = await stores.bare()
    started = await asyncio.gather(house.api(), house.worker(), house.worker())
    _, client = started[0]
    answer = await client.post("/tasks", json={"task_type": "echo", "payload": {"number": 1}})
    assert (await ended(client, answer.json()["id"]))["status"] == "completed"


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("run_api.py", ["--host", "--port", "--workers"]),
        ("run_worker.py", ["--queues", "--processes", "--concurrency", "--name"]),
    ],
)
async def test_help_tells_every_option(house: House, script: str, options: list[str]) -> None:
    status, said = await refused(house, script, "--help")
    assert status == 0
    for option in options:
        assert option in said


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("run_api.py", ["--port", "70000"]),
        ("run_api.py", ["--workers", "0"]),
        ("run_worker.py", ["--processes", "0"]),
        ("run_worker.py", ["--concurrency", "x"]),
        ("run_worker.py", ["--queues", "bad name!"]),
        ("run_worker.py", ["--name", "bad name!"]),
    ],
)
async def test_wrong_options_are_refused(house: House, script: str, arguments: list[str]) -> None:
    status, _ = await refused(house, script, *arguments)
    assert status == 2
