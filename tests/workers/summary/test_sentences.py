import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.workers.summary.sentences import LONGEST_SENTENCE, split
from app.workers.text import units

# Whatever the splitter looks at, so that a short search finds the odd combinations.
ODD = st.text(st.sampled_from("aB1 .!?。\u0301\n\r\t#-*:;,\u201c\u200d🙂漢م\u2028")) | st.text(max_size=200)


def sentences(text: str, language: str = "en") -> list[str]:
    return [one.text for one in split(text, language) if not one.is_heading]


def headings(text: str) -> list[str]:
    return [one.text for one in split(text, "en") if one.is_heading]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t", []),
        ("!!! 🙂", []),
        ("Hello World", ["Hello World"]),
        ("One. Two!", ["One.", "Two!"]),
        ("Dr. Bell of the U.S. Army came at 5 p.m. on Monday. He left.", ["Dr. Bell of the U.S. Army came at 5 p.m. on Monday.", "He left."]),
        ('He said "Stop. Now." and left. She stayed.', ['He said "Stop. Now." and left.', "She stayed."]),
        ("A wrapped\nline. Another\r\none.", ["A wrapped\nline.", "Another\r\none."]),
        ("It rained. 🙂🙂\n\nIt stopped.", ["It rained. 🙂🙂", "It stopped."]),
        ("We need this.\n- milk and bread\n* four eggs. Fresh ones.\n2. a cake", ["We need this.", "milk and bread", "four eggs.", "Fresh ones.", "a cake"]),
        ("A dash - here. And - there.", ["A dash - here.", "And - there."]),
    ],
)  # fmt: skip
def test_sentences_follow_punctuation_lines_and_lists(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("de", "Dr. Voss kam am 3. Mai z. B. mit Brot. Gut!", ["Dr. Voss kam am 3. Mai z. B. mit Brot.", "Gut!"]),
        ("fr", "« Viens. » dit Mme Blanc. Il part.", ["« Viens. » dit Mme Blanc.", "Il part."]),
        ("zh", "今天下雨。明天晴!", ["今天下雨。", "明天晴!"]),
        ("ar", "يوم جميل. كيف حالك؟", ["يوم جميل.", "كيف حالك؟"]),
        ("hi", "यह घर है। वह बाग है।", ["यह घर है।", "वह बाग है।"]),
        ("xx", "No such language. Yet it works.", ["No such language.", "Yet it works."]),
    ],
)
def test_each_language_has_its_own_rules(language: str, text: str, expected: list[str]) -> None:
    assert sentences(text, language) == expected


STORY = "The first sentence is here to be read. A second one follows it at once."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"# A story\n{STORY}", ["A story"]),
        (f"A story\n=======\n{STORY}", ["A story"]),
        (f"What happened\n\n{STORY}", ["What happened"]),
        (f"Dear Mrs Bell,\n\n{STORY}\n\nYours,\nTom", ["Dear Mrs Bell,", "Yours,\nTom"]),
        (f"It rained.\n\n{STORY}", []),
        (f"- a list item\n\n{STORY}", []),
        (f"one two three four five six seven eight nine ten eleven twelve thirteen\n\n{STORY}", []),
    ],
)
def test_headings_and_salutations_are_no_sentences(text: str, expected: list[str]) -> None:
    assert headings(text) == expected


def test_a_text_of_short_lines_has_no_headings() -> None:
    assert sentences("Milk is here\n\nBread comes at nine\n\nEggs\n\nBring it.") == [
        "Milk is here",
        "Bread comes at nine",
        "Eggs",
        "Bring it.",
    ]


def test_paragraphs_and_list_items_are_counted_and_the_first_of_each_is_marked() -> None:
    found = split("One. Two.\n\nThree.\n- Four. Five.", "en")
    assert [(one.text, one.paragraph, one.opens) for one in found] == [
        ("One.", 0, True),
        ("Two.", 0, False),
        ("Three.", 1, True),
        ("Four.", 2, True),
        ("Five.", 2, False),
    ]


@pytest.mark.parametrize("gap", [" ", ", ", "\n"])
def test_text_without_full_stops_is_cut_where_words_end(gap: str) -> None:
    word = "transcript"
    found = sentences(gap.join([word] * 1000))
    assert all(LONGEST_SENTENCE // 2 <= len(one) <= LONGEST_SENTENCE for one in found[:-1])
    assert {part for one in found for part in one.replace(",", " ").split()} == {word}


def test_a_better_place_to_cut_wins_over_a_later_one() -> None:
    text = f"{'a ' * 300}end,{' b' * 600}"
    assert sentences(text)[0].endswith("end,")


def test_a_cut_without_a_good_place_does_not_part_a_letter_from_its_marks() -> None:
    found = sentences("x" * (LONGEST_SENTENCE - 1) + "e\u0301\u0323" + "y" * 10)
    assert found == ["x" * (LONGEST_SENTENCE - 1), "e\u0301\u0323" + "y" * 10]


@given(ODD)
def test_sentences_are_slices_of_the_text_in_order_and_lose_no_word(text: str) -> None:
    found = split(text, "en")
    end = 0
    for one in found:
        assert one.start >= end
        assert text[one.start : one.end] == one.text == one.text.strip()
        assert units.has_word(one.text)
        assert len(one.text) <= LONGEST_SENTENCE
        end = one.end
    kept = [letter for one in found for letter in one.text if letter.isalpha()]
    assert kept == [letter for letter in text if letter.isalpha()]
