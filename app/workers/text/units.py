"""What counts as a word, a sentence or a paragraph, in any script; every other module of this package builds on it.

Characters are code points everywhere in this package, as in Python's own strings: an emoji of several code points counts
several times, and offsets slice a Python string (or a UTF-32 one, not a UTF-16 one).
"""

import re
import unicodedata
from collections.abc import Iterator

from sentencex import get_sentence_boundaries

SENTENCE_WINDOW = 8192
LONGEST_MARK_RUN = (
    30  # the limit of the Stream-Safe Text Format, https://unicode.org/reports/tr15/#Stream_Safe_Text_Format
)


def _character_class(categories: frozenset[str], stop: int = 0x20000) -> str:
    """The inside of a regex class for all code points below `stop` in these general categories."""
    ranges: list[list[int]] = []
    for code in range(stop):
        if unicodedata.category(chr(code)) in categories:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


# `\w` leaves combining marks out, which would cut Hindi, Thai and decomposed Latin words into pieces.
MARKS = _character_class(frozenset({"Mn", "Mc", "Me"})) + "\u200c\u200d"
# Han and kana.
UNSPACED = "\u3005-\u3007\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
JOINERS = "'\u2019_\u2010\u2011-"
WORD = re.compile(
    rf"[{UNSPACED}][{MARKS}]*|[^\W_{UNSPACED}](?:[^\W_{UNSPACED}]|[{MARKS}])*"
    rf"(?:(?:[{JOINERS}]|(?<=\d)[.,](?=\d))[^\W_{UNSPACED}](?:[^\W_{UNSPACED}]|[{MARKS}])*)*"
)
# With Thai, Lao, Burmese and Khmer.
ANY_UNSPACED = re.compile(f"[{UNSPACED}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
AFTER_LONG_MARK_RUN = re.compile(f"(?<=[{MARKS}]{{{LONGEST_MARK_RUN}}})")


def words(text: str) -> list[str]:
    """The words of `text` as they are written: letters, digits and marks, joined by inner apostrophes and hyphens.

    Each Han or kana character is one word, as in word processors. Thai, Lao, Khmer and Burmese, also written without
    spaces, would need a dictionary: there a run between two spaces is one word.
    """
    return WORD.findall(text)


def has_word(text: str) -> bool:
    """True if at least one letter or digit is there."""
    return WORD.search(text) is not None


def compose(text: str) -> str:
    """`text` in Unicode NFC, in linear time.

    Normalising sorts each run of marks, and takes 3 s for a run of 64,000. So longer runs than the Stream-Safe limit
    are cut; no living language has such a word.
    """
    return "".join(unicodedata.normalize("NFC", piece) for piece in AFTER_LONG_MARK_RUN.split(text))


def fold(word: str) -> str:
    """The form in which two spellings of a word are the same: composed, without case, with a plain apostrophe."""
    return compose(word).casefold().replace("\u2019", "'")


def paragraphs(text: str) -> int:
    """How many blocks of lines there are, parted by blank lines."""
    filled = [bool(line.strip()) for line in text.splitlines()]
    return sum(here and not before for before, here in zip([False, *filled], filled, strict=False))


def sentences(text: str, language: str) -> list[str]:
    """The sentences of `text`, by the rules (abbreviations, quotes) of `language`, an ISO 639 code.

    What holds no word, such as a row of dashes or an emoji, belongs to the sentence before it.
    """
    found: list[list[str]] = []
    waiting: list[str] = []
    for piece, continues in _pieces(text, language):
        if found and (continues or not has_word(piece)):
            found[-1].append(piece)
        elif has_word(piece):
            found.append([*waiting, piece])
            waiting = []
        else:
            waiting.append(piece)
    return ["".join(pieces).strip() for pieces in found]


def _pieces(text: str, language: str) -> Iterator[tuple[str, bool]]:
    """Sentences, each with whether it continues the one before.

    sentencex is quadratic on unclosed quotation marks (1.1 s for 256 KiB), so it sees one window at a time. The last
    sentence of a window may go on behind it: it is read again at the start of the next one, unless it fills the window.
    """
    start, continues = 0, False
    while start < len(text):
        window = text[start : start + SENTENCE_WINDOW]
        starts = [boundary["start_index"] for boundary in get_sentence_boundaries(language, window)] or [0]
        is_last = start + len(window) == len(text)
        ends = [*starts[1:], len(window)] if is_last or len(starts) == 1 else starts[1:]
        begin = 0
        for end in ends:
            yield window[begin:end], continues
            begin, continues = end, False
        continues = len(starts) == 1
        start += begin
