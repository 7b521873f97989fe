from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from app.services.executors import Fail
from tests.workers.image.pictures import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    alike,
    corners,
    file_of,
    opened,
    photograph,
    quarters,
    run,
)

PNG = file_of(quarters())
UPRIGHT = ["red", "green", "blue", "yellow"]


@pytest.fixture(scope="module")
def photo() -> bytes:
    """Twelve megapixels."""
    return file_of(photograph(4000, 3000), "jpeg", quality=85)


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((400, 300), (256, 256), (256, 192)),
        ((300, 400), (256, 256), (192, 256)),
        ((400, 300), (1000, 30), (40, 30)),
        ((40, 30), (256, 256), (40, 30)),
        ((40, 30), (40, 30), (40, 30)),
        ((2000, 1), (100, 100), (100, 1)),
        ((3, 3000), (16, 16), (1, 16)),
    ],
)
def test_a_thumbnail_keeps_the_aspect_inside_the_box_and_never_enlarges(
    size: tuple[int, int], box: tuple[int, int], expected: tuple[int, int]
) -> None:
    result, picture = run(file_of(quarters(*size)), {"operation": "thumbnail", "width": box[0], "height": box[1]})
    assert picture.size == expected
    assert result["operations"] == [{"operation": "thumbnail", "width": expected[0], "height": expected[1]}]
    if min(expected) > 9:
        assert corners(picture) == UPRIGHT


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"width": 80}, (80, 60)),
        ({"height": 15}, (20, 15)),
        ({"width": 100, "height": 60}, (80, 60)),
        ({"width": 20, "height": 60, "mode": "fit"}, (20, 15)),
        ({"width": 60, "height": 60, "mode": "fill"}, (60, 60)),
        ({"width": 24, "height": 120, "mode": "fill"}, (24, 120)),
        ({"width": 100, "height": 20, "mode": "exact"}, (100, 20)),
        ({"width": 40, "height": 30}, (40, 30)),
    ],
)
@pytest.mark.parametrize("name", ["png", "jpeg"])
def test_resize_fits_fills_or_stretches(name: str, options: dict[str, Any], expected: tuple[int, int]) -> None:
    data = file_of(quarters(), name, **({"quality": 95} if name == "jpeg" else {}))
    _, picture = run(data, {"operation": "resize", **options})
    assert picture.size == expected
    assert corners(picture) == UPRIGHT


def test_fill_cuts_off_as_much_on_both_sides() -> None:
    stripes = Image.new("RGB", (30, 10), RED)
    stripes.paste(GREEN, (10, 0, 20, 10))
    stripes.paste(BLUE, (20, 0, 30, 10))
    _, picture = run(file_of(stripes), {"operation": "resize", "width": 10, "height": 10, "mode": "fill"})
    assert picture.getcolors() == [(100, GREEN)]


@pytest.mark.parametrize(
    ("size", "options", "reason"),
    [
        ((1, 400), {"width": 16_000}, "16,383"),
        ((400, 1), {"height": 16_000}, "16,383"),
        ((40, 30), {"width": 16_000, "height": 16_000, "mode": "exact"}, "50,000,000 pixels"),
        ((40, 30), {"width": 16_000, "height": 16_000, "mode": "fill"}, "50,000,000 pixels"),
        ((40, 30), {"width": 16_000}, "50,000,000 pixels"),
    ],
)
def test_a_resize_beyond_the_limits_fails_before_it_takes_memory(
    size: tuple[int, int], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Fail, match=reason):
        run(file_of(quarters(*size)), {"operation": "resize", **options})


def test_a_crop_is_that_part_of_the_picture() -> None:
    _, picture = run(PNG, {"operation": "crop", "left": 18, "top": 13, "width": 4, "height": 4})
    pixels = [picture.getpixel(place) for place in ((0, 0), (3, 0), (0, 3), (3, 3))]
    assert pixels == [RED, GREEN, BLUE, YELLOW]
    assert run(PNG, {"operation": "crop", "width": 40, "height": 30})[1].tobytes() == quarters().tobytes()


@pytest.mark.parametrize("where", [(1, 0, 40, 30), (0, 1, 40, 30), (40, 0, 1, 1), (0, 10**9, 1, 1)])
def test_a_crop_that_reaches_outside_fails_and_says_where_the_picture_ends(where: tuple[int, int, int, int]) -> None:
    left, top, width, height = where
    with pytest.raises(Fail, match="outside of the picture, which has 40 x 30"):
        run(PNG, {"operation": "crop", "left": left, "top": top, "width": width, "height": height})


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (0, UPRIGHT),
        (90, ["blue", "red", "yellow", "green"]),
        (180, ["yellow", "blue", "green", "red"]),
        (-90, ["green", "yellow", "red", "blue"]),
        (270, ["green", "yellow", "red", "blue"]),
        (360, UPRIGHT),
        (-360, UPRIGHT),
    ],
)
def test_quarter_turns_are_clockwise_and_lose_nothing(degrees: float, expected: list[str]) -> None:
    _, picture = run(PNG, {"operation": "rotate", "degrees": degrees})
    assert corners(picture) == expected
    assert picture.mode == "RGB"
    assert picture.size == ((30, 40) if degrees % 180 else (40, 30))
    assert sorted(picture.getcolors() or ()) == sorted(quarters().getcolors() or ())


def test_a_slanted_turn_leaves_transparent_corners_or_those_asked_for() -> None:
    turn = {"operation": "rotate", "degrees": 45}
    _, clear = run(PNG, turn)
    assert clear.size == (50, 50)
    assert clear.getpixel((0, 0)) == (0, 0, 0, 0)
    assert alike(clear.getpixel((25, 12)), (*RED, 255))  # clockwise: what was left and up is up
    _, green = run(PNG, {**turn, "background": "#0f0"})
    assert (green.mode, green.getpixel((0, 0))) == ("RGB", (0, 255, 0))
    _, same = run(PNG, {**turn, "expand": False})
    assert same.size == (40, 30)
    _, jpeg = run(PNG, turn, format="jpeg")
    assert alike(jpeg.getpixel((0, 0)), (255, 255, 255))


def test_a_turn_that_needs_too_many_pixels_fails() -> None:
    with pytest.raises(Fail, match="1,300 pixels"):
        run(PNG, {"operation": "rotate", "degrees": 45}, max_pixels=1300)


def test_flips_mirror() -> None:
    assert corners(run(PNG, {"operation": "flip", "direction": "horizontal"})[1]) == ["green", "red", "yellow", "blue"]
    assert corners(run(PNG, {"operation": "flip", "direction": "vertical"})[1]) == ["blue", "yellow", "red", "green"]


def test_grayscale_takes_the_colour_and_leaves_the_transparency() -> None:
    _, picture = run(PNG, {"operation": "grayscale"})
    assert picture.mode == "L"
    assert picture.getpixel((0, 0)) == round((299 * RED[0] + 587 * RED[1] + 114 * RED[2]) / 1000)
    half = quarters()
    half.putalpha(100)
    pixel = run(file_of(half), {"operation": "grayscale"})[1].convert("RGBA").getpixel((0, 0))
    assert pixel[0] == pixel[1] == pixel[2]
    assert pixel[3] == 100


def test_blur_mixes_neighbours_and_sharpen_sets_them_apart() -> None:
    edge = Image.new("L", (40, 10), 80)
    edge.paste(180, (20, 0, 40, 10))
    _, soft = run(file_of(edge), {"operation": "blur", "radius": 3})
    assert 85 < soft.getpixel((19, 5)) < soft.getpixel((20, 5)) < 175
    _, hard = run(file_of(edge), {"operation": "sharpen"})
    assert hard.getpixel((19, 5)) < 80 < 180 < hard.getpixel((20, 5))


@pytest.mark.parametrize("operation", [{"operation": "blur", "radius": 4}, {"operation": "thumbnail", "width": 20}])
def test_invisible_colours_do_not_bleed_into_visible_ones(operation: dict[str, Any]) -> None:
    """Half the picture is transparent and red below; what is seen is blue and must stay so."""
    picture = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    picture.paste((*BLUE, 255), (20, 0, 40, 40))
    _, made = run(file_of(picture), operation)
    seen = [pixel for _, pixel in made.getcolors(10_000) or () if pixel[3] > 8]
    assert seen
    assert all(alike(pixel[:3], BLUE, 20) for pixel in seen)


@pytest.mark.parametrize(
    "operation",
    [
        {"operation": "thumbnail"},
        {"operation": "resize", "width": 3},
        {"operation": "crop", "width": 1, "height": 1},
        {"operation": "rotate", "degrees": 33},
        {"operation": "rotate", "degrees": 33, "expand": False},
        {"operation": "flip", "direction": "vertical"},
        {"operation": "grayscale"},
        {"operation": "blur", "radius": 100},
        {"operation": "sharpen", "radius": 100, "percent": 500},
        {"operation": "palette", "colors": 16},
        {"operation": "convert", "format": "avif"},
        {"operation": "convert", "format": "gif"},
    ],
)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2)])
def test_every_operation_takes_every_mode_and_tiny_pictures(
    operation: dict[str, Any], mode: str, size: tuple[int, int]
) -> None:
    run(file_of(Image.new(mode, size)), operation)


def test_operations_are_applied_in_the_order_given() -> None:
    crop = {"operation": "crop", "width": 20, "height": 15}
    turn = {"operation": "rotate", "degrees": 180}
    assert run(PNG, crop, turn)[1].getpixel((5, 5)) == RED
    assert run(PNG, turn, crop)[1].getpixel((5, 5)) == YELLOW
    result, picture = run(PNG, {"operation": "palette"}, crop, {"operation": "palette"}, {"operation": "metadata"})
    before, cropped, after, facts = result["operations"]
    assert [len(before["colors"]), len(after["colors"])] == [4, 1]
    assert (cropped["width"], facts["width"]) == (20, 40)
    assert picture.size == (20, 15)


def test_a_photograph_is_decoded_only_as_far_as_needed_and_described_in_full(photo: bytes) -> None:
    looks = {"operation": "metadata"}, {"operation": "palette"}
    result, picture = run(photo, {"operation": "thumbnail"}, *looks, format="png")
    assert picture.size == (256, 192)
    assert (result["operations"][1]["width"], result["operations"][1]["height"]) == (4000, 3000)
    fair = opened(photo).resize((256, 192), Image.Resampling.LANCZOS)
    difference = ImageStat.Stat(ImageChops.difference(fair, picture))
    assert max(difference.mean) < 3


def test_a_crop_before_the_thumbnail_is_counted_in_full_pixels(photo: bytes) -> None:
    crop = {"operation": "crop", "left": 3900, "top": 2900, "width": 100, "height": 100}
    assert run(photo, crop, {"operation": "thumbnail", "width": 50})[1].size == (50, 50)
