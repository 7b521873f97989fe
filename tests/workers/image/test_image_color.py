import struct

import pytest
from PIL import Image, ImageCms

from app.services.executors import Fail
from app.workers.image.color import in_srgb
from tests.workers.image.pictures import BLUE, GREEN, RED, alike, file_of, opened, quarters, run

LOOK = {"operation": "metadata"}
AS_PNG = {"operation": "convert", "format": "png"}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """sRGB with its red and blue primaries exchanged: what it calls red is blue."""
    profile = bytearray(SRGB)
    places = {
        bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * struct.unpack(">I", SRGB[128:132])[0], 12)
    }
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    profile[red + 4 : red + 12], profile[blue + 4 : blue + 12] = SRGB[blue + 4 : blue + 12], SRGB[red + 4 : red + 12]
    return bytes(profile)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "avif"])
@pytest.mark.parametrize("strip", [True, False])
def test_colours_are_converted_from_the_embedded_profile_which_is_gone_afterwards(kind: str, strip: bool) -> None:
    data = file_of(Image.new("RGB", (16, 16), (255, 0, 0)), kind, icc_profile=swapped_profile())
    result, picture = run(data, AS_PNG, LOOK, {"operation": "palette", "colors": 1}, strip_metadata=strip)
    assert alike(picture.getpixel((8, 8)), (0, 0, 255))
    assert "icc_profile" not in picture.info
    assert result["operations"][1]["color_profile"] == "sRGB built-in"
    assert result["operations"][2]["colors"][0]["hex"][1:3] in ("00", "01", "02")
    same = run(data, {"operation": "grayscale"}, strip_metadata=strip)[1]
    assert "icc_profile" not in same.info


def test_transparency_survives_the_conversion() -> None:
    data = file_of(Image.new("RGBA", (4, 4), (255, 0, 0, 77)), icc_profile=swapped_profile())
    assert alike(run(data, AS_PNG)[1].getpixel((0, 0)), (0, 0, 255, 77))


@pytest.mark.parametrize("profile", [b"nonsense", SRGB[:200], bytes(500)])
def test_a_profile_that_cannot_be_used_is_passed_over(profile: bytes) -> None:
    data = file_of(quarters(), icc_profile=profile)
    result, picture = run(data, AS_PNG, LOOK)
    assert picture.tobytes() == quarters().tobytes()
    assert result["operations"][1]["color_profile"] is None


def test_a_profile_for_other_channels_is_passed_over() -> None:
    data = file_of(quarters().convert("L"), icc_profile=SRGB)
    assert run(data, AS_PNG)[1].tobytes() == quarters().convert("L").tobytes()


def test_sixteen_bits_keep_their_upper_half() -> None:
    deep = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 32_896, 65_535)):
        deep.putpixel((x, 0), value)
    for kind in ("png", "tiff"):
        _, picture = run(file_of(deep, kind), AS_PNG)
        assert [picture.getpixel((x, 0)) for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("F", (0.0, 0.5, 1.0), [0, 128, 255]),
        ("F", (-2.0, 0.0, 2.0), [0, 128, 255]),
        ("F", (7.0, 7.0, 7.0), [0, 0, 0]),
        ("I", (0, 1000, 2000), [0, 128, 255]),
        ("I", (-(2**31), 0, 2**31 - 1), [0, 128, 255]),
    ],
)
def test_wide_numbers_are_spread_from_black_to_white(mode: str, values: tuple[float, ...], expected: list[int]) -> None:
    wide = Image.new(mode, (3, 1))
    for x, value in enumerate(values):
        wide.putpixel((x, 0), value)
    _, picture = run(file_of(wide, "tiff"), AS_PNG)
    assert [picture.getpixel((x, 0)) for x in range(3)] == expected


def test_infinite_pixels_fail() -> None:
    wide = Image.new("F", (2, 1))
    wide.putpixel((0, 0), float("inf"))
    with pytest.raises(Fail, match="no finite numbers"):
        run(file_of(wide, "tiff"), AS_PNG)


def test_printing_colours_become_those_of_a_screen() -> None:
    inks = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind in ("jpeg", "tiff"):
        result, picture = run(file_of(inks, kind), AS_PNG, LOOK)
        assert alike(picture.getpixel((4, 4)), (255, 0, 0))
        assert result["operations"][1]["mode"] == "CMYK"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        *(("1", "L"), ("L", "L"), ("I", "L"), ("F", "L"), ("I;16", "L")),
        *(("P", "RGB"), ("RGB", "RGB"), ("RGBX", "RGB"), ("CMYK", "RGB")),
        *(("YCbCr", "RGB"), ("HSV", "RGB"), ("LAB", "RGB")),
        *(("LA", "RGBA"), ("PA", "RGBA"), ("RGBA", "RGBA"), ("RGBa", "RGBA")),
    ],
)
def test_every_mode_becomes_one_of_three(mode: str, expected: str) -> None:
    assert in_srgb(Image.new(mode, (2, 2)), None)[0].mode == expected


def test_transparency_is_kept_where_the_format_can_and_laid_on_a_background_where_not() -> None:
    half = Image.new("RGBA", (16, 16), (*BLUE, 255))
    half.paste((*RED, 0), (0, 0, 8, 16))
    data = file_of(half)
    for kind in ("png", "webp", "tiff", "avif", "gif"):
        picture = run(data, {"operation": "convert", "format": kind})[1].convert("RGBA")
        assert picture.getpixel((2, 8))[3] == 0
        assert alike(picture.getpixel((13, 8)), (*BLUE, 255), 20)
    for kind in ("jpeg", "bmp"):
        white = run(data, {"operation": "thumbnail"}, format=kind)[1]
        assert alike(white.getpixel((2, 8)), (255, 255, 255))
        green = run(data, {"operation": "convert", "format": kind, "background": "#14aa3c"})[1]
        assert alike(green.getpixel((2, 8)), GREEN)
        assert alike(green.getpixel((13, 8)), BLUE)


@pytest.mark.parametrize("given", ["colour key", "palette", "gray", "palette of bytes"])
def test_every_way_to_be_transparent_is_understood(given: str) -> None:
    base = Image.new("RGB", (4, 4), RED)
    data = {
        "colour key": lambda: file_of(base, transparency=RED),
        "palette": lambda: file_of(base.quantize(2), transparency=0),
        "palette of bytes": lambda: file_of(base.quantize(2), transparency=b"\x00"),
        "gray": lambda: file_of(Image.new("L", (4, 4), 9), transparency=9),
    }[given]()
    result, picture = run(data, LOOK, {"operation": "rotate", "degrees": 90})
    assert result["operations"][0]["transparency"] is True
    assert picture.convert("RGBA").getpixel((0, 0))[3] == 0


def test_a_half_transparent_pixel_of_a_gif_is_mixed_with_the_background() -> None:
    seen = run(file_of(Image.new("RGBA", (4, 4), (0, 0, 0, 200))), {"operation": "convert", "format": "gif"})[1]
    assert alike(seen.convert("RGBA").getpixel((0, 0)), (55, 55, 55, 255))
    gone = run(file_of(Image.new("RGBA", (4, 4), (0, 0, 0, 100))), {"operation": "convert", "format": "gif"})[1]
    assert gone.convert("RGBA").getpixel((0, 0))[3] == 0


def test_a_picture_that_is_nowhere_transparent_is_written_without_transparency() -> None:
    assert run(file_of(quarters().convert("RGBA")), AS_PNG)[1].mode == "RGB"
    assert opened(file_of(quarters().convert("RGBA"))).mode == "RGBA"
