"""The `image_processing` task type: thumbnails, changes, facts and colours of a picture, from a file, from the payload or from a URL."""

from typing import Any

from app.core.settings import load_settings
from app.services.executors import Context, executor
from app.workers.image.payload import ImageProcessing

EXAMPLE = {
    "image_base64": "iVBORw0KGgoAAAANSUhEUgAAABAAAAAMAQMAAABRKa/CAAAABlBMVEX/1wAekP8wjVqnAAAAD0lEQVR42mP4z8DEQAABACSNARYWulKsAAAAAElFTkSuQmCC",
    "operations": [
        {"operation": "metadata"},
        {"operation": "palette", "colors": 2},
        {"operation": "resize", "width": 64},
        {"operation": "rotate", "degrees": 90},
    ],
}


@executor("image_processing", payload=ImageProcessing, timeout_seconds=120, example=EXAMPLE)
def process_image(payload: ImageProcessing, context: Context) -> dict[str, Any]:
    """Change a picture, or look at it: the operations are applied in order, and the result has one object for each.

    The produced file is `file_id`, with its `width`, `height`, `format` and `bytes`; all are null where the operations
    only look. JPEG, PNG, GIF, WebP, BMP, TIFF and AVIF are read and written. The picture is turned upright first, and
    its colours become sRGB. Of an animation or of several pages the first is taken; `frames` says how many there were.
    Metadata is left out unless `strip_metadata` is false. A picture that is broken or too large fails at once.
    """
    # Imported here, in the runner: API and worker parent import this module for the payload model alone.
    from app.workers.image.memory import limited_memory
    from app.workers.image.process import process

    settings = load_settings()
    given = None
    if payload.image_url is not None:
        from app.workers.http.fetch import fetched

        context.progress(0, "fetching")
        given = fetched(payload.image_url, settings, settings.max_upload_bytes).body
    with limited_memory(settings.image_memory_bytes):
        return process(payload, context, settings.image_max_pixels, settings.image_memory_bytes, given)
