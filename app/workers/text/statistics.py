"""Plain counts of a text."""

from typing import Any

from app.workers.text import units
from app.workers.text.language import Detection

# Silent reading of English non-fiction, mean of 190 studies: Brysbaert (2019), "How many words do we read per minute?",
# Journal of Memory and Language 109. Other languages differ, mostly by less than a fifth.
READING_WORDS_PER_MINUTE = 238


def measure(text: str, detection: Detection) -> dict[str, Any]:
    """Counts of words (see `units.words`), characters (code points), sentences, paragraphs and lines, averages, and a reading time.

    The language decides the abbreviations that do not end a sentence; an unknown one is read as English. A text without
    words has no sentences, and its averages are None.
    """
    words = units.words(text)
    sentences = len(units.sentences(text, detection.working or "en"))
    letters = sum(map(len, words))
    return {
        **detection.stated,
        "method": "sentences by sentencex, words by Unicode classes (each Han or kana character is one), code points",
        "words": len(words),
        "characters": len(text),
        "characters_without_spaces": sum(not character.isspace() for character in text),
        "sentences": sentences,
        "paragraphs": units.paragraphs(text),
        "lines": len(text.splitlines()),
        "unique_words": len({units.fold(word) for word in words}),
        "average_word_length": round(letters / len(words), 2) if words else None,
        "average_sentence_length": round(len(words) / sentences, 2) if sentences else None,
        "reading_time_seconds": round(len(words) * 60 / READING_WORDS_PER_MINUTE, 1),
        "reading_words_per_minute": READING_WORDS_PER_MINUTE,
    }
