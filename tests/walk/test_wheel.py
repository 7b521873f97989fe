"""What is installed from the wheels works, in an environment that has what they declare to need, and nothing else."""

import asyncio
import importlib.metadata
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.core.version import VERSION
from taskclient import AsyncClient
from tests.walk.conftest import ROOT, House, Program

SERVICE = f"task_service-{VERSION}-py3-none-any.whl"
CLIENT = f"task_service_client-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both wheels, built from this tree."""
    folder = tmp_path_factory.mktemp("wheels")
    for place in (ROOT, ROOT / "clients" / "python"):
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
        built = subprocess.run(command, cwd=place, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout + built.stderr
    return folder


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def needed(requirements: Iterable[Requirement]) -> set[str]:
    """The distributions of this environment that these requirements stand for, and all that those need in turn."""
    found: set[tuple[str, str]] = set()
    ahead = [(requirement, extra) for requirement in requirements for extra in ("", *requirement.extras)]
    while ahead:
        requirement, extra = ahead.pop()
        key = (canonicalize_name(requirement.name), extra)
        if key in found:
            continue
        found.add(key)
        for line in importlib.metadata.requires(requirement.name) or ():
            below = Requirement(line)
            if below.marker is None or below.marker.evaluate({**default_environment(), "extra": extra}):
                ahead += [(below, each) for each in ("", *below.extras)]
    return {name for name, _ in found}


def environment(folder: Path, wheel: Path, *extras: str) -> Path:
    """A fresh environment with a wheel installed, beside what it says it needs: linked from here, where the files with
    hashes put it, since a copy would only take longer. Returns its folder of programs."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    lines = [Requirement(line) for line in metadata(wheel).get_all("Requires-Dist") or ()]
    wanted = [
        one
        for one in lines
        if one.marker is None or any(one.marker.evaluate({**default_environment(), "extra": e}) for e in ("", *extras))
    ]
    for name in needed(wanted):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    installed = subprocess.run(command, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    return folder / "bin"


def test_the_wheel_has_what_the_service_needs_and_no_tests(wheels: Path) -> None:
    content = names(wheels / SERVICE)
    migrations = {f"app/models/migrations/versions/{path.name}" for path in _migrations()}
    assert len(migrations) > 3
    assets = {f"app/api/assets/{path.name}" for path in (ROOT / "app/api/assets").iterdir()}
    wanted = {"app/py.typed", "taskclient/py.typed", "app/models/migrations/script.py.mako", *migrations, *assets}
    assert wanted <= content
    licences = {name.rsplit("/", 1)[-1] for name in content if "dist-info/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}
    assert {name.split("/", 1)[0] for name in content} == {
        "app",
        "taskclient",
        "taskctl",
        f"task_service-{VERSION}.dist-info",
    }
    assert not [name for name in content if "test" in name.rsplit("/", 1)[-1]]


def _migrations() -> Iterable[Path]:
    return (ROOT / "app/models/migrations/versions").glob("*.py")


def test_the_version_stands_in_one_place_and_running_needs_no_test_tools(wheels: Path) -> None:
    for wheel in (SERVICE, CLIENT):
        assert metadata(wheels / wheel)["Version"] == VERSION
        assert metadata(wheels / wheel)["License-Expression"] == "MIT"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    declared = {Requirement(line).name for line in metadata(wheels / SERVICE).get_all("Requires-Dist") or ()}
    assert {"fastapi", "sqlalchemy", "httpx"} <= declared
    assert not declared & {Requirement(line).name for line in project["dependency-groups"]["test"]}


def test_both_wheels_hold_the_same_client(wheels: Path) -> None:
    ours = {name for name in names(wheels / SERVICE) if name.startswith(("taskclient/", "taskctl/"))}
    assert {name for name in names(wheels / CLIENT) if ".dist-info/" not in name} == ours


def test_what_the_client_needs_is_what_the_service_pins() -> None:
    service = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    client = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]
    assert {*client["dependencies"], *client["optional-dependencies"]["cli"]} <= set(service)


async def started(folder: Path, program: Path, *arguments: str) -> Program:
    """A console command in a folder of its own, with nothing in its environment that leads to this tree."""
    log = folder / f"{program.name}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(str(program), *arguments),
            cwd=folder,
            env={"PATH": os.environ["PATH"]},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    return Program(process, log)


async def output(program: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(str(program), *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd="/"
    )
    said, trouble = await process.communicate()
    return process.returncode or 0, (said + trouble).decode()


async def test_the_installed_service_runs_a_task(wheels: Path, tmp_path: Path) -> None:
    programs = await asyncio.to_thread(environment, tmp_path / "env", wheels / SERVICE)
    api = await started(tmp_path, programs / "taskapi", "--port", "0")
    worker = await started(tmp_path, programs / "taskworker", "--processes", "1")
    try:
        url = (await api.says(r"Listening on (http://\S+)"))[1]
        await worker.says("worker started")
        async with AsyncClient(url, timeout=60, retries=100) as client:
            await client.stats()  # that line comes a moment before it listens
        submit = ("submit", "text_processing", "text=Hello World", "--wait", "--url", url)
        status, said = await output(programs / "taskctl", *submit)
        assert status == 0, said
        assert '"words": 2' in said
        assert (await output(programs / "taskctl", "--version")) == (0, f"taskctl {VERSION}\n")
        where = (
            await output(programs / "python", "-c", "import app.main, taskctl; print(app.__file__, taskctl.__file__)")
        )[1]
        assert where.count(str(tmp_path)) == 2, where
    finally:
        await worker.kill()
        await api.kill()


async def test_the_client_alone_needs_httpx_and_pydantic_alone(wheels: Path, house: House, tmp_path: Path) -> None:
    programs = await asyncio.to_thread(environment, tmp_path / "env", wheels / CLIENT)
    _, client = await house.api()
    await house.worker()
    code = f"""
import importlib.util
from taskclient import Client
with Client("{client.base_url}") as client:
    print(client.submit("echo", {{"number": 4}}).result(30))
print([name for name in ("app", "fastapi", "sqlalchemy", "typer", "rich") if importlib.util.find_spec(name)])
"""
    assert await output(programs / "python", "-c", code) == (0, "{'number': 4}\n[]\n")
    status, said = await output(programs / "taskctl", "stats")
    assert (status, said) == (2, "taskctl needs typer and rich: pip install 'task-service-client[cli]'\n")


async def test_the_client_with_its_command_line_needs_no_service(wheels: Path, house: House, tmp_path: Path) -> None:
    programs = await asyncio.to_thread(environment, tmp_path / "env", wheels / CLIENT, "cli")
    _, client = await house.api()
    status, said = await output(programs / "taskctl", "submit", "echo", "--json", "--url", str(client.base_url))
    assert (status, '"status":"pending"' in said) == (0, True), said
    assert await output(programs / "taskctl", "--version") == (0, f"taskctl {VERSION}\n")
    for local in (("check",), ("doctor", "--local", "--url", str(client.base_url))):
        status, said = await output(programs / "taskctl", *local)
        assert (status, "needs the service installed here" in said) == (2, True), said
