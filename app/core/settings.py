"""Every knob, its unit and its default, read once from the environment or `.env` and validated."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.errors import SettingsError
from app.core.retry import RetryPolicy

Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1)]

LEAST_RUNNER_BYTES = 64 * 2**20

SHIPPED_EXECUTORS = (
    "app.workers.executors.ai_completion",
    "app.workers.executors.ai_summarization",
    "app.workers.executors.batch_processing",
    "app.workers.executors.image_processing",
    "app.workers.executors.text_processing",
)
"""Modules of the executors that come with the service, loaded by name like anyone's."""


class Settings(BaseSettings):
    """All seconds are numbers with fractions. Names are case-insensitive in the environment."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    database_url: str = Field(
        "sqlite+aiosqlite:///data/tasks.db",
        description="Where tasks are stored. `sqlite:///relative/path` or `sqlite:////absolute/path`.",
    )
    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(8000, ge=0, le=65535, description="Port the API listens on; 0 takes a free one.")
    executor_modules: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Modules with executors of your own, separated by commas."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="`auto` writes for people in a terminal and JSON lines otherwise."
    )
    access_log: bool = Field(False, description="Log a line for each request (costs a third of the throughput).")

    default_queue: str = Field(
        "default", pattern=r"^[A-Za-z0-9._:-]{1,64}$", description="Queue of tasks that name none."
    )
    max_attempts: int = Field(3, ge=1, le=1000, description="Runs a task may have, the first included.")
    timeout_seconds: Seconds = Field(300, description="Time limit of one attempt.")
    retry_base_seconds: Seconds = Field(1, description="Longest wait before the second attempt; doubles with each one.")
    retry_ceiling_seconds: Seconds = Field(3600, description="The longest wait between attempts.")
    priority_step_seconds: Seconds = Field(60, description="Head start that one point of priority gives.")
    poison_after: int = Field(
        3, ge=1, description="A task that was running when this many runners or workers died fails."
    )

    lease_seconds: Seconds = Field(30, description="How long a worker may be silent before its tasks run elsewhere.")
    sweep_seconds: Seconds = Field(5, description="How often expired leases are looked for.")
    poll_seconds: Seconds = Field(1, description="How often is looked for work, and for news, when no wake-up comes.")
    stop_grace_seconds: Seconds = Field(
        5, description="Time an attempt has to end by itself when told to, then it is killed."
    )
    shutdown_grace_seconds: Seconds = Field(
        25, description="Time running tasks have to finish when a process is told to stop."
    )
    max_wait_seconds: Seconds = Field(60, description="Longest `?wait=` of a request.")

    runner_memory_bytes: int = Field(
        0,
        ge=0,
        description="Most memory of its own that a runner, and each process it starts, may have; 0 is no limit.",
    )
    runner_max_tasks: int = Field(0, ge=0, description="Attempts after which a runner is replaced; 0 is never.")
    runner_max_memory_bytes: int = Field(
        512 * 2**20, ge=0, description="A runner that has more in use after an attempt is replaced; 0 is never."
    )

    retention_completed_seconds: Seconds = Field(7 * 86400, description="How long completed tasks are kept.")
    retention_failed_seconds: Seconds = Field(30 * 86400, description="How long failed and cancelled tasks are kept.")

    max_body_bytes: Bytes = Field(2**20, description="Largest request body.")
    max_bulk_body_bytes: Bytes = Field(16 * 2**20, description="Largest body of a bulk submission.")
    max_payload_bytes: Bytes = Field(256 * 2**10, description="Largest payload of one task, as compact JSON.")
    max_result_bytes: Bytes = Field(2**20, description="Largest result of one task, as JSON.")
    max_json_depth: int = Field(32, ge=2, le=200, description="Deepest nesting of a request body.")
    max_bulk_tasks: int = Field(10_000, ge=1, description="Most tasks in one bulk submission.")
    max_streams: int = Field(1000, ge=1, description="Most event streams open at once in one API process.")

    files_dir: Path = Field(Path("data/files"), description="Folder of uploaded and produced files.")
    max_upload_bytes: Bytes = Field(25 * 2**20, description="Largest uploaded file.")
    max_output_bytes: Bytes = Field(2**30, description="Largest file an executor may save.")
    retention_files_seconds: Seconds = Field(
        86400, description="How long an uploaded file is kept that no task uses; others live as long as their task."
    )

    ai_base_url: str = Field(
        "", description="An OpenAI-compatible endpoint, like `http://localhost:11434/v1`; workers call it."
    )
    ai_api_key: SecretStr = Field(SecretStr(""), description="Its key, sent as a bearer token; never stored or logged.")
    ai_model: str = Field("", description="The model to ask for where a payload names none.")
    ai_timeout_seconds: Seconds = Field(60, description="Longest silence of the endpoint before the attempt fails.")

    image_max_pixels: int = Field(50_000_000, ge=1, description="Largest image, in pixels, that is decoded.")
    image_memory_bytes: Bytes = Field(2**30, description="Most memory one image task may use (Linux).")

    durability: Literal["full", "relaxed"] = Field(
        "full", description="`relaxed` does not wait for the disk: a power cut may lose the last acknowledged tasks."
    )

    @field_validator("executor_modules", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in re.split(r"[,\s]+", value) if part) if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _known_store(cls, value: str) -> str:
        if re.match(r"sqlite(\+aiosqlite)?:///.", value) and ":memory:" not in value:
            return value
        raise ValueError(
            "only sqlite:///PATH and sqlite+aiosqlite:///PATH are understood; the file is shared, so no :memory:"
        )

    @model_validator(mode="after")
    def _base_within_ceiling(self) -> Self:
        if self.retry_base_seconds > self.retry_ceiling_seconds:
            raise ValueError("RETRY_BASE_SECONDS must not be above RETRY_CEILING_SECONDS")
        return self

    @field_validator("runner_memory_bytes")
    @classmethod
    def _enough_to_start(cls, value: int) -> int:
        if 0 < value < LEAST_RUNNER_BYTES:
            raise ValueError(f"must be 0 or at least {LEAST_RUNNER_BYTES}: a runner needs a third of that to start")
        return value

    @field_validator("sweep_seconds", "lease_seconds")
    @classmethod
    def _not_hasty(cls, value: float) -> float:
        if value < 0.1:
            raise ValueError("must be at least 0.1")
        return value

    @property
    def retry_policy(self) -> RetryPolicy:
        """The wait between attempts where neither task nor executor says."""
        return RetryPolicy(self.retry_base_seconds, self.retry_ceiling_seconds)

    @property
    def all_executor_modules(self) -> tuple[str, ...]:
        """The shipped executors, then the operator's."""
        return (*SHIPPED_EXECUTORS, *self.executor_modules)


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment and `.env`; `overrides` win. Raises SettingsError naming each wrong one."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        raise SettingsError("Wrong setting: " + "; ".join(_told(fault) for fault in error.errors())) from None


def _told(fault: Any) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    # A rule about several settings has no place of its own, and its input is all of them, secrets included.
    return f"{str(fault['loc'][0]).upper()}: {message} (got {fault['input']!r})" if fault["loc"] else message


def sqlite_path(database_url: str) -> Path:
    """The file behind a SQLite URL."""
    return Path(database_url.split(":///", 1)[1].split("?", 1)[0])
