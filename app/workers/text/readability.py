"""How hard a text is to read, by formulas published for its language.

Syllables are counted by rule: one for each group of vowels, less the endings that are not spoken, plus one for each
hiatus the spelling shows. That is exact for Russian, nearly so for Spanish, and an estimate elsewhere ("science" counts as
one), which a text averages out. Gulpease takes letters instead.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.workers.text import units
from app.workers.text.language import Detection

MINIMUM_WORDS = 20
EASE = "0 (very hard) to 100 (very easy)"


@dataclass(frozen=True)
class Syllables:
    """`vowels` is one syllable each; `silent` matches an ending that is none; `hiatus` lies between two."""

    vowels: re.Pattern[str]
    silent: re.Pattern[str] | None = None
    hiatus: re.Pattern[str] | None = None

    def count(self, word: str) -> int:
        spoken = len(self.vowels.findall(word))
        if self.silent is not None and self.silent.search(word):
            spoken -= 1
        if self.hiatus is not None:
            spoken += len(self.hiatus.findall(word))
        return max(spoken, 1)


@dataclass(frozen=True)
class Formula:
    """`score` takes words a sentence, syllables a word, and letters a word."""

    name: str
    source: str
    scale: str
    score: Callable[[float, float, float], float]


SYLLABLES = {
    "en": Syllables(
        re.compile("[aeiouyáéíóúèêïöü]+"),
        silent=re.compile("(?:(?<=[^aeiouyl])e|(?<=[aeiouy]l)e|(?<=[^aeiouydt])ed|(?<=[^aeiouycgsxz])(?<![cs]h)es)$"),
        hiatus=re.compile("(?<![ctgs])i(?=a|o|um$)|(?<=[aeiouy])ing$|(?<=[^aeiou])eo(?=[ngl])|(?<=cr)e(?=at)"),
    ),
    "de": Syllables(
        re.compile("[aeiouyäöüéèàáóíúêâôî]+"),
        hiatus=re.compile("(?<![aeq])u(?=[aeo])|i(?=[aou])|e(?=[aoäöü]|um$)|(?<=[ae][iu])e(?=[nrs]|$)"),
    ),
    "fr": Syllables(
        re.compile("[aeiouyàâäéèêëîïôöùûüœæ]+"),
        silent=re.compile("(?<=[^aeiouyàâäéèêëîïôöùûüœæ])(?:e|es|ent)$"),
        hiatus=re.compile("é(?=[aâoôiu])|[aoé](?=[ïëü])"),
    ),
    "es": Syllables(
        re.compile("[aeiouyáéíóúü]+"),
        hiatus=re.compile("[aeoáéó](?=[aeoáéóíú])|[íú](?=[aeoáéó])"),
    ),
    "pt": Syllables(
        re.compile("[aeiouyáâãàéêíóôõúü]+"),
        # After an accent "-ia" is one syllable ("família"), else two ("Maria"): this takes back what `hiatus` adds.
        silent=re.compile("[áâéêíóôú][a-zç]*(?:(?<![gq])[iu]as?|ios?)$"),
        hiatus=re.compile("[aeoáâéêóô](?=[aeáâãéêíóôõú])|[íú](?=[aeo])|(?<![gq])[iu](?=[aá])|i(?=o)"),
    ),
    "nl": Syllables(re.compile("[aeiouyéèëïöüáóíú]+"), hiatus=re.compile("[aeiou](?=[ëïöü])|e(?=a)|i(?=[ao])")),
    "ru": Syllables(re.compile("[аеёиоуыэюя]")),
}

FORMULAS = {
    "en": (
        Formula("Flesch reading ease", "Flesch 1948", EASE, lambda wps, spw, _: 206.835 - 1.015 * wps - 84.6 * spw),
        Formula(
            "Flesch-Kincaid grade",
            "Kincaid et al. 1975",
            "US school grade",
            lambda wps, spw, _: 0.39 * wps + 11.8 * spw - 15.59,
        ),
    ),
    "de": (Formula("Flesch-Amstad", "Amstad 1978", EASE, lambda wps, spw, _: 180 - wps - 58.5 * spw),),
    "fr": (Formula("Kandel-Moles", "Kandel and Moles 1958", EASE, lambda wps, spw, _: 207 - 1.015 * wps - 73.6 * spw),),
    "es": (
        # With words a sentence, as the author's examples have it: many reprints say sentences a hundred words, an error.
        Formula("Fernández Huerta", "Fernández Huerta 1959", EASE, lambda wps, spw, _: 206.84 - 1.02 * wps - 60 * spw),
    ),
    "it": (Formula("Gulpease", "Lucisano and Piemontese 1988", EASE, lambda wps, _, lpw: 89 + 300 / wps - 10 * lpw),),
    "pt": (
        Formula("Flesch-Martins", "Martins et al. 1996", EASE, lambda wps, spw, _: 248.835 - 1.015 * wps - 84.6 * spw),
    ),
    "nl": (Formula("Flesch-Douma", "Douma 1960", EASE, lambda wps, spw, _: 206.84 - 0.93 * wps - 77 * spw),),
    "ru": (Formula("Flesch-Oborneva", "Oborneva 2006", EASE, lambda wps, spw, _: 206.835 - 1.3 * wps - 60.1 * spw),),
}


def rate(text: str, detection: Detection) -> dict[str, Any]:
    """One score for each formula of the language, with what it was computed from.

    The formulas were made on samples of a hundred words; below twenty words the result has none, and a `reason`. Scores
    are not clipped to their scale: an extreme text is an extreme text.
    """
    language = detection.working
    words = units.words(text)
    if len(words) < MINIMUM_WORDS:
        reason = f"too short: fewer than {MINIMUM_WORDS} words"
        return {**detection.stated, "words": len(words), "formulas": [], "reason": reason}
    if language not in FORMULAS:
        reason = f"there is a formula for {', '.join(sorted(FORMULAS))} only"
        return {"supported": False, **detection.stated, "reason": reason}
    return {**detection.stated, **_scores(words, len(units.sentences(text, language)), language)}


def _scores(words: list[str], sentences: int, language: str) -> dict[str, Any]:
    syllables = _syllables(words, SYLLABLES[language]) if language in SYLLABLES else 0
    letters = sum(character.isalnum() for word in words for character in word)
    averages = (len(words) / sentences, syllables / len(words), letters / len(words))
    formulas = [
        {
            "name": formula.name,
            "score": round(formula.score(*averages), 1),
            "scale": formula.scale,
            "source": formula.source,
        }
        for formula in FORMULAS[language]
    ]
    return {
        "words": len(words),
        "sentences": sentences,
        "syllables": syllables or None,
        "letters": letters,
        "formulas": formulas,
    }


def _syllables(words: list[str], rule: Syllables) -> int:
    return sum(rule.count(word) * count for word, count in Counter(map(units.fold, words)).items())
