"""Take the guards out of the code one at a time, and see that a test fails each time.

    python -m tests.chaos.guards             every guard, a line each; exit status 1 if one can go unnoticed
    python -m tests.chaos.guards lease       those whose place (file:line) or text has "lease" in it
    python -m tests.chaos.guards --near 60   ask the nearest 60 tests of each only: a first look, in a fraction of the time
    python -m tests.chaos.guards --list      only show them

A guard is a condition of a statement, a conflict clause, a constraint, or a refusal by the state machine. They are found in
the source, so a new one is tried without anybody writing it down here.

First all tests run once and note which functions they call. A guard is then shown to the tests that call its function: no
other can miss it.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

from tests.chaos.callers import Callers, read_notes

ROOT = Path(__file__).parents[2]
STATEMENTS = (
    *("queue", "tasks", "chores", "dead_letters", "files", "breakers", "workers", "limits", "concurrency"),
    *("alerts", "api_keys", "audit", "sessions", "tallies", "task_logs", "webhooks"),
)
REFUSALS = (
    "app/core/lifecycle.py",
    "app/services/tasks.py",
    "app/services/files.py",
    "app/services/submissions.py",
    "app/services/transfer.py",
)
SCHEMA = "app/models/migrations/versions"
TESTS = (
    "tests/core",
    "tests/services",
    "tests/models",
    "tests/api",
    "tests/security/test_authorisation.py",
    "tests/security/test_limits.py",
    "tests/security/test_sessions.py",
    "tests/workers/test_worker.py",
    "tests/chaos/test_model.py",
)
PLANS = "tests/models/test_query_plans.py"
"""Which index a statement uses says nothing about what it refuses."""
PYTEST = (
    sys.executable,
    "-m",
    "pytest",
    "-x",
    "-q",
    "--no-header",
    "-p",
    "no:cacheprovider",
    "--timeout=60",
    f"--ignore={PLANS}",
)
SQLITE = "not postgres and not pgbouncer"
POSTGRES = "postgres"
LONGEST_SECONDS = 900
NO_TESTS = 5
CONFLICTS = ("on_conflict_do_nothing", "on_conflict_do_update")


@dataclass(frozen=True, slots=True)
class Guard:
    """What is taken out: the text from `start` to `end` (offsets in the file) becomes `instead`. `functions` are the lines on
    which those begin that have it inside, or that name the constant it is in; `within` is the name of either."""

    file: str
    line: int
    text: str
    start: int
    end: int
    instead: str
    within: str = ""
    functions: tuple[int, ...] = ()

    @property
    def excuse(self) -> str | None:
        """Why it need not be missed."""
        return NOT_MISSED.get((f"{self.file}:{self.within}", " ".join(self.text.split())))

    def __str__(self) -> str:
        text = " ".join(self.text.split())
        return f"{self.file}:{self.line}  {text if len(text) <= 90 else text[:87] + '...'}"


INDEX = "names the index; what it says follows from the other conditions"
LOCKED = "what is chosen and locked in the same transaction is so"
SUPERSET = "without it others are read as well, which the caller does not ask for"
NOT_MISSED = {
    ("app/models/queue.py:_claim", "plain(tasks.c.status) == literal_column(\"'pending'\")"): (
        "what is chosen inside the same statement is pending, and where others write too, what is locked is looked at twice"
    ),
    (
        "app/models/queue.py:add_checkpoint",
        "checkpoints.c.task_id == task_id",
    ): "only for small numbers: larger ones are in order too",
    ("app/models/tasks.py:present", "tasks.c.id.in_(ids)"): SUPERSET,
    ("app/models/tasks.py:find_by_keys", "tasks.c.unique_key.in_(unique_keys)"): SUPERSET,
    ("app/models/chores.py:_held", "_LEASED"): INDEX,
    ("app/models/chores.py:_unrenewed", "plain(tasks.c.status) == literal_column(\"'running'\")"): (
        "the tables let nobody but a running task have an end of its lease"
    ),
    ("app/models/chores.py:_promote", "plain(tasks.c.status).in_(_DUE_STATES)"): LOCKED,
    ("app/models/chores.py:prunable", "_FINISHED"): INDEX,
    ("app/models/chores.py:_waits_ahead", "task_attempts.c.lease == tasks.c.lease"): (
        "the wait of an earlier attempt would have to end within the same second"
    ),
    ("app/models/dead_letters.py:search", "_INDEXED"): INDEX,
    ("app/models/dead_letters.py:choose", "_INDEXED"): INDEX,
    ("app/models/dead_letters.py:groups", "tasks.c.fingerprint.is_not(None)"): "every task that failed has one",
    ("app/models/migrations/versions/0001_first_schema.py:upgrade", "True"): "0006 makes both indexes anew",
    ("app/models/concurrency.py:_arms", "_CONTENDING"): INDEX,
    (
        "app/models/concurrency.py:_moving",
        "still",
    ): "said of what is locked, and again of what is written: one is enough",
    ("app/models/limits.py:_running", 'tasks.c.queue.in_(bindparam("names", expanding=True))'): SUPERSET,
    ("app/models/files.py:let_go", "task_files.c.task_id.in_(task_ids)"): (
        "more files are locked; which of them nobody else keeps is asked after that"
    ),
    ("app/models/files.py:_expired", "_EXPIRING"): INDEX,
    ("app/models/files.py:remove_doomed", "_EXPIRING"): INDEX,
    ("app/models/alerts.py:prune", "_PAST"): INDEX,
    ("app/models/alerts.py:dead_letters_since", "finished"): INDEX,
}
"""(file and function or constant, text) of what may be taken out unnoticed, and why that is right."""


Found = Iterator[tuple[ast.expr | ast.stmt, ast.expr | None, str]]
"""A node, the node after which the cut begins (None: at its own beginning), and what takes its place."""


def guards() -> list[Guard]:
    """Every guard there is, in the order of the files."""
    found: list[Guard] = []
    for name in STATEMENTS:
        found += _in(f"app/models/{name}.py", _conditions)
    for file in REFUSALS:
        found += _in(file, _refusals)
    for path in sorted((ROOT / SCHEMA).glob("0*.py")):
        found += _in(f"{SCHEMA}/{path.name}", _constraints)
    return found


def _in(file: str, look: Callable[[ast.Module], Found]) -> list[Guard]:
    source = (ROOT / file).read_text()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def place(line: int | None, column: int | None) -> int:
        assert line is not None
        assert column is not None
        text = source[starts[line - 1] : starts[line]]
        return starts[line - 1] + len(text.encode()[:column].decode())

    found = {}
    tree = ast.parse(source)
    for node, end_of, instead in look(tree):
        start = (
            place(node.lineno, node.col_offset) if end_of is None else place(end_of.end_lineno, end_of.end_col_offset)
        )
        end = place(node.end_lineno, node.end_col_offset)
        number = source.count("\n", 0, start) + 1
        found[start, end] = Guard(
            file, number, source[start:end], start, end, instead, _within(tree, node), _functions(tree, node)
        )
    return [found[key] for key in sorted(found)]


def _within(tree: ast.Module, node: ast.expr | ast.stmt) -> str:
    """The name of the innermost function that has it inside, or of the constant that it is part of."""
    name = ""
    for one in ast.walk(tree):  # from the outermost inwards
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and _has(one, node):
            name = one.name
        elif isinstance(one, ast.Assign) and one in tree.body and _has(one, node):
            name = ast.unparse(one.targets[0])
    return name


def _functions(tree: ast.Module, node: ast.expr | ast.stmt) -> tuple[int, ...]:
    functions = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    around = [one for one in functions if _has(one, node)]
    # What is made once, at import or at the first call, has its effect where its name is used.
    made_once = {one.name for one in around if any(ast.unparse(part) == "cache" for part in one.decorator_list)}
    if not around:
        made_once = _names_made_with(node, tree)
    around += [one for one in functions if made_once & _names(one)]
    return tuple(min(part.lineno for part in (one, *one.decorator_list)) for one in around)


def _has(one: ast.stmt, node: ast.expr | ast.stmt) -> bool:
    return one.lineno <= node.lineno <= (one.end_lineno or one.lineno)


def _names(one: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(one) if isinstance(name, ast.Name)}


def _names_made_with(node: ast.expr | ast.stmt, tree: ast.Module) -> set[str]:
    """Of the constants that have it inside, and of those made from them."""
    found: set[str] = set()
    for one in tree.body:
        if isinstance(one, ast.Assign | ast.AnnAssign) and (_has(one, node) or found & _names(one)):
            found |= {
                part.id for part in ast.walk(one) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            }
    return found


def _conditions(tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "where":
                for argument in node.args:
                    if ast.unparse(argument) == "true()":
                        continue
                    yield argument, None, "*()" if isinstance(argument, ast.Starred) else ALWAYS
            if node.func.attr in CONFLICTS:
                yield node, node.func.value, ""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
            for side in (node.left, node.right):
                if not (isinstance(side, ast.BinOp) and isinstance(side.op, ast.BitAnd)):
                    yield side, None, ALWAYS
        if isinstance(node, ast.List) and any(isinstance(one, ast.Name) and one.id.isupper() for one in node.elts):
            yield node, None, "[]"


ALWAYS = "__import__('sqlalchemy').true()"


def _refusals(tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield node, None, "pass"


def _constraints(tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "CheckConstraint" and isinstance(node.args[0], ast.Constant):
                yield node.args[0], None, "'1 = 1'"
            for keyword in node.keywords:
                if keyword.arg == "unique" and node.func.attr == "create_index":
                    yield keyword.value, None, "False"


def rounds(guard: Guard, callers: Callers) -> Iterator[list[str]]:
    """What pytest is told: the tests that call the guard's functions, likeliest to notice first. Where that is not known, those
    named after its file, then all on SQLite, then all."""
    stem = f"test_{Path(guard.file).stem}.py"
    calling = {test for line in guard.functions for test in callers.get(f"{guard.file}:{line}", ())}
    # Who calls little else is quick, and likely to be about just this.
    breadth = Counter(test for tests in callers.values() for test in tests)
    ranked = sorted(calling, key=lambda test: (POSTGRES in test, stem not in test, breadth[test], test))
    if guard.functions and not guard.file.startswith(SCHEMA):  # tables are made once, for all tests
        if ranked:
            yield ranked
        return
    if guard.file.startswith(SCHEMA):
        yield ["tests/models", "-k", SQLITE]
    named = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").glob(f"*/{stem}"))]
    if named:
        yield [*named, "-k", SQLITE]
    yield [*TESTS, "-k", SQLITE]
    yield [*TESTS, "-k", POSTGRES]


def _noted(copy: Path, lanes: int) -> Callers:
    """Run all tests and see which functions they call. Raises RuntimeError if one fails: nothing is known then."""
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [*PYTEST, "-p", "tests.chaos.callers", "-n", str(lanes), *TESTS, "-k", "not pgbouncer"],
            cwd=copy,
            env=os.environ | {"CALLERS": folder},
            capture_output=True,
            text=True,
        )
        if ran.returncode != 0:
            raise RuntimeError(f"With all guards in place:\n{ran.stdout[-5000:]}{ran.stderr[-1000:]}")
        return read_notes(Path(folder))


def unnoticed(guard: Guard, copy: Path, callers: Callers, near: int | None) -> str | None:
    """Take the guard out of a copy of the project and run the tests, the nearest `near` where so many are enough. The first
    test that failed, None if none did."""
    file = copy / guard.file
    whole = file.read_text()
    file.write_text(whole[: guard.start] + guard.instead + whole[guard.end :])
    try:
        for tests in islice(rounds(guard, callers), None if near is None else 1):
            tests = tests if near is None or "-k" in tests else tests[:near]
            failed = _first_failure(copy, tests)
            while failed and not _first_failure(copy, [failed]):  # that was bad luck, on a busy machine
                tests += ["--deselect", failed]
                failed = _first_failure(copy, tests)
            if failed:
                return failed
    finally:
        file.write_text(whole)
    return None


def _first_failure(copy: Path, tests: list[str]) -> str | None:
    """The first test that fails; the arguments themselves if pytest does not get as far."""
    try:
        ran = subprocess.run(
            [*PYTEST, *tests],
            cwd=copy,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return " ".join(tests)
    if ran.returncode in (0, NO_TESTS):
        return None
    failed = [line.split(" - ")[0] for line in ran.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].split(" ", 1)[1] if failed else " ".join(tests)


def _copy(folder: Path) -> Path:
    for name in ("app", "tests", "examples", "pyproject.toml", "run_api.py", "run_worker.py"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def main(wanted: list[str], *, only_list: bool, near: int | None) -> int:
    """Try the guards that have one of `wanted` in place or text; all if none is wanted. Returns the exit status."""
    chosen = [
        one for one in guards() if not wanted or any(word in f"{one.file}:{one.line} {one.text}" for word in wanted)
    ]
    if only_list:
        print(*chosen, sep="\n")
        return 0
    began = time.monotonic()
    lanes = os.cpu_count() or 1
    missed: list[Guard] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(lanes) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for lane in range(lanes):
            place = Path(folder) / str(lane)
            place.mkdir()
            copies.put(_copy(place))
        callers = _noted(place, lanes)
        print(f"{len(callers)} functions are called by tests, {time.monotonic() - began:.0f} s", flush=True)

        def attempt(guard: Guard) -> str | None:
            if guard.excuse:
                return None
            copy = copies.get()
            try:
                return unnoticed(guard, copy, callers, near)
            finally:
                copies.put(copy)

        for guard, failed in zip(chosen, pool.map(attempt, chosen), strict=True):
            if failed is None and guard.excuse is None:
                missed.append(guard)
            verdict = failed or (f"may be missing: {guard.excuse}" if guard.excuse else "NOT MISSED BY ANY TEST")
            print(f"{guard}\n    {verdict}", flush=True)
    print(f"{len(chosen)} guards taken out, {len(missed)} not missed, {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wanted", nargs="*", metavar="WORD", help="what place or text of a guard must have")
    parser.add_argument("--near", type=int, metavar="N", help="ask so many tests of each")
    parser.add_argument("--list", action="store_true", help="only show them")
    options = parser.parse_args()
    sys.exit(main(options.wanted, only_list=options.list, near=options.near))
