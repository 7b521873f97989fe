"""Bytes to a picture: within limits, upright, in sRGB, in one of the modes L, RGB and RGBA.

Only the decoder of the announced format is tried, and size and frames are looked at before a pixel is decoded. What is
broken, hostile or too large ends in Fail, never in a retry.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

from PIL import AvifImagePlugin, Image, ImageFile, ImageOps, PngImagePlugin, UnidentifiedImageError, features

from app.services.executors import Fail
from app.workers.image import color, exif, frames
from app.workers.image.formats import BROKEN, MAGIC_BYTES, NO_PICTURE, TRAITS, Format, format_of

LONGEST_SIDE = 30_000
MOST_METADATA_BYTES = 4 * 2**20
"""Of EXIF, colour profile, XMP and texts together; the largest profiles in common use, for CMYK, have 2 MiB."""
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Source:
    """What the file says about itself. `width` and `height` are those of the upright picture, in full size."""

    format: Format
    width: int
    height: int
    byte_count: int
    mode: str
    frames: int
    transparency: bool
    color_profile: str | None
    exif: exif.Exif
    orientation: int
    xmp: bytes | None
    comment: bytes | None
    texts: dict[str, str]


@contextmanager
def pillow_within(max_pixels: int) -> Iterator[None]:
    """Set the limits that Pillow's decoders look at themselves, for the time of a block, and keep it from warning."""
    before = (
        Image.MAX_IMAGE_PIXELS,
        PngImagePlugin.MAX_TEXT_MEMORY,
        AvifImagePlugin.DEFAULT_MAX_THREADS,
        ImageFile.LOAD_TRUNCATED_IMAGES,
    )
    Image.MAX_IMAGE_PIXELS = math.ceil(max_pixels / 2)  # it warns above that and raises above twice that
    PngImagePlugin.MAX_TEXT_MEMORY = MOST_METADATA_BYTES
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there are as many runners as cores, and each thread takes memory
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        (
            Image.MAX_IMAGE_PIXELS,
            PngImagePlugin.MAX_TEXT_MEMORY,
            AvifImagePlugin.DEFAULT_MAX_THREADS,
            ImageFile.LOAD_TRUNCATED_IMAGES,
        ) = before


def read(data: bytes, max_pixels: int, enough: Callable[[Size], Size | None]) -> tuple[Image.Image, Source]:
    """The picture in `data`, the first frame where there are several, and what the file says. Raises Fail.

    `enough` is told the size of the upright picture and says which size will do, None for every pixel. A JPEG is then
    decoded to a half, a quarter or an eighth, which is faster, but never below what will do. Call it in `pillow_within`.
    """
    format_name = format_of(data[:MAGIC_BYTES])
    if format_name is None:
        raise Fail(f"the file {NO_PICTURE}" if data else "the file is empty")
    if format_name == "avif" and not features.check("avif"):
        raise Fail("this installation cannot read AVIF")
    try:
        with Image.open(BytesIO(data), formats=[TRAITS[format_name].pillow_name]) as image:
            return _decoded(image, data, format_name, max_pixels, enough)
    except Image.DecompressionBombError:
        raise Fail(f"the picture has more than the {max_pixels:,} pixels that are decoded") from None
    except UnidentifiedImageError:  # its text names an object in memory
        raise Fail(f"the {format_name} file is broken: it is not a readable picture") from None
    except BROKEN as error:
        raise Fail(f"the {format_name} file is broken: {error or type(error).__name__}") from None


def _decoded(
    image: ImageFile.ImageFile, data: bytes, name: Format, max_pixels: int, enough: Callable[[Size], Size | None]
) -> tuple[Image.Image, Source]:
    stored, mode = image.size, image.mode
    refuse_large(stored, max_pixels)
    frame_count = frames.count(image, data, name)
    facts = exif.read(image)
    if (size := enough(_upright(stored, name, facts.orientation))) is not None:
        image.draft(None, _upright(size, name, facts.orientation))  # turning the box back is the same swap
    image.load()
    _refuse_much_metadata(image)
    if name != "tiff":  # Pillow turns a TIFF as it loads it and forgets the orientation
        facts = exif.read(image)  # again: PNG may tell it behind the pixels
        if facts.orientation > 1:
            for key in ("exif", "Raw profile type exif"):  # it would try to write them anew
                image.info.pop(key, None)
            ImageOps.exif_transpose(image, in_place=True)
    profile, transparency = image.info.get("icc_profile"), image.has_transparency_data
    picture, color_profile = color.in_srgb(image, profile)
    width, height = _upright(stored, name, facts.orientation)
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    comment = image.info.get("comment")
    source = Source(
        format=name,
        width=width,
        height=height,
        byte_count=len(data),
        mode=mode,
        frames=frame_count,
        transparency=transparency,
        color_profile=color_profile,
        exif=facts,
        orientation=facts.orientation,
        xmp=(xmp.encode() if isinstance(xmp, str) else xmp) or None,
        comment=comment if isinstance(comment, bytes) else None,
        texts=dict(getattr(image, "text", {})),
    )
    picture.info = {}  # encoders would write what they find there; what is kept is handed to them openly
    return picture, source


def _upright(size: Size, name: Format, orientation: int) -> Size:
    # The size of an opened TIFF is that of the upright picture already.
    return size[::-1] if orientation >= 5 and name != "tiff" else size


def refuse_large(size: Size, max_pixels: int) -> None:
    """Raise Fail for a picture that has more pixels than are allowed, or a side that no picture has."""
    width, height = size
    if width * height > max_pixels:
        raise Fail(f"{width} x {height} are more than the {max_pixels:,} pixels that one picture may have")
    if max(size) > LONGEST_SIDE:
        raise Fail(f"a side of {max(size):,} pixels is more than the {LONGEST_SIDE:,} that a picture may have")


def _refuse_much_metadata(image: ImageFile.ImageFile) -> None:
    total = sum(len(value) for value in image.info.values() if isinstance(value, bytes | str))
    if total > MOST_METADATA_BYTES:
        raise Fail(f"the file holds more than {MOST_METADATA_BYTES // 2**20} MiB of EXIF, colour profile and texts")
