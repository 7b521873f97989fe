"""What the finders of this package find."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entity:
    """`start` and `end` are code point offsets; `value` is the normal form, None where the text does not settle it."""

    start: int
    end: int
    value: Any
