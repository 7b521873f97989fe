"""A plugin for pytest that notes which tests call which functions of the service, so that `tests.chaos.guards` need not ask
all tests about each guard: `-p tests.chaos.callers`, with CALLERS naming the folder that the notes are written to.

Each process of a test run writes one file there: JSON, `{"app/models/queue.py:123": ["tests/...::test_...", ...]}`, where 123
is the line on which the function begins, its decorators included.
"""

import json
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Callers = dict[str, list[str]]


class Notes:
    """Is told of every call of a Python function while a test runs, on whatever thread."""

    def __init__(self) -> None:
        self._names: dict[CodeType, str | None] = {}
        self._found: defaultdict[str, set[str]] = defaultdict(set)
        self._test = ""

    def trace(self, frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        try:
            name = self._names[code]
        except KeyError:
            name = self._names[code] = _name(code)
        if name is not None and event == "call":
            self._found[name].add(self._test)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._test = item.nodeid
        threading.settrace(self.trace)
        sys.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)

    def pytest_sessionfinish(self) -> None:
        folder = Path(os.environ["CALLERS"])
        found = {name: sorted(tests) for name, tests in self._found.items()}
        (folder / f"{os.getpid()}.json").write_text(json.dumps(found))


def _name(code: CodeType) -> str | None:
    path = Path(code.co_filename)
    if not path.is_relative_to(ROOT / "app"):
        return None
    return f"{path.relative_to(ROOT)}:{code.co_firstlineno}"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Notes())


def read_notes(folder: Path) -> Callers:
    """What all processes of a test run noted there."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in folder.glob("*.json"):
        for name, tests in json.loads(path.read_text()).items():
            found[name].update(tests)
    return {name: sorted(tests) for name, tests in found.items()}
