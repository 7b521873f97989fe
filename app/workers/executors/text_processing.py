"""The `text_processing` task type: counts, language, mood, topics and more of a text, from the payload or from a URL."""

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from app.core.settings import load_settings
from app.services.destinations import Url
from app.services.executors import Context, Fail, executor

Operation = Literal["statistics", "language", "sentiment", "keywords", "readability", "entities", "normalize", "redact"]
Category = Literal["email", "phone", "ip", "iban", "credit_card", "url"]
# In the order of the result. `normalize` and `redact` return the whole text again, so they run only when asked for.
DEFAULT_OPERATIONS: tuple[Operation, ...] = (
    "statistics",
    "language",
    "sentiment",
    "keywords",
    "readability",
    "entities",
)
BLANK = "text must hold something besides white space"
UNIQUE: dict[str, JsonValue] = {"uniqueItems": True}


class TextProcessing(BaseModel):
    """A text and what to do with it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    text: str | None = Field(
        None, min_length=1, description="The text, in any language; not only white space. This or `text_url`."
    )
    text_url: Url | None = Field(
        None, description="Where the text lies, http or https, a public address; at most MAX_PAYLOAD_BYTES are taken."
    )
    operations: list[Operation] = Field(
        default=list(DEFAULT_OPERATIONS),
        min_length=1,
        json_schema_extra=UNIQUE,
        description="What to do, each at most once. The result has one object for each, under its name.",
    )
    keywords_limit: int = Field(default=10, ge=1, le=50, description="`keywords`: how many at most.")
    redact_categories: list[Category] = Field(
        default=["email", "phone", "ip", "iban", "credit_card"],
        min_length=1,
        json_schema_extra=UNIQUE,
        description="`redact`: what to replace. URLs only when asked for.",
    )

    @field_validator("text")
    @classmethod
    def _refuse_blank(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError(BLANK)
        return text

    @field_validator("operations", "redact_categories")
    @classmethod
    def _refuse_duplicates(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("each name may be given once")
        return names

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if (self.text is None) == (self.text_url is None):
            raise ValueError("give exactly one of text and text_url")
        return self


@executor("text_processing", payload=TextProcessing, timeout_seconds=60, example={"text": "Hello World"})
def process_text(payload: TextProcessing, context: Context) -> dict[str, Any]:
    """Analyse a text: one object for each operation asked for, under its name, in a fixed order.

    Each object names the language and the method it is for. Where an operation does not know the language, it says
    `"supported": false` and why, instead of a wrong number. Offsets and characters are Unicode code points.
    """
    operations = _operations(payload, _text(payload, context))
    result = {}
    for done, (name, run) in enumerate(operations, start=1):
        result[name] = run()
        if len(operations) > 1:
            context.progress(round(100 * done / len(operations), 1), name)
    return result


def _text(payload: TextProcessing, context: Context) -> str:
    if payload.text_url is None:
        assert payload.text is not None  # the model sees to it
        return payload.text
    from app.workers.http.fetch import fetched, text_of

    context.progress(0, "fetching")
    settings = load_settings()
    text = text_of(fetched(payload.text_url, settings, settings.max_payload_bytes))
    if not text.strip():
        raise Fail(BLANK)
    return text


def _operations(payload: TextProcessing, text: str) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    # Imported here, in the runner: API and worker parent import this module for the payload model alone.
    from app.workers.text import entities, keywords, language, normalize, readability, redact, sentiment, statistics

    detection = language.detect(text)
    known: dict[str, Callable[[], dict[str, Any]]] = {
        "statistics": lambda: statistics.measure(text, detection),
        "language": lambda: language.describe(detection),
        "sentiment": lambda: sentiment.score(text, detection),
        "keywords": lambda: keywords.extract(text, detection, payload.keywords_limit),
        "readability": lambda: readability.rate(text, detection),
        "entities": lambda: entities.find(text, detection),
        "normalize": lambda: normalize.normalize(text, detection),
        "redact": lambda: redact.redact(text, detection, payload.redact_categories),
    }
    return [(name, run) for name, run in known.items() if name in payload.operations]
