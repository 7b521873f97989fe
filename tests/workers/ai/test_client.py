"""The client against a real socket: bytes for bytes in most tests, llmock's provider in the rest."""

import asyncio
import json
import logging
import socket
import traceback
from contextlib import ExitStack
from typing import Any

import pytest
from llmock.pytest_plugin import LLMock

from app.core.settings import Settings
from app.services.executors import Context, Fail, RecordedReports, Retry, RunnerSetup, StopRequested
from app.workers.ai.answer import PROGRESS_SECONDS, TAIL_CHARACTERS, Answer
from app.workers.ai.client import Completion, EndpointError, Message, complete
from app.workers.ai.endpoint import Endpoint as Named
from app.workers.ai.endpoint import endpoint_of
from app.workers.ai.sse import Event
from tests.conftest import until
from tests.workers.ai.conftest import CUT, DONE, KEY, SILENT, STOP, Endpoint, chunked, delta, event, plain

HELLO = [Message("user", "Hello")]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


async def refused(context: Context, kind: type[Exception]) -> str:
    """The message of what `complete` raises, which must be exactly `kind`; nothing of it may show the key."""
    with pytest.raises(kind) as raised:
        await complete(HELLO, context)
    assert raised.type is kind
    trace = "".join(traceback.format_exception(raised.value))
    assert KEY not in trace
    assert "httpcore" not in trace  # httpx's errors hold the request, so they are not carried along
    return str(raised.value)


# What is asked.


async def test_the_request_is_a_streamed_chat_completion_with_the_key(endpoint: Endpoint, context: Context) -> None:
    endpoint.answers = [chunked(delta("Hi"), STOP, DONE)]
    messages = [Message("system", "Be brief."), Message("user", "Grüße")]
    await complete(messages, context, model="other", max_tokens=5, temperature=0.0)
    (asked,) = endpoint.asked
    assert asked.target == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.body == {
        "model": "other",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.0,
    }


async def test_what_is_not_given_is_not_sent_and_the_model_is_the_settings(
    endpoint: Endpoint, context: Context
) -> None:
    endpoint.answers = [chunked(delta("Hi"), STOP, DONE)]
    await complete(HELLO, context)
    assert set(endpoint.asked[0].body) == {"model", "messages", "stream", "stream_options"}
    assert endpoint.asked[0].body["model"] == "the-model"


async def test_without_any_model_it_fails_saying_so(
    endpoint: Endpoint, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AI_MODEL")
    assert "set AI_MODEL for the worker, or `model` in the payload" in await refused(context, Fail)
    assert endpoint.asked == []


async def test_without_an_endpoint_it_fails_saying_so(context: Context) -> None:
    assert (await refused(context, Fail)).startswith("No AI endpoint is configured: set AI_BASE_URL (and AI_MODEL")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("400 Bad Request", 'json: unknown field "stream_options"'),
        ("422 Unprocessable Entity", "extra_forbidden: body.stream_options.include_usage"),
    ],
)
async def test_an_endpoint_that_refuses_stream_options_is_asked_without(
    endpoint: Endpoint, context: Context, status: str, said: str
) -> None:
    endpoint.answers = [
        plain(status, json.dumps({"error": {"message": said}}).encode()),
        chunked(delta("Hi"), STOP, DONE),
    ]
    assert (await complete(HELLO, context)).text == "Hi"
    first, second = endpoint.asked
    assert "stream_options" not in second.body
    assert second.body == {name: value for name, value in first.body.items() if name != "stream_options"}


async def test_an_endpoint_that_wants_the_limit_under_its_new_name_gets_it(
    endpoint: Endpoint, context: Context
) -> None:
    said = b'{"error": {"message": "Unsupported parameter: max_tokens. Use max_completion_tokens instead."}}'
    endpoint.answers = [plain("400 Bad Request", said), chunked(delta("Hi"), STOP, DONE)]
    await complete(HELLO, context, max_tokens=9)
    assert endpoint.asked[1].body["max_completion_tokens"] == 9
    assert "max_tokens" not in endpoint.asked[1].body


async def test_an_endpoint_that_refuses_everything_is_not_asked_for_ever(endpoint: Endpoint, context: Context) -> None:
    said = b"stream_options, include_usage, max_completion_tokens"
    endpoint.answers = [plain("400 Bad Request", said)]
    with pytest.raises(Fail, match="400 Bad Request: stream_options"):
        await complete(HELLO, context, max_tokens=9)
    assert len(endpoint.asked) == 3


# What counts as an answer.


async def test_a_stream_becomes_text_model_usage_and_finish_reason(endpoint: Endpoint, context: Context) -> None:
    usage = {**USAGE, "completion_tokens_details": {"reasoning_tokens": 0}}
    endpoint.answers = [
        chunked(
            delta("Hello "), delta("world"), STOP, event({"choices": [], "usage": usage}), event({"usage": None}), DONE
        )
    ]
    assert await complete(HELLO, context) == Completion("Hello world", "told-model", USAGE, "stop")


async def test_a_stream_cut_anywhere_is_read_right(endpoint: Endpoint, context: Context) -> None:
    """Characters and events over several chunks, CRLF, comments, several data lines, and a line separator in a string."""
    stream = (
        ': OPENROUTER PROCESSING\r\n\r\ndata: {"choices": [{"delta":\r\ndata: {"content": "Grü🙂"}}]}\r\n\r\n'.encode()
        + delta("\u2028ß")
        + STOP
        + DONE
    )
    endpoint.answers = [chunked(*(stream[place : place + 1] for place in range(len(stream))))]
    assert (await complete(HELLO, context)).text == "Grü🙂\u2028ß"


EMPTY = event({"choices": []})


@pytest.mark.parametrize(
    ("pieces", "finish_reason"),
    [
        pytest.param([delta("Hi"), STOP, DONE], "stop", id="usage missing"),
        pytest.param([EMPTY, delta("Hi"), EMPTY, STOP, event({}), DONE], "stop", id="no choices"),
        pytest.param([delta(None), delta("Hi"), event({"choices": [{"delta": None}]}), STOP, DONE], "stop", id="nulls"),
        pytest.param([delta("Hi", "length"), DONE], "length", id="cut at the limit"),
        pytest.param([delta("Hi", ""), delta("", "stop")], "stop", id="no [DONE]"),
        pytest.param([delta("Hi"), DONE], None, id="no finish_reason"),
        pytest.param([delta("Hi"), DONE.strip()], None, id="no blank line after [DONE]"),
        pytest.param([delta("Hi"), STOP, b"data:\n\n: ping\n\n", DONE], "stop", id="empty events"),
        pytest.param([delta("Hi"), STOP, DONE + b"data: garbage\n\n", CUT], "stop", id="whatever follows [DONE]"),
        pytest.param(
            [event({"choices": [{"index": 1, "delta": {"content": "No"}}]}), delta("Hi"), STOP, DONE],
            "stop",
            id="another choice",
        ),
        pytest.param(
            [delta([{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hi"}]), STOP, DONE],
            "stop",
            id="parts",
        ),
    ],
)
async def test_dialects_of_the_stream_are_understood(
    endpoint: Endpoint, context: Context, pieces: list[bytes], finish_reason: str | None
) -> None:
    endpoint.answers = [chunked(*pieces)]
    completion = await complete(HELLO, context)
    assert (completion.text, completion.finish_reason, completion.usage) == ("Hi", finish_reason, None)


async def test_nothing_is_waited_for_after_done(
    endpoint: Endpoint, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_TIMEOUT_SECONDS", "5")
    endpoint.answers = [chunked(delta("Hi"), STOP, DONE, end=SILENT)]
    assert (await complete(HELLO, context)).text == "Hi"


async def test_an_endpoint_that_does_not_stream_is_understood(endpoint: Endpoint, context: Context) -> None:
    answer = {"model": "m", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE}
    endpoint.answers = [plain("200 OK", json.dumps(answer).encode(), kind="application/json; charset=utf-8")]
    assert await complete(HELLO, context) == Completion("Hi", "m", USAGE, "stop")


@pytest.mark.parametrize(
    ("usage", "kept"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, USAGE),
        ({"prompt_tokens": "3", "completion_tokens": 2, "total_tokens": 5}, None),
        ({"prompt_tokens": True, "completion_tokens": 2, "total_tokens": 5}, None),
        ({"prompt_tokens": 3, "completion_tokens": -2, "total_tokens": 5}, None),
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": None}, USAGE),
        ([3, 2, 5], None),
    ],
)
async def test_usage_is_kept_only_if_it_is_counts(endpoint: Endpoint, context: Context, usage: Any, kept: Any) -> None:
    endpoint.answers = [chunked(delta("Hi", "stop", usage=usage), DONE)]
    assert (await complete(HELLO, context)).usage == kept


async def test_characters_that_json_spells_in_halves_are_put_together(endpoint: Endpoint, context: Context) -> None:
    halves = [
        b'data: {"choices": [{"delta": {"content": "\\u%s"}}]}\n\n' % half for half in (b"d83d", b"de42", b"0000")
    ]
    endpoint.answers = [
        chunked(*halves, delta("a"), b'data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n\n', STOP)
    ]
    assert (await complete(HELLO, context)).text == "🙂\ufffda\ufffd"


# What does not.


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(chunked(delta("Half")), "broke off after 4 characters", id="ends without a word"),
        pytest.param(chunked(delta("Half"), end=b""), "was lost before the answer was whole", id="connection closed"),
        pytest.param([*chunked(delta("Half"), STOP, end=b""), CUT], "was lost before", id="lost before [DONE]"),
        pytest.param(chunked(DONE), "broke off after 0 characters", id="[DONE] alone"),
        pytest.param(chunked(), "broke off after 0 characters", id="nothing"),
        pytest.param(chunked(delta("Half", "error"), DONE), "broke off after 4", id="OpenRouter's finish_reason"),
        pytest.param(
            chunked(delta("Half"), event({"error": {"message": "no memory"}}), STOP, DONE), "no memory", id="error"
        ),
        pytest.param(chunked(delta("Half"), event({"error": "bad"}), DONE), "broke off: bad", id="error is a string"),
        pytest.param(
            chunked(delta("A"), event({"object": "error", "message": "v"}), DONE), "broke off: v", id="vLLM's"
        ),
        pytest.param(
            chunked(delta("A"), b'error: {"message": "l"}\n\n', STOP, DONE), "broke off: l", id="old llama.cpp's"
        ),
        pytest.param(
            chunked(delta("A"), b'event: error\ndata: {"message": "e"}\n\n', STOP), "broke off: e", id="named"
        ),
        pytest.param(chunked(delta("A"), b"data: {oops\n\n", STOP, DONE), "no part of an answer: {oops", id="no JSON"),
        pytest.param(chunked(delta("A"), b"data: [1]\n\n", STOP, DONE), "no part of an answer", id="no object"),
        pytest.param(
            chunked(delta("A"), event({"choices": 5}), STOP), "no part of an answer", id="choices is a number"
        ),
        pytest.param(chunked(delta("A"), event({"choices": [5]}), STOP), "no part of an answer", id="a choice is"),
        pytest.param(chunked(delta(5), STOP, DONE), "no part of an answer", id="content is"),
        pytest.param(chunked(delta([{"type": "text"}]), STOP), "no part of an answer", id="a part without text"),
        pytest.param(chunked(event({"choices": [{"delta": [1]}]}), STOP), "no part of an answer", id="delta is a list"),
        pytest.param(chunked(delta("A"), b"data: " + b"[" * 10_000 + b"\n\n", STOP), "no part of", id="too deep"),
        pytest.param(chunked(b"x" * 200_000, end=b""), "larger than 125536 bytes", id="one endless line"),
        pytest.param(chunked(b"<html>Sign in", kind="text/html"), "a web page. Check AI_BASE_URL", id="a web page"),
        pytest.param(plain("200 OK", b'{"choices": [{"mess'), "no part of an answer", id="half of a JSON"),
        pytest.param(plain("200 OK", b'{"error": {"message": "busy"}}'), "broke off: busy", id="a JSON error with 200"),
        pytest.param(
            plain("200 OK", b'{"choices": [{"message": {"content": null}}]}'), "after 0", id="a JSON of nothing"
        ),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ndata"], "was lost", id="less than announced"),
        pytest.param([b"SSH-2.0-OpenSSH_9.9\r\n"], "was lost", id="not HTTP"),
        pytest.param([CUT], "was lost", id="no answer at all"),
    ],
)
async def test_what_breaks_off_is_an_error_to_retry_and_never_a_short_answer(
    endpoint: Endpoint, context: Context, answer: list[bytes], says: str
) -> None:
    endpoint.answers = [answer]
    assert says in await refused(context, EndpointError)


async def test_a_filtered_answer_fails_with_a_reason(endpoint: Endpoint, context: Context) -> None:
    endpoint.answers = [chunked(delta("Half", "content_filter"), DONE)]
    assert "content filter stopped the answer" in await refused(context, Fail)


async def test_an_answer_over_the_limit_fails(endpoint: Endpoint, context: Context) -> None:
    endpoint.answers = [chunked(delta("ä" * 5000), delta("a"), STOP, DONE)]
    assert "larger than the limit of 10000 bytes (MAX_RESULT_BYTES)" in await refused(context, Fail)


async def test_an_answer_at_the_limit_does_not(endpoint: Endpoint, context: Context) -> None:
    endpoint.answers = [chunked(delta("ä" * 5000), STOP, DONE)]
    assert len((await complete(HELLO, context)).text) == 5000


# What endpoints refuse.


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("400 Bad Request", "answered 400 Bad Request: no good"),
        ("401 Unauthorized", "answered 401 Unauthorized: no good. Check AI_API_KEY."),
        ("402 Payment Required", "answered 402 Payment Required: no good"),
        ("403 Forbidden", "no good. Check AI_API_KEY and what it may do."),
        ("404 Not Found", "no good. Check AI_BASE_URL and the model's name."),
        ("413 Too Large", "answered 413"),
        ("422 Unprocessable Entity", "answered 422"),
    ],
)
async def test_what_trying_again_cannot_help_fails_with_the_servers_words(
    endpoint: Endpoint, context: Context, status: str, says: str
) -> None:
    endpoint.answers = [plain(status, b'{"error": {"message": "no good"}}', "Retry-After: 1")]
    message = await refused(context, Fail)
    assert message.startswith(f"The AI endpoint http://127.0.0.1:{endpoint.port}/v1/chat/completions answered")
    assert says in message


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529])
async def test_what_may_pass_waits_as_long_as_the_server_says_or_as_the_policy_does(
    endpoint: Endpoint, context: Context, status: int
) -> None:
    said = b'{"error": {"message": "too many"}}'
    endpoint.answers = [plain(f"{status} Later", said, "Retry-After: 7"), plain(f"{status} Later", said)]
    with pytest.raises(Retry, match=f"answered {status} Later: too many") as raised:
        await complete(HELLO, context)
    assert raised.value.after == 7.0
    assert f"answered {status} Later: too many" in await refused(context, EndpointError)


async def test_a_refusal_without_end_is_read_only_at_its_beginning(
    endpoint: Endpoint, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_TIMEOUT_SECONDS", "5")
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 1000000\r\n\r\n"
    endpoint.answers = [[head, b"no good " * 10_000, SILENT]]
    assert "400 Bad Request: no good" in await refused(context, Fail)


async def test_a_redirect_is_not_followed(endpoint: Endpoint, context: Context) -> None:
    other = f"http://user:password@127.0.0.1:{endpoint.port}/other?key={KEY}"
    for status in (301, 302, 303, 307, 308):
        endpoint.asked.clear()
        endpoint.answers = [plain(f"{status} Moved", b"", f"Location: {other}"), chunked(delta("Hi"), STOP, DONE)]
        message = await refused(context, Fail)
        assert f"a redirect to http://127.0.0.1:{endpoint.port}/other. It is not followed" in message
        assert "password" not in message
        assert len(endpoint.asked) == 1


# Time and connections.


async def test_a_silent_endpoint_is_given_up_after_the_longest_silence(
    endpoint: Endpoint, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_TIMEOUT_SECONDS", "0.2")
    for answer in ([SILENT], chunked(delta("Half"), end=SILENT)):
        endpoint.gone.clear()
        endpoint.answers = [answer]
        assert "was silent for 0.2 seconds (AI_TIMEOUT_SECONDS)" in await refused(context, EndpointError)
        async with asyncio.timeout(5):
            await endpoint.gone.wait()


async def test_an_endpoint_that_takes_no_connection_is_given_up(
    endpoint: Endpoint, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux drops connections to a listener whose backlog is full, as a firewall does."""
    monkeypatch.setenv("AI_TIMEOUT_SECONDS", "0.2")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        monkeypatch.setenv("AI_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        assert "could not be reached within 0.2 seconds" in await refused(context, EndpointError)


async def test_an_endpoint_that_is_not_there_is_an_error_to_retry(
    endpoint: Endpoint, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AI_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}/v1")
        assert "cannot be reached" in await refused(context, EndpointError)


@pytest.mark.parametrize("answer", [[SILENT], chunked(delta("Half"), end=SILENT)])
async def test_a_cancelled_question_closes_its_connection_at_once(
    endpoint: Endpoint, context: Context, reports: RecordedReports, answer: list[bytes]
) -> None:
    endpoint.answers = [answer]
    asking = asyncio.create_task(complete(HELLO, context))
    await until(lambda: endpoint.asked and (answer == [SILENT] or len(reports.progresses) == 2))
    async with asyncio.timeout(5):
        asking.cancel()
        await endpoint.gone.wait()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_an_attempt_that_must_end_stops_reading(endpoint: Endpoint) -> None:
    class Stopping(RecordedReports):
        def progress(self, percent: float | None, message: str | None, data: Any) -> None:
            if data is None:
                context.stop("cancelled")

    context = Context(reports=Stopping())
    endpoint.answers = [chunked(delta("Half"), STOP, end=SILENT)]
    with pytest.raises(StopRequested):
        await complete(HELLO, context)
    async with asyncio.timeout(5):
        await endpoint.gone.wait()


# Progress.


async def test_progress_shows_counts_and_the_newest_words(
    endpoint: Endpoint, context: Context, reports: RecordedReports
) -> None:
    pieces = [delta("x" * 300), *(delta(f" {number}") for number in range(400))]
    endpoint.answers = [chunked(*pieces, delta("", "stop", usage=USAGE), DONE)]
    began = asyncio.get_running_loop().time()
    completion = await complete(HELLO, context)
    seconds = asyncio.get_running_loop().time() - began
    first, second, *_, last = reports.progresses
    assert first == (None, "waiting for the endpoint", None)
    assert second == (
        None,
        "300 characters",
        {"characters": 300, "pieces": 1, "usage": None, "tail": "x" * TAIL_CHARACTERS},
    )
    count = len(completion.text)
    tail = completion.text[-TAIL_CHARACTERS:]
    assert last == (
        None,
        f"{count} characters, 2 tokens",
        {"characters": count, "pieces": 401, "usage": USAGE, "tail": tail},
    )
    assert len(reports.progresses) <= 3 + seconds / PROGRESS_SECONDS


def test_progress_is_told_again_after_half_a_second(context: Context, reports: RecordedReports) -> None:
    moments = iter([10.0, 10.49, 10.5, 10.9])
    answer = Answer(named(), context, 10_000, lambda: next(moments))
    for text in ("a", "b", "c", "d"):
        answer.take(Event("message", delta(text).decode().removeprefix("data: ")))
    assert [data["tail"] for _, _, data in reports.progresses] == ["a", "abc"]


# The key.


def named() -> Named:
    return endpoint_of(Settings(ai_base_url="http://host/v1", ai_api_key=KEY))


ECHO = json.dumps({"error": {"message": f"Authorization: Bearer {KEY} is wrong"}}).encode()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (plain("401 Unauthorized", ECHO), Fail),
        (plain("400 Bad Request", ECHO.replace(b"/", b"\\/")), Fail),
        (plain("401 Unauthorized", b"x" * 490 + KEY.encode(), kind="text/plain"), Fail),
        (plain("429 Too Many", ECHO), EndpointError),
        (plain("503 Busy", ECHO, "Retry-After: 1"), Retry),
        (chunked(delta("A"), b"data: " + ECHO + b"\n\n"), EndpointError),
        (chunked(delta("A"), b"data: Bearer " + KEY.encode() + b"\n\n"), EndpointError),
        (plain("200 OK", KEY.encode()), EndpointError),
        (plain("302 Found", b"", f"Location: /{KEY}"), Fail),
        ([f"HTTP/1.1 {KEY}\r\n\r\n".encode()], EndpointError),
        ([f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode()], EndpointError),
    ],
)
async def test_an_endpoint_that_says_the_key_back_does_not_make_us_say_it(
    endpoint: Endpoint, context: Context, answer: list[bytes], kind: type[Exception]
) -> None:
    endpoint.answers = [answer]
    assert KEY[:10] not in await refused(context, kind)


async def test_a_key_said_back_in_an_answer_is_in_no_result_and_no_progress(
    endpoint: Endpoint, context: Context, reports: RecordedReports
) -> None:
    pieces = [delta("Yours is "), *(delta(letter) for letter in KEY), delta(".", KEY, model=KEY)]
    endpoint.answers = [chunked(*pieces, DONE)]
    assert await complete(HELLO, context) == Completion("Yours is [redacted].", "[redacted]", None, "[redacted]")
    assert "sk-" not in json.dumps(reports.progresses)


async def test_no_secret_is_in_a_log_line_even_where_everything_is_logged(
    endpoint: Endpoint, context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    monkeypatch.setenv("AI_BASE_URL", f"http://user:password@127.0.0.1:{endpoint.port}/v1?code=hidden-value")
    endpoint.answers = [chunked(delta("Hi"), STOP, DONE)]
    await complete(HELLO, context)
    assert endpoint.asked[0].target == "/v1/chat/completions?code=hidden-value"
    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert not [secret for secret in (KEY, "password", "hidden-value") if secret in caplog.text]


# A provider that answers as the official libraries expect.


@pytest.fixture
def provider(llmock: LLMock, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> LLMock:
    monkeypatch.setenv("AI_BASE_URL", llmock.base_url("openai"))
    monkeypatch.setenv("AI_TIMEOUT_SECONDS", "5")
    return llmock


async def test_a_provider_is_understood(provider: LLMock, context: Context) -> None:
    provider.reply("Grüße an alle 🙂")
    completion = await complete(HELLO, context, model="gpt-4o")
    assert (completion.text, completion.model, completion.finish_reason) == ("Grüße an alle 🙂", "gpt-4o", "stop")
    assert completion.usage is not None
    assert completion.usage["completion_tokens"] > 0
    assert provider.last_request.stream


@pytest.mark.parametrize("fault", ["disconnect", "truncate", "corrupt"])
async def test_a_providers_broken_stream_is_an_error_to_retry(provider: LLMock, context: Context, fault: str) -> None:
    provider.reply("one two three four five six")
    getattr(provider, fault)(after_chunks=2)
    await refused(context, EndpointError)


async def test_a_provider_that_stalls_is_given_up(
    provider: LLMock, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_TIMEOUT_SECONDS", "0.2")
    provider.stall(after_chunks=1, seconds=5)
    assert "was silent" in await refused(context, EndpointError)


async def test_a_provider_that_limits_the_rate_is_obeyed(provider: LLMock, context: Context) -> None:
    provider.rate_limit(retry_after=3)
    with pytest.raises(Retry, match="429") as raised:
        await complete(HELLO, context)
    assert raised.value.after == 3.0


async def test_the_limit_is_the_runners(endpoint: Endpoint, reports: RecordedReports) -> None:
    endpoint.answers = [chunked(delta("abcd"), STOP, DONE)]
    context = Context(reports=reports, setup=RunnerSetup(max_result_bytes=3))
    assert "limit of 3 bytes" in await refused(context, Fail)
