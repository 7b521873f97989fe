"""Environments of the peers: each made once from pinned requirements, and kept."""

import shutil
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
KEPT = Path(__file__).parents[1] / ".venv-peers"


class CannotInstall(Exception):
    """An environment that cannot be made; the text says why."""


def environment(name: str, folder: Path) -> Path:
    """The folder of `name`'s environment below `folder`, made if it is not there or of other requirements or another Python.
    Raises CannotInstall."""
    venv, requirements = folder.resolve() / name, PEERS / name / "requirements.txt"
    wanted = f"{sys.version}\n{requirements.read_text()}"
    made_by = venv / "made-by"  # written last: what was cut short is made anew
    if made_by.exists() and made_by.read_text() == wanted:
        return venv
    shutil.rmtree(venv, ignore_errors=True)
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-r", str(requirements))
    for command in ((sys.executable, "-m", "venv", str(venv)), (str(venv / "bin" / "python"), *pip)):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            raise CannotInstall(f"cannot be installed: {errors[0] if errors else command[0]}")
    made_by.write_text(wanted)
    return venv


def pinned(name: str, *packages: str) -> dict[str, str]:
    """The versions of some packages in `name`'s requirements."""
    pins = dict(line.split("==") for line in (PEERS / name / "requirements.txt").read_text().split())
    return {package: pins[package] for package in packages}
