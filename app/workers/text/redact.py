"""Replaces personal data that has a recognisable form. Names and street addresses have none, and stay."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from app.workers.text import contacts
from app.workers.text.entity import Entity
from app.workers.text.language import Detection

METHOD = "patterns and check digits (IBAN by ISO 7064 mod 97-10, cards by Luhn)"
# A look-ahead, so that "AM10 DE89 ..." does not hide the number behind what only starts like one.
IBAN = re.compile(r"(?i)(?<![^\W_])(?=([A-Z]{2}[0-9]{2}(?:[ \u00a0-]?[A-Z0-9]){11,30}))")
# Country and length, from the SWIFT IBAN registry.
_LENGTHS = """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
    FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21
    LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22
    RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _LENGTHS.split()}
# Where a card number can start, and what it can reach to: it may be followed by a date or a code.
CARD = re.compile(r"(?<!\d)(?=([0-9]{3,19}(?:[ -][0-9]{3,7}){0,5})(?!\d))")
# Visa, Mastercard (two ranges), American Express, Diners Club, JCB, Discover, UnionPay, Maestro.
CARD_NUMBER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|2720\d{12}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"
    r"|35\d{14}|6(?:011|5\d{2}|4[4-9]\d)\d{12}|62\d{14,17}|(?:5018|5020|5038|6304|6759|676[1-3])\d{8,15}"
)


def redact(text: str, detection: Detection, categories: Sequence[str]) -> dict[str, Any]:
    """`{"text": "write to [EMAIL]", "counts": {"email": 1}}` for `categories`, keys of `FINDERS`.

    Finds of different categories that overlap are replaced together, under the name of the longest. What was meant for
    people is best effort: a phone number without its country code is found in the North American form only.
    """
    counts = Counter(dict.fromkeys(categories, 0))
    pieces, done = [], 0
    for start, end, category in _merged(text, categories):
        pieces += [text[done:start], f"[{category.upper()}]"]
        counts[category] += 1
        done = end
    pieces.append(text[done:])
    return {**detection.stated, "method": METHOD, "text": "".join(pieces), "counts": dict(counts)}


def _merged(text: str, categories: Sequence[str]) -> list[tuple[int, int, str]]:
    """Start, end and category of what to replace, in order, without overlaps."""
    found = sorted((one.start, one.end, category) for category in categories for one in FINDERS[category](text))
    merged: list[tuple[int, int, tuple[int, str]]] = []
    for start, end, category in found:
        longest = (end - start, category)
        if merged and start < merged[-1][1]:
            start, end_before, longest_before = merged.pop()
            end, longest = max(end, end_before), max(longest, longest_before)
        merged.append((start, end, longest))
    return [(start, end, category) for start, end, (_, category) in merged]


def ibans(text: str) -> Iterator[Entity]:
    """IBANs of a known country with its length and right check digits, written in one or in groups."""
    for match in IBAN.finditer(text):
        length = IBAN_LENGTHS.get(match[1][:2].upper())
        if length is None:
            continue
        # The match may have run on into the next word.
        places = [place for place in range(*match.span(1)) if text[place].isalnum()][:length]
        number = "".join(text[place] for place in places).upper()
        end = places[-1] + 1
        goes_on = text[end : end + 1].isalnum()
        if len(number) == length and not goes_on and _has_right_check_digits(number):
            yield Entity(match.start(), end, number)


def _has_right_check_digits(number: str) -> bool:
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1


def cards(text: str) -> Iterator[Entity]:
    """Payment card numbers of the large brands with a right Luhn digit, written in one or in groups."""
    done = 0
    for match in CARD.finditer(text):
        groups = re.split("[ -]", match[1])
        for count in range(len(groups), 0, -1):
            number = "".join(groups[:count])
            if match.start() >= done and CARD_NUMBER.fullmatch(number) and _passes_luhn(number):
                done = match.start() + len(number) + count - 1
                yield Entity(match.start(), done, number)
                break


def _passes_luhn(number: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2])
    return (sum(map(int, number[-1::-2])) + sum(doubled)) % 10 == 0


FINDERS: dict[str, Callable[[str], Iterator[Entity]]] = {
    "email": contacts.emails,
    "phone": contacts.phones,
    "ip": contacts.ips,
    "iban": ibans,
    "credit_card": cards,
    "url": contacts.urls,
}
