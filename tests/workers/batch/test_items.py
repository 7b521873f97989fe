import io

import pytest

from app.services.executors import Fail
from app.workers.batch.items import LONGEST_LINE_BYTES, FileItems, InlineItems


def file(data: bytes) -> FileItems:
    return FileItems(lambda: io.BytesIO(data))


def test_inline_items_come_as_json_in_order() -> None:
    items = InlineItems([{"text": "é"}, {"text": "b", "operations": ["language"]}])
    assert list(items.counted()) == [2]
    assert list(items) == ['{"text":"é"}', '{"text":"b","operations":["language"]}']


def test_a_file_has_an_item_in_each_line_that_is_not_blank() -> None:
    items = file(b'\xef\xbb\xbf{"a": 1}\r\n\n  \t\n"tw\\"o"\n{"b":"\xc3\xa9"}')
    assert list(items.counted()) == [1, 2, 3]
    assert list(items) == ['{"a": 1}', '{"text":"tw\\"o"}', '{"b":"é"}']
    assert len(list(items)) == 3  # it can be read again


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a":1}\n\n{"a":\n', r"line 3 of the items file: The line is not JSON: .* at column 6\."),
        (b'{"a":1}\n[1]\n', "line 2 of the items file: neither an object nor a string"),
        (b"null\n", "line 1 of the items file: neither"),
        (b'{"a":1,"a":2}\n', "line 1 of the items file: The key 'a' appears twice"),
        (b'{"a":NaN}', "line 1 of the items file: NaN is not JSON"),
        (b'"\\u0000"', "line 1 of the items file: A string holds a NUL"),
        (b'"\\ud800"', "line 1 of the items file: A string holds a lone surrogate"),
        (b'"\xff"', "line 1 of the items file: The line is not UTF-8"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "line 1 of the items file: The line is nested deeper than 32"),
        (b"", "holds no items"),
        (b"\n \n", "holds no items"),
        (b'"a"\n"' + b"x" * LONGEST_LINE_BYTES + b'"\n', "line 2 of the items file: longer than 262,144 bytes"),
        (b" " * (LONGEST_LINE_BYTES + 1) + b"\n", "line 1 of the items file: longer"),
    ],
)
def test_a_broken_line_is_named_with_its_number(data: bytes, reason: str) -> None:
    with pytest.raises(Fail, match=reason):
        list(file(data).counted())


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_line_may_be_as_long_as_a_payload(end: bytes) -> None:
    line = b'"' + b"x" * (LONGEST_LINE_BYTES - 2) + b'"'
    assert list(file(line + end).counted()) == [1]


def test_a_file_is_read_line_by_line() -> None:
    read = 0

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            nonlocal read
            read += len(buffer)
            buffer[:] = (b'"a"\n' * len(buffer))[: len(buffer)]
            return len(buffer)

    counted = FileItems(lambda: io.BufferedReader(Endless(), 4096)).counted()
    assert [next(counted) for _ in range(1000)][-1] == 1000
    assert read <= 8192
    counted.close()  # type: ignore[attr-defined]


def test_a_file_has_at_most_a_million_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.workers.batch.items.MOST_LINES", 3)
    with pytest.raises(Fail, match="more than 3 items"):
        list(file(b'"a"\n' * 4).counted())
