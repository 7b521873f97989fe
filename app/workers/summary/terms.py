"""What two sentences have in common: the terms of a sentence, such that forms of one word are mostly one term."""

import re
from collections import Counter
from itertools import groupby, pairwise

from app.workers.text import units
from app.workers.text.keywords import ELIDING, ELISION
from app.workers.text.stop_words import STOP_WORDS

# A cut needs no rules, so it serves every alphabet, where stemmers exist for a few languages. From 5 to 7 letters made
# little difference on the benchmark's tuning half.
STEM_LETTERS = 6
# Without a stop word list, length is all that tells "of" from "weather"; in many languages four would be too much to ask.
SHORTEST_WITHOUT_LIST = 3
# Korean has spaces, but its words carry particles: pairs of syllables are the same with and without.
IN_PAIRS = re.compile(f"{units.ANY_UNSPACED.pattern}|[\u1100-\u11ff\uac00-\ud7a3]")


def terms(sentence: str, language: str | None) -> Counter[str]:
    """How often each term is in `sentence`; `language` decides the stop words, None or one without a list has none.

    A term is the beginning of a word, without case. Scripts without spaces, and Korean, give pairs of neighbouring characters.
    """
    stop_words = STOP_WORDS.get(language or "")
    found: Counter[str] = Counter()
    for in_pairs, group in groupby(units.words(sentence), key=_is_in_pairs):
        if in_pairs:
            run = "".join(group)
            found.update(map("".join, pairwise(run)) if len(run) > 1 else [run])
        else:
            found.update(filter(None, (_term(word, language, stop_words) for word in group)))
    return found


def _is_in_pairs(word: str) -> bool:
    return IN_PAIRS.match(word) is not None


def _term(word: str, language: str | None, stop_words: frozenset[str] | None) -> str | None:
    word = units.fold(word)
    if language in ELIDING and (elision := ELISION.match(word)) is not None:
        word = word[elision.end() :]
    is_empty = len(word) < SHORTEST_WITHOUT_LIST if stop_words is None else word in stop_words or len(word) < 2
    return None if is_empty and not word.isdigit() else word[:STEM_LETTERS]
