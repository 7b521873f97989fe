"""A line of text on a picture, in the font that comes with Pillow."""

from PIL import Image, ImageColor, ImageDraw, ImageFont

from app.services.executors import Fail
from app.workers.image.payload import Watermark

SMALLEST_LETTERS = 4
"""Pixels; smaller ones cannot be read."""


def drawn(picture: Image.Image, watermark: Watermark) -> Image.Image:
    """The picture with the text on it. Letters that do not fit are made smaller.

    Raises Fail if the text does not fit in any size.
    """
    shorter = min(picture.size)
    margin = max(shorter // 50, 1)
    room = picture.width - 2 * margin, picture.height - 2 * margin
    size = _fitting(watermark.text, watermark.size or max(shorter // 16, 12), room)
    layer = _layer(watermark, size)
    result = picture.convert("RGBA")
    result.alpha_composite(layer, _place(watermark.position, picture.size, layer.size, margin))
    return result if picture.mode == "RGBA" else result.convert("RGB")


def _fitting(text: str, size: int, room: tuple[int, int]) -> int:
    """`size`, or the largest one below with which the text fits into `room`."""
    while size >= SMALLEST_LETTERS:
        left, top, right, bottom = _box(text, size)
        fits = min(room[0] / (right - left), room[1] / (bottom - top))
        if fits >= 1:
            return size
        size = min(size - 1, int(size * fits))
    raise Fail(f"the watermark does not fit on the picture, not even with letters of {SMALLEST_LETTERS} pixels")


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # the other kind only where Pillow was built without FreeType
    return font


def _outline(size: int) -> int:
    return max(size // 24, 1)


def _box(text: str, size: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = _font(size).getbbox(text, stroke_width=_outline(size))
    return int(left), int(top), int(right), int(bottom)


def _layer(watermark: Watermark, size: int) -> Image.Image:
    """The text and its outline on nothing. Both have one opacity, so the outline does not shine through the letters."""
    left, top, right, bottom = _box(watermark.text, size)
    letters, both = (Image.new("L", (right - left, bottom - top)) for _ in range(2))
    at, font = (-left, -top), _font(size)
    ImageDraw.Draw(letters).text(at, watermark.text, 255, font)
    ImageDraw.Draw(both).text(at, watermark.text, 255, font, stroke_width=_outline(size))
    color = ImageColor.getrgb(watermark.color)
    luma = (299 * color[0] + 587 * color[1] + 114 * color[2]) / 1000
    layer = Image.new("RGB", letters.size, "#000000" if luma > 127 else "#ffffff")
    layer.paste(color, mask=letters)
    layer.putalpha(both.point([round(alpha * watermark.opacity) for alpha in range(256)]))
    return layer


def _place(position: str, picture: tuple[int, int], layer: tuple[int, int], margin: int) -> tuple[int, int]:
    words = position.split("_")
    far = picture[0] - margin - layer[0], picture[1] - margin - layer[1]
    x = margin if "left" in words else far[0] if "right" in words else (picture[0] - layer[0]) // 2
    y = margin if "top" in words else far[1] if "bottom" in words else (picture[1] - layer[1]) // 2
    return x, y
