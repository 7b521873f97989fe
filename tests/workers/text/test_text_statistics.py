from typing import Any

import pytest

from app.workers.text.language import detect
from app.workers.text.statistics import measure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Hello World",
            {
                "words": 2,
                "characters": 11,
                "characters_without_spaces": 10,
                "sentences": 1,
                "paragraphs": 1,
                "lines": 1,
                "unique_words": 2,
                "average_word_length": 5.0,
                "average_sentence_length": 2.0,
                "reading_time_seconds": 0.5,
            },
        ),
        (
            "One two. Two one!\n\nÜber café.",
            {
                "words": 6,
                "sentences": 3,
                "paragraphs": 2,
                "lines": 3,
                "unique_words": 4,
                "average_word_length": 3.33,
                "average_sentence_length": 2.0,
            },
        ),
        ("Café cafe\u0301 CAFÉ", {"words": 3, "unique_words": 1}),
        ("你好。世界!", {"words": 4, "characters": 6, "sentences": 2}),
        ("Привет, мир! Как дела?", {"words": 4, "sentences": 2}),
        ("مرحبا بالعالم", {"words": 2, "sentences": 1}),
        ("a", {"words": 1, "characters": 1, "sentences": 1, "average_sentence_length": 1.0}),
        ("🙂", {"words": 0, "characters": 1, "sentences": 0, "average_word_length": None}),
        ("!", {"words": 0, "sentences": 0, "average_sentence_length": None, "reading_time_seconds": 0.0}),
        ("👨\u200d👩", {"characters": 3}),
    ],
)
def test_counts(text: str, expected: dict[str, Any]) -> None:
    result = measure(text, detect(text))
    assert {key: result[key] for key in expected} == expected


def test_reading_time_is_at_238_words_a_minute() -> None:
    text = "word " * 238
    assert measure(text, detect(text))["reading_time_seconds"] == 60


def test_the_language_decides_what_an_abbreviation_is() -> None:
    text = "Dr. Müller kommt z. B. heute um acht. Das ist gut."
    assert measure(text, detect(text))["sentences"] == 2
