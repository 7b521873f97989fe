"""Where the items of a batch come from: the payload, or an uploaded file in JSON Lines. Read as often as needed, never
held in memory as a whole."""

from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Protocol

import orjson

from app.core.errors import MalformedJson
from app.core.strict_json import parse
from app.services.executors import Fail

LONGEST_LINE_BYTES = 256 * 1024
DEEPEST = 32
"""A line may be what a payload may be by default: MAX_PAYLOAD_BYTES, MAX_JSON_DEPTH."""
MOST_LINES = 1_000_000
BOM = b"\xef\xbb\xbf"


class Items(Protocol):
    """Items in order. Each is JSON text, an object."""

    def counted(self) -> Iterator[int]:
        """Check item after item and yield how many there are so far. Raises Fail for what is no item."""
        ...

    def __iter__(self) -> Iterator[str]: ...


class InlineItems:
    """The items of the payload, checked when it was."""

    def __init__(self, payloads: Sequence[dict[str, Any]]) -> None:
        self._payloads = payloads

    def counted(self) -> Iterator[int]:
        yield len(self._payloads)

    def __iter__(self) -> Iterator[str]:
        return (orjson.dumps(payload).decode() for payload in self._payloads)


class FileItems:
    """The items of a file: one in each line; blank lines are skipped and a byte order mark at the beginning is too."""

    def __init__(self, open_file: Callable[[], IO[bytes]]) -> None:
        self._open_file = open_file

    def counted(self) -> Iterator[int]:
        count = 0
        for number, line in self._lines():
            _check(number, line)
            count += 1
            if count > MOST_LINES:
                raise Fail(f"the items file holds more than {MOST_LINES:,} items")
            yield count
        if not count:
            raise Fail("the items file holds no items")

    def __iter__(self) -> Iterator[str]:
        for _, line in self._lines():
            # What it is was checked before; a string stands for an object with that text.
            yield (b'{"text":' + line + b"}" if line.startswith(b'"') else line).decode()

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self._open_file() as stream:
            number = 0
            while line := stream.readline(LONGEST_LINE_BYTES + 3):
                number += 1
                if len(line.rstrip(b"\r\n")) > LONGEST_LINE_BYTES:
                    raise Fail(f"line {number} of the items file: longer than {LONGEST_LINE_BYTES:,} bytes")
                if number == 1:
                    line = line.removeprefix(BOM)
                if line := line.strip():
                    yield number, line


def _check(number: int, line: bytes) -> None:
    try:
        value = parse(line, DEEPEST)
    except MalformedJson as error:
        reason = str(error).replace("The body", "The line").replace("line 1, column", "column")
        raise Fail(f"line {number} of the items file: {reason}") from None
    if not isinstance(value, dict | str):
        raise Fail(f"line {number} of the items file: neither an object nor a string")
