"""An executor of your own: the example that USAGE.md walks through.

Run API and worker with EXECUTOR_MODULES=examples.greetings, then submit {"task_type": "greet", ...}.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.services.executors import Context, Fail, executor

HELLO = {"en": "Hello", "de": "Hallo", "fr": "Bonjour", "es": "Hola"}


class Greeting(BaseModel):
    """What `greet` takes. A submission that does not fit is refused with 422, field by field."""

    model_config = ConfigDict(strict=True, extra="forbid")

    names: list[str] = Field(min_length=1, max_length=1000, description="Whom to greet.")
    language: Literal["en", "de", "fr", "es"] = "en"


@executor(
    "greet", payload=Greeting, max_attempts=3, timeout_seconds=10, example={"names": ["Ada", "Grace"], "language": "en"}
)
def greet(payload: Greeting, context: Context) -> dict[str, list[str]]:
    """Greet everyone by name, in one of four languages."""
    greetings = []
    for number, name in enumerate(payload.names, start=1):
        if not name.strip():
            raise Fail(f"name {number} is empty")  # trying again would not help
        greetings.append(f"{HELLO[payload.language]}, {name}!")
        context.progress(100 * number / len(payload.names), f"greeted {name}")
    context.log("greeted all", names=len(payload.names))
    return {"greetings": greetings}
