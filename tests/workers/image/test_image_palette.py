import pytest
from PIL import Image

from app.workers.image.palette import colors_of
from tests.workers.image.pictures import BLUE, GREEN, RED, alike, file_of, photograph, quarters, run


def test_few_colours_are_told_exactly_with_the_most_frequent_first() -> None:
    picture = Image.new("RGB", (10, 10), "#336699")
    picture.paste("#ff0000", (0, 0, 10, 2))
    picture.paste("#00ff00", (0, 9, 10, 10))
    expected = [
        {"hex": "#336699", "share": 0.7},
        {"hex": "#ff0000", "share": 0.2},
        {"hex": "#00ff00", "share": 0.1},
    ]
    assert colors_of(picture, 3) == colors_of(picture, 16) == expected


@pytest.mark.parametrize("count", range(1, 17))
def test_there_are_never_more_than_asked_for_and_they_share_the_picture(count: int) -> None:
    found = colors_of(photograph(300, 200), count)
    assert 1 <= len(found) <= count
    assert sum(one["share"] for one in found) == pytest.approx(1, abs=0.001)
    assert found == sorted(found, key=lambda one: -one["share"])


def test_noise_round_three_colours_is_three_colours() -> None:
    picture = Image.new("RGB", (300, 100), RED)
    picture.paste(GREEN, (150, 0, 250, 100))
    picture.paste(BLUE, (250, 0, 300, 100))
    noisy = Image.blend(picture, photograph(300, 100), 0.05)
    found = colors_of(noisy, 3)
    for one, color, share in zip(found, (RED, GREEN, BLUE), (0.5, 0.333, 0.167), strict=True):
        assert alike(tuple(bytes.fromhex(one["hex"][1:])), color, 20)
        assert one["share"] == pytest.approx(share, abs=0.02)


def test_what_is_transparent_does_not_count() -> None:
    picture = Image.new("RGBA", (10, 10), (*RED, 0))
    assert colors_of(picture, 5) == []
    picture.paste((*BLUE, 255), (0, 0, 1, 1))
    assert colors_of(picture, 5) == [{"hex": "#1e3cc8", "share": 1.0}]


def test_it_looks_at_the_picture_as_it_is_by_then() -> None:
    result, _ = run(
        file_of(quarters()), {"operation": "crop", "width": 20, "height": 15}, {"operation": "palette", "colors": 2}
    )
    assert result["operations"][1] == {"operation": "palette", "colors": [{"hex": "#dc1e28", "share": 1.0}]}


def test_a_palette_alone_makes_no_file_and_is_the_same_from_a_part_of_the_pixels() -> None:
    data = file_of(quarters(1600, 1200), "jpeg", quality=95)
    result, _ = run(data, {"operation": "palette", "colors": 4})
    assert result["file_id"] is None
    whole, _ = run(data, {"operation": "palette", "colors": 4}, {"operation": "flip", "direction": "vertical"})
    for one, other in zip(result["operations"][0]["colors"], whole["operations"][0]["colors"], strict=True):
        assert one["share"] == pytest.approx(other["share"], abs=0.03)
