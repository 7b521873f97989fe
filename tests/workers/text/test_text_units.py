import unicodedata
from time import process_time

import pytest

from app.workers.text import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello World", ["Hello", "World"]),
        ("don't rock’n’roll", ["don't", "rock’n’roll"]),
        ("well-known snake_case __init__", ["well-known", "snake_case", "init"]),
        ("3.14 and 1,000", ["3.14", "and", "1,000"]),
        ("end.Next", ["end", "Next"]),
        ("a- b --c !? 🙂", ["a", "b", "c"]),
        ("cafe\u0301", ["cafe\u0301"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("你好,世界", ["你", "好", "世", "界"]),
        ("ラーメン2杯", ["ラ", "ー", "メ", "ン", "2", "杯"]),
        ("สวัสดี ชาวโลก", ["สวัสดี", "ชาวโลก"]),
    ],
)
def test_words_follow_the_script(text: str, expected: list[str]) -> None:
    assert units.words(text) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "Hi Dr. Smith. How are you?", ["Hi Dr. Smith.", "How are you?"]),
        ("de", "Dr. Müller kommt z. B. heute. Gut!", ["Dr. Müller kommt z. B. heute.", "Gut!"]),
        ("zh", "你好。世界!", ["你好。", "世界!"]),
        ("en", "No full stop\n\nNew paragraph", ["No full stop", "New paragraph"]),
        ("en", "... Well. 🙂 ---", ["... Well. 🙂 ---"]),
        ("en", "🙂 Yes. No.", ["🙂 Yes.", "No."]),
        ("en", "!", []),
    ],
)
def test_sentences_hold_a_word_each_and_lose_nothing(language: str, text: str, expected: list[str]) -> None:
    assert units.sentences(text, language) == expected


def test_sentences_are_the_same_whether_they_cross_a_window_or_not() -> None:
    sentence = "This sentence has some words. "
    times = 3 * units.SENTENCE_WINDOW // len(sentence)
    assert units.sentences(sentence * times, "en") == [sentence.strip()] * times


def test_a_sentence_longer_than_a_window_stays_one() -> None:
    assert len(units.sentences("hello world " * 5_000 + ". And another.", "en")) == 2


def test_unclosed_quotation_marks_do_not_make_sentences_slow() -> None:
    began = process_time()
    units.sentences("“a. " * 262_144, "en")
    assert process_time() - began < 4  # 0.4 s in windows, 18 s without


def test_compose_is_nfc() -> None:
    assert units.compose("Cafe\u0301 \u1112\u1161\u11ab") == "Café 한"


def test_compose_stays_linear_on_a_run_of_marks_and_keeps_them_all() -> None:
    marks = "\u0301\u0323" * 100_000
    began = process_time()
    composed = units.compose(f"e{marks}")
    assert process_time() - began < 4  # 0.2 s in pieces, 30 s without
    assert sum(len(unicodedata.normalize("NFD", piece)) for piece in composed) == len(marks) + 1


@pytest.mark.parametrize(
    ("text", "expected"), [("a", 1), ("a\nb", 1), ("a\n\nb", 2), ("\n \na\n\t\n\nb\n", 2), (" ", 0)]
)
def test_paragraphs_are_parted_by_blank_lines(text: str, expected: int) -> None:
    assert units.paragraphs(text) == expected
