import pytest
from PIL import Image, ImageChops, ImageFont

from app.services.executors import Fail
from app.workers.image.payload import FONT_CHARACTERS, Position
from tests.workers.image.pictures import file_of, run

GRAY = Image.new("RGB", (300, 200), "#808080")
PNG = file_of(GRAY)


def box_of_changes(picture: Image.Image) -> tuple[int, int, int, int]:
    box = ImageChops.difference(picture.convert("RGB"), GRAY).getbbox()
    assert box is not None
    return box


@pytest.mark.parametrize("position", Position.__args__)  # type: ignore[attr-defined]
def test_the_text_is_where_it_shall_be_and_nowhere_else(position: str) -> None:
    _, picture = run(PNG, {"operation": "watermark", "text": "Hello", "position": position, "size": 20})
    left, top, right, bottom = box_of_changes(picture)
    words = position.split("_")
    across = "left" if right < 100 else "right" if left > 200 else "middle"
    down = "top" if bottom < 60 else "bottom" if top > 140 else "middle"
    assert across == next((word for word in words if word in ("left", "right")), "middle")
    assert down == next((word for word in words if word in ("top", "bottom")), "middle")


def test_colour_and_opacity_count() -> None:
    def reddest(opacity: float) -> tuple[int, int, int]:
        mark = {"operation": "watermark", "text": "MMM", "position": "center", "size": 90}
        _, picture = run(PNG, {**mark, "color": "#f00", "opacity": opacity})
        return max((color for _, color in picture.getcolors(10**6) or ()), key=lambda color: color[0] - color[1])

    assert reddest(1) == (255, 0, 0)
    assert reddest(0.5) == pytest.approx((192, 64, 64), abs=2)


def test_white_text_on_white_can_be_read() -> None:
    white = file_of(Image.new("RGB", (200, 100), "white"))
    _, picture = run(white, {"operation": "watermark", "text": "Hello", "opacity": 1})
    assert picture.convert("L").getextrema() == (0, 255)


def test_on_a_transparent_picture_the_text_is_seen_and_the_rest_is_not() -> None:
    clear = file_of(Image.new("RGBA", (200, 100)))
    _, picture = run(clear, {"operation": "watermark", "text": "Hello", "opacity": 1, "position": "center"})
    assert picture.getpixel((2, 2))[3] == 0
    assert picture.getchannel("A").getextrema() == (0, 255)


@pytest.mark.parametrize("text", ["W" * 200, "a long line of many words " * 7, "Hi"])
def test_text_that_is_too_large_is_made_smaller_until_it_fits(text: str) -> None:
    wide = Image.new("RGB", (1200, 40), "#808080")
    _, picture = run(file_of(wide), {"operation": "watermark", "text": text, "size": 2000, "position": "center"})
    box = ImageChops.difference(picture, wide).getbbox()
    assert box is not None
    assert box[0] > 0
    assert box[1] > 0
    assert box[2] < 1200
    assert box[3] < 40


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20, 200), (200, 3)])
def test_text_that_does_not_fit_at_all_fails(width: int, height: int) -> None:
    tiny = file_of(Image.new("RGB", (width, height)))
    with pytest.raises(Fail, match="does not fit"):
        run(tiny, {"operation": "watermark", "text": "much too long for this"})


def test_the_characters_that_are_accepted_are_those_the_font_has() -> None:
    font = ImageFont.load_default(30)

    def shape(character: str) -> tuple[bytes, tuple[int, int]]:
        mask = font.getmask(character)
        return bytes(mask), mask.size

    missing = shape("\uffff")
    drawn = {chr(code) for code in range(0x20, 0x3100) if chr(code).isprintable() and shape(chr(code)) != missing}
    assert drawn == FONT_CHARACTERS
