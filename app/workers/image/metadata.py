"""What a file says about its picture, as plain JSON."""

import math
from typing import Any

from PIL import ExifTags

from app.workers.image.decode import Source
from app.workers.image.exif import Exif
from app.workers.image.formats import BROKEN

MOST_TAGS = 100
LONGEST_TEXT = 200
_LEFT_OUT = ("ExifOffset", "GPSInfo", "ExifInteroperabilityOffset")  # places in the file, not facts about the picture


def described(source: Source) -> dict[str, Any]:
    """Format, upright size, frames and EXIF data. `position` is in degrees, north and east positive, None without one."""
    return {
        "format": source.format,
        "width": source.width,
        "height": source.height,
        "bytes": source.byte_count,
        "mode": source.mode,
        "frames": source.frames,
        "transparency": source.transparency,
        "orientation": source.orientation,
        "color_profile": None if source.color_profile is None else _text(source.color_profile),
        "exif": _tags(source.exif),
        "position": _position(source.exif),
        "has_xmp": source.xmp is not None,
        "comment": None if source.comment is None else _text(source.comment.decode("utf-8", "replace")),
        "texts": {_text(key): _text(value) for key, value in list(source.texts.items())[:MOST_TAGS]},
    }


def _tags(exif: Exif) -> dict[str, Any]:
    """Named tags with a value that can be shown, cut to a bearable length; raw bytes are left out."""
    pairs = [*exif.picture.items(), *exif.camera.items()]
    named = ((ExifTags.TAGS[tag], _value(value)) for tag, value in pairs if tag in ExifTags.TAGS)
    shown = [(name, value) for name, value in named if value is not None and name not in _LEFT_OUT]
    return dict(shown[:MOST_TAGS])


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple) and 0 < len(value) <= 8:
        parts = [_value(part) for part in value]
        return None if None in parts else parts
    if isinstance(value, bytes | dict | tuple):
        return None
    return _number(value)


def _number(value: Any) -> int | float | None:
    """A number, whole where it is; None for what is none, as a fraction with the denominator 0."""
    try:
        number = float(value)
    except BROKEN:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else round(number, 6)


def _text(value: Any) -> str:
    return "".join(character for character in str(value) if character.isprintable())[:LONGEST_TEXT].strip()


def _position(exif: Exif) -> dict[str, float | None] | None:
    gps = exif.place
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef) == "S")
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef) == "W")
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude))
    if altitude is not None and gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01"):
        altitude = -altitude
    return {"latitude": latitude, "longitude": longitude, "altitude": altitude}


def _degrees(value: Any, negative: bool) -> float | None:
    if not isinstance(value, tuple) or len(value) != 3:
        return None
    degrees = 0.0
    for part, unit in zip(map(_number, value), (1, 60, 3600), strict=True):
        if part is None:
            return None
        degrees += part / unit
    return round(-degrees if negative else degrees, 6)
