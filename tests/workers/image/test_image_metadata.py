from typing import Any

import pytest
from PIL import ExifTags, Image

from tests.workers.image.pictures import file_of, png_chunk, png_with, quarters, run

LOOK = {"operation": "metadata"}


def facts(data: bytes) -> dict[str, Any]:
    result, _ = run(data, LOOK)
    assert [result[key] for key in ("file_id", "width", "height", "format", "bytes")] == [None] * 5
    return result["operations"][0]


def with_exif(exif: Image.Exif) -> bytes:
    return file_of(quarters(), "jpeg", exif=exif.tobytes())


def test_the_file_is_described() -> None:
    data = file_of(quarters().convert("RGBA"))
    assert facts(data) == {
        "operation": "metadata",
        "format": "png",
        "width": 40,
        "height": 30,
        "bytes": len(data),
        "mode": "RGBA",
        "frames": 1,
        "transparency": True,
        "orientation": 1,
        "color_profile": None,
        "exif": {},
        "position": None,
        "has_xmp": False,
        "comment": None,
        "texts": {},
    }


def test_exif_tags_have_names_and_plain_values() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Canon\x00\x07"
    exif[ExifTags.Base.XResolution] = 72.0
    camera = exif.get_ifd(ExifTags.IFD.Exif)
    camera[ExifTags.Base.ExposureTime] = 0.004
    camera[ExifTags.Base.ISOSpeedRatings] = 200
    camera[ExifTags.Base.LensSpecification] = (24.0, 70.0, 2.8, 2.8)
    camera[ExifTags.Base.MakerNote] = b"\x00\x01"
    assert facts(with_exif(exif))["exif"] == {
        "Make": "Canon",
        "XResolution": 72,
        "ExposureTime": 0.004,
        "ISOSpeedRatings": 200,
        "LensSpecification": [24, 70, 2.8, 2.8],
    }


@pytest.mark.parametrize(
    ("references", "altitude", "expected"),
    [
        ("NE", b"\x00", {"latitude": 52.51, "longitude": 13.405, "altitude": 34}),
        ("SW", b"\x01", {"latitude": -52.51, "longitude": -13.405, "altitude": -34}),
    ],
)
def test_the_position_is_in_degrees(references: str, altitude: bytes, expected: dict[str, float]) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {1: references[0], 2: (52.0, 30.0, 36.0), 3: references[1], 4: (13.0, 24.0, 18.0), 5: altitude, 6: 34.0}
    )
    assert facts(with_exif(exif))["position"] == expected


@pytest.mark.parametrize(
    "gps",
    [
        {},
        {2: (52.0, 30.0, 36.0)},
        {2: (520.0, 30.0, 36.0), 4: (13.0, 24.0, 18.0)},
        {2: (52.0, 30.0), 4: (13.0, 24.0, 18.0)},
    ],
)
def test_half_a_position_is_none(gps: dict[int, Any]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "x"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    assert facts(with_exif(exif))["position"] is None


def test_fractions_by_zero_are_left_out() -> None:
    # A rational 0/0 by hand: Pillow reads it as NaN, which JSON does not know.
    entry = (33434).to_bytes(2, "little") + b"\x05\0\x01\0\0\0" + (26).to_bytes(4, "little")
    data = png_with(png_chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0" + entry + bytes(4) + bytes(8)))
    assert facts(data)["exif"] == {}


def test_long_and_strange_texts_are_cut_and_cleaned() -> None:
    texts = png_chunk(b"tEXt", b"Com\x01ment\0" + b"a" * 500 + b"\x1b[31m")
    assert facts(png_with(texts))["texts"] == {"Comment": "a" * 200}
    many = [png_chunk(b"tEXt", b"%d\0x" % number) for number in range(300)]
    assert len(facts(png_with(*many))["texts"]) == 100


def test_frames_and_comment_of_a_gif() -> None:
    dot = Image.new("L", (2, 2))
    told = facts(file_of(dot, "gif", save_all=True, append_images=[Image.new("L", (2, 2), 9)], comment=b"hi \xff"))
    assert (told["frames"], told["comment"], told["mode"]) == (2, "hi \ufffd", "P")
