"""What may be asked for: the shape of a submission, and how it becomes a `NewTask` with every default filled in."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.core.clock import Clock
from app.core.concurrency import LARGEST_LIMIT, stored_key
from app.core.errors import InvalidRequest, OutboundRefused, PayloadInvalid, TooLarge, UnknownTaskType
from app.core.retry import RetryKind
from app.core.settings import Settings
from app.core.task import HIGHEST_PRIORITY, LARGEST_INTEGER, LOWEST_PRIORITY, PRIORITY_NAMES, JsonText, NewTask
from app.core.trace import Trace
from app.services.destinations import LONGEST_URL, Rules
from app.services.executors import Executor, named_files
from app.services.registry import ExecutorRegistry

FAR_FUTURE = timedelta(days=3650)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


def _sensible(moment: datetime) -> datetime:
    if not EARLIEST <= moment <= datetime.now(UTC) + FAR_FUTURE:
        raise ValueError("must lie between the year 2000 and ten years from now")
    return moment.astimezone(UTC)


def distinct(names: list[str]) -> list[str]:
    """Raises ValueError for names that repeat."""
    if len(set(names)) != len(names):
        raise ValueError("must not repeat")
    return names


def _a_priority(value: Any) -> Any:
    # One sentence instead of one complaint for each member of the union.
    number = isinstance(value, int) and not isinstance(value, bool) and LOWEST_PRIORITY <= value <= HIGHEST_PRIORITY
    if number or (isinstance(value, str) and value in PRIORITY_NAMES):
        return value
    message = "must be a whole number from -100 to 100, or low, normal, high or critical"
    raise PydanticCustomError("priority", message)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
LONGEST_KEY = 255
Key = Annotated[str, Field(min_length=1, max_length=LONGEST_KEY, pattern=r"^[\x21-\x7e]+$")]
Priority = Annotated[
    Annotated[int, Field(ge=LOWEST_PRIORITY, le=HIGHEST_PRIORITY)] | Literal["low", "normal", "high", "critical"],
    BeforeValidator(_a_priority),
]
When = Annotated[AwareDatetime, AfterValidator(_sensible)]
UNIQUE: dict[str, JsonValue] = {"uniqueItems": True}
Tags = Annotated[list[Name], Field(max_length=20, json_schema_extra=UNIQUE), AfterValidator(distinct)]
Metadata = Annotated[dict[str, Any], Field(max_length=50)]
MaxAttempts = Annotated[int, Field(ge=1, le=1000)]

MOST_METADATA_BYTES = 16 * 1024
LONGEST_SHOWN = 200
MOST_FAULTS = 50
"""A refusal names this many faults at most: a small body can have a hundred thousand, each with a sentence."""
MOST_EXPLAINED = 50_000
"""Five for each task of the largest bulk submission."""
LONGEST_RETRY_SECONDS = 7 * 86400.0


class RetryOptions(BaseModel):
    """The wait between attempts. What is left out is as the task type has it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    policy: RetryKind | None = Field(
        None, description="`exponential` doubles the wait with each attempt, `fixed` does not."
    )
    base_seconds: float | None = Field(
        None, ge=0, le=LONGEST_RETRY_SECONDS, allow_inf_nan=False, description="The wait before the second attempt."
    )
    ceiling_seconds: float | None = Field(
        None, ge=0, le=LONGEST_RETRY_SECONDS, allow_inf_nan=False, description="The longest wait."
    )
    jitter: bool | None = Field(
        None, description="Draw each wait from 0 to its length, so that many do not come back at once."
    )


class Submission(BaseModel):
    """One task as a client asks for it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    task_type: Name = Field(description="Which executor does it; see GET /task-types.")
    payload: dict[str, Any] = Field(default_factory=dict, description="Its input, in the shape its task type asks for.")
    queue: Name | None = Field(None, description="Where it waits. Workers may serve only some queues.")
    priority: Priority = Field(
        0, description="-100 to 100, higher runs first; low, normal, high and critical mean -50, 0, 50 and 100."
    )
    scheduled_at: When | None = Field(None, description="Not before this moment (RFC 3339 with an offset).")
    delay_seconds: float | None = Field(
        None, ge=0, le=FAR_FUTURE.total_seconds(), allow_inf_nan=False, description="Not before this long from now."
    )
    expires_at: When | None = Field(None, description="Fails as expired if it has not started by then.")
    max_attempts: MaxAttempts | None = Field(None, description="Runs it may have, the first included.")
    timeout_seconds: float | None = Field(
        None, gt=0, le=7 * 86400, allow_inf_nan=False, description="Time limit of one attempt."
    )
    retry: RetryOptions | None = Field(None, description="How long it waits between attempts.")
    retry_for_seconds: float | None = Field(
        None,
        gt=0,
        le=FAR_FUTURE.total_seconds(),
        allow_inf_nan=False,
        description="Time all attempts have together, from when it is due; no attempt starts later.",
    )
    unique_key: Key | None = Field(None, description="At most one unfinished task has it.")
    tags: Tags = Field(default_factory=list, description="Names to filter by.")
    metadata: Metadata | None = Field(None, description="Anything of yours, up to 16 KiB; handed back as it is.")
    parent_id: int | None = Field(None, ge=1, le=LARGEST_INTEGER, description="The task this one belongs to.")
    concurrency_key: Key | None = Field(None, description="Tasks with the same key run so many at once.")
    concurrency_limit: int | None = Field(
        None,
        ge=1,
        le=LARGEST_LIMIT,
        description="So many tasks with its `concurrency_key` run at once, this one included.",
    )
    webhook_url: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_URL,
        description="Where to tell, by a signed POST, that it has ended: completed, failed or cancelled.",
        json_schema_extra={"format": "uri"},
    )

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        if self.scheduled_at is not None and self.delay_seconds is not None:
            raise ValueError("give scheduled_at or delay_seconds, not both")
        return self

    @model_validator(mode="after")
    def _limit_of_a_key(self) -> Self:
        if self.concurrency_limit is not None and self.concurrency_key is None:
            raise ValueError("concurrency_limit needs a concurrency_key")
        return self


class Intake:
    """Turns submissions into tasks that may be stored: finds the executor, checks the payload, fills in defaults."""

    def __init__(self, registry: ExecutorRegistry, settings: Settings, clock: Clock) -> None:
        self._registry = registry
        self._settings = settings
        self._clock = clock
        # What the models of payloads may ask of whoever validates them.
        self._rules = Rules(settings)
        self._surroundings = {"executors": registry.offered, "outbound": self._rules.check}

    def prepare(
        self,
        submission: Submission,
        idempotency_key: str | None = None,
        location: Sequence[str | int] = (),
        tenant: str = "",
        trace: Trace | None = None,
    ) -> NewTask:
        """The task to store, of that tenant and that trace. Raises InvalidRequest or TooLarge; faults are located below `location`."""
        executor = self._executor(submission.task_type, location)
        payload, file_ids = self._payload(executor, submission.payload, location)
        return NewTask(
            task_type=submission.task_type,
            payload=payload,
            file_ids=file_ids,
            queue=submission.queue or self._settings.default_queue,
            priority=priority_number(submission.priority),
            max_attempts=submission.max_attempts or executor.max_attempts or self._settings.max_attempts,
            timeout_seconds=float(
                submission.timeout_seconds or executor.timeout_seconds or self._settings.timeout_seconds
            ),
            scheduled_at=self._scheduled_at(submission),
            expires_at=submission.expires_at,
            retry=self._retry(executor, submission.retry, location),
            retry_for_seconds=submission.retry_for_seconds,
            unique_key=submission.unique_key,
            idempotency_key=idempotency_key,
            request_hash=_hash(submission) if idempotency_key else None,
            parent_id=submission.parent_id,
            tags=tuple(submission.tags),
            metadata=metadata_text(submission.metadata, location),
            tenant=tenant,
            concurrency_key=_stored_key(submission.concurrency_key, tenant, location),
            concurrency_limit=(submission.concurrency_limit or 1) if submission.concurrency_key else None,
            webhook_url=self._webhook_url(submission.webhook_url, location),
            traceparent=None if trace is None else trace.parent,
            tracestate=None if trace is None else trace.state,
        )

    def _webhook_url(self, url: str | None, location: Sequence[str | int]) -> str | None:
        if url is None:
            return None
        if not self._settings.webhook_keys:
            _refuse(
                "cannot be told, because WEBHOOK_SECRETS is not set and nothing is sent unsigned",
                [*location, "webhook_url"],
            )
        try:
            self._rules.check(url)
        except OutboundRefused as refused:
            _refuse(f"cannot be told: {str(refused).rstrip('.')}", [*location, "webhook_url"])
        return url

    def _executor(self, task_type: str, location: Sequence[str | int]) -> Executor:
        executor = self._registry.offered.get(task_type)
        if executor is None:
            raise UnknownTaskType(task_type, list(self._registry.offered), list(location))
        return executor

    def _retry(
        self, executor: Executor, options: RetryOptions | None, location: Sequence[str | int]
    ) -> JsonText | None:
        if options is None:
            return None
        usual = executor.retry or self._settings.retry_policy
        chosen = asdict(usual) | options.model_dump(exclude_none=True)
        if options.ceiling_seconds is None:
            chosen["ceiling_seconds"] = max(chosen["ceiling_seconds"], chosen["base_seconds"])
        if options.base_seconds is None:
            chosen["base_seconds"] = min(chosen["ceiling_seconds"], chosen["base_seconds"])
        if chosen["base_seconds"] > chosen["ceiling_seconds"]:
            _refuse("must not be above ceiling_seconds", [*location, "retry", "base_seconds"])
        return JsonText(orjson.dumps(chosen).decode())

    def _scheduled_at(self, submission: Submission) -> datetime | None:
        if submission.delay_seconds:
            return self._clock() + timedelta(seconds=submission.delay_seconds)
        return submission.scheduled_at

    def _payload(
        self, executor: Executor, payload: dict[str, Any], location: Sequence[str | int]
    ) -> tuple[JsonText, tuple[str, ...]]:
        """The payload as it is stored, and the files it names."""
        text = orjson.dumps(payload)
        if len(text) > self._settings.max_payload_bytes:
            raise TooLarge("payload", self._settings.max_payload_bytes)
        try:
            # As JSON, like the runner does, so that both read dates, enumerations and bytes alike.
            checked = executor.payload.model_validate_json(text, context=self._surroundings)
        except ValidationError as error:
            faults = located_faults(error, [*location, "payload"])
            raise PayloadInvalid(f"The payload does not fit {executor.task_type}.", faults) from None
        except Exception as error:  # a validator of user code may raise anything; what it does to input is a refusal
            message = f"The payload could not be checked: {type(error).__name__} in the model of {executor.task_type}."
            fault = {"location": [*location, "payload"], "message": message, "type": "validator_failed"}
            raise PayloadInvalid(message, [fault]) from error
        return JsonText(text.decode()), named_files(checked)


def priority_number(priority: int | str) -> int:
    """A priority by number or by name as a number."""
    return PRIORITY_NAMES[priority] if isinstance(priority, str) else priority


def metadata_text(metadata: dict[str, Any] | None, location: Sequence[str | int] = ()) -> JsonText | None:
    """Metadata as it is stored. Raises InvalidRequest over 16 KiB."""
    if metadata is None:
        return None
    text = orjson.dumps(metadata)
    if len(text) > MOST_METADATA_BYTES:
        _refuse(f"must be at most {MOST_METADATA_BYTES} bytes as JSON", [*location, "metadata"])
    return JsonText(text.decode())


def located_faults(error: ValidationError, location: Sequence[str | int]) -> list[dict[str, Any]]:
    """Pydantic's first findings as {"location", "message", "type"}, without the offending input.

    They can be had all at once or not at all, and a megabyte can have a hundred thousand: 0.2 s and 70 MB. So of more than
    anybody makes by mistake it is only said how many there are.
    """
    count = error.error_count()
    if count > MOST_EXPLAINED:
        return [{"location": list(location), "message": f"has {count:,} faults", "type": "too_many_faults"}]
    return [
        {
            "location": [*location, *(_shown(part) for part in fault["loc"])],
            "message": fault["msg"].removeprefix("Value error, "),
            "type": fault["type"],
        }
        for fault in error.errors(include_url=False, include_context=False, include_input=False)[:MOST_FAULTS]
    ]


def _shown(part: str | int) -> str | int:
    """A step of a location: the name of a field that is not ours may be as long as the body."""
    return f"{part[:LONGEST_SHOWN]}..." if isinstance(part, str) and len(part) > LONGEST_SHOWN else part


def _stored_key(key: str | None, tenant: str, location: Sequence[str | int]) -> str | None:
    """The concurrency key with whose it is: tenants that happen to use the same one do not wait for each other."""
    if key is None:
        return None
    stored = stored_key(tenant, key)
    if len(stored) > LONGEST_KEY:
        most = LONGEST_KEY - len(stored) + len(key)
        _refuse(
            f"must have at most {most} characters, for a tenant with so long a name", [*location, "concurrency_key"]
        )
    return stored


def _refuse(message: str, location: list[str | int]) -> None:
    raise InvalidRequest(
        f"{location[-1]} {message}.", [{"location": location, "message": message, "type": "value_error"}]
    )


def _hash(submission: Submission) -> str:
    # What came later and is not given leaves the hash as it was: keys outlive a new version.
    asked = submission.model_dump(mode="json", exclude={"webhook_url"} if submission.webhook_url is None else None)
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()
