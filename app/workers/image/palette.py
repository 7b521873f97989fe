"""The main colours of a picture."""

from typing import Any

from PIL import Image

ENOUGH = (128, 128)
"""A picture of this size has the same main colours as a larger one, and takes a fifth of the time of twice the sides."""
_OPAQUE = 128


def colors_of(picture: Image.Image, count: int) -> list[dict[str, Any]]:
    """At most `count` colours, `{"hex": "#rrggbb", "share": 0..1}`, the most frequent first; exact if there are no more.

    Otherwise each stands for a group of similar ones (median cut, then k-means). Counted are the pixels of the picture,
    shrunk if it is large, that are not (mostly) transparent; none are left of an empty picture.
    """
    small = picture.convert("RGBA")
    small.thumbnail(ENOUGH, Image.Resampling.BOX)
    raw = small.tobytes()
    opaque = b"".join(raw[at : at + 3] for at in range(0, len(raw), 4) if raw[at + 3] >= _OPAQUE)
    if not opaque:
        return []
    total = len(opaque) // 3
    pixels = Image.frombytes("RGB", (total, 1), opaque)
    counted = pixels.getcolors(count)
    if counted is None:
        counted = pixels.quantize(count, Image.Quantize.MEDIANCUT, kmeans=1).convert("RGB").getcolors(count)
    found: list[tuple[int, tuple[int, ...]]] = counted or []  # type: ignore[assignment]  # of RGB: tuples
    found.sort(key=lambda one: (-one[0], one[1]))
    return [
        {"hex": "#{:02x}{:02x}{:02x}".format(*color), "share": round(pixels_of / total, 4)}
        for pixels_of, color in found
    ]
