"""Carries out a Dockerfile step by step, without an engine: the same commands, in folders that stand for the stages.

What stands for `/` is a folder, so absolute paths of the Dockerfile are moved there. The base image is played by the
interpreter that the tests run with. An instruction that is not known here is an error, so that nothing is passed over.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

PLACES = re.compile(r"(?<![\w./-])/(?:opt|srv|tmp|root)\b")
REMARKS = ("ARG", "LABEL", "EXPOSE", "USER", "VOLUME")


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Pairs of an instruction and what follows it; continued lines are joined, comments left out."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def context(root: Path, target: Path) -> Path:
    """A copy of what the engine would be sent: .dockerignore names what is allowed, then what is left out of that."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    left_out = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
    assert rules == ["*", *(f"!{name}" for name in allowed), *(f"**/{name}" for name in left_out)]
    target.mkdir()
    for name in allowed:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns(*left_out))
        elif not any(fnmatch(name, each) for each in left_out):
            shutil.copy2(source, target / name)
    return target


@dataclass
class Image:
    """What the last stage left, in `root`; `environment` and commands have their paths moved there."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = Path("/")
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    remarks: dict[str, str] = field(default_factory=dict)

    def moved(self, text: str) -> str:
        return PLACES.sub(lambda found: f"{self.root}{found[0]}", text)

    def path(self, inside: str) -> Path:
        """Where a path of the image is, relative ones counted from the working folder."""
        return self.root / (self.folder / inside).relative_to("/")


def build(dockerfile: str, sent: Path, scratch: Path) -> Image:
    """Carry out every step. Each stage is made at the same place, so that what is copied finds itself where it was."""
    stages: dict[str, Path] = {}
    image, name = Image(scratch / "root"), ""
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            if image.root.exists():
                stages[name] = image.root.rename(scratch / f"stage-{name}")
            image, name = Image(_base(scratch)), rest.partition(" AS ")[2]
        elif word == "COPY":
            _copy(image, stages, sent, shlex.split(rest))
        elif word == "RUN":
            _run(image, re.sub(r"--mount=\S+ ", "", rest))
        elif word == "ENV":
            image.environment |= dict(part.split("=", 1) for part in shlex.split(image.moved(rest)))
        elif word == "WORKDIR":
            image.folder = Path(rest)
            image.path(".").mkdir(parents=True, exist_ok=True)
        elif word == "CMD":
            image.command = json.loads(rest)
        elif word == "HEALTHCHECK":
            image.health = json.loads(rest.partition(" CMD ")[2])
        else:
            assert word in REMARKS, f"{word} cannot be carried out here"
            image.remarks[word] = rest
    return image


def _base(scratch: Path) -> Path:
    """A root with `python` and a place for temporary files. A link would make the venv believe that it lives here."""
    root = scratch / "root"
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "tmp").mkdir()
    python = root / "usr/local/bin/python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(os.path.realpath(sys.executable))} "$@"\n')
    python.chmod(0o755)
    return root


def _copy(image: Image, stages: dict[str, Path], sent: Path, words: list[str]) -> None:
    options = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
    *sources, target = [word for word in words if not word.startswith("--")]
    origin = stages[options["from"]] if "from" in options else sent
    for source in sources:
        found, goal = origin / source.lstrip("/"), image.path(target)
        if found.is_dir():
            shutil.copytree(found, goal, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(found, goal / found.name if target.endswith("/") else goal)


def _run(image: Image, command: str) -> None:
    path = f"{image.root}/usr/local/bin:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", image.moved(command)],
        cwd=image.path("."),
        env=os.environ | image.environment | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"
