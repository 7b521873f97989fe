import pytest

from app.workers.text.language import Detection, detect
from app.workers.text.readability import FORMULAS, SYLLABLES, rate


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "en",
            "the:1 make:1 used:1 wanted:2 houses:2 table:2 simple:2 people:2 beautiful:3 banana:3 radio:3 nation:2 create:2",
        ),
        ("de", "haus:1 schöne:2 theater:3 museum:3 feuer:2 neue:2 auto:2 familie:3 radio:3 quer:1 bäume:2"),
        ("fr", "maison:2 école:2 table:1 parlent:1 création:3 naïf:2 oiseau:2"),
        ("es", "país:2 ciudad:2 aéreo:4 murciélago:4 poeta:3 día:2 guitarra:3"),
        ("pt", "coração:3 país:2 dia:2 água:2 família:3 saúde:3 leão:2 maria:3"),
        ("nl", "huis:1 zeeën:2 idee:2 theater:3 beëindigen:4 radio:3"),
        ("ru", "молоко:3 мир:1 россия:3 ёж:1 в:1"),
    ],
)
def test_syllables(language: str, words: str) -> None:
    expected = {word: int(count) for word, count in (pair.split(":") for pair in words.split())}
    assert {word: SYLLABLES[language].count(word) for word in expected} == expected


# Twenty words of one syllable in four sentences: 5 words a sentence, 1 syllable a word, and letters as they are.
@pytest.mark.parametrize(
    ("language", "word", "expected"),
    [
        ("en", "cat", [206.835 - 1.015 * 5 - 84.6, 0.39 * 5 + 11.8 - 15.59]),
        ("de", "Hut", [180 - 5 - 58.5]),
        ("fr", "mur", [207 - 1.015 * 5 - 73.6]),
        ("es", "pan", [206.84 - 1.02 * 5 - 60]),
        ("it", "blu", [89 + 300 * 4 / 20 - 10 * 3]),
        ("pt", "pau", [248.835 - 1.015 * 5 - 84.6]),
        ("nl", "huis", [206.84 - 0.93 * 5 - 77]),
        ("ru", "кот", [206.835 - 1.3 * 5 - 60.1]),
    ],
)
def test_formulas(language: str, word: str, expected: list[float]) -> None:
    text = f"{word.title()} {word} {word} {word} {word}. " * 4
    result = rate(text, Detection(language, ()))
    assert (result["language"], result["words"], result["sentences"]) == (language, 20, 4)
    assert [formula["score"] for formula in result["formulas"]] == [
        pytest.approx(score, abs=0.051) for score in expected
    ]
    assert all(formula["name"] and formula["source"] and formula["scale"] for formula in result["formulas"])


def test_every_formula_language_has_a_case_above() -> None:
    assert set(FORMULAS) == {"en", "de", "fr", "es", "it", "pt", "nl", "ru"}


@pytest.mark.parametrize("text", ["a", "!", "🙂", "Hello World"])
def test_a_short_text_gets_a_reason_and_no_number(text: str) -> None:
    result = rate(text, detect(text))
    assert result["formulas"] == []
    assert "too short" in result["reason"]


@pytest.mark.parametrize("language", ["pl", "ja", None])
def test_a_language_without_formula_is_refused(language: str | None) -> None:
    result = rate("słowo " * 30, Detection(language, ()))
    assert (result["supported"], result["language"]) == (False, language)
    assert "formulas" not in result
