"""What is known about a stored file. Its bytes are elsewhere: see services/file_store.py."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

FILE_ID = r"^[0-9a-f]{32}$"
LONGEST_NAME = 255
ANY_TYPE = "application/octet-stream"

_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,63}/[A-Za-z0-9!#$&^_.+-]{1,63}")


SERVED = frozenset(
    {
        *(f"image/{kind}" for kind in ("png", "jpeg", "gif", "webp", "avif", "bmp", "tiff")),
        *(f"audio/{kind}" for kind in ("mpeg", "ogg", "wav", "flac", "mp4")),
        *(f"video/{kind}" for kind in ("mp4", "webm", "ogg")),
        *("text/plain", "text/csv", "text/markdown", "application/json", "application/x-ndjson", "application/pdf"),
        *("application/zip", "application/gzip", "application/x-tar", ANY_TYPE),
    }
)
"""What a browser shows or saves, and never runs."""


class Role(StrEnum):
    """What a file is to a task. A temporary one goes when the task ends."""

    INPUT = "input"
    OUTPUT = "output"
    TEMPORARY = "temporary"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One row of `files`. `id` is 32 hexadecimal digits nobody can guess, `size` counts bytes, `sha256` is hexadecimal.

    `name` is a label that came from outside, for people; it is never a path. `expires_at` is when it is deleted; None
    while a task keeps it. `tenant` is whose it is, empty where it belongs to none.
    """

    id: str
    name: str
    size: int
    content_type: str
    sha256: str
    created_at: datetime
    expires_at: datetime | None = None
    tenant: str = ""


def label_of(name: str | None) -> str:
    """A file name from outside as a label: the part after the last separator, without control characters, `file` where
    nothing is left."""
    last = re.split(r"[/\\]", name or "")[-1]
    clean = "".join(character for character in last if character.isprintable()).strip()
    return clean[:LONGEST_NAME] if clean.strip(".") else "file"


def content_type_of(declared: str | None) -> str:
    """A declared media type without its parameters; `application/octet-stream` for what is none."""
    media_type = (declared or "").split(";", 1)[0].strip().lower()
    return media_type if _CONTENT_TYPE.fullmatch(media_type) else ANY_TYPE


def served_as(content_type: str) -> str:
    """The media type a file is sent with: the one its sender declared if that is harmless, else that of mere bytes."""
    return content_type if content_type in SERVED else ANY_TYPE
