"""JSON as RFC 8259 means it and every store can keep it: what is ambiguous, lossy or unstorable is refused here."""

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from app.core.errors import MalformedJson
from app.core.task import LARGEST_INTEGER

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Possessive, and content with a string that never ends: otherwise each quote in one would be tried to the end of the body.
_BRACKETS_AND_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)|[\[{]|[\]}]', re.DOTALL)


MOST_PARTS = 500_000
"""Fifty for each task of the largest bulk submission. Each takes a hundred bytes as a value, and more as a fault."""
FEW_BYTES = 4 * MOST_PARTS
"""In a shorter body there are fewer names than that, so nobody counts: each takes four bytes at least."""


def parse(raw: bytes, max_depth: int) -> Any:
    """The value of `raw`. Raises MalformedJson for broken JSON, and for duplicate keys, NaN, Infinity, integers beyond
    64 bits, numbers too large for a float, lone surrogates, NUL characters, nesting deeper than `max_depth`, and more than
    MOST_PARTS names, or lists and objects."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedJson(f"The body is not UTF-8 (byte {error.start}).") from None
    # Counting every bracket is cheap and an upper bound; only what looks deep is measured exactly.
    if raw.count(b"[") + raw.count(b"{") > max_depth and _depth(raw) > max_depth:
        raise MalformedJson(f"The body is nested deeper than {max_depth} levels.")
    try:
        value = (_DECODER if len(raw) < FEW_BYTES else _counting()).decode(text)
    except json.JSONDecodeError as error:
        raise MalformedJson(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise MalformedJson("The body is nested too deeply.") from None
    if b"\\u0000" in raw or _SURROGATE.search(raw):
        _check_strings(value)
    return value


def _depth(raw: bytes) -> int:
    depth = deepest = opened = 0
    for match in _BRACKETS_AND_STRINGS.finditer(raw):
        first = match[0][0]
        if first in b"[{":
            opened += 1
            if opened > MOST_PARTS:
                raise MalformedJson(f"The body has more than {MOST_PARTS:,} lists and objects.")
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        times = Counter(key for key, _ in pairs)
        twice = times.most_common(1)[0][0]
        raise MalformedJson(f"The key {twice[:100]!r} appears twice in one object.")
    return value


def _counting() -> json.JSONDecoder:
    """A decoder that counts the names of one body."""
    left = MOST_PARTS

    def counted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal left
        left -= len(pairs)
        if left < 0:
            raise MalformedJson(f"The body has more than {MOST_PARTS:,} names.")
        return _object(pairs)

    return _decoder(counted)


def _no_constant(constant: str) -> NoReturn:
    raise MalformedJson(f"{constant} is not JSON.")


def _integer(digits: str) -> int:
    if len(digits) <= 20 and -LARGEST_INTEGER - 1 <= (value := int(digits)) <= LARGEST_INTEGER:
        return value
    raise MalformedJson(f"The integer {digits[:20]}... does not fit 64 bits; send it as a string.")


def _number(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise MalformedJson(f"The number {digits[:40]} is too large.")
    return value


def _check_strings(value: Any) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise MalformedJson("A string holds a NUL character.")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise MalformedJson("A string holds a lone surrogate, which is no character.")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_strings(key)
            _check_strings(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_strings(inner)


def _decoder(pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=pairs, parse_constant=_no_constant, parse_int=_integer, parse_float=_number
    )


_DECODER = _decoder(_object)
"""Made once: `json.loads` makes one for each call that has hooks, which took longer than to decode a small body."""
