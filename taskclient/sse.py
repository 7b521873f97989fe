"""Server-sent events out of the chunks of a stream."""

from collections.abc import Iterator


class EventParser:
    """Takes the chunks as they come and gives back (name, data) of each event that has become whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = "message"
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[tuple[str, str]]:
        """The events that end within `chunk`. Comments, which only keep the connection alive, give none."""
        *lines, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if not line and self._data:
                yield self._name, "\n".join(self._data)
            if not line:
                self._name, self._data = "message", []
                continue
            field, _, value = line.decode("utf-8").partition(":")
            if field == "event":
                self._name = value.removeprefix(" ")
            elif field == "data":
                self._data.append(value.removeprefix(" "))
