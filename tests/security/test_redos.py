"""No expression of ours takes long over a text that was made for it: each is tried with 64 KiB of what it repeats, and an end
that it does not expect."""

import ast
import importlib
import pkgutil
import re
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import app

try:
    from re import _constants as kinds
    from re import _parser as parser
except ImportError:  # another Python may keep them elsewhere
    pytest.skip("the parser of this Python's expressions is not where it was", allow_module_level=True)

ROOT = Path(app.__file__).parent
BYTES = 64 * 1024
SLOWEST_SECONDS = 0.05
GIVEN_UP_SECONDS = 1.0
LONG = 10
"""A repeat that may be longer than this can be made to take its time."""
WAYS = ("fullmatch", "match", "search", "sub", "finditer", "findall", "split")
SEES_LITTLE = {"app.core.fingerprint": 500}
"""Modules that cut a text to so many characters first."""


def patterns() -> dict[tuple[str, str], re.Pattern[Any]]:
    """Every expression of the package, by where it is and how it is used."""
    found: dict[tuple[str, str], re.Pattern[Any]] = {}
    for module in pkgutil.walk_packages([str(ROOT)], "app."):
        if ".migrations." in module.name or module.name == "app.main":
            continue
        source = (ROOT.parent / (module.name.replace(".", "/") + ".py")) if not module.ispkg else None
        if source is None:
            continue
        text = source.read_text()
        if not re.search(r"\bre\b|pattern=", text):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            for pattern in _within(value):
                ways = set(re.findall(rf"\b{name}\.({'|'.join(WAYS)})\(", text)) or {"search"}
                found |= {(f"{module.name}.{name} {pattern.pattern!r:.60}", way): pattern for way in ways}
        for way, literal in _inline(ast.parse(text)):
            found[f"{module.name} {literal!r:.60}", way] = re.compile(literal)
    return found


def _within(value: Any) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _within(one)
    elif isinstance(value, dict):
        yield from _within(list(value.values()))
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        yield from _within([getattr(value, name) for name in value.__dataclass_fields__])


def _inline(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """What is written where it is used: `re.sub(r"...")`, and `pattern=` of a field."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        ours = (
            isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "re"
        )
        if ours and function.attr in WAYS and isinstance(node.args[0], ast.Constant):
            yield function.attr, node.args[0].value
        for keyword in node.keywords:
            if keyword.arg == "pattern" and isinstance(keyword.value, ast.Constant):
                yield "search", keyword.value.value


def attacks(pattern: re.Pattern[Any]) -> Iterator[Any]:
    """Texts that lead into each long repeat and then go on with what it repeats, to the end and past it."""
    tree = parser.parse(
        pattern.pattern, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
    )
    for lead, body in {*_repeats(list(tree), "")}:
        for tail in ("", "!", "\x00", "\n"):
            text = lead + body * (BYTES // max(1, len(body))) + tail
            yield text.encode("utf-8", "replace") if isinstance(pattern.pattern, bytes) else text


def _repeats(items: list[Any], lead: str) -> Iterator[tuple[str, str]]:
    for kind, argument in items:
        if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT):
            _, most, inner = argument
            if most > LONG:
                for other in range(3):
                    yield lead, _sample(list(inner), other) or "a"
            yield from _repeats(list(inner), lead)
        elif kind is kinds.SUBPATTERN:
            yield from _repeats(list(argument[-1]), lead)
        elif kind is kinds.BRANCH:
            for branch in argument[1]:
                yield from _repeats(list(branch), lead)
        elif kind in (kinds.ASSERT, kinds.ASSERT_NOT):
            yield from _repeats(list(argument[1]), lead)
        lead += _sample([(kind, argument)], 0)


def _sample(items: Iterable[Any], other: int) -> str:
    """A text that fits; `other` picks another one where there is a choice."""
    made = ""
    for kind, argument in items:
        if kind is kinds.LITERAL:
            made += chr(argument)
        elif kind in (kinds.ANY, kinds.NOT_LITERAL):
            made += "a \u00e9"[other]
        elif kind is kinds.IN:
            made += _one_of(argument, other)
        elif kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT):
            made += _sample(list(argument[2]), other) * max(1, min(argument[0], 50))
        elif kind is kinds.SUBPATTERN:
            made += _sample(list(argument[-1]), other)
        elif kind is kinds.BRANCH:
            made += _sample(list(argument[1][other % len(argument[1])]), other)
    return made


CATEGORIES = {"DIGIT": "1", "SPACE": " ", "WORD": "a", "NOT_DIGIT": "a", "NOT_SPACE": "a", "NOT_WORD": "-"}


def _one_of(choices: list[Any], other: int) -> str:
    if choices[0][0] is kinds.NEGATE:
        wrong = {argument for kind, argument in choices if kind is kinds.LITERAL}
        return next(one for one in "ax1 -\u00e9~"[other:] + "Zq" if ord(one) not in wrong)
    kind, argument = choices[other % len(choices)]
    if kind is kinds.RANGE:
        return chr(argument[0])
    return CATEGORIES[str(argument).removeprefix("CATEGORY_")] if kind is kinds.CATEGORY else chr(argument)


def seconds(pattern: re.Pattern[Any], way: str, text: Any) -> float:
    """The least of three: the machine may be busy with something else."""
    return min(_once(pattern, way, text) for _ in range(3))


def _once(pattern: re.Pattern[Any], way: str, text: Any) -> float:
    """How long it takes; GIVEN_UP_SECONDS where it takes longer than that."""
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, GIVEN_UP_SECONDS)
    try:
        return _timed(pattern, way, text)
    except TimeoutError:
        return GIVEN_UP_SECONDS
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _give_up(*_: object) -> None:
    raise TimeoutError


def _timed(pattern: re.Pattern[Any], way: str, text: Any) -> float:
    began = time.process_time()
    if way == "sub":
        pattern.sub(text[:0], text)
    elif way == "finditer":
        for _ in pattern.finditer(text):
            pass
    else:
        getattr(pattern, way)(text)
    return time.process_time() - began


def test_each_expression_is_done_soon_with_what_was_made_for_it() -> None:
    tried, slow = 0, {}
    for (where, way), pattern in patterns().items():
        for text in attacks(pattern):
            text = text[: SEES_LITTLE.get(where.split("._")[0])]
            took = _once(pattern, way, text)
            tried += 1
            if took > SLOWEST_SECONDS and seconds(pattern, way, text) > SLOWEST_SECONDS:
                slow[where, way] = took
                break
    assert slow == {}
    assert tried >= 500, tried


@pytest.mark.parametrize("bad", [r"(a+)+$", r"(\w|[ab])*!", r"\s*\n", r"[.-]*\*{3}"])
def test_an_expression_that_would_be_slow_is_found(bad: str) -> None:
    """The last two are what ours were before."""
    pattern = re.compile(bad)
    assert any(_once(pattern, "search", text) > SLOWEST_SECONDS for text in attacks(pattern))
