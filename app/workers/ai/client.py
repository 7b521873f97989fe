"""Asks an OpenAI-compatible endpoint. The rest of the program knows no provider and no HTTP client for them.

The endpoint and its key are settings of the worker; neither is in a payload, a row, a log line or an error.
"""

import logging
import ssl
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import httpx

from app.core.clock import system_clock
from app.core.settings import load_settings
from app.services.executors import Context, Fail
from app.workers.ai.answer import Answer, Completion
from app.workers.ai.endpoint import Endpoint, endpoint_of
from app.workers.ai.refusals import EndpointError, refusal
from app.workers.ai.sse import EventBuffer, EventTooLarge

__all__ = ["Completion", "EndpointError", "Message", "complete"]

MOST_ERROR_BYTES = 64 * 1024


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


async def complete(
    messages: Sequence[Message],
    context: Context,
    *,
    model: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
) -> Completion:
    """The endpoint's whole answer to a conversation. Shows progress while it comes in.

    `model` None means AI_MODEL; for the others None leaves it to the endpoint. Raises Fail where trying again cannot help,
    Retry where the endpoint says when, and EndpointError otherwise: there is no answer that is only a part.
    """
    endpoint = endpoint_of(load_settings())
    model = model or endpoint.model
    if model is None:
        raise Fail("No model is named: set AI_MODEL for the worker, or `model` in the payload.")
    asked: dict[str, Any] = {
        "model": model,
        "messages": [asdict(message) for message in messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    body = {name: value for name, value in asked.items() if value is not None}
    context.progress(None, "waiting for the endpoint")
    # Where user code has turned logging on, these would write addresses with their query, and what servers send.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    answer = Answer(endpoint, context, context.setup.max_result_bytes)
    try:
        async with httpx.AsyncClient(
            verify=_trusted(), timeout=endpoint.silence_seconds, follow_redirects=False
        ) as client:
            while (instead := await _ask(client, endpoint, body, answer)) is not None:
                body = instead
    # From None: httpx's errors hold the request, and with it the key.
    except httpx.TimeoutException as error:
        raise EndpointError(_silence(endpoint, error)) from None
    except httpx.ConnectError as error:
        raise EndpointError(f"The AI endpoint {endpoint.shown} cannot be reached: {_said(endpoint, error)}") from None
    except httpx.HTTPError as error:
        raise EndpointError(
            f"The connection to {endpoint.shown} was lost before the answer was whole: {_said(endpoint, error)}"
        ) from None
    return answer.completion(model)


@cache
def _trusted() -> ssl.SSLContext:
    # Reading the certificates blocks the loop for 0.1 s; once for a process, not once for each of many questions.
    return httpx.create_ssl_context()


async def _ask(
    client: httpx.AsyncClient, endpoint: Endpoint, body: dict[str, Any], answer: Answer
) -> dict[str, Any] | None:
    """Ask once and take the answer. None when that was all; else the body to send instead of one that was refused."""
    async with client.stream("POST", endpoint.url, headers=endpoint.headers, json=body) as response:
        if not response.is_success:
            said = await _read(response, MOST_ERROR_BYTES)
            instead = _instead(body, response.status_code, said)
            if instead is None:
                raise refusal(response, said, endpoint, system_clock())
            return instead
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind.endswith("json"):  # an endpoint that does not stream
            answer.take_whole((await _read(response, answer.most_event_bytes)).decode(errors="replace"))
        elif kind == "text/html":
            raise EndpointError(f"The AI endpoint {endpoint.shown} answered with a web page. Check AI_BASE_URL.")
        else:
            await _follow(response, answer)
    return None


async def _follow(response: httpx.Response, answer: Answer) -> None:
    """Take a stream to its end, or to where the endpoint says that nothing follows."""
    events = EventBuffer(answer.most_event_bytes)
    try:
        async for chunk in response.aiter_bytes():
            for event in events.feed(chunk):
                answer.take(event)
            if answer.done:
                return
    except EventTooLarge as error:
        raise EndpointError(f"The answer cannot be read: {error}.") from None
    for event in events.finish():
        answer.take(event)


async def _read(response: httpx.Response, most_bytes: int) -> bytes:
    """The body, or its beginning where it is larger than `most_bytes`."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > most_bytes:
            break
    return bytes(body[:most_bytes])


def _instead(body: dict[str, Any], status: int, said: bytes) -> dict[str, Any] | None:
    """The body without what this endpoint does not know, if its refusal names it; None if the refusal is about something
    else. Each change can come once, so asking ends."""
    if status not in (400, 422):
        return None
    # Mistral, Databricks and Azure's serverless models have refused it (openai/openai-agents-python#442,
    # continuedev/continue#12936); without it the answer only lacks its usage.
    if "stream_options" in body and (b"stream_options" in said or b"include_usage" in said):
        return {name: value for name, value in body.items() if name != "stream_options"}
    # OpenAI's reasoning models know the limit only by its new name, most other servers only by the old one.
    if "max_tokens" in body and b"max_completion_tokens" in said:
        return {"max_completion_tokens" if name == "max_tokens" else name: value for name, value in body.items()}
    return None


def _silence(endpoint: Endpoint, error: httpx.TimeoutException) -> str:
    seconds = f"{endpoint.silence_seconds:g} seconds (AI_TIMEOUT_SECONDS)"
    if isinstance(error, httpx.ConnectTimeout):
        return f"The AI endpoint {endpoint.shown} could not be reached within {seconds}."
    return f"The AI endpoint {endpoint.shown} was silent for {seconds}."


def _said(endpoint: Endpoint, error: httpx.HTTPError) -> str:
    return endpoint.redact(str(error)) or type(error).__name__
