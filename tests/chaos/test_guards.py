"""The list of guards that `python -m tests.chaos.guards` takes out (in the long run; here only that it can)."""

import ast
from pathlib import Path

from tests.chaos.guards import NOT_MISSED, REFUSALS, ROOT, guards, rounds


def test_every_kind_of_guard_is_found_and_taking_it_out_leaves_a_program() -> None:
    found = guards()
    places = {(guard.file, " ".join(guard.text.split())) for guard in found}
    assert len(found) > 120
    for expected in (
        ("app/models/queue.py", 'tasks.c.lease == whole(_given, "lease")'),
        ("app/models/tasks.py", ".on_conflict_do_nothing()"),
        ("app/models/chores.py", "_UNSTARTED"),
    ):
        assert expected in places
    assert {guard.file for guard in found} >= set(REFUSALS)
    for guard in found:
        source = (ROOT / guard.file).read_text()
        ast.parse(source[: guard.start] + guard.instead + source[guard.end :])
        assert Path(guard.file).suffix == ".py"


def test_every_excuse_is_for_a_guard_that_is_there() -> None:
    excused = [(f"{guard.file}:{guard.within}", " ".join(guard.text.split())) for guard in guards() if guard.excuse]
    assert set(excused) == set(NOT_MISSED)


def test_the_tests_of_a_guards_own_function_are_asked_first() -> None:
    found = {(guard.file, " ".join(guard.text.split())): guard for guard in guards()}
    within = found["app/models/tasks.py", ".on_conflict_do_nothing()"]
    constant = found["app/models/chores.py", "_UNSTARTED"]
    for guard in (within, constant):
        source = (ROOT / guard.file).read_text().splitlines()
        assert [line for line in guard.functions if "def " in source[line - 1] or source[line - 1].startswith("@")]
        callers = {f"{guard.file}:{guard.functions[0]}": ["tests/a.py::test_b[postgres]", "tests/a.py::test_b[sqlite]"]}
        assert next(rounds(guard, callers)) == ["tests/a.py::test_b[sqlite]", "tests/a.py::test_b[postgres]"]
    assert list(rounds(within, {})) == []  # what no test calls, no test can miss
