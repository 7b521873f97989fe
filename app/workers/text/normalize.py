"""Makes a text plain: one form for each character, ordinary white space, quotes and dashes, nothing invisible."""

import re
from typing import Any

from app.workers.text import units
from app.workers.text.language import Detection

METHOD = "Unicode NFC, visible characters, single spaces, ASCII quotes and dashes"
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
# Format characters that show nothing: soft hyphen, directions, joiners, variation tags. The Arabic number signs, also of
# category Cf, are visible and stay.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    # These two join emoji and shape Persian and Indic words; next to ASCII they do nothing.
    "|(?:(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f]))"
)
LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
SPACES = re.compile(r"[^\S\n]+")
SPACE_AT_LINE_END = re.compile(r" ?\n ?")
BLANK_LINES = re.compile(r"\n{3,}")
DOUBLE_QUOTES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u301d\u301e"
SINGLE_QUOTES = "\u2018\u2019\u201a\u201b\u2039\u203a\u2032"
QUOTES = dict.fromkeys(map(ord, DOUBLE_QUOTES), '"') | dict.fromkeys(map(ord, SINGLE_QUOTES), "'")
DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"), "-")


def normalize(text: str, detection: Detection) -> dict[str, Any]:
    """`{"text": ..., "changes": {...}}`: the plain text, and how many places each step changed, in the order taken.

    Line breaks stay, as single `\\n`, and so do paragraphs: of several blank lines one is left.
    """
    changes: dict[str, int] = {}
    text, changes["line_ends"] = LINE_END.subn("\n", text)
    text, changes["control_characters"] = CONTROL.subn("", text)
    text, changes["invisible_characters"] = INVISIBLE.subn("", text)
    composed = units.compose(text)
    changes["composed_characters"] = max(len(text) - len(composed), int(text != composed))
    text, changes["quotes"] = _translate(composed, QUOTES)
    text, changes["dashes"] = _translate(text, DASHES)
    text, changes["spaces"] = _collapse(text)
    return {**detection.stated, "method": METHOD, "text": text, "changes": changes}


def _translate(text: str, table: dict[int, str]) -> tuple[str, int]:
    plain = text.translate(table)
    return plain, sum(before != after for before, after in zip(text, plain, strict=True))


def _collapse(text: str) -> tuple[str, int]:
    """`text` with single spaces and its ends trimmed, and how many white-space characters went or changed."""
    plain = SPACES.sub(" ", text)
    replaced = sum(character.isspace() and character not in " \n" for character in text)
    plain = BLANK_LINES.sub("\n\n", SPACE_AT_LINE_END.sub("\n", plain)).strip()
    return plain, max(len(text) - len(plain), replaced)
