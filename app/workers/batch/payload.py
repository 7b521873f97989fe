"""The payload of a batch: items in place or in a file, read as the task type that they are for wants them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.services.executors import Executor, FileId, named_files

TASK_TYPE = "batch_processing"
MOST_INLINE = 10_000
MOST_CONCURRENCY = 32

ItemList = Annotated[list[dict[str, Any] | str], Field(min_length=1, max_length=MOST_INLINE)]
_LIST = TypeAdapter(Annotated[list[Any], Field(strict=True, min_length=1, max_length=MOST_INLINE)])


@dataclass(frozen=True, slots=True)
class Inline:
    """Items in a payload: the payload of each, and the files that they name."""

    payloads: list[dict[str, Any]]
    files: tuple[str, ...] = ()


def _read_items(value: Any, info: ValidationInfo) -> Inline:
    # All at once: one by one, ten thousand texts would hold up the API for a third of a second.
    values = _LIST.validate_python(value)
    payloads = [{"text": one} if isinstance(one, str) else one for one in values]
    if faults := [index for index, one in enumerate(payloads) if not isinstance(one, dict)]:
        fault = PydanticCustomError("item", "must be an object, or a string, which stands for an object with that text")
        raise ValidationError.from_exception_data(
            "items", [InitErrorDetails(type=fault, loc=(index,), input=values[index]) for index in faults]
        )
    executor = _executors(info).get(info.data.get("task_type", ""))
    if executor is None:
        return Inline(payloads)
    # What it raises is located below `items`. As JSON, like the runner reads it.
    models = _many(executor.payload).validate_json(orjson.dumps(payloads), context=info.context)
    return Inline(payloads, tuple(file for model in models for file in named_files(model)))


@cache
def _many(model: type[BaseModel]) -> TypeAdapter[list[BaseModel]]:
    return TypeAdapter(list[model])  # type: ignore[valid-type]  # known only now


def _executors(info: ValidationInfo) -> Mapping[str, Executor]:
    """The task types there are, by name; none where whoever validates does not say."""
    known: Mapping[str, Executor] = (info.context or {}).get("executors", {})
    return known


class BatchProcessing(BaseModel):
    """Many items and what to do with each."""

    model_config = ConfigDict(strict=True, extra="forbid")

    # Before `items`, which are read as this type wants them.
    task_type: str = Field(
        default="text_processing",
        pattern=r"^[A-Za-z0-9._:-]{1,64}$",
        description="The task type applied to each item; any but `batch_processing`.",
    )
    items: Annotated[Inline, PlainValidator(_read_items, json_schema_input_type=ItemList)] | None = Field(
        default=None,
        validation_alias=AliasChoices("items", "data"),
        description="Payloads of that type; a string stands for an object with that `text`. `data` is another name for it.",
    )
    items_file_id: FileId | None = Field(
        default=None, description="An uploaded file of items in JSON Lines: an object or a string in each line."
    )
    concurrency: int = Field(default=2, ge=1, le=MOST_CONCURRENCY, description="How many items run at a time.")
    on_error: Literal["continue", "stop"] = Field(
        default="continue", description="Whether an item that fails is just counted, or fails the batch."
    )
    item_attempts: int = Field(
        default=1, ge=1, le=10, description="Runs each item may have, the first included, if its errors may pass."
    )

    # Where the service looks for the files that a payload names.
    _files: tuple[FileId, ...] = ()

    @field_validator("task_type")
    @classmethod
    def _known(cls, task_type: str, info: ValidationInfo) -> str:
        known = _executors(info)
        if task_type == TASK_TYPE:
            raise PydanticCustomError("batch_of_batches", "a batch of batches is not possible")
        if known and task_type not in known:
            names = ", ".join(name for name in known if name != TASK_TYPE)
            raise PydanticCustomError("unknown_task_type", "unknown task type; there are {names}", {"names": names})
        return task_type

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.items is None) == (self.items_file_id is None):
            raise PydanticCustomError("one_source", "give either items or items_file_id")
        if self.items is not None:
            self._files = tuple(map(FileId, self.items.files))
        return self
