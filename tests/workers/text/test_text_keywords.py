import pytest

from app.workers.text.keywords import FREQUENCY, RAKE, extract
from app.workers.text.language import Detection, detect
from app.workers.text.stop_words import STOP_WORDS


def keywords(text: str, language: str | None, limit: int = 10) -> list[tuple[str, float, int]]:
    items = extract(text, Detection(language, ()), limit)["items"]
    return [(item["keyword"], item["score"], item["count"]) for item in items]


def test_a_phrase_scores_degree_by_frequency_times_count() -> None:
    # data: degree 2 + 1 + 2, frequency 3; science and centre: degree 2, frequency 1.
    text = "data science, data, data centre"
    assert keywords(text, "en") == [("data centre", 3.667, 1), ("data science", 3.667, 1), ("data", 1.667, 1)]


@pytest.mark.parametrize(
    ("language", "text", "best"),
    [
        ("en", "The machine learning of the day: machine learning is what we are using.", "machine learning"),
        ("de", "Die Bundesregierung hat den Haushalt, und der Haushalt ist die Aufgabe.", "haushalt"),
        ("fr", "L'économie de la France est l'économie de tous.", "économie"),
        ("es", "La economía de España y la economía de los otros.", "economía"),
        ("it", "L'economia dell'Italia è l'economia di tutti.", "economia"),
        ("pt", "A economia do Brasil e a economia de Portugal.", "economia"),
        ("nl", "De regering van het land en de regering van de stad.", "regering"),
        ("ru", "Экономика и политика: экономика для всех.", "экономика"),
    ],
)
def test_what_a_text_repeats_comes_first_without_function_words(language: str, text: str, best: str) -> None:
    found = keywords(text, language)
    assert found[0][0] == best
    assert found[0][2] == 2
    assert not {word for keyword, *_ in found for word in keyword.split()} & STOP_WORDS[language]


def test_phrases_end_at_punctuation_numbers_and_paragraphs() -> None:
    assert {keyword for keyword, *_ in keywords("red apple, green 7 pear\n\nblue plum", "en")} == {
        "red apple",
        "green",
        "pear",
        "blue plum",
    }


def test_an_over_long_run_gives_its_words() -> None:
    assert keywords("hello world " * 1_000, "en") == [("hello", 1_000, 1_000), ("world", 1_000, 1_000)]


def test_the_limit_holds_and_the_order_is_fixed() -> None:
    assert [keyword for keyword, *_ in keywords("delta, alpha, charlie, bravo", "en", limit=2)] == ["alpha", "bravo"]


def test_a_language_without_stop_words_gets_frequencies_and_says_so() -> None:
    text = "Pogoda jest dzisiaj bardzo ładna, pogoda będzie ładna, a pogoda to."
    result = extract(text, Detection("pl", ()), 2)
    assert (result["language"], result["method"]) == ("pl", FREQUENCY)
    assert result["items"][0] == {"keyword": "pogoda", "score": 3.0, "count": 3}


@pytest.mark.parametrize("text", ["今天天气很好我们去公园", "駅はどこですか", "สวัสดีชาวโลก"])
def test_scripts_without_spaces_are_refused(text: str) -> None:
    result = extract(text, detect(text), 10)
    assert result["supported"] is False
    assert result["language"] in {"zh", "ja", "th"}


def test_hello_world_is_a_keyword_of_itself() -> None:
    result = extract("Hello World", detect("Hello World"), 10)
    assert (result["assumed_language"], result["method"]) == ("en", RAKE)
    assert result["items"] == [{"keyword": "hello world", "score": 4.0, "count": 1}]


@pytest.mark.parametrize("text", ["!", "🙂", "a", "the of"])
def test_nothing_to_find_is_an_empty_list(text: str) -> None:
    assert keywords(text, "en") == []
