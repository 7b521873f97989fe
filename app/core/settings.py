"""Every knob, its unit and its default, read once from the environment, `.env` or SECRETS_DIR and validated."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from app.core.alerts import RULE_NAMES, Patience, Thresholds
from app.core.attempt_log import LEAST_LOG_BYTES
from app.core.errors import SettingsError
from app.core.outbound import Allowance, allowance
from app.core.retry import RetryPolicy

Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1)]

LEAST_RUNNER_BYTES = 64 * 2**20
LEAST_RESERVE_BYTES = 8 * 2**20

SHIPPED_EXECUTORS = (
    "app.workers.executors.ai_completion",
    "app.workers.executors.ai_summarization",
    "app.workers.executors.batch_processing",
    "app.workers.executors.http_request",
    "app.workers.executors.image_processing",
    "app.workers.executors.text_processing",
    "app.workers.executors.webhook",
)
"""Modules of the executors that come with the service, loaded by name like anyone's."""


class Settings(BaseSettings):
    """All seconds are numbers with fractions. Names are case-insensitive in the environment."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    database_url: str = Field(
        "sqlite+aiosqlite:///data/tasks.db",
        description="Where tasks are stored. `sqlite:///relative/path`, `sqlite:////absolute/path` or"
        " `postgresql://user:password@host/database`.",
    )
    database_connections: int = Field(
        5, ge=1, le=100, description="Most connections to PostgreSQL a process holds; one more hears wake-ups."
    )
    broker_url: SecretStr = Field(
        SecretStr(""),
        description="A Redis or Valkey server that hands new work to idle workers: `redis://user:password@host:6379/0`,"
        " `rediss://` with TLS. Empty: the store itself wakes them.",
    )
    broker_prefix: str = Field(
        "tasks",
        pattern=r"^[A-Za-z0-9._:-]{1,64}$",
        description="What the names of the broker's streams begin with; one for each service that shares a server.",
    )
    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(8000, ge=0, le=65535, description="Port the API listens on; 0 takes a free one.")
    public_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Where browsers reach the API beside the address that it listens on, like `https://tasks.example`,"
        " separated by commas.",
    )
    session_seconds: Seconds = Field(8 * 3600, description="How long somebody stays signed in at the dashboard.")
    hsts_seconds: int = Field(
        0, ge=0, le=10 * 365 * 86400, description="`Strict-Transport-Security` over TLS, for so long; 0 is none."
    )
    executor_modules: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Modules with executors of your own, separated by commas."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="`auto` writes for people in a terminal and JSON lines otherwise."
    )
    metrics_host: str = Field(
        "127.0.0.1", description="Address a worker's metrics are served on, with `--metrics-port`."
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
    runner_start_seconds: Seconds = Field(
        30, description="How long a runner may take to load its executors; then another is started in its place."
    )
    runner_max_tasks: int = Field(0, ge=0, description="Attempts after which a runner is replaced; 0 is never.")
    runner_max_memory_bytes: int = Field(
        512 * 2**20, ge=0, description="A runner that has more in use after an attempt is replaced; 0 is never."
    )

    attempt_log_lines: int = Field(
        500, ge=0, le=10_000, description="Lines kept of what one attempt prints and logs, the newest; 0 keeps none."
    )
    attempt_log_bytes: int = Field(
        128 * 2**10, ge=LEAST_LOG_BYTES, le=2**20, description="Most room that those lines may take, as JSON."
    )

    retention_completed_seconds: Seconds = Field(7 * 86400, description="How long completed tasks are kept.")
    retention_failed_seconds: Seconds = Field(30 * 86400, description="How long failed and cancelled tasks are kept.")

    retention_audit_seconds: Seconds = Field(
        90 * 86400, description="How long is kept who did what (90 days), by the audit log."
    )

    max_body_bytes: Bytes = Field(2**20, description="Largest request body.")
    max_bulk_body_bytes: Bytes = Field(16 * 2**20, description="Largest body of a bulk submission.")
    max_payload_bytes: Bytes = Field(256 * 2**10, description="Largest payload of one task, as compact JSON.")
    max_result_bytes: Bytes = Field(2**20, description="Largest result of one task, as JSON.")
    max_json_depth: int = Field(32, ge=2, le=200, description="Deepest nesting of a request body.")
    max_bulk_tasks: int = Field(10_000, ge=1, description="Most tasks in one bulk submission.")
    key_requests_per_second: float = Field(
        0,
        ge=0,
        le=1_000_000,
        allow_inf_nan=False,
        description="Requests one key, or all keys of one tenant together, may make, twice as many at once; 0 is no limit.",
    )
    address_requests_per_second: float = Field(
        0, ge=0, le=1_000_000, allow_inf_nan=False, description="The same for one address, whichever keys it shows."
    )
    max_waiting_per_tenant: int = Field(
        0, ge=0, description="Unfinished tasks a tenant may have that do not run yet; 0 is no limit."
    )
    max_keys_per_tenant: int = Field(
        100,
        ge=1,
        le=1000,
        description="API keys a tenant may have that are good; of those that ended the newest that many are kept.",
    )
    max_connections_per_address: int = Field(
        1000, ge=0, description="Most connections that one address may have to an API process; 0 is no limit."
    )
    max_streams: int = Field(1000, ge=1, description="Most event streams open at once in one API process.")

    files_dir: Path = Field(Path("data/files"), description="Folder of uploaded and produced files.")
    files_url: str = Field(
        "",
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()/-]*)?)?$",
        description="Where files are instead, for many hosts: `s3://bucket/prefix`.",
    )
    max_upload_bytes: Bytes = Field(25 * 2**20, description="Largest uploaded file.")
    max_output_bytes: Bytes = Field(2**30, description="Largest file an executor may save.")
    retention_files_seconds: Seconds = Field(
        86400, description="How long an uploaded file is kept that no task uses; others live as long as their task."
    )

    outbound_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="What tasks may reach besides public addresses, separated by commas: hosts, `*.hosts`, addresses or"
        " networks, each with `:port` or without, like `10.1.0.0/16, hooks.internal:8080`.",
    )
    outbound_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (80, 443), description="Ports that tasks may reach on other hosts, separated by commas."
    )
    outbound_timeout_seconds: Seconds = Field(
        30, description="Longest time for one request to another host, with its redirects and the whole answer."
    )

    host_breakers: bool = Field(
        True, description="Whether tasks that call a host wait while it does not answer, over all workers."
    )

    secrets_dir: str = Field(
        "", description="Folder with a file for each named secret, beside those of the variables `SECRET_...`."
    )
    secrets_hosts: str = Field(
        "",
        description="Where each named secret may go: `name=host`, several with `|` between, the names separated by commas,"
        " like `crm=api.crm.example|*.crm.example`. Over https; `http://host` allows plain http too.",
    )

    webhook_secrets: SecretStr = Field(
        SecretStr(""),
        description="What notices of ended tasks are signed with: one secret, or two with a comma while receivers change over."
        " Without one no `webhook_url` is taken.",
    )

    max_webhooks: int = Field(
        100,
        ge=1,
        le=1000,
        description="Subscriptions (`/webhooks`) that each tenant may have, and as many without one.",
    )
    webhook_off_after_failures: int = Field(
        20, ge=1, description="A subscription is switched off after so many failed attempts in a row ..."
    )
    webhook_off_after_seconds: float = Field(
        86400,
        ge=0,
        le=10 * 365 * 86400,
        allow_inf_nan=False,
        description="... if the first of them lies this long back.",
    )
    alert_rules_off: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Rules of alerts that are not looked at, separated by commas."
    )
    alert_look_seconds: Seconds = Field(15, description="How often the rules of alerts are looked at.")
    alert_hold_seconds: float = Field(
        60, ge=0, le=86400, allow_inf_nan=False, description="How long trouble must hold before its alert fires."
    )
    alert_clear_seconds: float = Field(
        300, ge=0, le=86400, allow_inf_nan=False, description="How long it must be gone before the alert clears."
    )
    alert_queue_age_seconds: Seconds = Field(300, description="A task that has been ready for longer is trouble.")
    alert_failure_share: float = Field(
        0.1, gt=0, le=1, description="This share of the tasks of a queue failing within ten minutes is trouble, ..."
    )
    alert_failures: int = Field(5, ge=1, description="... if they are at least so many.")
    alert_dead_letters: int = Field(100, ge=1, description="So many dead letters are trouble.")
    alert_dead_letters_growth: int = Field(10, ge=1, description="So many new ones within an hour are trouble.")
    retention_alerts_seconds: Seconds = Field(30 * 86400, description="How long alerts are kept that have cleared.")
    alert_webhook_url: SecretStr = Field(
        SecretStr(""), description="Is sent each alert, signed with WEBHOOK_SECRETS. Empty: nobody is."
    )
    alert_slack_url: SecretStr = Field(
        SecretStr(""),
        description="An incoming webhook of Slack, or of a chat that takes the same (Mattermost and others).",
    )
    alert_mail_to: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Addresses that are sent each alert by e-mail, separated by commas."
    )
    alert_mail_from: str = Field("", description="Whom these e-mails are from.")
    smtp_host: str = Field("", description="The mail server that takes them.")
    smtp_port: int = Field(587, ge=1, le=65535, description="Its port.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        description="`tls` encrypts from the first byte (port 465), `none` never does and takes no password.",
    )
    smtp_user: str = Field("", description="The name to log in with; empty: no login.")
    smtp_password: SecretStr = Field(SecretStr(""), description="Its password; never stored or logged.")

    ai_base_url: str = Field(
        "", description="An OpenAI-compatible endpoint, like `http://localhost:11434/v1`; workers call it."
    )
    ai_api_key: SecretStr = Field(SecretStr(""), description="Its key, sent as a bearer token; never stored or logged.")
    ai_model: str = Field("", description="The model to ask for where a payload names none.")
    ai_timeout_seconds: Seconds = Field(60, description="Longest silence of the endpoint before the attempt fails.")

    image_max_pixels: int = Field(50_000_000, ge=1, description="Largest image, in pixels, that is decoded.")
    image_memory_bytes: Bytes = Field(2**30, description="Most memory one image task may use (Linux).")

    otel_exporter_otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s]+)?$",
        description="Where OpenTelemetry spans go, like `http://localhost:4318`; needs the extra `otel`. Empty: nowhere.",
    )

    durability: Literal["full", "relaxed"] = Field(
        "full", description="`relaxed` does not wait for the disk: a power cut may lose the last acknowledged tasks."
    )
    reserve_bytes: int = Field(
        8 * 2**20,
        ge=0,
        description="Size of a file beside the database that gives room when its disk is full; 0 is none.",
    )

    @field_validator(
        *("executor_modules", "outbound_allow", "outbound_ports", "public_urls", "alert_rules_off", "alert_mail_to"),
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in re.split(r"[,\s]+", value) if part) if isinstance(value, str) else value

    @field_validator("outbound_allow")
    @classmethod
    def _known_allowances(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            allowance(text)
        return value

    @field_validator("public_urls")
    @classmethod
    def _plain_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not re.fullmatch(r"https?://([a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?", url):
                raise ValueError(
                    f"{url!r} is no plain address like https://tasks.example, in small letters and without a path"
                )
        return value

    @field_validator("webhook_secrets")
    @classmethod
    def _two_long_secrets(cls, value: SecretStr) -> SecretStr:
        keys = _listed(value)
        if len(keys) > 2 or any(len(key) < 16 for key in keys):
            raise ValueError("must be one or two secrets of at least 16 characters")
        return value

    @field_validator("alert_rules_off")
    @classmethod
    def _known_rules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in RULE_NAMES:
                raise ValueError(f"{name} is no rule; there are {', '.join(RULE_NAMES)}")
        return value

    @field_validator("alert_webhook_url", "alert_slack_url")
    @classmethod
    def _http(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not re.match(r"https?://[^/\s]", value.get_secret_value()):
            raise ValueError("must begin with https:// or http://")
        return value

    @field_validator("alert_mail_to", "alert_mail_from")
    @classmethod
    def _mail_addresses(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        for one in (value,) if isinstance(value, str) else value:
            if one and not re.fullmatch(r"[!-;=?-~]+@[A-Za-z0-9.\[\]:-]+", one):
                raise ValueError(f"{one} is no address of the form name@host")
        return value

    @model_validator(mode="after")
    def _channels_that_can_work(self) -> Self:
        if self.alert_webhook_url.get_secret_value() and not self.webhook_keys:
            raise ValueError("ALERT_WEBHOOK_URL needs WEBHOOK_SECRETS: nothing is sent unsigned")
        if self.alert_mail_to and not (self.smtp_host and self.alert_mail_from):
            raise ValueError("ALERT_MAIL_TO needs SMTP_HOST and ALERT_MAIL_FROM")
        if self.smtp_user and self.smtp_security == "none":
            raise ValueError("SMTP_USER needs SMTP_SECURITY starttls or tls: the password would be sent in the clear")
        return self

    @field_validator("outbound_ports")
    @classmethod
    def _real_ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for port in value:
            if not 1 <= port <= 65535:
                raise ValueError(f"{port} is no port")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_store(cls, value: str) -> str:
        if re.match(r"sqlite(\+aiosqlite)?:///.", value) and ":memory:" not in value:
            return value
        if re.match(r"postgres(ql)?(\+asyncpg)?://.", value):
            return value
        raise ValueError(
            "only sqlite:///PATH and postgresql://USER:PASSWORD@HOST/DATABASE are understood; a file is shared, so no"
            " :memory:"
        )

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value():
            return value
        try:
            parts = urlsplit(value.get_secret_value())
            known = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
        except ValueError:
            known = False
        if not known or not re.fullmatch(r"(/[0-9]*)?", parts.path):
            raise ValueError(
                "only redis://USER:PASSWORD@HOST:PORT/NUMBER and rediss://... are understood; special characters of a"
                " password are written as %XX"
            )
        return value

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

    @field_validator("reserve_bytes")
    @classmethod
    def _enough_to_delete(cls, value: int) -> int:
        if 0 < value < LEAST_RESERVE_BYTES:
            raise ValueError(
                f"must be 0 or at least {LEAST_RESERVE_BYTES}: the database's log is written back first, which takes half"
            )
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
    def files_place(self) -> str:
        """The address of the bucket of files, or the path of their folder."""
        return self.files_url or str(self.files_dir.resolve())

    @property
    def webhook_keys(self) -> tuple[str, ...]:
        """What notices are signed with, the newest first."""
        return _listed(self.webhook_secrets)

    @property
    def alert_thresholds(self) -> Thresholds:
        """From where on alerts see trouble."""
        return Thresholds(
            queue_age_seconds=self.alert_queue_age_seconds,
            failure_share=self.alert_failure_share,
            failures=self.alert_failures,
            dead_letters=self.alert_dead_letters,
            dead_letters_growth=self.alert_dead_letters_growth,
            silent_seconds=2 * self.lease_seconds,
        )

    @property
    def alert_patience(self) -> Patience:
        """How long alerts wait."""
        return Patience(timedelta(seconds=self.alert_hold_seconds), timedelta(seconds=self.alert_clear_seconds))

    @property
    def outbound_allowances(self) -> tuple[Allowance, ...]:
        """What tasks may reach besides public addresses."""
        return tuple(map(allowance, self.outbound_allow))

    @property
    def all_executor_modules(self) -> tuple[str, ...]:
        """The shipped executors, then the operator's."""
        return (*SHIPPED_EXECUTORS, *self.executor_modules)


def _listed(secrets: SecretStr) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[,\s]+", secrets.get_secret_value()) if part)


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, `.env` and the files in SECRETS_DIR, the first that has one; `overrides` win.

    Raises SettingsError naming each wrong one.
    """
    secrets = os.environ.get("SECRETS_DIR")
    if secrets and not os.path.isdir(secrets):
        raise SettingsError(f"SECRETS_DIR: there is no folder {secrets!r}")
    try:
        return Settings(_secrets_dir=secrets or None, **overrides)  # type: ignore[arg-type]  # pydantic checks the values
    except SourceError as error:
        raise SettingsError(f"SECRETS_DIR: {error.__cause__}") from None
    except ValidationError as error:
        raise SettingsError("Wrong setting: " + "; ".join(_told(fault) for fault in error.errors())) from None


def _told(fault: Any) -> str:
    message: str = fault["msg"].removeprefix("Value error, ")
    # A rule about several settings has no place of its own, and its input is all of them, secrets included.
    if not fault["loc"]:
        return message
    name = str(fault["loc"][0])
    field = Settings.model_fields.get(name)
    shown = "a secret" if field is not None and field.annotation is SecretStr else repr(_fit_to_show(fault["input"]))
    return f"{name.upper()}: {message} (got {shown})"


def _fit_to_show(value: object) -> object:
    """Without what may be the password of an address."""
    return re.sub(r"(?<=:)(?!//).*(?=@)", "***", value, flags=re.DOTALL) if isinstance(value, str) else value


def sqlite_path(database_url: str) -> Path:
    """The file behind a SQLite URL."""
    return Path(database_url.split(":///", 1)[1].split("?", 1)[0])


def is_sqlite(database_url: str) -> bool:
    """Whether the store is a SQLite file."""
    return database_url.startswith("sqlite")
