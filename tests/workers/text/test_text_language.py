import pytest

from app.workers.text.language import MODEL, describe, detect


@pytest.mark.parametrize(
    ("text", "language", "name"),
    [
        ("The weather is nice today.", "en", "English"),
        ("I LOVE this SO much!!!", "en", "English"),
        ("Das ist ein schöner Tag", "de", "German"),
        ("Où est la gare ?", "fr", "French"),
        ("¿Dónde está la estación?", "es", "Spanish"),
        ("Dov'è la stazione?", "it", "Italian"),
        ("Onde fica a estação?", "pt", "Portuguese"),
        ("Waar is het station?", "nl", "Dutch"),
        ("Я люблю красное вино", "ru", "Russian"),
        ("駅はどこですか", "ja", "Japanese"),
        ("车站在哪里?", "zh", "Chinese"),
        ("أين المحطة؟", "ar", "Arabic"),
    ],
)
def test_a_short_sentence_is_enough(text: str, language: str, name: str) -> None:
    result = describe(detect(text))
    assert (result["language"], result["name"], result["model"]) == (language, name, MODEL)
    assert 0.5 <= result["confidence"] <= 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("!", "there are no letters"),
        ("🙂", "there are no letters"),
        ("12345", "there are no letters"),
        ("OK", "fewer than 6 different letters"),
        ("a a a a a a a", "fewer than 6 different letters"),
        ("Hello World", "below 0.5"),
        ("Kubernetes Docker Python", "below 0.5"),
        ("漢字", "too close: ja"),
    ],
)
def test_an_unsure_guess_is_no_language_but_a_reason(text: str, reason: str) -> None:
    result = describe(detect(text))
    assert result["language"] is None
    assert reason in result["reason"]
    assert "confidence" not in result


def test_candidates_are_shown_as_such() -> None:
    best, *_ = describe(detect("Hello World"))["candidates"]
    assert best["language"] == "en"
    assert best["confidence"] < 0.5


@pytest.mark.parametrize(
    ("text", "assumed"),
    [("Hello World", "en"), ("Great!", "en"), ("foo bar baz", None), ("漢字", None), ("Größe", None), ("!", None)],
)
def test_english_is_assumed_only_for_short_ascii_texts_it_fits_best(text: str, assumed: str | None) -> None:
    detection = detect(text)
    assert detection.language is None
    assert detection.assumed == assumed
    assert detection.working == assumed


def test_nothing_is_assumed_of_a_long_text() -> None:
    assert detect("Hello World").working == "en"
    assert detect("Hello World " * 20).working is None


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/this-is-the-way-of-the-world-and-the-weather",
        "www.where-we-have-been.com/because-they-were-there",
        "the.weather.is.nice@where.we.have.been.com",
    ],
)
def test_an_address_does_not_make_a_text_english(address: str) -> None:
    assert detect(address).language is None


@pytest.mark.parametrize("separator", ["\n", "\r", "\x00", "\x85", "\u2028"])
def test_separators_of_any_kind_are_no_obstacle(separator: str) -> None:
    assert detect(separator.join(["The", "weather", "is", "nice", "today"])).language == "en"
