"""Puts an answer together from the pieces of its stream, and shows how far it is."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.services.executors import Context, Fail
from app.workers.ai.endpoint import Endpoint
from app.workers.ai.refusals import EndpointError, reason
from app.workers.ai.sse import Event

PROGRESS_SECONDS = 0.5
TAIL_CHARACTERS = 200
LONGEST_NAME = 200


@dataclass(frozen=True)
class Completion:
    """A whole answer.

    model          the model that gave it, as the endpoint calls it; as we asked for it where the endpoint is silent
    usage          {"prompt_tokens", "completion_tokens", "total_tokens"} as the endpoint counted; None where it did not
    finish_reason  "stop", or "length" where `max_tokens` (or the model's own limit) cut it; None where it was not said
    """

    text: str
    model: str
    usage: dict[str, int] | None
    finish_reason: str | None


class Answer:
    """Takes what the endpoint sends, piece by piece. Raises EndpointError for what is no part of an answer."""

    def __init__(
        self, endpoint: Endpoint, context: Context, most_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoint = endpoint
        self._context = context
        self._most_bytes = most_bytes
        self._clock = clock
        self._told_at: float | None = None
        self._pieces: list[str] = []
        self._characters = 0
        self._bytes = 0
        self._model: str | None = None
        self._usage: dict[str, int] | None = None
        self._finish_reason: str | None = None
        self.most_event_bytes = 6 * most_bytes + 64 * 1024
        """Bound of what is read at once: JSON may spell a byte with six (`\\u0001`); the rest is for what surrounds it."""
        self.done = False
        """True once the endpoint has said that nothing follows."""

    def take(self, event: Event) -> None:
        """Add one event of a stream."""
        if self.done or not event.data.strip():  # an empty event keeps connections open
            return
        if event.data.strip() == "[DONE]":
            self.done = True
            return
        if event.name == "error":
            raise self._broken(event.data)
        self._add(event.data)

    def take_whole(self, text: str) -> None:
        """Add the JSON of an endpoint that answers in one piece although it was asked to stream."""
        self._add(text)
        self.done = True

    def completion(self, asked_model: str) -> Completion:
        """The whole answer. Raises EndpointError where the stream ended before it was whole, Fail where it was filtered."""
        if self._finish_reason == "content_filter":
            raise Fail("The endpoint's content filter stopped the answer. Rephrase the messages, or ask another model.")
        # A proxy may end with [DONE] whatever became of the answer, so an empty one needs the model's own word.
        ended = self._finish_reason or (self.done and self._pieces)
        if not ended or self._finish_reason == "error":
            raise EndpointError(f"The answer of {self._endpoint.shown} broke off after {self._characters} characters.")
        self._tell(f"{self._characters} characters{self._tokens()}")
        return Completion(
            text=self._endpoint.redact_answer(_text(self._pieces)),
            model=self._name(self._model or asked_model),
            usage=self._usage,
            finish_reason=self._name(self._finish_reason) if self._finish_reason else None,
        )

    def _name(self, text: str) -> str:
        return self._endpoint.redact_answer(_text([text]))[:LONGEST_NAME]

    def _add(self, text: str) -> None:
        try:
            chunk = json.loads(text)
        except (ValueError, RecursionError):
            chunk = None
        if not isinstance(chunk, dict):
            raise self._senseless(text)
        if chunk.get("error") or chunk.get("object") == "error":  # the second is vLLM's
            raise self._broken(text)
        if isinstance(chunk.get("model"), str) and chunk["model"]:
            self._model = chunk["model"]
        self._usage = _usage(chunk.get("usage")) or self._usage
        choices = chunk.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise self._senseless(text)
        for choice in choices:
            if choice.get("index") in (0, None):
                self._add_choice(choice, text)

    def _add_choice(self, choice: dict[str, Any], text: str) -> None:
        message = choice.get("delta") or choice.get("message") or {}
        content = _content(message.get("content")) if isinstance(message, dict) else None
        if content is None:
            raise self._senseless(text)
        if isinstance(choice.get("finish_reason"), str) and choice["finish_reason"]:
            self._finish_reason = choice["finish_reason"]
        if not content:
            return
        self._pieces.append(content)
        self._characters += len(content)
        self._bytes += len(content.encode(errors="surrogatepass"))
        if self._bytes > self._most_bytes:
            raise Fail(
                f"The answer is larger than the limit of {self._most_bytes} bytes (MAX_RESULT_BYTES). Ask for less with max_tokens."
            )
        now = self._clock()
        if self._told_at is None or now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self._tell(f"{self._characters} characters")

    def _tell(self, message: str) -> None:
        # From the whole text: cut before it is redacted, it could begin in the middle of a secret.
        tail = self._endpoint.certain(_text(self._pieces))[-TAIL_CHARACTERS:]
        data = {"characters": self._characters, "pieces": len(self._pieces), "usage": self._usage, "tail": tail}
        self._context.progress(None, message, data)

    def _tokens(self) -> str:
        return f", {self._usage['completion_tokens']} tokens" if self._usage else ""

    def _broken(self, text: str) -> EndpointError:
        return EndpointError(f"The endpoint {self._endpoint.shown} broke off: {reason(text, self._endpoint)}")

    def _senseless(self, text: str) -> EndpointError:
        said = reason(text, self._endpoint)[:100]
        return EndpointError(f"The endpoint {self._endpoint.shown} sent something that is no part of an answer: {said}")


def _content(content: Any) -> str | None:
    """The text of a message's content, which may be missing, a string, or parts of which some are text (Mistral's).

    None for anything else."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return None
    texts = [part.get("text") for part in content if part.get("type") == "text"]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None


def _usage(usage: Any) -> dict[str, int] | None:
    if not isinstance(usage, dict):
        return None
    prompt, answer, total = (_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if prompt is None or answer is None:
        return None
    total = prompt + answer if total is None else total
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": total}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _text(pieces: list[str]) -> str:
    """The pieces as one text that can be stored: a pair of surrogates that was cut in two is one character again."""
    whole = "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\x00", "\ufffd")
