"""Files broken in every way: a task ends with a picture or with Fail, and with nothing else."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.services.executors import Fail
from tests.workers.image.pictures import FORMATS, file_of, photograph, quarters, run
from tests.workers.image.test_image_color import SRGB
from tests.workers.image.test_image_encode import telling

ALL = ({"operation": "metadata"}, {"operation": "palette"}, {"operation": "thumbnail", "width": 9})


def sound_files() -> list[bytes]:
    small, other = photograph(24, 16), quarters(24, 16)
    files = [telling(kind) for kind in FORMATS]
    files += [file_of(small.convert("RGBA"), kind) for kind in ("png", "webp", "avif", "tiff")]
    files += [file_of(small.quantize(16), kind) for kind in ("png", "gif", "bmp", "tiff")]
    files += [file_of(small, kind, icc_profile=SRGB) for kind in ("png", "jpeg", "webp", "tiff")]
    files += [
        file_of(other, kind, save_all=True, append_images=[small, other]) for kind in ("gif", "png", "webp", "tiff")
    ]
    files += [file_of(small, "tiff", compression=name) for name in ("tiff_lzw", "jpeg", "packbits", "tiff_deflate")]
    files += [file_of(small.convert("1"), "tiff", compression="group4"), file_of(Image.new("I;16", (9, 9)))]
    files += [file_of(small, "jpeg", progressive=True), file_of(small.convert("CMYK"), "jpeg")]
    return files


FILES = sound_files()


def ends_well(data: bytes) -> None:
    for options in ({}, {"strip_metadata": False, "format": "jpeg"}):
        try:
            run(data, *ALL, max_pixels=10**6, **options)
        except Fail as reason:
            assert str(reason)  # noqa: PT017  # it may also end with a picture


@pytest.mark.parametrize("data", FILES)
def test_each_of_the_files_is_sound_to_begin_with(data: bytes) -> None:
    result, picture = run(data, *ALL)
    assert max(picture.size) <= 24
    assert result["operations"][0]["bytes"] == len(data)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
    st.one_of(st.none(), st.floats(0, 1)),
)
def test_changed_bytes_and_cuts_end_in_a_picture_or_in_fail(
    data: bytes, changes: list[tuple[float, int]], kept: float | None
) -> None:
    broken = bytearray(data)
    for place, value in changes:
        broken[int(place * len(broken))] = value
    ends_well(bytes(broken if kept is None else broken[: int(kept * len(broken))]))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(FILES), st.integers(0, 120), st.binary(min_size=1, max_size=8))
def test_changed_headers_end_in_a_picture_or_in_fail(data: bytes, at: int, change: bytes) -> None:
    ends_well(data[:at] + change + data[at + len(change) :])
