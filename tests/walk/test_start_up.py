"""What an operator sees when something is wrong at the start: one clear line, a status, no traceback."""

import socket
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text

from tests.walk.conftest import House


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
        ({"DATABASE_URL": "sqlite:////proc/nowhere/tasks.db"}, 1, "Cannot create the folder of the database"),
        ({"DATABASE_URL": "sqlite:////dev/null/tasks.db"}, 1, "Cannot create the folder of the database"),
    ],
)
async def test_a_wrong_setting(house: House, script: str, settings: dict[str, str], status: int, says: str) -> None:
    arguments = ("--port", "0") if script == "run_api.py" else ()
    got, said = await refused(house, script, *arguments, **settings)
    assert got == status, said
    assert says in said
    assert len(said.strip().splitlines()) == 1, said


@pytest.mark.parametrize("script", ["run_api.py", "run_worker.py"])
async def test_a_schema_from_the_future(house: House, script: str) -> None:
    engine = create_engine(house.database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('9999')"))
    engine.dispose()
    arguments = ("--port", "0") if script == "run_api.py" else ()
    status, said = await refused(house, script, *arguments)
    assert status == 1
    assert "schema version 9999" in said
    assert len(said.strip().splitlines()) == 1, said


@pytest.mark.parametrize("script", ["run_api.py", "run_worker.py"])
async def test_a_file_that_is_no_database(house: House, script: str) -> None:
    (house.folder / "tasks.db").write_text("not a database, " * 100)
    arguments = ("--port", "0") if script == "run_api.py" else ()
    status, said = await refused(house, script, *arguments)
    assert status == 1
    assert "file is not a database" in said


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
