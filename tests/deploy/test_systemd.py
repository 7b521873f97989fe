"""The systemd units are read by systemd itself, and leave little to attack; the Procfile names programs that exist."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.settings import Settings
from tests.deploy.conftest import ROOT

UNITS = ["tasks-api.service", "tasks-worker.service", "tasks-backup.service", "tasks-backup.timer"]
SERVICES = UNITS[:3]
WORST_EXPOSURE = 2.0  # of 10; what is left is the network, which they are for

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the units in which /opt/tasks is this repository, with this interpreter."""
    folder = tmp_path / "units"
    shutil.copytree(ROOT / "deploy/systemd", folder)
    for path in filter(Path.is_file, folder.rglob("*")):
        text = path.read_text().replace("/opt/tasks/.venv/bin/python", sys.executable)
        path.write_text(text.replace("/opt/tasks", str(ROOT)))
    return folder


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_PAGER": "cat"}
    return subprocess.run(["systemd-analyze", *arguments], env=environment, capture_output=True, text=True)


def value(name: str, *files: str) -> str:
    """The last value of an option in these files."""
    texts = "".join((ROOT / "deploy/systemd" / file).read_text() for file in files)
    return re.findall(rf"^{name}=(.*)$", texts, re.MULTILINE)[-1]


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_nothing_to_say(installed: Path, unit: str) -> None:
    done = analyze(installed, "verify", "--man=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_systemd_would_find_a_fault(installed: Path) -> None:
    common = installed / "tasks-.service.d/common.conf"
    common.write_text(common.read_text().replace("ProtectHome", "ProtectHouse"))
    assert "ProtectHouse" in analyze(installed, "verify", "--man=no", "tasks-api.service").stderr


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES)
def test_a_unit_leaves_little_to_attack(installed: Path, unit: str) -> None:
    done = analyze(installed, "security", "--offline=yes", "--no-pager", unit)
    (exposure,) = re.findall(rf"exposure level for {re.escape(unit)}: ([\d.]+)", done.stdout)
    assert float(exposure) <= WORST_EXPOSURE, done.stdout


def test_a_stop_waits_longer_than_the_programs_do() -> None:
    fields = Settings.model_fields
    grace = fields["shutdown_grace_seconds"].default + fields["stop_grace_seconds"].default
    assert int(value("TimeoutStopSec", "tasks-.service.d/common.conf")) >= grace + 10


def test_the_nightly_backup_runs(tmp_path: Path) -> None:
    """Its shell lines, as systemd hands them over, beside a database with a file."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "RESERVE_BYTES": "0"}
    made = subprocess.run(
        [sys.executable, "-m", "app.migrate"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    (tmp_path / "data/files").mkdir()
    (tmp_path / "data/files/picture").write_bytes(b"bytes")
    old = tmp_path / "backups/tasks-old.db"
    old.parent.mkdir()
    old.touch()
    os.utime(old, (0, 0))

    text = (ROOT / "deploy/systemd/tasks-backup.service").read_text().replace("\\\n", " ").replace("%%", "%")
    (script,) = re.findall(r"^ExecStart=/bin/sh -ec '(.*)'$", text, re.MULTILINE)
    script = script.replace("/opt/tasks/.venv/bin/python", sys.executable)
    done = subprocess.run(["/bin/sh", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (copy,) = (tmp_path / "backups").glob("tasks-*.db")
    assert re.fullmatch(r"tasks-\d{4}-\d\d-\d\d-\d{6}\.db", copy.name)
    assert (tmp_path / "backups/files/picture").read_bytes() == b"bytes"


@pytest.mark.parametrize("line", (ROOT / "Procfile").read_text().splitlines())
def test_every_line_of_the_procfile_starts_a_program(line: str) -> None:
    name, command = line.split(": ")
    assert name in ("api", "worker")
    program = command.removeprefix("python ")
    done = subprocess.run([sys.executable, *program.split(), "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
