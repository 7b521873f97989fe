"""The documents say what was measured: tables and plots are those of the results that are kept."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks.measurements import Measurement, Table, load, save, spread
from benchmarks.plots import Bar, bars, lines, scale
from benchmarks.report import BENCHMARKS, DOCUMENTS, PLOTS, NoSuchTable, contents, filled

BETWEEN = {("table", "speed"): "| a |", ("run", "speed"): "Taken yesterday."}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_of_a_document_are_those_of_the_kept_results(document: Path) -> None:
    between, _ = contents()
    assert document.read_text() == filled(document.read_text(), between), "run benchmarks/report.py"


def test_the_plots_are_those_of_the_kept_results() -> None:
    _, drawn = contents()
    assert {path.name: path.read_text() for path in PLOTS.glob("*.svg")} == drawn, "run benchmarks/report.py"


def test_no_kept_result_is_of_a_quick_run() -> None:
    kept = [load(benchmark.NAME) for benchmark in BENCHMARKS]
    assert [one.name for one in kept if one is not None and one.quick] == []


def test_every_benchmark_has_its_place_in_the_document() -> None:
    asked = set(re.findall(r"<!-- (table|run): (\S+) -->", DOCUMENTS[0].read_text()))
    between, _ = contents()
    assert asked == set(between)


def test_a_table_stands_between_its_markers() -> None:
    document = "a\n<!-- table: speed -->\nold\nrows\n<!-- end -->\nb\n<!-- run: speed -->\n<!-- end -->\n"
    expected = "a\n<!-- table: speed -->\n| a |\n<!-- end -->\nb\n<!-- run: speed -->\nTaken yesterday.\n<!-- end -->\n"
    assert filled(document, BETWEEN) == expected
    assert filled(expected, BETWEEN) == expected


def test_a_marker_of_nothing_is_named() -> None:
    with pytest.raises(NoSuchTable, match="table: height"):
        filled("<!-- table: height -->\n<!-- end -->", BETWEEN)


def test_a_measurement_is_kept_and_found_again(tmp_path: Path) -> None:
    measurement = Measurement(
        "speed", "2026-01-02T03:04:05Z", "a machine", False, {"x": "1"}, ["fast"], {"rows": [1.5]}
    )
    save(measurement, tmp_path)
    assert load("speed", tmp_path) == measurement
    assert load("height", tmp_path) is None


def test_a_quick_run_is_not_kept_for_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measurements.RESULTS", tmp_path)
    save(Measurement("speed", "now", "here", True, {}, [], None), None)
    assert list(tmp_path.iterdir()) == []


def test_a_table_is_markdown() -> None:
    assert Table("t", ["a", "b"], [["1", "2"]]).markdown() == "| a | b |\n|---|---|\n| 1 | 2 |"


def test_a_spread_has_its_ends() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2 (1 to 3)"
    assert spread([2.0]) == "2"


def test_plots_are_pictures_with_a_name_for_all_that_is_in_them() -> None:
    drawn = [
        bars("Speed <fast>", [Bar("ours", 10.0, True), Bar("theirs & co", 5.0, False, 20.0)], form=",.1f"),
        lines("Growth", "rows", "ms", {"waiting": [(0.0, 1.0), (1e6, 1.1)], "finished": [(0.0, 1.0), (1e4, 0.9)]}),
    ]
    for content, names in zip(
        drawn, (["Speed <fast>", "ours", "theirs & co"], ["waiting", "finished", "1M"]), strict=True
    ):
        picture = ElementTree.fromstring(content)
        texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
        assert set(names) <= set(texts)


def test_an_axis_is_logarithmic() -> None:
    place = scale([1.0, 10_000.0], 0, 100)
    assert [round(place(value)) for value in (1.0, 100.0, 10_000.0)] == [0, 50, 100]
