"""Plots as SVG, written by hand: bars, and lines over a logarithmic axis. Readable on light and on dark pages."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
CHARACTER = 6.6
"""Width of one in a label, about."""
BAR, GAP = 18, 10
OURS, THEIRS = "#2f7ed8", "#9aa5b1"
COLOURS = ("#2f7ed8", "#d8572f", "#3a9d5d", "#8b5fbf", "#c29a1b", "#2aa0a8")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-size:14px;font-weight:600}"
    ".axis{stroke:#888;stroke-opacity:.5;fill:none}.line{fill:none;stroke-width:2}.tail{fill:#888;fill-opacity:.3}"
    "@media(prefers-color-scheme:dark){text{fill:#b3bac2}}"
)


@dataclass(frozen=True)
class Bar:
    """One bar. `tail` is a second, larger value, drawn pale behind it."""

    label: str
    value: float
    ours: bool = False
    tail: float | None = None


def bars(title: str, given: Sequence[Bar], *, form: str, logarithmic: bool = False) -> str:
    """Horizontal bars, in the order given."""
    largest = max((one.tail or one.value for one in given), default=1.0)
    least = min((one.value for one in given), default=1.0)
    left = 16 + CHARACTER * max((len(one.label) for one in given), default=0)
    room = WIDTH - left - 110

    def length(value: float) -> float:
        if not logarithmic:
            return room * value / largest
        lowest = math.log10(least) - 0.3
        return room * (math.log10(value) - lowest) / (math.log10(largest) - lowest)

    def bar(top: float, value: float, look: str) -> str:
        return f'<rect x="{left:.1f}" y="{top}" width="{length(value):.1f}" height="{BAR}" {look}/>'

    parts = []
    for place, one in enumerate(given):
        top, shown, end = 40 + place * (BAR + GAP), format(one.value, form), one.value
        if one.tail is not None:
            shown, end = f"{shown}, {format(one.tail, form)}", one.tail
            parts.append(bar(top, one.tail, 'class="tail"'))
        parts.append(bar(top, one.value, f'fill="{OURS if one.ours else THEIRS}"'))
        parts += [text(left - 8, top + 13, one.label, "end"), text(left + length(end) + 6, top + 13, shown)]
    return page(title, 50 + len(given) * (BAR + GAP), parts)


def lines(title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """One line for each name, through its points. The axis across is logarithmic; points at 0 stand at its left end. The one
    up begins at 0, so that what is flat looks flat."""
    left, right, top, bottom = 60, WIDTH - 220, 50, 300
    points = [point for given in series.values() for point in given] or [(1.0, 1.0)]
    smallest = min((x for x, _ in points if x > 0), default=1.0)
    across_of = scale([max(x, smallest / 10) for x, _ in points], left, right)
    highest = 1.25 * max(y for _, y in points)

    def at(x: float, y: float) -> tuple[float, float]:
        return across_of(max(x, smallest / 10)), bottom - (bottom - top) * y / highest

    parts = [f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>']
    parts.append(text(left, bottom + 16, "none", "middle"))
    parts += [text(across_of(value), bottom + 16, short(value), "middle") for value in decades([x for x, _ in points])]
    parts += [text(left - 6, at(1, value)[1] + 4, f"{value:g}", "end") for value in round_steps(highest)]
    parts += [text((left + right) / 2, bottom + 36, across, "middle"), text(left, top - 10, up)]
    for place, (name, given) in enumerate(series.items()):
        colour, places = COLOURS[place % len(COLOURS)], [at(*point) for point in given]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(f'<rect x="{right + 20}" y="{top + place * 20}" width="12" height="12" fill="{colour}"/>')
        parts.append(text(right + 38, top + place * 20 + 11, name))
    return page(title, bottom + 50, parts)


def scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    """Where a value stands on a logarithmic axis that has room for all `values` between `start` and `end`."""
    low, high = math.log10(min(values)), math.log10(max(values))
    if high - low < 0.6:  # a flat line belongs in the middle
        low, high = low - 0.3, high + 0.3
    return lambda value: start + (end - start) * (math.log10(value) - low) / (high - low)


def decades(values: Sequence[float]) -> list[float]:
    """The powers of ten among `values`."""
    above = [value for value in values if value > 0] or [1.0]
    exponents = range(math.floor(math.log10(min(above))), math.ceil(math.log10(max(above))) + 1)
    return [10.0**exponent for exponent in exponents if min(above) * 0.99 <= 10.0**exponent <= max(above) * 1.01]


def round_steps(highest: float) -> list[float]:
    """From 0, up to five steps of 1, 2 or 5 at some power of ten."""
    rough = highest / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    return [step * count for count in range(int(highest / step) + 1)]


def short(value: float) -> str:
    """1000000 as 1M."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def text(x: float, y: float, content: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def page(title: str, height: int, parts: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    titled = f'<text class="title" x="8" y="20">{escape(title)}</text>'
    return "\n".join([head, f"<style>{STYLE}</style>", titled, *parts, "</svg>", ""])
