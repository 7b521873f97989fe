"""The formats that are read and written, told apart by their first bytes. Imports no image library: the API looks at
`image_base64` with this module."""

import base64
import binascii
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Format = Literal["jpeg", "png", "gif", "webp", "bmp", "tiff", "avif"]
MAGIC_BYTES = 12
"""So many bytes of a file's beginning tell its format."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What has to be known about a format: its name in Pillow, what it can hold, the longest side it can write."""

    pillow_name: str
    extension: str
    transparency: bool
    longest_side: int

    @property
    def content_type(self) -> str:
        return f"image/{self.pillow_name.lower()}"


TRAITS: Mapping[Format, Traits] = MappingProxyType(
    {
        "jpeg": Traits("JPEG", "jpg", False, 65_535),
        "png": Traits("PNG", "png", True, 2**31 - 1),
        "gif": Traits("GIF", "gif", True, 65_535),
        "webp": Traits("WEBP", "webp", True, 16_383),
        "bmp": Traits("BMP", "bmp", False, 2**31 - 1),  # most programs ignore the alpha of a BMP
        "tiff": Traits("TIFF", "tif", True, 2**31 - 1),
        "avif": Traits("AVIF", "avif", True, 65_535),
    }
)
NO_PICTURE = f"is no picture in a format that can be read: {', '.join(TRAITS)}"

# What Pillow raises for broken files, as found by breaking some. MemoryError is not among them: the file may be fine.
BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_MAGIC: tuple[tuple[re.Pattern[bytes], Format], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "webp"),
    (re.compile(rb"BM"), "bmp"),
    (re.compile(rb"II[*+]\x00|MM\x00[*+]"), "tiff"),
    (re.compile(rb".{4}ftyp(avif|avis|mif1|msf1)", re.DOTALL), "avif"),
)


def format_of(start: bytes) -> Format | None:
    """The format that the first bytes of a file announce, None for none we read. Not a proof that the rest fits."""
    return next((name for pattern, name in _MAGIC if pattern.match(start)), None)


def decoded(text: str) -> bytes:
    """The bytes of standard base64, also as a `data:` URL or broken into lines. Raises ValueError saying what is wrong."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ValueError("a data: URL must hold base64: data:image/png;base64,...")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
        raise ValueError("is not standard base64 (A-Z a-z 0-9 + / with = at the end)") from None
