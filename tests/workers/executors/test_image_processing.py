import base64
import json
import subprocess
import sys
from typing import Any

import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from app.services.executors import Context, Fail, RecordedReports, StopRequested
from app.services.registry import load_executors
from app.workers.executors.image_processing import process_image
from app.workers.image.payload import Change, Convert, ImageProcessing, Metadata, Palette
from tests.workers.image.pictures import FILE, FORMATS, file_of, opened, photograph, quarters

PNG = file_of(quarters())
BASE64 = base64.b64encode(PNG).decode()


def run(**payload: Any) -> dict[str, Any]:
    """As a task: from JSON, with the settings of the environment."""
    model = ImageProcessing.model_validate_json(json.dumps(payload))
    return process_image(model, Context(reports=RecordedReports({FILE: PNG})))


def given(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"file_id": FILE, "operations": list(operations)}


def test_a_picture_gets_a_thumbnail_facts_and_colours_unless_something_else_is_asked_for() -> None:
    reports = RecordedReports({FILE: file_of(photograph(800, 600), "jpeg")})
    result = process_image(ImageProcessing(file_id=FILE), Context(reports=reports))
    assert list(result) == ["file_id", "width", "height", "format", "bytes", "frames", "operations"]
    assert [one["operation"] for one in result["operations"]] == ["thumbnail", "metadata", "palette"]
    (saved,) = reports.saved
    assert (result["file_id"], result["bytes"]) == (saved.id, saved.size)
    assert (result["width"], result["height"], result["format"]) == (256, 192, "jpeg")
    assert opened(reports.files[saved.id]).size == (256, 192)
    assert (result["operations"][1]["width"], len(result["operations"][2]["colors"])) == (800, 5)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_taken_as_base64(kind: str) -> None:
    text = base64.b64encode(file_of(quarters(), kind)).decode()
    for written in (
        text,
        f"data:image/{kind};base64,{text}",
        "\n".join(text[at : at + 76] for at in range(0, 9999, 76)),
    ):
        result = run(image_base64=written, operations=[{"operation": "metadata"}])
        assert (result["operations"][0]["format"], result["operations"][0]["width"]) == (kind, 40)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "exactly one of file_id, image_base64 and image_url"),
        ({"file_id": FILE, "image_base64": BASE64}, "exactly one of file_id, image_base64 and image_url"),
        ({"file_id": "../../etc/passwd"}, "match pattern"),
        ({"file_id": 5}, "valid string"),
        ({"image_base64": ""}, "at least 1 character"),
        ({"image_base64": "!" + BASE64}, "not standard base64"),
        ({"image_base64": BASE64[:-1]}, "not standard base64"),
        ({"image_base64": BASE64 + "é"}, "not standard base64"),
        ({"image_base64": base64.urlsafe_b64encode(b"\xff\xff\xfe\xff" + PNG).decode()}, "not standard base64"),
        ({"image_base64": "data:image/png," + BASE64}, "must hold base64"),
        ({"image_base64": "data:image/png;base64"}, "must hold base64"),
        ({"image_base64": "data:image/png;base64,"}, "no picture in a format"),
        ({"image_base64": base64.b64encode(b"hello").decode()}, "no picture in a format"),
        ({"image_base64": base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()}, "no picture"),
        ({"image_base64": base64.b64encode(b"<!DOCTYPE html>").decode()}, "no picture in a format"),
        ({"image_base64": base64.b64encode(b"%!PS-Adobe-3.0 EPSF").decode()}, "no picture in a format"),
        (given(), "at least 1 item"),
        (given(*[{"operation": "grayscale"}] * 21), "at most 20 items"),
        (given({"operation": "explode"}), "does not match any of the expected tags"),
        (given({"width": 5}), "Unable to extract tag"),
        (given({"operation": "thumbnail", "width": 0}), "greater than or equal to 1"),
        (given({"operation": "thumbnail", "height": -1}), "greater than or equal to 1"),
        (given({"operation": "thumbnail", "width": 16_384}), "less than or equal to 16383"),
        (given({"operation": "thumbnail", "width": "9"}), "valid integer"),
        (given({"operation": "thumbnail", "width": True}), "valid integer"),
        (given({"operation": "thumbnail", "size": 9}), "Extra inputs"),
        (given({"operation": "resize"}), "give width, height or both"),
        (given({"operation": "resize", "width": 5, "mode": "fill"}), "fill needs both"),
        (given({"operation": "resize", "height": 5, "mode": "exact"}), "exact needs both"),
        (given({"operation": "resize", "width": 5, "mode": "crop"}), "'fit', 'fill' or 'exact'"),
        (given({"operation": "crop", "left": -1, "width": 5, "height": 5}), "greater than or equal to 0"),
        (given({"operation": "crop", "width": 0, "height": 5}), "greater than or equal to 1"),
        (given({"operation": "crop", "width": 5}), "Field required"),
        (given({"operation": "rotate"}), "Field required"),
        (given({"operation": "rotate", "degrees": 361}), "less than or equal to 360"),
        (given({"operation": "rotate", "degrees": 1, "background": "red"}), "match pattern"),
        (given({"operation": "rotate", "degrees": 1, "background": "#12345"}), "match pattern"),
        (given({"operation": "flip", "direction": "up"}), "'horizontal' or 'vertical'"),
        (given({"operation": "blur", "radius": 0}), "greater than or equal to 0.1"),
        (given({"operation": "sharpen", "percent": 501}), "less than or equal to 500"),
        (given({"operation": "watermark"}), "Field required"),
        (given({"operation": "watermark", "text": "  "}), "besides white space"),
        (given({"operation": "watermark", "text": "x" * 201}), "at most 200 characters"),
        (given({"operation": "watermark", "text": "Müller 漢"}), r"cannot draw '\\xfc', '\\u6f22'"),
        (given({"operation": "watermark", "text": "a\nb"}), r"cannot draw '\\n'"),
        (given({"operation": "watermark", "text": "a", "opacity": 0}), "greater than 0"),
        (given({"operation": "watermark", "text": "a", "opacity": 1.1}), "less than or equal to 1"),
        (given({"operation": "watermark", "text": "a", "size": 2001}), "less than or equal to 2000"),
        (given({"operation": "watermark", "text": "a", "position": "middle"}), "'bottom_right'"),
        (given({"operation": "convert", "format": "eps"}), "'jpeg', 'png'"),
        (given({"operation": "convert", "format": "jpeg", "quality": 101}), "less than or equal to 100"),
        (given(*[{"operation": "convert", "format": "png"}] * 2), "at most one convert"),
        (given({"operation": "convert", "format": "png"}) | {"format": "png"}, "given by convert already"),
        (given({"operation": "convert", "format": "png"}) | {"quality": 5}, "given by convert already"),
        (given({"operation": "palette", "colors": 0}), "greater than or equal to 1"),
        (given({"operation": "palette", "colors": 17}), "less than or equal to 16"),
        ({"file_id": FILE, "format": "PNG"}, "'jpeg', 'png'"),
        ({"file_id": FILE, "strip_metadata": 1}, "valid boolean"),
        ({"file_id": FILE, "image_url": "http://localhost"}, "exactly one of"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_a_clear_message(payload: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageProcessing.model_validate_json(json.dumps(payload))


def test_the_schema_tells_the_operations_apart_and_describes_every_option() -> None:
    schema = ImageProcessing.model_json_schema()
    assert schema["properties"]["operations"]["items"]["discriminator"]["propertyName"] == "operation"
    kinds = [kind.__name__ for kind in (*Change.__args__, Convert, Metadata, Palette)]
    assert all(schema["$defs"][kind]["description"] for kind in kinds)
    assert len(schema["properties"]["operations"]["items"]["oneOf"]) == len(kinds) == 12
    assert all("description" in one for one in schema["properties"].values())
    assert schema["properties"]["operations"]["default"][0] == {"operation": "thumbnail", "width": 256, "height": 256}
    assert TypeAdapter(dict[str, Any]).dump_json(schema)


def test_progress_is_told_after_each_step() -> None:
    reports = RecordedReports({FILE: PNG})
    payload = ImageProcessing(**given({"operation": "grayscale"}, {"operation": "palette"}))
    process_image(payload, Context(reports=reports))
    assert reports.progresses == [
        (25.0, "read", None),
        (50.0, "grayscale", None),
        (75.0, "palette", None),
        (100, "written", None),
    ]
    reports = RecordedReports({FILE: PNG})
    process_image(ImageProcessing(**given({"operation": "metadata"})), Context(reports=reports))
    assert [percent for percent, _, _ in reports.progresses] == [50.0, 100.0]


def test_a_stopped_attempt_ends_at_the_next_step_and_saves_nothing() -> None:
    reports = RecordedReports({FILE: PNG})
    context = Context(reports=reports)
    context.stop("cancelled")
    with pytest.raises(StopRequested):
        process_image(ImageProcessing(image_base64=BASE64), context)
    assert reports.saved == []


def test_a_file_that_is_not_there_fails() -> None:
    with pytest.raises(Fail, match=f"file {'b' * 32} is not there"):
        run(file_id="b" * 32)


def test_the_limits_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_MAX_PIXELS", "1199")
    with pytest.raises(Fail, match="1,199 pixels"):
        run(file_id=FILE)
    monkeypatch.setenv("IMAGE_MAX_PIXELS", "1200")
    assert run(file_id=FILE)["width"] == 40


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel counts such memory on Linux only")
def test_memory_is_limited_by_the_settings_and_the_runner_goes_on() -> None:
    code = """
import os
os.environ["IMAGE_MEMORY_BYTES"] = str(30 * 2**20)
from PIL import Image
from app.services.executors import Context, Fail, RecordedReports
from app.workers.executors.image_processing import process_image
from app.workers.image.payload import ImageProcessing
from tests.workers.image.pictures import file_of, quarters
for data in (file_of(Image.new("RGB", (4000, 3000))), file_of(quarters())):
    payload = ImageProcessing(file_id="a" * 32)
    try:
        print(process_image(payload, Context(reports=RecordedReports({"a" * 32: data})))["width"])
    except Fail as reason:
        print(reason)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [
        "the picture needs more than the 30 MiB of memory that one task may use",
        "40",
    ]


def test_the_executor_is_found_and_its_example_works() -> None:
    found = load_executors(["app.workers.executors.image_processing"])["image_processing"]
    assert found.timeout_seconds == 120
    assert not found.shares_runner
    assert found.example is not None
    result = run(**found.example)
    assert (result["width"], result["height"], result["format"]) == (48, 64, "png")
    assert result["operations"][1]["colors"] == [
        {"hex": "#1e90ff", "share": 0.5},
        {"hex": "#ffd700", "share": 0.5},
    ]


def test_importing_it_loads_no_image_library() -> None:
    code = "import sys, app.workers.executors.image_processing; print('PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_picture_of_the_largest_size_is_made_within_the_memory_of_the_settings() -> None:
    data = file_of(Image.new("1", (10_000, 5_000)))
    reports = RecordedReports({FILE: data})
    payload = ImageProcessing(**given({"operation": "rotate", "degrees": 90}, {"operation": "thumbnail", "width": 50}))
    assert process_image(payload, Context(reports=reports))["width"] == 50
