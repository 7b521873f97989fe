"""How many frames or pages a file has, without decoding them."""

from io import BytesIO

from PIL import Image

from app.services.executors import Fail
from app.workers.image.formats import Format

MOST_FRAMES = 1000
"""Counting takes time for each frame, and a file of 25 MB can hold a million."""


def count(image: Image.Image, data: bytes, format_name: Format) -> int:
    """The frames of an opened file. Raises Fail beyond MOST_FRAMES, and what Pillow raises for broken files."""
    if format_name == "gif":
        frames = _in_gif(data)
    elif format_name == "tiff":
        frames = _in_tiff(data)
    else:
        frames = getattr(image, "n_frames", 1)  # told by the header
    if frames > MOST_FRAMES:
        raise Fail(f"the file has more than {MOST_FRAMES:,} frames")
    return max(frames, 1)


def _in_gif(data: bytes) -> int:
    """Counts image descriptors, stepping over blocks (GIF89a, sections 15 to 27). Pillow decodes block by block here."""
    at, frames = 13 + _table_bytes(data[10]), 0
    while at < len(data) and frames <= MOST_FRAMES:
        kind = data[at]
        if kind == 0x2C and at + 9 < len(data):
            frames += 1
            at += 11 + _table_bytes(data[at + 9])
        elif kind == 0x21:
            at += 2
        else:  # the trailer, or no GIF any more
            break
        while at < len(data) and data[at]:
            at += data[at] + 1
        at += 1
    return frames


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _in_tiff(data: bytes) -> int:
    with Image.open(BytesIO(data), formats=["TIFF"]) as pages:
        frames = 1
        try:
            while frames <= MOST_FRAMES:
                pages.seek(frames)
                frames += 1
        except EOFError:
            pass
        return frames
