"""Reads payloads, and other objects, from what stands on a command line."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

HELP = "key=value (a text), key:=JSON (any value), a JSON object, @FILE, or - for standard input."


def read_object(words: Sequence[str]) -> dict[str, Any]:
    """The object that these words spell; later ones win. Raises typer.BadParameter naming the word that is wrong.

    >>> read_object(["text=Hello", 'operations:=["statistics"]'])
    {'text': 'Hello', 'operations': ['statistics']}
    """
    found: dict[str, Any] = {}
    for word in words:
        found |= _read(word)
    return found


def _read(word: str) -> dict[str, Any]:
    if word == "-":
        return _object(sys.stdin.read(), "standard input")
    if word.startswith("@"):
        return _object(read_text(word[1:]), word[1:])
    if word.lstrip().startswith("{"):
        return _object(word, "the payload")
    name, separator, value = word.partition("=")
    if not separator or name in ("", ":"):
        raise typer.BadParameter(f"{word!r} is none of: {HELP}")
    if name.endswith(":"):
        return {name[:-1]: _json(value, f"the value of {name[:-1]}")}
    return {name: value}


def _object(text: str, where: str) -> dict[str, Any]:
    value = _json(text, where)
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{where} is no JSON object")
    return value


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{where} is not JSON: {error}") from None


def read_lines(source: str) -> Iterator[dict[str, Any]]:
    """Each line of a JSON Lines file, or of standard input for `-`, as an object. Empty lines are passed over."""
    text = sys.stdin.read() if source == "-" else read_text(source)
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _object(line, f"line {number} of {'standard input' if source == '-' else source}")


def read_text(path: str) -> str:
    """A text file. Raises typer.BadParameter."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is no UTF-8 text") from None
