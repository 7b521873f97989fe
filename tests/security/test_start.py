"""The programs themselves: when the API refuses to start, what `app.keys` prints, how keys are switched on while it runs."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import until
from tests.walk.conftest import ROOT, House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.close()


async def keys(house: House, *arguments: str) -> tuple[int, str, str]:
    """Run `python -m app.keys`: status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.keys", *arguments),
        cwd=house.folder,
        env={"PATH": "/usr/bin:/bin", **house.settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_without_a_key_no_other_address_than_loopback_is_listened_on(house: House, host: str) -> None:
    program = await house.start("run_api.py", "--host", host, "--port", "0")
    assert await program.ended() == 2
    assert program.said().count("\n") == 1
    assert program.said().startswith(f"Refusing to listen on {host}, ")


async def test_loopback_insecure_and_a_key_are_each_enough(house: House) -> None:
    for arguments in (("--host", "127.0.0.2"), ("--host", "localhost"), ("--host", "0.0.0.0", "--insecure")):
        program = await house.start("run_api.py", "--port", "0", *arguments)
        await program.says("Listening on")
        await program.kill()
    status, token, _ = await keys(house, "create", "root", "--scopes", "admin")
    assert status == 0
    program = await house.start("run_api.py", "--port", "0", "--host", "0.0.0.0")
    port = (await program.says(r"Listening on http://0\.0\.0\.0:(\d+)"))[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await until(lambda: answers(client))
        assert (await client.get("/tasks")).status_code == 401
        shown = {"Authorization": f"Bearer {token.strip()}"}
        assert (await client.get("/tasks", headers=shown)).status_code == 200


async def answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def test_the_key_is_the_only_line_on_standard_output_and_the_database_is_made(house: House) -> None:
    status, out, err = await keys(
        house, "create", "ci", "--scopes", "submit, read", "--tenant", "north", "--expires-in", "90d"
    )
    assert status == 0
    assert re.fullmatch(r"tk[0-9a-f]{12}\.[A-Za-z0-9_-]{43}\n", out)
    assert out.strip() not in err
    assert "(read, submit), for tenant north, good until 20" in err
    status, out_again, _ = await keys(house, "list")
    assert "ci" in out_again
    assert out.split(".")[1].strip() not in out_again
    status, out, err = await keys(house, "revoke", "ci")
    assert (status, out) == (0, "")
    assert (await keys(house, "revoke", "ci"))[0] == 1, "no key that is good has the name any more"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x", "--scopes", "everything"), "--scopes: any of read, submit, work, manage, admin"),
        (("create", "x", "--scopes", ","), "--scopes: any of"),
        (("create", "x y", "--scopes", "read"), "NAME: 1 to 64 letters"),
        (("create", "x", "--scopes", "read", "--tenant", "a/b"), "--tenant: 1 to 64 letters"),
        (("create", "x", "--scopes", "read", "--expires-in", "soon"), "--expires-in: a number and"),
        (("create", "x", "--scopes", "read", "--expires-in", "99999w"), "--expires-in: a number and"),
    ],
)
async def test_what_is_typed_wrong_is_told_in_one_line(house: House, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = await keys(house, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


async def test_keys_are_switched_on_and_revoked_while_the_service_runs(house: House) -> None:
    _, client = await house.api()
    assert (await client.post("/tasks", json={"task_type": "echo"})).status_code == 201
    _, token, _ = await keys(house, "create", "root", "--scopes", "admin")

    async def locked() -> bool:
        return (await client.get("/tasks")).status_code == 401

    await until(locked, 10)
    shown = {"Authorization": f"Bearer {token.strip()}"}
    made = (await client.post("/api-keys", headers=shown, json={"name": "ci", "scopes": ["read"]})).json()
    other = {"Authorization": f"Bearer {made['key']}"}
    assert (await client.get("/tasks", headers=other)).status_code == 200
    _, another, _ = await keys(house, "create", "more", "--scopes", "read")
    at_once = await client.get("/tasks", headers={"Authorization": f"Bearer {another.strip()}"})
    assert at_once.status_code == 200, "a key that was made just now is good at once"
    await keys(house, "revoke", made["id"])

    async def refused() -> bool:
        return (await client.get("/tasks", headers=other)).status_code == 401

    await until(refused, 10)


async def test_workers_need_no_key(house: House) -> None:
    _, token, _ = await keys(house, "create", "root", "--scopes", "admin")
    _, client = await house.api()
    client.headers["Authorization"] = f"Bearer {token.strip()}"
    await house.worker()
    task = (await client.post("/tasks", json={"task_type": "echo", "payload": {"number": 1}})).json()
    ended = (await client.get(f"/tasks/{task['id']}?wait=30")).json()
    assert ended["status"] == "completed"


async def test_the_server_is_the_patient_one(house: House) -> None:
    """What the other tests try, the program really has: a head that is too large, a path that is too long, no websockets."""
    _, client = await house.api(MAX_CONNECTIONS_PER_ADDRESS="3")
    assert (await client.get("/tasks?x=" + "y" * 20_000)).status_code == 414
    assert (await client.get("/tasks", headers={"x": "y" * 70_000})).status_code == 431
    port = client.base_url.port
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
    said = [await reader.read(12) for reader, _ in held[3:]]
    assert b"HTTP/1.1 503" in said
    for _, writer in held:
        writer.transport.abort()


async def test_the_processes_of_one_program_share_what_a_key_may_do(house: House) -> None:
    _, token, _ = await keys(house, "create", "root", "--scopes", "admin")
    program, client = await house.api("--workers", "2", KEY_REQUESTS_PER_SECOND="0.01")
    shown = {"Authorization": f"Bearer {token.strip()}", "Connection": "close"}
    statuses = [(await client.get("/task-types/echo", headers=shown)).status_code for _ in range(30)]
    assert statuses.count(200) == 1, "whichever process a connection comes to"
    refused = await client.get("/task-types/echo", headers=shown)
    assert (refused.status_code, refused.headers["ratelimit-limit"]) == (429, "1")
    assert 60 < int(refused.headers["retry-after"]) <= 100
    program.signal(signal.SIGTERM)
    assert await program.ended() == 0, "with its processes"


def test_the_example_of_the_usage_is_what_app_keys_takes() -> None:
    usage = (ROOT / "USAGE.md").read_text()
    assert "python -m app.keys create laptop --scopes admin" in usage
    assert "python -m app.keys create shop --scopes submit,read --tenant shop --expires-in 90d" in usage
