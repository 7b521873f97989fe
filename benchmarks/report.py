"""Puts the kept results into the documents: every table stands between markers, every plot is drawn anew. No figure there is
typed by hand.

    python benchmarks/report.py            rewrite the tables and the plots
    python benchmarks/report.py --check    exit status 1 if that would change anything

A document asks for a table by a line `<!-- table: NAME -->`, which is followed by the table and `<!-- end -->`. What is said of
a measurement (when, where, with which versions and settings) is asked for by `<!-- run: NAME -->`.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import anatomy, budgets, endpoints, growth, overhead, pages, peers, scaling, soak, streams
from benchmarks.measurements import RESULTS, Measurement, load

ROOT = Path(__file__).parents[1]
BENCHMARKS: tuple[ModuleType, ...] = (
    budgets,
    endpoints,
    peers,
    anatomy,
    overhead,
    growth,
    pages,
    scaling,
    soak,
    streams,
)
DOCUMENTS = (ROOT / "docs" / "performance.md",)
PLOTS = ROOT / "docs" / "plots"
MARKED = re.compile(r"(<!-- (table|run): ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


class NoSuchTable(Exception):
    """A marker that nothing answers to; the text names it."""


def contents(folder: Path = RESULTS) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """What stands between markers, by kind and name, and the plots by file name."""
    between: dict[tuple[str, str], str] = {}
    drawn: dict[str, str] = {}
    for benchmark in BENCHMARKS:
        measurement = load(benchmark.NAME, folder)
        if measurement is None:
            continue
        between["run", benchmark.NAME] = measurement.about
        for table in benchmark.tables(measurement):
            between["table", table.name] = table.markdown()
        drawings: Callable[[Measurement], Mapping[str, str]] | None = getattr(benchmark, "drawings", None)
        drawn |= drawings(measurement) if drawings else {}
    return between, drawn


def filled(document: str, between: Mapping[tuple[str, str], str]) -> str:
    """`document` with what belongs between its markers. Raises NoSuchTable."""

    def fill(found: re.Match[str]) -> str:
        if (found[2], found[3]) not in between:
            raise NoSuchTable(f"nothing is kept for <!-- {found[2]}: {found[3]} -->")
        return f"{found[1]}{between[found[2], found[3]]}\n{found[4]}"

    return MARKED.sub(fill, document)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 if something is old")
    options = parser.parse_args()
    between, drawn = contents()
    wanted = {path: filled(path.read_text(), between) for path in DOCUMENTS}
    wanted |= {PLOTS / name: content for name, content in drawn.items()}
    changed = [path for path, content in wanted.items() if not path.exists() or path.read_text() != content]
    for path in changed:
        print(f"{'would change' if options.check else 'changed'}: {path.relative_to(ROOT)}")
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
