"""One `image_processing` task, from its payload to its result."""

from contextlib import closing
from typing import Any

from PIL import Image

from app.services.executors import Context
from app.workers.image import decode, metadata, operations, palette
from app.workers.image.encode import encoded
from app.workers.image.formats import TRAITS, decoded
from app.workers.image.payload import Convert, ImageProcessing, Metadata, Palette

_NO_FILE = dict.fromkeys(("file_id", "width", "height", "format", "bytes"))


def process(
    payload: ImageProcessing, context: Context, max_pixels: int, memory_bytes: int, given: bytes | None = None
) -> dict[str, Any]:
    """Read, apply, write, and tell the progress of each step. Raises Fail for what no other attempt could do either.

    `given` is the picture where the payload names a URL.
    """
    steps = 1 + len(payload.operations) + payload.makes_a_file
    with decode.pillow_within(max_pixels):
        picture, source = decode.read(
            _given(payload, context) if given is None else given,
            max_pixels,
            lambda size: operations.enough_for(payload, size),
        )
        context.progress(round(100 / steps, 1), "read")
        answers: list[dict[str, Any]] = []
        full = source.width, source.height
        for step, operation in enumerate(payload.operations, start=2):
            match operation:
                case Metadata():
                    answer = metadata.described(source)
                case Palette(colors=count):
                    answer = {"colors": palette.colors_of(picture, count)}
                case Convert(format=name):
                    answer = {"format": name}
                case _:
                    picture = operations.changed(picture, operation, full, max_pixels)
                    full = picture.size
                    answer = {"width": picture.width, "height": picture.height}
            answers.append({"operation": operation.operation, **answer})
            context.progress(round(100 * step / steps, 1), operation.operation)
        file = _saved(picture, source, payload, context, memory_bytes) if payload.makes_a_file else _NO_FILE
    return {**file, "frames": source.frames, "operations": answers}


def _given(payload: ImageProcessing, context: Context) -> bytes:
    if payload.image_base64 is not None:
        return decoded(payload.image_base64)
    assert payload.file_id is not None  # the model sees to it
    with closing(context.open_file(payload.file_id)) as file:
        return file.read()


def _saved(
    picture: Image.Image, source: decode.Source, payload: ImageProcessing, context: Context, memory_bytes: int
) -> dict[str, Any]:
    output = payload.output
    name = output.format or source.format
    kept = None if payload.strip_metadata else source
    data = encoded(picture, name, output.quality, output.background, kept, memory_bytes)
    traits = TRAITS[name]
    file = context.save_file(data, f"{_title(payload)}.{traits.extension}", traits.content_type)
    context.progress(100, "written")
    return {
        "file_id": file.id,
        "width": picture.width,
        "height": picture.height,
        "format": name,
        "bytes": file.size,
    }


def _title(payload: ImageProcessing) -> str:
    """The name of the only operation that changes the picture, `picture` if there are several."""
    names = {one.operation for one in payload.operations if not isinstance(one, Convert | Metadata | Palette)}
    return names.pop() if len(names) == 1 else "picture"
