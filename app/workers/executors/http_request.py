"""The `http_request` task type: call a URL of yours, with retries, a breaker for each host and a signature."""

import hashlib
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.core.errors import OutboundRefused
from app.core.outbound import check_headers
from app.core.retry import RetryPolicy
from app.core.secrets import NAME
from app.core.settings import load_settings
from app.services.destinations import Url
from app.services.executors import Context, Fail, executor

SENSITIVE = frozenset(
    [
        *("authorization", "cookie", "x-api-key", "api-key", "apikey", "x-auth-token", "x-access-token"),
        *("x-csrf-token", "x-amz-security-token", "private-token", "x-gitlab-token", "x-vault-token"),
    ]
)
MOST_RESPONSE_BYTES = 256 * 1024

SecretName = Annotated[str, Field(pattern=NAME)]


class SecretValue(BaseModel):
    """A secret of the worker by its name; SECRETS_HOSTS must say that it may go to the host."""

    model_config = ConfigDict(strict=True, extra="forbid")

    secret: SecretName = Field(description="SECRET_CRM_TOKEN of the worker is `crm_token`.")
    prefix: str = Field("", max_length=100, description="What stands before it, like `Bearer `.")


class HttpRequest(BaseModel):
    """A request to a host of yours, and what counts as success."""

    model_config = ConfigDict(strict=True, extra="forbid", serialize_by_alias=True)

    url: Url = Field(description="http or https, a public address; OUTBOUND_ALLOW of the workers names others.")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, str | SecretValue] = Field(
        default_factory=dict,
        max_length=50,
        description='Values are text, or `{"secret": "name"}` for one of the worker.',
    )
    json_body: Any = Field(None, alias="json", description="The body as JSON. This or `body`.")
    body: str | None = Field(None, description="The body as text, sent in UTF-8. This or `json`.")
    expected_status: list[Annotated[int, Field(ge=100, le=599)]] | None = Field(
        None, min_length=1, max_length=20, description="What counts as success; any 2xx unless given."
    )
    follow_redirects: bool = Field(False, description="Up to 5; another origin gets neither headers nor body.")
    sign_with: SecretName | None = Field(
        None, description="A secret of the worker; the request then has the headers of Standard Webhooks."
    )
    max_response_bytes: int = Field(
        64 * 1024, ge=0, le=MOST_RESPONSE_BYTES, description="So much of the answer's body is stored."
    )

    @field_validator("headers")
    @classmethod
    def _fit_to_send(cls, headers: dict[str, str | SecretValue]) -> dict[str, str | SecretValue]:
        check_headers((name, value if isinstance(value, str) else "") for name, value in headers.items())
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("each header may be given once")
        for name, value in headers.items():
            if isinstance(value, str) and value and name.lower() in SENSITIVE:
                raise ValueError(
                    f'{name} would be stored for all to read; name a secret of the worker: {{"secret": "name"}}'
                )
        return headers

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if self.sign_with is not None and any(name.lower().startswith("webhook-") for name in self.headers):
            raise ValueError("the headers of the signature are set by sign_with")
        given = [name for name in ("json_body", "body") if name in self.model_fields_set]
        if len(given) > 1:
            raise ValueError("give json or body, not both")
        if given and self.method in ("GET", "HEAD"):
            raise ValueError(f"{self.method} has no body")
        return self

    @property
    def content(self) -> bytes | None:
        """The body as it is sent."""
        if "json_body" in self.model_fields_set:
            return orjson.dumps(self.json_body)
        return None if self.body is None else self.body.encode()


@executor(
    "http_request",
    payload=HttpRequest,
    # A host that is deployed anew is back within minutes: waits of up to 2, 4, 8 ... seconds, together about eight minutes.
    max_attempts=8,
    timeout_seconds=120,
    retry=RetryPolicy(base_seconds=2, ceiling_seconds=300),
    url_field="url",
    example={"url": "https://hooks.example.com/orders", "json": {"order": 7}, "headers": {"X-Source": "tasks"}},
)
async def request_http(payload: HttpRequest, context: Context) -> dict[str, Any]:
    """Call a URL. The result has the `status`, some headers and the `body`, cut at `max_response_bytes`.

    An unexpected status from 500 on, 408, 425 and 429 are tried again, after `Retry-After` where the host says so; any other
    fails at once. Every attempt has the same `Idempotency-Key` (and `webhook-id`, where it is signed), so that the host can
    tell a repetition. While a host does not answer, its tasks wait without using attempts. Only public addresses can be
    asked, unless the operator allows more.
    """
    # Imported here, in the runner: API and worker parent import this module for the payload model alone.
    from app.core.clock import system_clock
    from app.core.secrets import load_secrets, redactor_of
    from app.core.signature import signed
    from app.services.outbound import Guard, Outgoing
    from app.workers.http.call import call, described, with_headers

    settings = load_settings()
    guard, secrets = Guard(settings), load_secrets(settings)
    content = payload.content
    key = repetition_key(settings.database_url, context.task_id, payload)
    try:
        to = guard.check(payload.url)
        place = to.scheme, to.host, to.port
        headers = {
            name: value if isinstance(value, str) else value.prefix + secrets.released(value.secret, *place)
            for name, value in payload.headers.items()
        }
        signing = [] if payload.sign_with is None else [secrets.released(payload.sign_with, *place)]
    except OutboundRefused as refused:
        raise Fail(str(refused)) from None
    redact = redactor_of(settings, secrets)
    most_bytes = min(payload.max_response_bytes, context.setup.max_result_bytes // 3)
    request = Outgoing(
        *(payload.url, payload.method, headers, content),
        # More than is kept, so that no secret is cut in two before it is found.
        most_bytes=most_bytes + redact.longest,
        follow_redirects=payload.follow_redirects,
    )
    if payload.json_body is not None or "json_body" in payload.model_fields_set:
        request = with_headers(request, {"Content-Type": "application/json"})
    if payload.method not in ("GET", "HEAD"):
        request = with_headers(request, {"Idempotency-Key": key})
    if signing:
        timestamp = int(system_clock().timestamp())
        request = with_headers(request, signed(signing, f"msg_{key}", timestamp, content or b""))
    answer = await call(guard, request, context.trace, payload.expected_status, redact)
    return described(answer, most_bytes, context.setup.max_result_bytes // 2, redact)


def repetition_key(database_url: str, task_id: int, payload: HttpRequest) -> str:
    """The same for every attempt of a task, another for every other task."""
    text = f"{database_url} {task_id} {payload.model_dump_json(exclude_unset=True)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
