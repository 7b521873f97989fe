"""The one file of a `multipart/form-data` body, as it streams in: nothing is kept, nothing is written here."""

from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from app.core.errors import InvalidRequest, UnsupportedMediaType

FIELD = "file"


class FileForm:
    """Takes the chunks of a body and gives back those of its field `file`. `name` and `content_type` are what its sender
    called it, None where they said nothing."""

    def __init__(self, content_type: str) -> None:
        """Raises UnsupportedMediaType for what is no multipart form."""
        declared, options = parse_options_header(content_type)
        if declared != b"multipart/form-data" or not options.get(b"boundary"):
            raise UnsupportedMediaType("Send the file as multipart/form-data, in the field `file`: curl -F file=@name.")
        self.name: str | None = None
        self.content_type: str | None = None
        self._header_name = self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []
        self._parts = 0
        self._ended = False
        callbacks: Any = {
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)
        except FormParserError as error:
            raise _refusal(str(error)) from None

    def feed(self, chunk: bytes) -> bytes:
        """What `chunk` holds of the file. Raises InvalidRequest for a body that is no form, or has other fields."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _refusal(f"the body is no multipart form: {error}") from None
        data, self._data = b"".join(self._data), []
        return data

    def finish(self) -> None:
        """The body is over. Raises InvalidRequest if it broke off, or if there was no file in it."""
        if not self._ended:
            raise _refusal("the form ends too early")
        if not self._parts:
            raise _refusal("the form has no field `file`")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        headers, self._headers = self._headers, {}
        disposition, options = parse_options_header(headers.get(b"content-disposition", b""))
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if disposition != b"form-data" or field != FIELD:
            raise _refusal(f"the form has a field {field[:100]!r}; it takes `file` alone")
        self._parts += 1
        if self._parts > 1:
            raise _refusal("the form has more than one file")
        self.name = _text(options.get(b"filename"))
        self.content_type = _text(headers.get(b"content-type"))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(f"{FIELD}: {message}.", [{"location": ["body", FIELD], "message": message, "type": "form"}])
