import pytest

from app.workers.summary.terms import terms


@pytest.mark.parametrize(
    ("language", "sentence", "expected"),
    [
        ("en", "The bridges and the Bridge's bridging", {"bridge": 2, "bridgi": 1}),
        ("en", "In 1999 we were 3", {"1999": 1, "3": 1}),
        ("de", "Die Verwaltungen der Verwaltung", {"verwal": 2}),
        ("fr", "L'école d’une ville", {"école": 1, "ville": 1}),
        ("zh", "北京大学", {"北京": 1, "京大": 1, "大学": 1}),
        ("ja", "猫", {"猫": 1}),
        ("ko", "학교에 학교가", {"학교": 2, "교에": 1, "에학": 1, "교가": 1}),
        ("pl", "to jest dom w lesie", {"jest": 1, "dom": 1, "lesie": 1}),
        (None, "to jest dom", {"jest": 1, "dom": 1}),
        ("en", "it is what it is", {}),
    ],
)
def test_terms_are_beginnings_of_words_that_say_something(
    language: str | None, sentence: str, expected: dict[str, int]
) -> None:
    assert terms(sentence, language) == expected


def test_two_spellings_of_a_word_are_one_term() -> None:
    assert terms("Cafe\u0301 café CAFÉ", "en") == {"café": 3}
