from typing import Any

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from app.services.executors import Context, Fail, RecordedReports
from app.workers.image.payload import ImageProcessing
from app.workers.image.process import process
from tests.workers.image.pictures import FILE, FORMATS, file_of, opened, photograph, png_chunk, png_with, quarters, run

LOOK = {"operation": "metadata"}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>Jo</dc:creator></x:xmpmeta>'
SECRETS = (b"Canon", b"Jo", b"Ada Lovelace", b"a remark", b"1815:12:10", b"GPS", b"Exif", b"xmpmeta")


def camera_exif() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Canon"
    exif[ExifTags.Base.Artist] = "Ada Lovelace"
    exif[ExifTags.Base.Orientation] = 6
    camera = exif.get_ifd(ExifTags.IFD.Exif)
    camera[ExifTags.Base.DateTimeOriginal] = "1815:12:10 11:12:13"
    camera[ExifTags.Base.ExifImageWidth] = 40
    camera[ExifTags.Base.ColorSpace] = 65535
    camera[ExifTags.Base.MakerNote] = b"where it was made"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (52.0, 30.0, 36.0)
    gps[ExifTags.GPS.GPSLongitudeRef], gps[ExifTags.GPS.GPSLongitude] = "W", (13.0, 24.0, 18.0)
    return exif.tobytes()


def telling(kind: str) -> bytes:
    """A file that tells all its format can."""
    options: dict[str, Any] = {"exif": camera_exif(), "xmp": XMP}
    if kind in ("jpeg", "gif"):
        options["comment"] = b"a remark"
    if kind == "png":
        options["pnginfo"] = texts = PngImagePlugin.PngInfo()
        texts.add_text("Comment", "a remark")
        texts.add_itxt("XML:com.adobe.xmp", XMP)
    return file_of(quarters(), kind, **options)


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("given", ["jpeg", "png", "gif", "webp", "tiff", "avif"])
def test_nothing_of_the_metadata_gets_into_the_file_unless_asked_for(given: str, out: str) -> None:
    data = telling(given)
    assert any(secret in data for secret in SECRETS)
    for operation in ({"operation": "convert", "format": out}, {"operation": "thumbnail", "width": 9}):
        reports = RecordedReports({FILE: data})
        payload = ImageProcessing(file_id=FILE, operations=[operation])
        made = reports.files[process(payload, Context(reports=reports), 10**6, 2**30)["file_id"]]
        assert [secret for secret in SECRETS if secret in made] == []
        assert not opened(made).getexif().keys() & {ExifTags.Base.Make, ExifTags.Base.Orientation}


@pytest.mark.parametrize("out", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("given", ["jpeg", "png", "webp", "tiff", "avif"])
def test_metadata_is_kept_if_asked_for(given: str, out: str) -> None:
    result, picture = run(telling(given), LOOK, {"operation": "convert", "format": out}, strip_metadata=False)
    exif = picture.getexif()
    assert (exif[ExifTags.Base.Make], exif[ExifTags.Base.Artist]) == ("Canon", "Ada Lovelace")
    camera, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    assert camera[ExifTags.Base.DateTimeOriginal] == "1815:12:10 11:12:13"
    assert gps[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert camera[ExifTags.Base.ExifImageWidth] == picture.width == 30
    assert camera[ExifTags.Base.ColorSpace] == 1
    assert ExifTags.Base.MakerNote not in camera
    assert exif.get(ExifTags.Base.Orientation, 1) == 1
    # So that a second task reads what the first has written.
    again, _ = run(file_of(picture, out, exif=exif), LOOK)
    assert again["operations"][0]["position"] == result["operations"][0]["position"]
    if out != "tiff" and given != "tiff":
        assert b"<dc:creator>Jo" in picture.info["xmp"]


def test_comments_and_texts_are_kept_where_the_format_has_them() -> None:
    flip = {"operation": "flip", "direction": "vertical"}
    assert run(telling("gif"), flip, strip_metadata=False)[1].info["comment"] == b"a remark"
    assert run(telling("jpeg"), flip, strip_metadata=False)[1].info["comment"] == b"a remark"
    assert run(telling("png"), flip, strip_metadata=False)[1].info["Comment"] == "a remark"


def test_the_thumbnail_in_the_exif_data_is_never_kept() -> None:
    """It shows what has been cropped away."""
    small = file_of(Image.new("RGB", (8, 8), "red"), "jpeg")
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Canon"
    plain = exif.tobytes()
    # A second directory behind the first: offset and length of the thumbnail.
    first = plain[6:]
    count = int.from_bytes(first[8:10], "little")
    link = 10 + 12 * count
    second = len(first)
    place = second + 2 + 2 * 12 + 4
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\x04\0" + b"\x01\0\0\0" + value.to_bytes(4, "little")
        for tag, value in ((513, place), (514, len(small)))
    )
    whole = first[:link] + second.to_bytes(4, "little") + first[link + 4 :] + b"\x02\0" + entries + bytes(4) + small
    data = file_of(quarters(), "jpeg", exif=b"Exif\0\0" + whole)
    assert small in data
    _, picture = run(data, {"operation": "crop", "width": 5, "height": 5}, strip_metadata=False)
    assert picture.getexif()[ExifTags.Base.Make] == "Canon"
    assert small not in picture.info["exif"]
    assert picture.getexif().get_ifd(ExifTags.IFD.IFD1) == {}


def test_tags_about_the_storage_of_a_tiff_are_not_carried_over() -> None:
    data = file_of(quarters(), "tiff", exif=camera_exif())
    _, picture = run(data, {"operation": "convert", "format": "jpeg"}, strip_metadata=False)
    assert not picture.getexif().keys() & {256, 257, 258, 259, 273, 277, 279}


def test_what_does_not_fit_into_the_format_fails_with_a_reason() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000
    data = png_with(png_chunk(b"eXIf", exif.tobytes()[6:]))
    with pytest.raises(Fail, match="cannot be written as jpeg: EXIF data is too long"):
        run(data, {"operation": "convert", "format": "jpeg"}, strip_metadata=False)
    assert run(data, {"operation": "convert", "format": "jpeg"})[0]["format"] == "jpeg"
    with pytest.raises(Fail, match="a webp has sides of at most 16,383 pixels, not 16,384"):
        run(file_of(Image.new("1", (16_384, 1))), {"operation": "convert", "format": "webp"})


def test_an_avif_that_would_take_more_memory_than_there_is_is_not_begun() -> None:
    """Out of memory, its encoder takes the whole process down."""
    with pytest.raises(Fail, match="more than the 22,369,621 pixels that can be written as avif"):
        run(file_of(Image.new("1", (6000, 4000))), {"operation": "convert", "format": "avif"})


@pytest.mark.parametrize("kind", ["jpeg", "webp", "avif"])
def test_quality_counts(kind: str) -> None:
    data = file_of(photograph(128, 96))
    low, high = ({"operation": "convert", "format": kind, "quality": quality} for quality in (20, 95))
    assert run(data, low)[0]["bytes"] * 2 < run(data, high)[0]["bytes"]
    flip = {"operation": "flip", "direction": "vertical"}
    sizes = [run(data, flip, format=kind, quality=quality)[0]["bytes"] for quality in (20, 95)]
    assert sizes[0] * 2 < sizes[1]


@pytest.mark.parametrize(
    ("operations", "options", "name"),
    [
        ([{"operation": "thumbnail"}, LOOK], {}, "thumbnail.png"),
        ([{"operation": "thumbnail"}, {"operation": "convert", "format": "jpeg"}], {}, "thumbnail.jpg"),
        ([{"operation": "thumbnail"}, {"operation": "grayscale"}], {"format": "tiff"}, "picture.tif"),
        ([LOOK], {"format": "webp"}, "picture.webp"),
    ],
)
def test_the_file_is_named_after_what_was_done(
    operations: list[dict[str, Any]], options: dict[str, Any], name: str
) -> None:
    reports = RecordedReports({FILE: file_of(quarters())})
    process(ImageProcessing(file_id=FILE, operations=operations, **options), Context(reports=reports), 10**6, 2**30)
    (saved,) = reports.saved
    kind = opened(reports.files[saved.id]).format
    assert (saved.name, saved.content_type) == (name, f"image/{str(kind).lower()}")
