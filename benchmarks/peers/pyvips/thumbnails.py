"""Thumbnails with pyvips alone, in its own environment: `thumbnails.py PICTURE COUNT` prints seconds and processor seconds."""

import json
import sys
import time
from pathlib import Path

import pyvips


def make(data: bytes, path: Path) -> None:
    # Like Pillow's thumbnail: inside the box, never larger than the picture.
    pyvips.Image.thumbnail_buffer(data, 256, height=256, size="down").jpegsave(str(path), Q=85)


def main() -> None:
    source, count = Path(sys.argv[1]), int(sys.argv[2])
    data, made = source.read_bytes(), source.with_suffix(".vips")
    made.mkdir(exist_ok=True)
    for number in range(3):
        make(data, made / f"{number}.jpg")
    began, used = time.perf_counter(), time.process_time()
    for number in range(count):
        make(data, made / f"{number}.jpg")
    print(json.dumps([time.perf_counter() - began, time.process_time() - used]))


if __name__ == "__main__":
    main()
