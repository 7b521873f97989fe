"""Cuts a text into its sentences, and tells those from headings, salutations and other lines that state nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.workers.text import units

LONGEST_SENTENCE = 1000
"""In code points. Text without punctuation (a transcript, a log) is cut at a better place at most this far on."""
LONGEST_HEADING = 80
HEADING_WORDS = 12

HASHES = re.compile(r"[ \t]*#{1,6}[ \t]+")
ITEM = re.compile(r"[ \t]*(?:[-*+\u2022\u2023\u25e6\u00b7\u2013\u2014]|[0-9]{1,3}[.)]|\([0-9]{1,3}\))[ \t]+")
# Latin, Chinese, Hindi, Arabic, Armenian, Burmese, Ethiopic, Khmer, and double ones.
_ENDS = ".!?\u2026\u3002\uff01\uff1f\uff0e\uff61\u0964\u0965\u061f\u06d4\u0589\u104a\u104b\u1362\u17d4\u17d5\u203c\u2047\u2048\u2049"
END = re.compile(f"[{_ENDS}]")
ENDED = re.compile(rf"[{_ENDS}][^\w{_ENDS}]{{0,8}}$")
# Where an over-long sentence is cut, best first: after the end of a line, after a clause, at a space.
CUTS = (re.compile(r"[\r\n]+"), re.compile(r"[;:,\u060c\u3001\uff0c\uff1b\uff1a]\s*"), re.compile(r"\s+"))
_LINKS = re.compile(f"[{units.MARKS}\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")


@dataclass(frozen=True)
class Sentence:
    """A stretch of a text: `text[start:end]`, in code points, without white space at its ends.

    paragraph   number of the paragraph or list item it is in, from 0
    opens       True if it is the first of its paragraph
    is_heading  True for headings, salutations and the like
    """

    text: str
    start: int
    end: int
    paragraph: int
    opens: bool
    is_heading: bool = False


@dataclass(frozen=True)
class _Block:
    """Lines that belong together, from `start` to `end`; a list item begins behind its mark."""

    start: int
    end: int
    is_heading: bool


def split(text: str, language: str) -> list[Sentence]:
    """All sentences and headings of `text` in order, by the rules of `language`, an ISO 639 code.

    Each has at least one word. They lose nothing but white space, list marks and stretches without words. If more of the
    text's words are in headings than in sentences, it is no text with headings but one of short lines: then none is one.
    """
    found: list[Sentence] = []
    for paragraph, block in enumerate(_blocks(text)):
        opens = True
        for start, end in _sentences(text, block, language):
            found.append(Sentence(text[start:end], start, end, paragraph, opens, block.is_heading))
            opens = False
    in_headings = sum(one.end - one.start for one in found if one.is_heading)
    if 2 * in_headings > sum(one.end - one.start for one in found):
        return [Sentence(one.text, one.start, one.end, one.paragraph, one.opens) for one in found]
    return found


def _blocks(text: str) -> Iterator[_Block]:
    start: int | None = None
    is_item = False
    end = position = 0
    for line in text.splitlines(keepends=True):
        here, position = position, position + len(line)
        hashes, item = HASHES.match(line), ITEM.match(line)
        if start is not None and (hashes or item or not units.has_word(line)):
            yield _block(text, start, end, is_item)
            start = None
        if hashes and units.has_word(line):
            yield _Block(here + hashes.end(), position, is_heading=True)
        elif units.has_word(line):
            if start is None:
                start, is_item = here + (item.end() if item else 0), item is not None
            end = position
    if start is not None:
        yield _block(text, start, end, is_item)


def _block(text: str, start: int, end: int, is_item: bool) -> _Block:
    return _Block(start, end, is_heading=not is_item and _looks_like_heading(text[start:end].strip()))


def _looks_like_heading(block: str) -> bool:
    """True for a short block that does not end as a sentence does: "What happened", "Dear Mrs Bell,"."""
    return len(block) <= LONGEST_HEADING and ENDED.search(block) is None and len(units.words(block)) <= HEADING_WORDS


def _sentences(text: str, block: _Block, language: str) -> Iterator[tuple[int, int]]:
    inside = text[block.start : block.end].strip()
    position = block.start
    for sentence in units.sentences(inside, language) if END.search(inside) else [inside]:
        start = text.index(sentence, position)
        position = start + len(sentence)
        yield from _pieces(text, start, position)


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """`start` and `end`, or several shorter stretches between them if they are too far apart."""
    while end - start > LONGEST_SENTENCE:
        cut = _cut(text, start, start + LONGEST_SENTENCE)
        yield from _trimmed(text, start, cut)
        start = cut
    yield from _trimmed(text, start, end)


def _cut(text: str, start: int, limit: int) -> int:
    """The end of the last good place to cut in the second half before `limit`; `limit` if there is none."""
    for pattern in CUTS:
        places = list(pattern.finditer(text, start + LONGEST_SENTENCE // 2, limit))
        if places:
            return places[-1].end()
    # Not between a letter or an emoji and what is joined to it, unless it never ends.
    for cut in range(limit, limit - units.LONGEST_MARK_RUN, -1):
        if not _LINKS.match(text[cut]) and text[cut - 1] != "\u200d":
            return cut
    return limit


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    if units.has_word(piece):
        start += len(piece) - len(piece.lstrip())
        yield start, start + len(piece.strip())
