"""The tools that check what is deployed; they come with requirements-dev.txt."""

import subprocess
import sys
from pathlib import Path

from tests.walk.conftest import house  # noqa: F401 a fixture

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


def run(*command: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool of this environment from the root of the repository."""
    program, *rest = map(str, command)
    return subprocess.run([TOOLS / program, *rest], cwd=ROOT, input=given, capture_output=True, text=True)


def passes(*command: str | Path, given: str | None = None) -> str:
    """What a tool says, that has nothing to complain of."""
    done = run(*command, given=given)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout
