"""Finds amounts of money: a number with a currency's symbol, ISO code or, for three of them, name."""

import re
from collections.abc import Iterator
from decimal import Decimal

from app.workers.text.entity import Entity

# Other symbols are kept as they are: several currencies use $, £ and ¥.
CURRENCIES = {
    "€": "EUR", "euro": "EUR", "euros": "EUR", "us$": "USD", "₹": "INR", "₽": "RUB", "₩": "KRW", "₺": "TRY", "₴": "UAH",
    "₪": "ILS", "₫": "VND", "฿": "THB", "dollar": "$", "dollars": "$", "pound": "£", "pounds": "£",
}  # fmt: skip
CODES = (
    "AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HKD|HUF|IDR|ILS|INR|JPY|KRW|MXN|MYR|NOK|NZD|PHP|PLN|RON|RUB|SEK|SGD|THB|TRY|UAH"
    "|USD|VND|ZAR"
)
SCALES = {
    "thousand": 3, "tausend": 3, "million": 6, "millions": 6, "millionen": 6, "mio": 6, "mn": 6, "milliarde": 9,
    "milliarden": 9, "mrd": 9, "bn": 9, "billions": 9, "billionen": 12,
}  # fmt: skip
# Spelled the same on the short scale and on the long one.
SCALES_BY_LANGUAGE = {"billion": {"en": 9, "de": 12}, "trillion": {"en": 12, "de": 18}}
DECIMAL_MARKS = {"en": "."} | dict.fromkeys(("da", "de", "es", "fr", "it", "nl", "no", "pt", "ru", "sv"), ",")

_CURRENCY = rf"(?:US\$|[$€£¥₹₽₩₺₴₪₫฿]|(?<![^\W\d_])(?:{CODES})\b)"
_NUMBER = r"\d{1,15}(?:[.,'\u2019\u00a0\u202f]\d{3}){0,5}(?:[.,]\d{1,2})?(?!\d|[.,]\d)"
_SCALE = "|".join(sorted([*SCALES, *SCALES_BY_LANGUAGE], key=len, reverse=True))
MONEY = re.compile(
    rf"(?<!\w)(?P<sign>[\u2212-])?(?P<currency>{_CURRENCY})[ \u00a0]?(?P<number>{_NUMBER})"
    rf"(?:[ \u00a0]?(?P<scale>(?i:{_SCALE}))\b\.?)?"
    rf"|(?<![\w.,])(?P<sign_first>[\u2212-])?(?<![.,])(?P<number_first>{_NUMBER})"
    rf"(?:[ \u00a0]?(?P<scale_first>(?i:{_SCALE}))\b\.?)?"
    rf"[ \u00a0\u202f]?(?P<currency_last>{_CURRENCY}|(?i:euros?|dollars?|pounds?)\b)"
)
NUMBER = re.compile(r"(\d+)((?:[.,'\u2019\u00a0\u202f]\d{3})*)(?:[.,](\d{1,2}))?")


def money(text: str, language: str | None = None) -> Iterator[Entity]:
    """Amounts as `{"amount": "1234.50", "currency": "EUR"}`; a decimal string, so that nothing is rounded.

    `language` settles what the text alone may not: a billion is 10^9 in English and 10^12 in German, "1.859" a decimal in
    English and a thousand in German. Without it, three digits after a mark are thousands, as money has two decimals; before
    a scale word ("1.234 million") that is no rule, and the amount is None.
    """
    for match in MONEY.finditer(text):
        part = match.groupdict()
        currency = part["currency"] or part["currency_last"]
        amount = _amount(part["number"] or part["number_first"], part["scale"] or part["scale_first"], language)
        if amount is not None and (part["sign"] or part["sign_first"]):
            amount = f"-{amount}"
        yield Entity(
            match.start(), match.end(), {"amount": amount, "currency": CURRENCIES.get(currency.lower(), currency)}
        )


def _amount(written: str, scale: str | None, language: str | None) -> str | None:
    whole, groups, fraction = NUMBER.findall(written)[0]
    if len(groups) == 4 and not fraction and groups[0] in ".,":
        if groups[0] == DECIMAL_MARKS.get(language or ""):
            groups, fraction = "", groups[1:]
        elif language not in DECIMAL_MARKS and scale is not None:
            return None
    number = Decimal(re.sub(r"\D", "", whole + groups) + (f".{fraction}" if fraction else ""))
    if scale is None:
        return f"{number:f}"
    power = SCALES.get(scale.lower()) or SCALES_BY_LANGUAGE[scale.lower()].get(language or "")
    return None if power is None else f"{number.scaleb(power).normalize():f}"
