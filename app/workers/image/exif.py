"""EXIF data: what can be read of it, as plain values, and what of it goes into a new file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

from app.workers.image.formats import BROKEN

_KEPT = frozenset(
    {
        ExifTags.Base.ImageDescription,
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.XResolution,
        ExifTags.Base.YResolution,
        ExifTags.Base.ResolutionUnit,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.HostComputer,
        ExifTags.Base.Copyright,
    }
)
_NOT_PORTABLE = frozenset({ExifTags.IFD.MakerNote, ExifTags.IFD.Interop})  # they point to places in the old file


@dataclass(frozen=True, slots=True)
class Exif:
    """The readable tags by number: about the picture, the camera, and where it stood."""

    picture: Mapping[int, Any]
    camera: Mapping[int, Any]
    place: Mapping[int, Any]

    @property
    def orientation(self) -> int:
        """1 to 8, 1 where nothing sensible is said."""
        value = self.picture.get(ExifTags.Base.Orientation, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read(image: Image.Image) -> Exif:
    """What can be read. Pictures with broken EXIF data are common, and fine otherwise."""
    try:
        given = image.getexif()
        tags = list(given)
    except BROKEN:
        return Exif({}, {}, {})
    picture = {}
    for tag in tags:
        try:
            picture[tag] = given[tag]
        except BROKEN:  # values are decoded when they are looked at
            continue
    return Exif(picture, _directory(given, ExifTags.IFD.Exif), _directory(given, ExifTags.IFD.GPSInfo))


def _directory(given: Image.Exif, tag: int) -> dict[int, Any]:
    try:
        return dict(given.get_ifd(tag))
    except BROKEN:
        return {}


def written(given: Exif, size: tuple[int, int]) -> bytes:
    """EXIF data for an upright sRGB picture of this size, empty if nothing is known.

    Tags that describe the picture are kept: not those that describe how it was stored, nor the thumbnail, which would
    show what has been cropped away.
    """
    exif = Image.Exif()
    for tag in _KEPT.intersection(given.picture):
        exif[tag] = given.picture[tag]
    camera = {tag: value for tag, value in given.camera.items() if tag not in _NOT_PORTABLE}
    now = {
        ExifTags.Base.ColorSpace: 1,
        ExifTags.Base.ExifImageWidth: size[0],
        ExifTags.Base.ExifImageHeight: size[1],
    }
    camera |= {int(tag): value for tag, value in now.items() if tag in camera}
    if camera:
        exif.get_ifd(ExifTags.IFD.Exif).update(camera)
    if given.place:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(given.place)
    return exif.tobytes() if exif or camera or given.place else b""
