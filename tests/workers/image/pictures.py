"""Pictures for the tests, made on the spot, and a short way to have one processed."""

import io
import json
import struct
import zlib
from typing import Any

from PIL import Image, ImageChops

from app.services.executors import Context, RecordedReports
from app.workers.image.payload import ImageProcessing
from app.workers.image.process import process

MAX_PIXELS = 50_000_000
MEMORY = 2**30
FORMATS = ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif")
LOSSLESS = ("png", "bmp", "tiff")
FILE = "a" * 32
RED, GREEN, BLUE, YELLOW = (220, 30, 40), (20, 170, 60), (30, 60, 200), (250, 210, 30)


def quarters(width: int = 40, height: int = 30) -> Image.Image:
    """Red, green over blue, yellow: every turn and flip of it looks different."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(GREEN, (width // 2, 0, width, height // 2))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    picture.paste(YELLOW, (width // 2, height // 2, width, height))
    return picture


def photograph(width: int, height: int) -> Image.Image:
    """Gradients with noise, which compress as badly as a photograph does."""
    noise = Image.effect_noise((width // 4, height // 4), 60).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    round_ = Image.radial_gradient("L").resize((width, height))
    bands = (down, round_, ImageChops.invert(down))
    return Image.merge("RGB", [ImageChops.add(band, noise, scale=2) for band in bands])


def file_of(picture: Image.Image, name: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, name.upper(), **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


def run(
    data: bytes, *operations: dict[str, Any], max_pixels: int = MAX_PIXELS, **options: Any
) -> tuple[dict[str, Any], Image.Image]:
    """The result, and the produced picture; it must be a plain JSON result and a picture as described."""
    reports = RecordedReports({FILE: data})
    payload = ImageProcessing(file_id=FILE, operations=list(operations), **options)
    result = process(payload, Context(reports=reports), max_pixels, MEMORY)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    if result["file_id"] is None:
        return result, Image.new("L", (1, 1))
    made = reports.files[result["file_id"]]
    picture = opened(made)
    assert (result["width"], result["height"], result["bytes"]) == (*picture.size, len(made))
    assert picture.format == result["format"].upper()
    return result, picture


def alike(one: tuple[int, ...], other: tuple[int, ...], tolerance: int = 12) -> bool:
    return len(one) == len(other) and all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def corners(picture: Image.Image) -> list[str]:
    """The names of the colours at top left, top right, bottom left and bottom right, a quarter of the way in."""
    rgb, (width, height) = picture.convert("RGB"), picture.size
    names = {"red": RED, "green": GREEN, "blue": BLUE, "yellow": YELLOW}
    seen = []
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            pixel = rgb.getpixel((x, y))
            seen.append(next((name for name, color in names.items() if alike(pixel, color, 25)), str(pixel)))
    return seen


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes, data: bytes | None = None) -> bytes:
    """A PNG with chunks put in behind its header."""
    data = data or file_of(quarters())
    return data[:33] + b"".join(chunks) + data[33:]
