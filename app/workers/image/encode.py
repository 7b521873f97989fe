"""A picture to the bytes of a file."""

from io import BytesIO
from typing import Any

from PIL import Image, ImageColor, ImageFile, PngImagePlugin, features

from app.services.executors import Fail
from app.workers.image import exif
from app.workers.image.decode import Source
from app.workers.image.formats import BROKEN, TRAITS, Format

DEFAULT_QUALITY = 85
# Memory for one pixel: the encoder took 25 to 31 bytes, and the picture is there up to three times. It has to be known
# before, because libaom does not check what malloc gives it: out of memory, the whole process dies.
_AVIF_BYTES = 48
_PNG_XMP = "XML:com.adobe.xmp"


def encoded(
    picture: Image.Image, name: Format, quality: int | None, background: str, kept: Source | None, memory_bytes: int
) -> bytes:
    """The file. Transparent parts get `background` where the format has none. Raises Fail for what it cannot hold.

    Of `kept` it takes over EXIF, XMP and comments, as far as the format has a place for them; None for nothing.
    """
    traits = TRAITS[name]
    if max(picture.size) > traits.longest_side:
        raise Fail(f"a {name} has sides of at most {traits.longest_side:,} pixels, not {max(picture.size):,}")
    if name == "avif" and not features.check("avif"):
        raise Fail("this installation cannot write AVIF")
    if isinstance(picture, ImageFile.ImageFile):
        picture = picture.copy()  # the encoder of TIFF recognises one that came from a file, and copies its tags
    if name == "avif" and picture.width * picture.height * _AVIF_BYTES > memory_bytes:
        raise Fail(
            f"{picture.width} x {picture.height} are more than the {memory_bytes // _AVIF_BYTES:,} pixels that can be"
            " written as avif with the memory one task may use"
        )
    if picture.mode == "RGBA":
        picture = _as_transparent_as(name, picture, background)
    options = _options(name, DEFAULT_QUALITY if quality is None else quality)
    file = BytesIO()
    try:
        if kept is not None:
            options |= _metadata_options(name, kept, picture.size)
        picture.save(file, traits.pillow_name, **options)
    except BROKEN as error:
        if name == "webp" and str(error) == "encoding error 1":  # VP8_ENC_ERROR_OUT_OF_MEMORY of libwebp
            raise MemoryError from None  # such as EXIF data too long for a JPEG
        raise Fail(f"cannot be written as {name}: {error}") from None
    return file.getvalue()


def _as_transparent_as(name: Format, picture: Image.Image, background: str) -> Image.Image:
    alpha = picture.getchannel("A")
    if not TRAITS[name].transparency or alpha.getextrema() == (255, 255):
        return _on(picture, background)
    if name == "gif":  # a pixel is either seen or not: what is half transparent would come out opaque
        picture = _on(picture, background)
        picture.putalpha(alpha.point([0] * 128 + [255] * 128))
    return picture


def _on(picture: Image.Image, background: str) -> Image.Image:
    ground = Image.new("RGB", picture.size, ImageColor.getrgb(background))
    ground.paste(picture, mask=picture)
    return ground


def _options(name: Format, quality: int) -> dict[str, Any]:
    match name:
        case "jpeg":
            return {"quality": quality}
        case "webp":
            return {"quality": quality}
        case "avif":
            # Speed 6, the default, takes 16 s for 12 megapixels; 8 takes 2 s, for files of the same size.
            return {"quality": quality, "speed": 8}
        case "tiff":
            return {"compression": "tiff_adobe_deflate"}
        case "png" | "gif" | "bmp":
            return {}


def _metadata_options(name: Format, kept: Source, size: tuple[int, int]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if name in ("jpeg", "png", "webp", "avif", "tiff") and (data := exif.written(kept.exif, size)):
        options["exif"] = data
        if name == "tiff":
            options["compression"] = "raw"  # libtiff, which compresses, cannot write the directories of EXIF and GPS
    if name in ("jpeg", "webp", "avif") and kept.xmp is not None:
        options["xmp"] = kept.xmp
    if name in ("jpeg", "gif") and kept.comment is not None:
        options["comment"] = kept.comment
    if name == "png":
        options["pnginfo"] = _texts(kept)
    return options


def _texts(kept: Source) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    if kept.xmp is not None:
        info.add_itxt(_PNG_XMP, kept.xmp)
    for key, value in kept.texts.items():
        if key != _PNG_XMP and not key.startswith("Raw profile type"):  # an older place of EXIF data and profiles
            info.add_text(key, value)
    return info
