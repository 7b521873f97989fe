"""Workflows, hooks and templates are read by the tools that know them; what they name exists."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from app.core.version import VERSION
from tests.deploy.conftest import ROOT, TOOLS, passes, run

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.dependabot": [ROOT / ".github/dependabot.yml"],
    "vendor.github-issue-config": [ROOT / ".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.github-issue-forms": [ROOT / ".github/ISSUE_TEMPLATE/bug.yml", ROOT / ".github/ISSUE_TEMPLATE/wish.yml"],
}
HOLE = """
on: pull_request_target
jobs:
  greet:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@v4
      - run: echo ${{ github.event.pull_request.title }}
      - run: echo ${{ matrix.nothing }}
"""


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_file_keeps_to_its_schema(schema: str) -> None:
    passes("check-jsonschema", "--builtin-schema", schema, *SCHEMAS[schema])


def test_actionlint_finds_nothing() -> None:
    assert passes("actionlint", *WORKFLOWS) == ""


def test_zizmor_finds_nothing() -> None:
    passes("zizmor", "--offline", "--no-progress", "--quiet", ".github")


def test_both_would_find_a_hole(tmp_path: Path) -> None:
    workflow = tmp_path / ".github/workflows/hole.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(HOLE)
    assert "matrix" in run("actionlint", workflow).stdout
    told = run("zizmor", "--offline", "--no-progress", workflow).stdout
    assert {"dangerous-triggers", "template-injection", "unpinned-uses"} <= set(re.findall(r"\[([a-z-]+)\]", told))


def test_every_yaml_file_is_tidy() -> None:
    listed = subprocess.run(["git", "ls-files", "*.yml", "*.yaml"], cwd=ROOT, capture_output=True, text=True)
    files = [*(ROOT / name for name in listed.stdout.split()), *WORKFLOWS]
    passes("yamllint", "--strict", *sorted({path for path in files if path.exists()}))


def test_every_action_is_pinned_to_a_commit() -> None:
    for path in WORKFLOWS:
        for used in re.findall(r"uses: (\S+.*)", path.read_text()):
            assert used.startswith("$/") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used


def test_the_workflows_call_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in WORKFLOWS:
        assert set(re.findall(r"run: make ([a-z-]+)", path.read_text())) <= targets


def test_every_python_that_is_promised_is_tested() -> None:
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    promised = re.findall(r"Python :: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text())
    assert matrix["python"] == promised


def test_the_release_knows_where_the_version_is() -> None:
    """By the commands of the workflows."""
    source = "app/core/version.py"
    release, cluster = ((ROOT / f".github/workflows/{name}.yml").read_text() for name in ("release", "ci"))
    (check,) = re.findall(r"run: (grep .*)", release)
    (read,) = re.findall(r"version=\$\((.*)\)\n", cluster)
    assert source in check
    shell = {"cwd": ROOT, "capture_output": True, "text": True}
    for name, status in ((f"v{VERSION}", 0), ("v99.0.0", 1), (VERSION.replace(".", "-"), 1)):
        tried = subprocess.run(["sh", "-c", check], env={"GITHUB_REF_NAME": name, "PATH": "/usr/bin:/bin"}, **shell)
        assert tried.returncode == status
    assert subprocess.run(["sh", "-c", read], **shell).stdout == f"{VERSION}\n"


def test_the_hooks_pass_on_what_is_here(tmp_path: Path) -> None:
    """All but the slow ones, which `make check` runs."""
    files = ["Dockerfile", "compose.yaml", "app/probe.py", ".github/workflows/ci.yml", ".github/dependabot.yml"]
    slow = [word for name in ("mypy", "layers") for word in ("--skip", name)]
    # A clone has no .venv; the hooks want the one that the tests run in.
    for name in [*files, ".pre-commit-config.yaml", "pyproject.toml", ".yamllint", ".github/workflows/release.yml"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv/bin").parent.mkdir()
    (tmp_path / ".venv/bin").symlink_to(TOOLS)
    for command in (["git", "init", "-q"], ["git", "add", *files, ".pre-commit-config.yaml", ".yamllint"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(
        [TOOLS / "prek", "run", *slow, "--files", *files], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == 6
    assert done.stdout.count("Skipped") == 2
