"""Every colour of a decoded picture as sRGB, in one of the modes L, RGB and RGBA.

Pictures are converted from the profile they carry instead of keeping it: they then look the same in programs that ignore
profiles, colours that are found or drawn mean what they say, and a profile that names its owner's device is gone.
"""

import math
from io import BytesIO

from PIL import Image, ImageCms

from app.services.executors import Fail

_CHANNELS = {"RGB": ("RGB", "RGBA"), "GRAY": ("L",), "CMYK": ("CMYK",)}
_WIDE = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def in_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    """The picture in sRGB and the name of the profile it carried. A profile that cannot be used is passed over, as
    browsers do."""
    picture = image if image.mode == "CMYK" else _in_plain_mode(image)
    name = None
    if profile:
        picture, name = _converted(picture, profile)
    return _in_plain_mode(picture), name


def _converted(picture: Image.Image, profile: bytes) -> tuple[Image.Image, str | None]:
    try:
        given = ImageCms.ImageCmsProfile(BytesIO(profile))
        name = ImageCms.getProfileDescription(given).strip()
        if picture.mode not in _CHANNELS.get(given.profile.xcolor_space.strip(), ()):
            return picture, name
        target = "RGBA" if picture.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(picture, given, ImageCms.createProfile("sRGB"), outputMode=target)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture, None
    assert converted is not None  # it is None only for inPlace=True
    return (converted.convert("L") if picture.mode == "L" else converted), name


def _in_plain_mode(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE:
        return _in_eight_bits(image)
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """16 bits have a known range. Wider integers and fractions have none: the darkest becomes black, the lightest white."""
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
        image = image.convert("I")
    else:
        low, high = image.getextrema()  # type: ignore[assignment]  # of one channel: two numbers
        if not (math.isfinite(low) and math.isfinite(high)):
            raise Fail("the picture has pixels that are no finite numbers")
    scale = 255 / (high - low) if high > low else 0.0
    shifted = image.convert("F").point(lambda value: value * scale + (0.5 - low * scale))
    return shifted.convert("L")
