"""Server-sent events out of a stream of bytes, however the network cut them.

Follows "Interpreting an event stream" of the HTML standard, apart from what its comments name.
"""

import re
from dataclasses import dataclass

# A CR at the very end may be the first half of a CRLF, so it waits for what comes next. Only these three end a line:
# `str.splitlines` and httpx's `aiter_lines` also split at U+2028 and others, which JSON may hold as they are.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """One event is larger than the bound."""


@dataclass(frozen=True, slots=True)
class Event:
    """`name` is "message" unless the stream says otherwise; the lines of `data` are joined with LF."""

    name: str
    data: str


class EventBuffer:
    """Bytes in, whole events out. Holds at most `most_bytes` of an event that is not complete."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pieces: list[bytes] = []
        self._data: list[bytes] = []
        self._name = b""
        self._held = 0
        self._begun = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events completed with `chunk`. Raises EventTooLarge."""
        self._pieces.append(chunk)
        self._held += len(chunk)
        if self._held > self._most_bytes:
            raise EventTooLarge(f"one event of the stream is larger than {self._most_bytes} bytes")
        if b"\n" not in chunk and b"\r" not in chunk:
            return []  # not joined yet: a long line in small pieces must not be searched again with each one
        *lines, rest = _LINE_END.split(b"".join(self._pieces))
        self._pieces = [rest]
        events = [event for line in lines if (event := self._line(line))]
        self._held = len(rest) + sum(map(len, self._data))
        return events

    def finish(self) -> list[Event]:
        """What is left when the stream has ended.

        The standard drops an event without a blank line after it; llama.cpp ends with just such a `data: [DONE]`.
        """
        rest = b"".join(self._pieces).removesuffix(b"\r")
        return [event for line in (rest, b"") if (event := self._line(line))]

    def _line(self, line: bytes) -> Event | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")  # a comment has an empty field
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        elif field == b"error":
            # No field of the standard: llama.cpp said so, until late 2025, that it had to break off.
            self._name, self._data = b"error", [value]
        return None

    def _dispatch(self) -> Event | None:
        name, data = self._name or b"message", self._data
        self._name, self._data = b"", []
        if not data:
            return None
        # Whole lines, so a character that the network cut is whole again; what is broken still becomes U+FFFD.
        return Event(name.decode(errors="replace"), b"\n".join(data).decode(errors="replace"))
