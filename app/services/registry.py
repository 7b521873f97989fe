"""The executors of one process: which modules mark them, and how those are loaded, each fault of one told in a line."""

import importlib
import inspect
import json
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import PurePath
from types import ModuleType
from typing import NoReturn

from pydantic import ValidationError

from app.core.errors import PluginError
from app.services.executors import MARK, Executor

ENTRY_POINT_GROUP = "task_service.executors"
"""Where an installed distribution names its executor modules."""


class ExecutorRegistry(Mapping[str, Executor]):
    """The executors of one process by task_type, and the modules they came from. Built by `load_executors`, then only read."""

    def __init__(self, executors: Mapping[str, Executor], modules: Sequence[str] = ()) -> None:
        self._executors = dict(sorted(executors.items()))
        self.modules = tuple(modules)
        self.breakers = {str(one.breaker.name): one.breaker for one in self._executors.values() if one.breaker}
        """The rule of every breaker that is declared, by name."""
        self.calls_hosts = {name for name, one in self._executors.items() if one.url_field is not None}
        """The task types that call a host which their payload names."""
        self.offered = {name: one for name, one in self._executors.items() if not one.internal}
        """Those that may be submitted; the service alone submits the others."""

    def __getitem__(self, task_type: str) -> Executor:
        return self._executors[task_type]

    def __iter__(self) -> Iterator[str]:
        return iter(self._executors)

    def __len__(self) -> int:
        return len(self._executors)


def installed_modules() -> tuple[str, ...]:
    """The executor modules that installed distributions name in the entry point group `task_service.executors`, in the
    order of the entry points' names, each once. Raises PluginError for a value that is more than a module."""
    points = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value))
    for point in points:
        if not all(part.isidentifier() for part in point.value.split(".")):
            raise PluginError(
                f"Entry point {point.name!r} ({ENTRY_POINT_GROUP}){_origin(point.value)} is {point.value!r}; it must name a"
                " module alone, like 'my_executors', whose @executor functions are collected."
            )
    return tuple(dict.fromkeys(point.value for point in points))


def load_executors(module_names: Sequence[str]) -> ExecutorRegistry:
    """Import each module and collect what it marks. Raises PluginError with one clear line: which module, and why."""
    found: dict[str, Executor] = {}
    for module_name in module_names:
        module = _import(module_name)
        marked = [
            getattr(member, MARK)
            for member in vars(module).values()
            if getattr(member, "__module__", None) == module.__name__ and hasattr(member, MARK)
        ]
        if not marked:
            _refuse(module_name, "marks no function with @executor")
        for one in marked:
            taken = found.get(one.task_type)
            if taken is not None and taken.function is not one.function:
                _refuse(module_name, f"cannot be loaded: {_claimed_twice(taken, one)}")
            _check_model(module_name, one)
            _check_breaker(module_name, one, found)
            found[one.task_type] = one
    return ExecutorRegistry(found, module_names)


def _claimed_twice(first: Executor, second: Executor) -> str:
    one, other = first.function, second.function
    if one.__module__ == other.__module__:
        return f"task_type {first.task_type!r} is claimed by two functions, {one.__name__} and {other.__name__}"
    return f"task_type {first.task_type!r} is already taken by {one.__module__!r}{_origin(one.__module__)}"


def _check_breaker(module_name: str, one: Executor, found: Mapping[str, Executor]) -> None:
    """Who shares a breaker must agree on its rule, but for the exceptions: those are a matter of each one's library."""
    for other in found.values():
        if one.breaker is None or other.breaker is None or one.breaker.name != other.breaker.name:
            continue
        if replace(one.breaker, on=()) != replace(other.breaker, on=()):
            both = f"executors {other.task_type!r} and {one.task_type!r}"
            _refuse(module_name, f"cannot be loaded: {both} declare breaker {one.breaker.name!r} differently")


def _check_model(module_name: str, one: Executor) -> None:
    """The documentation shows schema and example, so a schema that cannot be made and an example that would be refused are
    faults of the module."""
    what = "payload model"
    try:
        one.payload.model_rebuild()
        _ = one.payload_schema
        if one.example is not None:
            what = "example"
            one.payload.model_validate_json(json.dumps(dict(one.example), allow_nan=False))
    except Exception as error:  # user code: a validator, a hook for the schema
        fault = f"the {what} of executor {one.task_type!r} is wrong: {_one_line(error)}"
        _refuse(module_name, f"cannot be loaded: {fault}", error)


def _import(module_name: str) -> ModuleType:
    path = PurePath(module_name)
    if path.suffix == ".py" or len(path.parts) > 1:
        parts = path.with_suffix("").parts
        name = parts[-1] if path.is_absolute() else ".".join(part for part in parts if part != "..")
        _refuse(module_name, f"cannot be loaded: give the module name, {name}, not the file")
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        # A plug-in's import may raise anything, and the operator needs one line, not our stack.
        _refuse(module_name, f"cannot be loaded: {_one_line(error)}{_hint(module_name, error)}", error)


def _one_line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ") for fault in faults)
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


def _hint(module_name: str, error: BaseException) -> str:
    """Where it was looked for if it was not found, else the line that raised, where the text does not say it."""
    if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
        installed = (
            str(PurePath(inspect.__file__).parent),
            *(path for path in sys.path if path.endswith(("-packages", ".zip"))),
        )
        folders = [folder or "." for folder in sys.path if not folder.startswith(installed)]
        return (
            f". Searched: {', '.join(folders)} and the installed packages. Put it beside run_api.py, into a folder"
            " named in PYTHONPATH, or install it"
        )
    ours = (__file__, importlib.__file__)
    lines = [
        (PurePath(frame.f_code.co_filename).name, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(("<frozen", *ours))
    ]
    return f" ({lines[-1][0]}, line {lines[-1][1]})" if lines else ""


def _refuse(module_name: str, fault: str, error: BaseException | None = None) -> NoReturn:
    raise PluginError(f"Executor module {module_name!r}{_origin(module_name)} {fault}.") from error


def _origin(module_name: str) -> str:
    """Which installed distribution named the module: the operator never did."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.value == module_name and point.dist is not None:
            return f" of the distribution {point.dist.name} {point.dist.version}"
    return ""
