"""The Dockerfile is sound to its linter, and what its steps make runs: demo, API, worker, health check."""

import fcntl
import os
import pickle
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from taskclient import Client
from tests.conftest import until
from tests.deploy.conftest import ROOT, passes, run
from tests.deploy.image import Image, build, context, instructions

pytestmark = pytest.mark.timeout(600)  # the requirements are installed anew
DOCKERFILE = (ROOT / "Dockerfile").read_text()

can_mount = subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Image]:
    """What the Dockerfile makes of this tree; made once for all processes of a test run, removed by the last of them."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    folder, description = base / "image", base / "image/description"
    with (base / "image.turn").open("w") as turn, (base / "image.users").open("w") as users:
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if not description.exists():
            folder.mkdir()
            made = build(DOCKERFILE, context(ROOT, folder / "context"), folder)
            assert not list(made.path("data").iterdir())
            description.write_bytes(pickle.dumps(made))
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield pickle.loads(description.read_bytes())
        fcntl.flock(turn, fcntl.LOCK_EX)
        with suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


def read_only(image: Image, command: list[str], volume: Path) -> list[str]:
    """The command, in a mount namespace of its own in which of the image only the volume and /tmp can be written.

    Where that is not allowed, it is the command alone.
    """
    if not can_mount:
        return command
    root, data, given = (shlex.quote(str(path)) for path in (image.root, image.path("data"), volume))
    mounts = (
        f"mount --bind {root} {root} && mount --bind {given} {data} &&"
        f' mount -t tmpfs tmpfs {root}/tmp && mount -o remount,bind,ro {root} && cd "$PWD" && exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", mounts, "sh", *command]


def environment(image: Image, **settings: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | image.environment | settings


@contextmanager
def started(
    image: Image, volume: Path, name: str, command: list[str], **settings: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """A program of the image, which logs beside its volume; ended with SIGTERM, which it obeys with status 0."""
    log = volume.parent / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            read_only(image, command, volume),
            cwd=image.path("."),
            env=environment(image, **settings),
            stdout=output,
            stderr=output,
        )
    try:
        yield process
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def healthy(image: Image, port: str) -> bool:
    asked = subprocess.run(
        image.health, cwd=image.path("."), env=environment(image, API_PORT=port), capture_output=True
    )
    return asked.returncode == 0


def test_the_linter_finds_nothing() -> None:
    passes("hadolint", "--failure-threshold", "style", "Dockerfile")


def test_the_linter_would_find_something() -> None:
    worse = DOCKERFILE.replace("python:3.13-slim-trixie AS", "python AS") + "RUN cd / && pip install --upgrade pip\n"
    told = run("hadolint", "-", given=worse)
    assert told.returncode == 1
    assert {"DL3006", "DL3003"} <= set(re.findall(r"DL\d+", told.stdout))


def test_no_shell_is_needed_and_nobody_is_root() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    found = dict(instructions(last))
    assert "RUN" not in found
    assert found["CMD"].startswith("[")
    assert " CMD [" in found["HEALTHCHECK"]
    assert all(int(part) >= 10_000 for part in found["USER"].split(":"))


def test_every_base_is_of_one_named_release() -> None:
    bases = {rest.split()[0] for word, rest in instructions(DOCKERFILE) if word == "FROM"}
    assert len(bases) == 1
    assert all(re.fullmatch(r"python:3\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base) for base in bases)


def test_the_page_says_how_to_pin_them_by_digest(tmp_path: Path) -> None:
    """The registry is played by a `docker` that knows the answer."""
    digest = "sha256:" + "0a1b" * 16
    (lines,) = re.findall(r"^(digest=.*\n.*)$", (ROOT / "docs/deploy.md").read_text(), re.MULTILINE)
    (tmp_path / "docker").write_text(f'#!/bin/sh\n[ "$3" = inspect ] && echo {digest}\n')
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-ec", lines], cwd=tmp_path, env={"PATH": path}, check=True)
    pinned = (tmp_path / "Dockerfile").read_text()
    assert {rest.split()[0] for word, rest in instructions(pinned) if word == "FROM"} == {
        f"python:3.13-slim-trixie@{digest}"
    }
    assert run("hadolint", "--failure-threshold", "style", "-", given=pinned).returncode == 0


def test_nothing_of_a_developer_goes_in(image: Image) -> None:
    inside = {path.name for path in image.path(".").iterdir()}
    assert inside.isdisjoint({".git", ".env", ".venv", "tests", "docs", "benchmarks"})
    assert not (image.root / "opt/venv/bin/pip").exists()


def test_it_is_as_small_as_the_page_says(image: Image) -> None:
    (stated,) = re.findall(r"(\d+) MB of Python packages and (\d+) MB of ours", (ROOT / "docs/deploy.md").read_text())
    for place, megabytes in zip(("opt", "srv"), stated, strict=True):
        sizes = [path.lstat().st_size for path in image.root.joinpath(place).rglob("*") if path.is_file()]
        assert sum(sizes) / 1e6 == pytest.approx(int(megabytes), rel=0.15)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


def test_the_demo_runs_from_it_on_a_read_only_root(image: Image, volume: Path) -> None:
    options = ["--seconds", "2", "--bulk", "200", "--items", "1000", "--output", str(image.root / "tmp/demo")]
    done = subprocess.run(
        read_only(image, ["python", "integrated_demo.py", *options], volume),
        cwd=image.path("."),
        env=environment(image),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done in" in done.stdout


@pytest.mark.skipif(not can_mount, reason="a read-only root needs the right to mount")
def test_the_root_is_read_only_in_these_tests(image: Image, volume: Path) -> None:
    for place, status in (("/srv", 1), ("/srv/data", 0), ("/tmp", 0)):
        command = read_only(image, ["touch", image.moved(f"{place}/file")], volume)
        assert subprocess.run(command, capture_output=True).returncode == status, place
    assert [path.name for path in volume.iterdir()] == ["file"]


async def test_api_and_worker_share_the_volume_and_the_probe_sees_it(image: Image, volume: Path) -> None:
    with started(image, volume, "api", image.command, API_HOST="127.0.0.1", API_PORT="0"):
        log = volume.parent / "api.log"
        port: str = (await until(lambda: re.search(r"Listening on http://127\.0\.0\.1:(\d+)", log.read_text()), 60))[1]
        await until(lambda: healthy(image, port), 60)
        worker = ["python", "run_worker.py", "--processes", "1"]
        with started(image, volume, "worker", worker), Client(f"http://127.0.0.1:{port}") as client:
            task = client.submit("text_processing", {"text": "Hello World"})
            assert task.result(timeout=60)["statistics"]["words"] == 2
    assert not healthy(image, port)
    assert not can_mount or (volume / "tasks.db").exists()
