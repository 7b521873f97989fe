"""schemathesis against the API as it runs: every check of every phase, over the service's own description.

`CHAOS=long` gives each operation at least 200 cases; the usual form stops after a bounded time. What is left out, and why, is in
schemathesis.toml.
"""

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.security.test_start import keys
from tests.walk.conftest import House

LONG = os.environ.get("CHAOS") == "long"
CASES = 200 if LONG else 10
"""Of each operation, in the time there is."""
PHASES = {"examples,coverage": 20, "fuzzing": 12, "stateful": 12}
"""And the seconds they have; a hundred times as many in the long form, which ends when it has had its cases."""
CONFIG = Path(__file__).with_name("schemathesis.toml")
PROGRAM = Path(sys.executable).with_name("st")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    house.settings |= {"MAX_WAIT_SECONDS": "0.1", "LOG_LEVEL": "error"}
    yield house
    await house.close()


@pytest.mark.skipif(not PROGRAM.exists(), reason="schemathesis is in requirements-dev.txt")
@pytest.mark.timeout(3000 if LONG else 120)
@pytest.mark.parametrize("phases", PHASES)
async def test_no_check_of_any_phase_fails(house: House, tmp_path: Path, phases: str) -> None:
    seconds = PHASES[phases] * (100 if LONG else 1)
    _, token, _ = await keys(house, "create", "all", "--scopes", "admin")
    program, client = await house.api()
    client.headers["Authorization"] = f"Bearer {token.strip()}"
    for number in range(5):
        answer = await client.post("/tasks", json={"task_type": "echo", "payload": {"number": number}})
        assert answer.status_code == 201
    began = time.monotonic()
    run = await asyncio.create_subprocess_exec(
        *(PROGRAM, "--config-file", CONFIG, "run", f"{str(client.base_url).rstrip('/')}/openapi.json", "--no-color"),
        *("-H", f"Authorization: Bearer {token.strip()}", "--checks", "all", "--seed", "1"),
        *("--max-response-time", "2" if LONG else "10"),  # beside other tests an answer may take longer
        *("--phases", phases, "-n", str(CASES), "--max-time", str(seconds)),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await run.communicate())[0].decode(errors="replace")
    assert run.returncode == 0, said
    cases = re.search(r"(\d+) generated, (\d+) passed", said)
    if cases is None and "Time limit reached" in said and not LONG:
        pytest.skip("the machine was too busy for a single case in the time there is")
    assert cases is not None, said
    assert cases[1] == cases[2], said
    assert int(cases[1]) >= (1_000 if LONG else 1), said
    print(f"\n{phases}: {int(cases[1]):,} cases in {time.monotonic() - began:.0f} s")
    assert program.process.returncode is None
    assert (await client.get("/health")).json()["status"] == "healthy"
