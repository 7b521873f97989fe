"""What an `image_processing` task takes. The API loads these models, so nothing here imports an image library."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.services.destinations import Url
from app.services.executors import FileId
from app.workers.image.formats import MAGIC_BYTES, NO_PICTURE, Format, decoded, format_of

LONGEST_SIDE = 16_383
"""Of a picture that is made; the longest that each of the formats can hold."""
_PUNCTUATION = (0x2018, 0x2019, 0x201C, 0x201D, 0x2026, 0x2039, 0x203A, 0x2044, 0x2122)
FONT_CHARACTERS = frozenset(map(chr, (*range(0x20, 0x7F), *b"\xa9\xab\xb0\xb1\xb4\xb7\xbb", *_PUNCTUATION)))
"""What the font that comes with Pillow can draw; a test compares them."""

Side = Annotated[int, Field(ge=1, le=LONGEST_SIDE, description="In pixels.")]
Color = Annotated[
    str, Field(pattern=r"^#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})$", description="`#rgb` or `#rrggbb`, hexadecimal.")
]
Quality = Annotated[int, Field(ge=1, le=100)]
_QUALITY = "Of jpeg, webp and avif: 1 to 100, 85 unless given. The others take no notice."
Position = Literal["top_left", "top", "top_right", "left", "center", "right", "bottom_left", "bottom", "bottom_right"]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Thumbnail(_Strict):
    """Make the picture small enough for the box. Keeps the aspect, never enlarges."""

    operation: Literal["thumbnail"]
    width: Side = 256
    height: Side = 256


class Resize(_Strict):
    """Give the picture a size. With one side the other follows from the aspect.

    `fit` is as large as the box allows, `fill` covers the box and cuts off what is left over on both sides, `exact`
    stretches.
    """

    operation: Literal["resize"]
    width: Side | None = None
    height: Side | None = None
    mode: Literal["fit", "fill", "exact"] = "fit"

    @model_validator(mode="after")
    def _enough_sides(self) -> Self:
        if self.width is None and self.height is None:
            raise ValueError("give width, height or both")
        if self.mode != "fit" and (self.width is None or self.height is None):
            raise ValueError(f"mode {self.mode} needs both width and height")
        return self


class Crop(_Strict):
    """Keep this part of the picture; it must lie inside it."""

    operation: Literal["crop"]
    left: int = Field(default=0, ge=0)
    top: int = Field(default=0, ge=0)
    width: Side
    height: Side


class Rotate(_Strict):
    """Turn the picture clockwise. Multiples of 90 lose nothing.

    With `expand` the picture grows so that all of it stays; the corners are transparent unless `background` is given.
    """

    operation: Literal["rotate"]
    degrees: float = Field(ge=-360, le=360)
    expand: bool = True
    background: Color | None = None


class Flip(_Strict):
    """Mirror the picture: `horizontal` swaps left and right, `vertical` top and bottom."""

    operation: Literal["flip"]
    direction: Literal["horizontal", "vertical"]


class Grayscale(_Strict):
    """Take the colour out (ITU-R 601-2 luma)."""

    operation: Literal["grayscale"]


class Blur(_Strict):
    """Blur the picture (Gauss)."""

    operation: Literal["blur"]
    radius: float = Field(default=2, ge=0.1, le=100, description="In pixels.")


class Sharpen(_Strict):
    """Sharpen the picture (unsharp mask)."""

    operation: Literal["sharpen"]
    radius: float = Field(default=2, ge=0.1, le=100, description="In pixels.")
    percent: int = Field(default=150, ge=1, le=500, description="How strongly.")


class Watermark(_Strict):
    """Write a line of text on the picture, with a thin outline so that it can be read on any ground.

    The font that is shipped has the letters, digits and signs of ASCII and a few more, such as ©; no accents.
    """

    operation: Literal["watermark"]
    text: str = Field(min_length=1, max_length=200)
    position: Position = "bottom_right"
    opacity: float = Field(default=0.5, gt=0, le=1)
    size: int | None = Field(
        default=None, ge=4, le=2000, description="Height of the letters in pixels. Chosen by the picture unless given."
    )
    color: Color = "#ffffff"

    @field_validator("text")
    @classmethod
    def _drawable(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("text must hold something besides white space")
        if strange := sorted(set(text) - FONT_CHARACTERS):
            raise ValueError(
                f"the font cannot draw {', '.join(map(ascii, strange[:10]))}; it knows ASCII and a few signs"
            )
        return text


class Convert(_Strict):
    """Write the picture in another format, whatever its place among the operations.

    `background` is what transparent parts become where the format has none (jpeg, bmp).
    """

    operation: Literal["convert"]
    format: Format
    quality: Quality | None = Field(default=None, description=_QUALITY)
    background: Color = "#ffffff"


class Metadata(_Strict):
    """Tell what the file says: size, format, frames, EXIF, position. Always about the file as it came."""

    operation: Literal["metadata"]


class Palette(_Strict):
    """Find the main colours of the picture as it is at this point, with their shares of what is not transparent."""

    operation: Literal["palette"]
    colors: int = Field(default=5, ge=1, le=16)


Change = Thumbnail | Resize | Crop | Rotate | Flip | Grayscale | Blur | Sharpen | Watermark
Operation = Annotated[Change | Convert | Metadata | Palette, Field(discriminator="operation")]


@dataclass(frozen=True, slots=True)
class Output:
    """How the produced file is to be written. Without `format`, in that of the given file."""

    format: Format | None
    quality: int | None
    background: str = "#ffffff"


class ImageProcessing(_Strict):
    """A picture, and what to do with it."""

    file_id: FileId | None = Field(
        default=None, description="An uploaded or produced file. This, `image_base64` or `image_url`."
    )
    image_base64: str | None = Field(
        default=None, min_length=1, description="The picture itself in base64, a `data:` URL too."
    )
    image_url: Url | None = Field(default=None, description="Where the picture lies, http or https, a public address.")
    operations: list[Operation] = Field(
        default=[
            Thumbnail(operation="thumbnail"),
            Metadata(operation="metadata"),
            Palette(operation="palette"),
        ],
        min_length=1,
        max_length=20,
        description="What to do, in this order. `metadata` and `palette` only look.",
    )
    format: Format | None = Field(default=None, description="Of the produced file. That of the given one unless said.")
    quality: Quality | None = Field(default=None, description=_QUALITY)
    strip_metadata: bool = Field(
        default=True, description="Leave out EXIF, position, XMP and comments. false keeps what the format can hold."
    )

    @field_validator("image_base64")
    @classmethod
    def _looks_like_a_picture(cls, text: str | None) -> str | None:
        if text is not None and format_of(decoded(text)[:MAGIC_BYTES]) is None:
            raise ValueError(NO_PICTURE)
        return text

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if [self.file_id, self.image_base64, self.image_url].count(None) != 2:
            raise ValueError("give exactly one of file_id, image_base64 and image_url")
        conversions = sum(isinstance(one, Convert) for one in self.operations)
        if conversions > 1:
            raise ValueError("a picture is written once: give at most one convert")
        if conversions and (self.format is not None or self.quality is not None):
            raise ValueError("format and quality are given by convert already")
        return self

    @property
    def makes_a_file(self) -> bool:
        """True unless all that is asked for is to look."""
        looks_only = all(isinstance(one, (Metadata, Palette)) for one in self.operations)
        return not looks_only or self.format is not None or self.quality is not None

    @property
    def output(self) -> Output:
        """How the produced file is to be written."""
        convert = next((one for one in self.operations if isinstance(one, Convert)), None)
        if convert is not None:
            return Output(convert.format, convert.quality, convert.background)
        return Output(self.format, self.quality)
