"""Finds dates with a four-digit year: ISO, the common numeric forms, and month names in English and German."""

import re
from collections.abc import Iterator
from datetime import date

from app.workers.text.entity import Entity

_NAMES = (
    "january jan januar jänner",
    "february feb februar",
    "march mar märz mrz",
    "april apr",
    "may mai",
    "june jun juni",
    "july jul juli",
    "august aug",
    "september sep sept",
    "october oct oktober okt",
    "november nov",
    "december dec dezember dez",
)
MONTHS = {name: number for number, names in enumerate(_NAMES, start=1) for name in names.split()}
_MONTH = "(?:" + "|".join(sorted(MONTHS, key=len, reverse=True)) + r")\b\.?"
_GAP = "[ \u00a0]{1,2}"
DATE = re.compile(
    r"(?i)(?<![\w./-])(?:"
    r"(?P<year>\d{4})(?P<mark>[-/.])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})(?!\d|(?P=mark)\d)"
    r"|(?:(?P<first>\d{1,2})(?P<between>[./-])(?P<gap>\x20?)(?P<second>\d{1,2})(?P=between)(?P=gap)(?P<last_year>\d{4})"
    rf"|(?P<name_day>\d{{1,2}})(?:st|nd|rd|th|\.)?{_GAP}(?:of{_GAP})?(?P<name>{_MONTH}),?{_GAP}(?P<name_year>\d{{4}})"
    rf"|(?P<us_name>{_MONTH}){_GAP}(?P<us_day>\d{{1,2}})(?:st|nd|rd|th)?,?{_GAP}(?P<us_year>\d{{4}})"
    r")(?![\w/-]|[.,]\d))"
)


def dates(text: str) -> Iterator[Entity]:
    """Dates that exist in the calendar, as ISO dates; None where day and month may be swapped ("03/04/2024")."""
    for match in DATE.finditer(text):
        values = {value for value in map(_iso, _readings(match)) if value is not None}
        if values:
            yield Entity(match.start(), match.end(), values.pop() if len(values) == 1 else None)


def _readings(match: re.Match[str]) -> list[tuple[int, int, int]]:
    """The years, months and days that the match may mean."""
    part = match.groupdict()
    if part["year"]:
        return [(int(part["year"]), int(part["month"]), int(part["day"]))]
    if part["name"]:
        return [(int(part["name_year"]), _month(part["name"]), int(part["name_day"]))]
    if part["us_name"]:
        return [(int(part["us_year"]), _month(part["us_name"]), int(part["us_day"]))]
    year, first, second = int(part["last_year"]), int(part["first"]), int(part["second"])
    # With full stops the day comes first, in every country that writes dates so.
    return [(year, second, first)] if part["between"] == "." else [(year, second, first), (year, first, second)]


def _month(name: str) -> int:
    return MONTHS[name.lower().rstrip(".")]


def _iso(reading: tuple[int, int, int]) -> str | None:
    try:
        return date(*reading).isoformat()
    except ValueError:
        return None
