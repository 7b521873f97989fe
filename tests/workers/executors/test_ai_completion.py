import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog
from llmock.pytest_plugin import LLMock
from llmock.scenarios import Fail as RateLimit
from pydantic import ValidationError

from app.core.settings import SHIPPED_EXECUTORS
from app.core.task import FailureReason, Status
from app.services.executors import Context, Fail, RecordedReports
from app.services.registry import load_executors
from app.workers.executors.ai_completion import AiCompletion, complete_chat
from tests.conftest import until
from tests.workers.conftest import Start

MODULE = "app.workers.executors.ai_completion"
KEY = "sk-secret/Key+0123456789"


@pytest.fixture
def provider(llmock: LLMock, monkeypatch: pytest.MonkeyPatch) -> LLMock:
    """A provider on this machine, and the settings that name it."""
    monkeypatch.setenv("AI_BASE_URL", llmock.base_url("openai"))
    monkeypatch.setenv("AI_API_KEY", KEY)
    monkeypatch.setenv("AI_MODEL", "the-model")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return llmock


async def run(**payload: Any) -> dict[str, Any]:
    return await complete_chat(AiCompletion(**payload), Context(reports=RecordedReports()))


async def test_a_prompt_is_answered(provider: LLMock) -> None:
    provider.reply("Good day.")
    result = await run(prompt="Hello")
    assert result.pop("usage")["completion_tokens"] > 0
    assert result == {"text": "Good day.", "model": "the-model", "finish_reason": "stop"}
    body = asked(provider)
    assert body["messages"] == [{"role": "user", "content": "Hello"}]
    assert not {"max_tokens", "temperature"} & set(body)


async def test_messages_and_options_reach_the_endpoint(provider: LLMock) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Who are you?"},
    ]
    result = await run(messages=messages, model="other", max_tokens=50, temperature=0)
    assert result["model"] == "other"
    body = asked(provider)
    assert body["messages"] == messages
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("other", 50, 0)


def asked(provider: LLMock) -> dict[str, Any]:
    body = provider.last_request.body
    assert isinstance(body, dict)
    return body


USER = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "exactly one of messages and prompt"),
        ({"prompt": "a", "messages": [USER]}, "exactly one of messages and prompt"),
        ({"prompt": None, "messages": None}, "exactly one of messages and prompt"),
        ({"prompt": ""}, "at least 1 character"),
        ({"prompt": " \n"}, "something besides white space"),
        ({"prompt": 5}, "valid string"),
        ({"messages": []}, "at least 1 item"),
        ({"messages": [USER] * 101}, "at most 100 items"),
        ({"messages": [{"role": "user"}]}, "Field required"),
        ({"messages": [{"role": "user", "content": "\t"}]}, "something besides white space"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "'system', 'user' or 'assistant'"),
        ({"messages": [{**USER, "name": "a"}]}, "Extra inputs"),
        ({"messages": [USER, {"role": "assistant", "content": "a"}]}, "must not be the assistant's"),
        ({"prompt": "a", "model": " "}, "something besides white space"),
        ({"prompt": "a", "model": "m" * 201}, "at most 200 characters"),
        ({"prompt": "a", "max_tokens": 0}, "greater than or equal to 1"),
        ({"prompt": "a", "max_tokens": 1.5}, "valid integer"),
        ({"prompt": "a", "max_tokens": True}, "valid integer"),
        ({"prompt": "a", "temperature": -0.1}, "greater than or equal to 0"),
        ({"prompt": "a", "temperature": 2.1}, "less than or equal to 2"),
        ({"prompt": "a", "temperature": float("nan")}, "finite number"),
        ({"prompt": "a", "temperature": "1"}, "valid number"),
        ({"prompt": "a", "stream": True}, "Extra inputs"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_a_clear_message(payload: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AiCompletion.model_validate(payload)


def test_what_fits_is_taken() -> None:
    assert AiCompletion.model_validate({"messages": [USER] * 100, "prompt": None, "temperature": 2}).messages
    assert AiCompletion.model_validate({"messages": [USER, {"role": "system", "content": "a"}]}).messages


def test_every_option_is_described_in_the_schema() -> None:
    schema = AiCompletion.model_json_schema()
    properties = schema["properties"] | schema["$defs"]["ChatMessage"]["properties"]
    assert all(one["description"] for one in properties.values())


def test_the_executor_is_found_and_its_example_is_valid() -> None:
    found = load_executors([MODULE])["ai_completion"]
    assert (found.max_attempts, found.timeout_seconds, found.shares_runner) == (5, 600, True)
    assert found.retry is not None
    assert found.payload.model_validate(found.example)


def test_importing_it_loads_no_http_client() -> None:
    code = f"import sys, {MODULE}\nprint([name for name in ('httpx', 'app.workers.ai.client') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_without_an_endpoint_it_says_what_to_set() -> None:
    with pytest.raises(Fail, match=r"^No AI endpoint is configured: set AI_BASE_URL"):
        await run(prompt="Hello")


# Through a real worker.


def modules() -> tuple[str, ...]:
    """What EXECUTOR_MODULES must hold for this type: nothing once it is shipped."""
    return () if MODULE in SHIPPED_EXECUTORS else (MODULE,)


async def test_a_rate_limit_is_waited_out_and_the_key_is_in_no_row_and_no_line(
    start: Start, provider: LLMock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider.add(RateLimit(429, retry_after=1, message=f"Slow down, Bearer {KEY}"))
    provider.reply("Good day.")
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as lines:
        running = await start(executor_modules=modules())
        task = await running.run("ai_completion", payload={"prompt": "Hello"})
        await running.stop()
    assert (task.status, task.attempts, task.error) == (Status.COMPLETED, 2, None)
    assert json.loads(task.result or "")["text"] == "Good day."
    first, second = provider.requests
    assert (first.status, second.status) == (429, 200)
    assert second.started_at - first.ended_at >= 1
    attempts = await running.services.tasks.attempts(task.id)
    assert [attempt.outcome for attempt in attempts] == ["error", "completed"]
    assert "429 Too Many Requests: Slow down, Bearer [redacted]" in str(attempts[0])
    assert "Slow down, Bearer [redacted]" in str(lines)
    rows = b"".join(path.read_bytes() for path in tmp_path.glob("tasks.db*") if path.is_file())
    assert b"Slow down, Bearer [redacted]" in rows
    for start_of_key in (KEY, KEY[:9]):
        assert start_of_key.encode() not in rows
        assert start_of_key not in str(lines) + caplog.text


async def test_a_wrong_key_fails_at_once(start: Start, provider: LLMock) -> None:
    provider.fail(401, message="Incorrect API key provided: sk-se****6789.", times=None)
    running = await start(executor_modules=modules())
    task = await running.run("ai_completion", payload={"prompt": "Hello"})
    assert (task.status, task.failure_reason, task.attempts) == (Status.FAILED, FailureReason.ERROR, 1)
    assert "Incorrect API key provided: [redacted]. Check AI_API_KEY." in (task.error or "")


async def test_a_cancelled_task_lets_go_of_its_endpoint(start: Start, provider: LLMock) -> None:
    provider.reply("one two three four")
    provider.stall(after_chunks=2, seconds=60)
    running = await start(executor_modules=modules())
    task_id = await running.submit("ai_completion", payload={"prompt": "Hello"})

    async def begun() -> bool:
        return "characters" in ((await running.get(task_id)).progress or "")

    await until(begun)
    await running.services.tasks.cancel(task_id)
    assert (await running.ended(task_id)).status is Status.CANCELLED
    (record,) = provider.requests
    assert not record.completed
    assert record.stall_waited is not None
    assert record.stall_waited < 30
