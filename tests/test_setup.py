"""scripts/setup, which every target of the Makefile begins with."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # it makes an environment, pip included
ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not shutil.which("flock"), reason="without flock (macOS) the second terminal is not held back")
def test_two_terminals_that_set_up_at_once_make_one_environment(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/setup", tmp_path / "scripts")
    (tmp_path / "none.txt").touch()
    python = {"PYTHON": str(getattr(sys, "_base_executable", sys.executable)), "PATH": "/usr/bin:/bin"}
    both = [
        subprocess.Popen(
            ["sh", "scripts/setup", "none.txt"],
            cwd=tmp_path,
            env=python,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert "".join(said).count("setup: making .venv") == 1
    assert (tmp_path / ".venv/made-by").exists()
