import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from app.services.executors import named_files
from app.services.registry import load_executors
from app.workers.batch.payload import BatchProcessing, Inline

EXECUTORS = load_executors(
    ["app.workers.executors.batch_processing", "app.workers.executors.text_processing", "tests.batch_executors"]
)
FILE = "0123456789abcdef" * 2


def read(payload: Any, known: bool = True) -> BatchProcessing:
    return BatchProcessing.model_validate_json(json.dumps(payload), context={"executors": EXECUTORS} if known else None)


def faults(payload: Any, known: bool = True) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        read(payload, known)
    return [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in caught.value.errors()]


def test_a_string_stands_for_an_object_with_that_text() -> None:
    batch = read({"items": ["a", {"text": "b", "operations": ["language"]}]})
    assert batch.items is not None
    assert batch.items.payloads == [{"text": "a"}, {"text": "b", "operations": ["language"]}]
    assert (batch.task_type, batch.concurrency, batch.on_error, batch.item_attempts) == (
        "text_processing",
        2,
        "continue",
        1,
    )


def test_items_may_be_called_data() -> None:
    assert read({"data": ["a"]}).items == Inline([{"text": "a"}])


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        ({}, ("", "give either items or items_file_id")),
        ({"items": ["a"], "items_file_id": FILE}, ("", "give either items or items_file_id")),
        ({"items": ["a"], "data": ["a"]}, ("data", "Extra inputs are not permitted")),
        ({"items": []}, ("items", "List should have at least 1 item after validation, not 0")),
        ({"items": ["a"] * 10_001}, ("items", "List should have at most 10000 items after validation, not 10001")),
        ({"items": "a"}, ("items", "Input should be a valid array")),
        ({"items_file_id": "../x"}, ("items_file_id", "String should match pattern '^[0-9a-f]{32}$'")),
        ({"items": ["a"], "concurrency": 0}, ("concurrency", "Input should be greater than or equal to 1")),
        ({"items": ["a"], "concurrency": 33}, ("concurrency", "Input should be less than or equal to 32")),
        ({"items": ["a"], "item_attempts": 11}, ("item_attempts", "Input should be less than or equal to 10")),
        ({"items": ["a"], "on_error": "ignore"}, ("on_error", "Input should be 'continue' or 'stop'")),
        ({"items": ["a"], "size": 1}, ("size", "Extra inputs are not permitted")),
        (
            {"items": ["a"], "task_type": "batch_processing"},
            ("task_type", "a batch of batches is not possible"),
        ),
        (
            {"items": [{"text": "a"}, 3]},
            ("items.1", "must be an object, or a string, which stands for an object with that text"),
        ),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_batch_that_makes_no_sense_is_refused(payload: Any, fault: tuple[str, str], known: bool) -> None:
    assert fault in faults(payload, known)


def test_an_unknown_task_type_is_refused_where_the_task_types_are_known() -> None:
    names = "deed, deed_hang, deed_hang_shared, deed_shared, text_processing"
    assert faults({"items": ["a"], "task_type": "nope"}) == [("task_type", f"unknown task type; there are {names}")]
    assert read({"items": ["a"], "task_type": "nope"}, known=False).task_type == "nope"


def test_items_that_do_not_fit_their_task_type_are_all_located() -> None:
    items = ["a", {"text": 5}, {"text": "c"}, {"text": "d", "operations": ["fly", "language"]}, ""]
    found = faults({"items": items})
    assert [where for where, _ in found] == ["items.1.text", "items.3.operations.0", "items.4.text"]
    assert faults({"data": items[:2]})[0][0] == "data.1.text"
    assert read({"items": items}, known=False).items is not None


def test_the_task_type_may_come_after_the_items() -> None:
    assert faults({"items": [{"name": "x"}], "task_type": "deed"}) == [
        ("items.0.name", "Input should be a valid integer")
    ]


def test_the_files_that_items_name_are_found() -> None:
    batch = read({"items": [{"file": FILE}, {"file": "f" * 32}, {"name": 1}], "task_type": "deed"})
    assert named_files(batch) == (FILE, "f" * 32)
    assert named_files(read({"items_file_id": FILE})) == (FILE,)


def test_its_example_is_valid_and_its_schema_readable() -> None:
    found = EXECUTORS["batch_processing"]
    assert (found.shares_runner, found.timeout_seconds) == (False, 86_400)
    assert found.example is not None
    assert read(dict(found.example)).items is not None
    properties = found.payload_schema["properties"]
    assert all(one["description"] for one in properties.values())
    assert {"type": "string"} in properties["items"]["anyOf"][0]["items"]["anyOf"]
    assert "$defs" not in found.payload_schema


def test_importing_it_loads_no_worker() -> None:
    code = (
        "import sys, app.workers.executors.batch_processing\n"
        "print([name for name in ('structlog', 'app.workers.process', 'app.workers.batch.run') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
