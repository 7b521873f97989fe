import pytest

from app.workers.text.language import Detection
from app.workers.text.normalize import normalize

UNKNOWN = Detection(None, ())


@pytest.mark.parametrize(
    ("text", "plain", "changes"),
    [
        ("plain text", "plain text", {}),
        ("Cafe\u0301", "Café", {"composed_characters": 1}),
        ("\ufeffa\u200bb\u00adc", "abc", {"invisible_characters": 3}),
        ("a\x07b\x00", "ab", {"control_characters": 2}),
        ("“a” «b» it’s", '"a" "b" it\'s', {"quotes": 5}),
        ("1–2 — 3\u2011", "1-2 - 3-", {"dashes": 3}),
        ("a \t\u00a0 b", "a b", {"spaces": 3}),
        ("a\u3000b", "a b", {"spaces": 1}),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd", {"line_ends": 3}),
        ("a  \n\n\n\n  b", "a\n\nb", {"spaces": 6}),
        ("  a  ", "a", {"spaces": 4}),
    ],
)
def test_each_step_changes_and_counts(text: str, plain: str, changes: dict[str, int]) -> None:
    result = normalize(text, UNKNOWN)
    assert result["text"] == plain
    assert {step: count for step, count in result["changes"].items() if count} == changes


@pytest.mark.parametrize("text", ["👨\u200d👩\u200d👧", "می\u200cخواهم", "क्\u200dष"])
def test_joiners_stay_where_they_mean_something(text: str) -> None:
    assert normalize(text, UNKNOWN)["text"] == text


@pytest.mark.parametrize("text", ["a\u200db", "a\u200c", "\u200dé"])
def test_joiners_go_where_they_mean_nothing(text: str) -> None:
    assert normalize(text, UNKNOWN)["changes"]["invisible_characters"] == 1


@pytest.mark.parametrize("text", ["a  “b”\r\n\r\n\r\nc\u200b —", "\u200da\u0301", "e\u0323\u0301 \x00 x"])
def test_a_plain_text_stays_as_it_is(text: str) -> None:
    once = normalize(text, UNKNOWN)["text"]
    again = normalize(once, UNKNOWN)
    assert again["text"] == once
    assert not any(again["changes"].values())
