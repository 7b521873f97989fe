"""The `ai_completion` task type: the answer of a language model behind an OpenAI-compatible endpoint."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.core.retry import RetryPolicy
from app.services.executors import Context, executor


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must hold something besides white space")
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_refuse_blank)]


class ChatMessage(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(strict=True, extra="forbid")

    role: Literal["system", "user", "assistant"] = Field(description="Who says it.")
    content: Text = Field(description="What is said; not only white space.")


class AiCompletion(BaseModel):
    """A conversation to be continued, or a single prompt: exactly one of `messages` and `prompt`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    messages: list[ChatMessage] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="The conversation so far, oldest first; the last is not the assistant's.",
    )
    prompt: Text | None = Field(None, description="Short for one message of the user.")
    model: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_refuse_blank)] | None = Field(
        None, description="Which model to ask; the worker's AI_MODEL if left out."
    )
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1, description="The longest answer, in tokens of the model.")
    temperature: float | None = Field(
        None, ge=0, le=2, allow_inf_nan=False, description="0 for the likeliest words, more for more variety."
    )

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give exactly one of messages and prompt")
        if self.messages and self.messages[-1].role == "assistant":
            raise ValueError("the last of messages must not be the assistant's: there is nothing to answer")
        return self


@executor(
    "ai_completion",
    payload=AiCompletion,
    # Endpoints are overloaded for seconds to minutes: four waits of up to 2, 4, 8 and 16 seconds, or as long as they say.
    max_attempts=5,
    timeout_seconds=600,
    retry=RetryPolicy(base_seconds=2, ceiling_seconds=60),
    example={"prompt": "Say hello in three languages.", "max_tokens": 100},
)
async def complete_chat(payload: AiCompletion, context: Context) -> dict[str, Any]:
    """Ask a language model, and give its answer as `text`.

    The worker's AI_BASE_URL says where: any endpoint that is compatible with OpenAI's chat completions, local or remote.
    Where none is set the task fails at once. `finish_reason` is `length` where the answer was cut at `max_tokens`; `usage`
    are the tokens the endpoint counted, null where it does not say. While the answer comes in, the progress shows its
    newest words. An answer that breaks off is never a result: the attempt fails and is retried.
    """
    # Imported here, in the runner: API and worker parent import this module for the payload model alone.
    from app.workers.ai.client import Message, complete

    if payload.prompt is not None:
        messages = [Message("user", payload.prompt)]
    else:
        messages = [Message(message.role, message.content) for message in payload.messages or ()]
    completion = await complete(
        messages, context, model=payload.model, max_tokens=payload.max_tokens, temperature=payload.temperature
    )
    return {
        "text": completion.text,
        "model": completion.model,
        "finish_reason": completion.finish_reason,
        "usage": completion.usage,
    }
