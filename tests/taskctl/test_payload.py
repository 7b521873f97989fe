import io
from pathlib import Path
from typing import Any

import pytest
import typer

from taskctl.payload import read_lines, read_object


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["text=Hello World"], {"text": "Hello World"}),
        (["text="], {"text": ""}),
        (["text=a=b:=c"], {"text": "a=b:=c"}),
        (["count:=3", "names:=[1, null]", "deep:={}"], {"count": 3, "names": [1, None], "deep": {}}),
        (["count=3"], {"count": "3"}),
        (["url=http://host/?a:=b"], {"url": "http://host/?a:=b"}),
        (['{"a": 1, "b": 2}', "b:=3"], {"a": 1, "b": 3}),
        ([' {"a": 1}'], {"a": 1}),
        (["a=1", "a=2"], {"a": "2"}),
    ],
)
def test_words_spell_an_object(words: list[str], expected: dict[str, Any]) -> None:
    assert read_object(words) == expected


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("Hello", "'Hello' is none of: key=value"),
        ("=value", "is none of"),
        (":=3", "is none of"),
        ("count:=three", "the value of count is not JSON"),
        ('{"a": ', "the payload is not JSON"),
        ("@/no/such/file", "/no/such/file: No such file or directory"),
    ],
)
def test_a_wrong_word_is_named(word: str, says: str) -> None:
    with pytest.raises(typer.BadParameter, match=says):
        read_object([word])


def test_an_object_comes_from_a_file_or_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "payload.json").write_text('{"text": "über"}', encoding="utf-8")
    assert read_object([f"@{tmp_path}/payload.json", "more=1"]) == {"text": "über", "more": "1"}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"text": "in"}'))
    assert read_object(["-"]) == {"text": "in"}


@pytest.mark.parametrize(("content", "says"), [(b"[1]", "is no JSON object"), (b"\xff", "is no UTF-8 text")])
def test_a_file_that_does_not_fit_is_told(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "payload.json").write_bytes(content)
    with pytest.raises(typer.BadParameter, match=says):
        read_object([f"@{tmp_path}/payload.json"])


def test_lines_are_objects_and_a_wrong_one_is_told_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(read_lines(str(path))) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\nnothing\n')
    with pytest.raises(typer.BadParameter, match=r"line 2 of .*lines\.jsonl is not JSON"):
        list(read_lines(str(path)))
