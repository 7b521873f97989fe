"""The tables and plots of what more processes bring. To measure takes servers and minutes, so here the figures are made up."""

from benchmarks import scaling
from benchmarks.measurements import Measurement

RATES = {
    way: {str(count): [90.0 * count, 100.0 * count, 120.0 * count] for count in scaling.COUNTS} for way in scaling.WAYS
}
MEASUREMENT = Measurement(
    scaling.NAME,
    "",
    "",
    False,
    {},
    [],
    {"drain": RATES, "submit": RATES, "cost": {name: [3.0] for name in scaling.COSTS}},
)


def test_a_table_says_how_much_more_more_of_them_bring() -> None:
    workers, api, cost = scaling.tables(MEASUREMENT)
    assert workers.columns == ["tasks/s", "1 worker", "2 workers", "4 workers"]
    assert list(workers.rows[0]) == [
        "PostgreSQL",
        "100 (90 to 120)",
        "200 (180 to 240) = 2.00 x",
        "400 (360 to 480) = 4.00 x",
    ]
    assert [row[0] for row in api.rows] == list(scaling.WAYS)
    assert ["row versions", "3.0"] in cost.rows


def test_a_plot_has_a_bar_for_each_way_and_number() -> None:
    drawn = scaling.drawings(MEASUREMENT)
    assert set(drawn) == {"scaling-workers.svg", "scaling-api.svg"}
    for picture in drawn.values():
        assert picture.count("<rect") == len(scaling.WAYS) * len(scaling.COUNTS)
