import struct
import zlib
from time import process_time

import pytest
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile, PngImagePlugin

from app.services.executors import Fail
from app.workers.image import decode
from tests.workers.image.pictures import (
    FORMATS,
    GREEN,
    LOSSLESS,
    RED,
    alike,
    corners,
    file_of,
    opened,
    photograph,
    png_chunk,
    png_with,
    quarters,
    run,
)

LOOK = {"operation": "metadata"}
UPRIGHT = ["red", "green", "blue", "yellow"]


GIF, BMP, JPEG = (file_of(quarters(), kind) for kind in ("gif", "bmp", "jpeg"))


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("given", FORMATS)
def test_every_format_is_read_and_written_in_every_other(given: str, out: str) -> None:
    data = file_of(quarters(), given, **({"quality": 95} if given in ("jpeg", "webp", "avif") else {}))
    result, picture = run(data, {"operation": "flip", "direction": "horizontal"}, LOOK, format=out)
    assert (result["format"], picture.size) == (out, (40, 30))
    assert corners(picture) == ["green", "red", "yellow", "blue"]
    assert result["operations"][1]["format"] == given
    if given in LOSSLESS and out in LOSSLESS:
        assert picture.convert("RGB").tobytes() == quarters().transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()


@pytest.mark.parametrize("given", FORMATS)
def test_without_a_format_it_stays_that_of_the_given_file(given: str) -> None:
    assert run(file_of(quarters(), given), {"operation": "thumbnail", "width": 8})[0]["format"] == given


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
def test_pictures_are_turned_upright_first(kind: str, orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how a camera stores what is to be shown upright
    stored = quarters(80, 60)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    data = file_of(stored, kind, exif=oriented(orientation).tobytes())
    for options in ({}, {"strip_metadata": False}):
        result, picture = run(data, {"operation": "thumbnail", "width": 40, "height": 40}, LOOK, **options)
        assert picture.size == (40, 30)
        assert corners(picture) == UPRIGHT
        facts = result["operations"][1]
        assert (facts["width"], facts["height"], facts["orientation"]) == (80, 60, orientation)
        assert picture.getexif().get(ExifTags.Base.Orientation, 1) == 1  # nobody turns it once more


def test_the_orientation_of_xmp_counts_once_too() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    data = file_of(quarters().transpose(Image.Transpose.ROTATE_180), "jpeg", xmp=xmp)
    _, picture = run(data, {"operation": "thumbnail"}, strip_metadata=False)
    assert corners(picture) == UPRIGHT
    assert b"Orientation" not in picture.info["xmp"]


@pytest.mark.parametrize("kind", FORMATS)
def test_one_pixel_more_than_allowed_is_refused_and_as_many_are_not(kind: str) -> None:
    data = file_of(quarters(), kind)
    assert run(data, LOOK, max_pixels=1200)[0]["frames"] == 1
    with pytest.raises(Fail, match="1,199 pixels"):
        run(data, LOOK, max_pixels=1199)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("max_pixels", [1, 300, 599])
def test_far_too_many_pixels_are_refused_whoever_notices_first(kind: str, max_pixels: int) -> None:
    with pytest.raises(Fail, match=f"{max_pixels} pixels"):
        run(file_of(quarters(), kind), LOOK, max_pixels=max_pixels)


def png_bomb(width: int, height: int) -> bytes:
    """Valid, one bit a pixel, all black: the compressed rows repeat, so it is quickly made."""
    raw, row = height * (1 + (width + 7) // 8), 2**20
    squeeze = zlib.compressobj(9, wbits=-15)
    block = squeeze.compress(bytes(row)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, wbits=-15)
    tail = last.compress(bytes(raw % row)) + last.flush()
    check = struct.pack(">HH", raw % 65521, 1)  # Adler-32 of so many zeros
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = b"\x78\xda" + block * (raw // row) + tail + check
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, content) for kind, content in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


def webp_bomb() -> bytes:
    canvas = struct.pack("<I", 16_383)[:3]
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas * 2
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def tiff_bomb() -> bytes:
    tags = [(256, 4, 30_000), (257, 4, 30_000), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 9)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def patched(data: bytes, at: int, change: bytes) -> bytes:
    return data[:at] + change + data[at + len(change) :]


BOMBS = {
    "png": png_bomb(30_000, 30_000),
    "png of long rows": png_bomb(2**31 - 1, 1),
    "gif": patched(GIF, 6, struct.pack("<HH", 65_535, 65_535)),
    "gif frame": patched(GIF, GIF.index(b"\x2c\0\0\0\0") + 5, struct.pack("<HH", 65_535, 65_535)),
    "webp": webp_bomb(),
    "tiff": tiff_bomb(),
    "bmp": patched(BMP, 18, struct.pack("<ii", 60_000, 60_000)),
    "jpeg": patched(JPEG, JPEG.index(b"\xff\xc0") + 5, struct.pack(">HH", 65_500, 65_500)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_decompression_bomb_is_refused_by_its_header(name: str) -> None:
    data = BOMBS[name]
    assert len(data) < 200_000 or name == "png of long rows"
    began = process_time()
    with pytest.raises(Fail, match="50,000,000 pixels"):
        run(data, {"operation": "thumbnail"})
    assert process_time() - began < 0.5  # the PNG alone takes a second to decode


def test_a_side_no_picture_has_is_refused() -> None:
    with pytest.raises(Fail, match="30,000"):
        run(file_of(Image.new("1", (30_001, 1))), LOOK)


def test_text_chunks_that_inflate_are_refused() -> None:
    bomb = b"Comment\0\0" + zlib.compress(bytes(50 * 2**20), 9)
    with pytest.raises(Fail, match="broken"):
        run(png_with(png_chunk(b"zTXt", bomb)), LOOK)
    many = [png_chunk(b"zTXt", b"k%d\0\0" % number + zlib.compress(b"a" * 10**6)) for number in range(5)]
    with pytest.raises(Fail, match="broken"):
        run(png_with(*many), LOOK)
    profile = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(50 * 2**20), 9))
    with pytest.raises(Fail, match="broken"):
        run(png_with(profile), LOOK)


def test_much_exif_data_is_refused() -> None:
    with pytest.raises(Fail, match="4 MiB"):
        run(png_with(png_chunk(b"eXIf", b"II*\0" + bytes(4 * 2**20))), LOOK)


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "avif", "tiff"])
def test_of_an_animation_the_first_frame_is_taken_and_the_frames_are_counted(kind: str) -> None:
    red, green = (Image.new("RGB", (16, 16), color) for color in (RED, GREEN))
    data = file_of(red, kind, save_all=True, append_images=[green, red, green], duration=50)
    result, picture = run(data, {"operation": "thumbnail"}, LOOK)
    assert result["frames"] == result["operations"][1]["frames"] == 4
    assert alike(picture.convert("RGB").getpixel((8, 8)), RED)
    assert getattr(picture, "n_frames", 1) == 1


def test_more_frames_than_can_be_counted_quickly_are_refused() -> None:
    gif = file_of(Image.new("L", (1, 1)), "gif")
    frame = gif[gif.index(b"\x2c\0\0\0\0") : -1]
    assert run(gif[:-1] + frame * 999 + b";", LOOK)[0]["frames"] == 1000
    with pytest.raises(Fail, match="1,000 frames"):
        run(gif[:-1] + frame * 1000 + b";", LOOK)
    dot = Image.new("L", (1, 1))
    with pytest.raises(Fail, match="1,000 frames"):
        run(file_of(dot, "tiff", save_all=True, append_images=[dot] * 1000), LOOK)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "no picture in a format that can be read: jpeg, png"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no picture"),
        (b"<!DOCTYPE html><html></html>", "no picture"),
        (b"%PDF-1.7\n", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no picture"),
        (b"\x00\x00\x01\x00\x01\x00", "no picture"),
        (b"8BPS\x00\x01", "no picture"),
        (b"\xff\xd8\xff", "the jpeg file is broken"),
        (b"\x89PNG\r\n\x1a\n", "the png file is broken"),
        (b"GIF89a", "the gif file is broken"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "the webp file is broken"),
        (b"BM", "the bmp file is broken"),
        (b"II*\x00\x08\x00\x00\x00", "the tiff file is broken"),
        (b"\x00\x00\x00\x20ftypavif", "the avif file is broken"),
        (b"\x00\x00\x00\x20ftypheic" + bytes(50), "no picture"),
    ],
)
def test_what_is_no_picture_fails_with_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(Fail, match=reason):
        run(content, LOOK)


def test_only_the_decoder_of_the_announced_format_is_tried() -> None:
    """A PostScript program in a picture's clothes must not reach Ghostscript, nor one format another's decoder."""
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for start in (b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\x00"):
        with pytest.raises(Fail, match="broken"):
            run(start + program, LOOK)
    # The one other decoder that knows its files by something in the middle.
    photo_cd = b"GIF89a" + bytes(2042) + b"PCD_OPA" + bytes(96 * 2048 + 768 * 512 * 2)
    assert opened(photo_cd).format == "PCD"
    with pytest.raises(Fail, match="broken"):
        run(photo_cd, LOOK)
    polyglot = file_of(quarters(), "jpeg") + b"<script>alert(1)</script>" + file_of(Image.new("L", (5, 5)), "png")
    result, picture = run(polyglot, {"operation": "flip", "direction": "vertical"}, LOOK)
    assert result["operations"][1]["format"] == "jpeg"
    assert picture.size == (40, 30)


def test_nothing_behind_the_picture_gets_into_the_produced_file() -> None:
    data = file_of(quarters(), "jpeg") + b"<script>alert(1)</script>"
    for kind in FORMATS:
        _, picture = run(data, {"operation": "convert", "format": kind})
        assert b"script" not in file_of(picture, "png")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_fails_or_is_whole(kind: str) -> None:
    whole = file_of(photograph(64, 48), kind)
    pixels = opened(whole).convert("RGB").tobytes()
    for length in range(0, len(whole), max(len(whole) // 60, 1)):
        try:
            _, picture = run(whole[:length], {"operation": "grayscale"}, format="png")
        except Fail:
            continue
        # What is cut off may be an end marker only; a picture with missing parts would be grey or black there.
        assert length > len(whole) * 0.9, f"{length} of {len(whole)} bytes"
        assert picture.tobytes() == Image.frombytes("RGB", (64, 48), pixels).convert("L").tobytes()


def test_pillow_has_its_own_settings_back_afterwards() -> None:
    def settings() -> tuple[object, ...]:
        return (
            Image.MAX_IMAGE_PIXELS,
            PngImagePlugin.MAX_TEXT_MEMORY,
            AvifImagePlugin.DEFAULT_MAX_THREADS,
            ImageFile.LOAD_TRUNCATED_IMAGES,
        )

    before = settings()
    with decode.pillow_within(7):
        assert settings() != before
    assert settings() == before
    with pytest.raises(Fail):
        run(b"nonsense", LOOK)
    assert settings() == before


def test_broken_exif_data_does_not_spoil_a_picture() -> None:
    for rubbish in (b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        for data in (file_of(quarters(), "jpeg", exif=rubbish), png_with(png_chunk(b"eXIf", rubbish[6:]))):
            result, picture = run(data, {"operation": "thumbnail"}, LOOK, strip_metadata=False)
            assert corners(picture) == UPRIGHT
            assert result["operations"][1]["exif"] == {}


def test_a_broken_tag_does_not_take_the_others_along() -> None:
    """Two values where there can be one: Pillow lists the tag and cannot read it."""
    entries = ((271, 2, 4, b"Jo\0\0"), (262, 3, 2, b"\x01\0\x02\0"), (305, 2, 4, b"GIMP"))
    packed = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    data = png_with(png_chunk(b"eXIf", b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)))
    assert run(data, LOOK)[0]["operations"][0]["exif"] == {"Make": "Jo", "Software": "GIMP"}
