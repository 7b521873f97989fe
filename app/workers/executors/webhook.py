"""The `webhook` task type, which the service itself submits: tell a URL that a task has ended."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from app.core import webhook
from app.core.errors import OutboundRefused
from app.core.retry import RetryPolicy
from app.core.secrets import load_secrets, redactor_of
from app.core.settings import Settings, load_settings
from app.services.destinations import Url
from app.services.executors import Context, Fail, executor

if TYPE_CHECKING:  # the runner alone needs the HTTP library behind it
    from app.services.outbound import Guard

GONE = frozenset([webhook.GONE])
"""The only answer that says no other attempt is wanted. Whoever is deployed anew answers 404 for a while."""


class WebhookNotice(BaseModel):
    """What to send, byte for byte, where, and under which id."""

    model_config = ConfigDict(strict=True, extra="forbid")

    url: Url
    message_id: str
    body: str
    webhook_id: str | None = Field(None, description="The subscription that it is for; none for a `webhook_url`.")
    secrets: list[str] = Field(
        [], max_length=webhook.MOST_SECRETS, description="The names of those it is signed with; none: WEBHOOK_SECRETS."
    )


class SecretsMissing(Exception):
    """The worker has nothing to sign with."""


@executor(
    webhook.TASK_TYPE,
    payload=WebhookNotice,
    max_attempts=webhook.MAX_ATTEMPTS,
    timeout_seconds=webhook.TIMEOUT_SECONDS,
    retry=RetryPolicy(base_seconds=webhook.BASE_SECONDS, ceiling_seconds=webhook.CEILING_SECONDS),
    internal=True,
    url_field="url",
)
async def deliver(payload: WebhookNotice, context: Context) -> dict[str, Any]:
    """POST the notice, signed with each of its secrets, or of WEBHOOK_SECRETS; any 2xx is its receipt. Redirects are not
    followed."""
    from app.core.clock import system_clock
    from app.core.signature import signed
    from app.services.outbound import Guard, Outgoing
    from app.workers.http.call import call

    settings = load_settings()
    guard = Guard(settings)
    keys = _keys(guard, payload, settings)
    body = payload.body.encode()
    headers = {"Content-Type": "application/json"}
    # Signed anew for each attempt: the receiver refuses what was signed long ago.
    headers |= signed(keys, payload.message_id, int(system_clock().timestamp()), body)
    request = Outgoing(payload.url, "POST", headers, body, most_bytes=2048)
    answer = await call(guard, request, context.trace, None, redactor_of(settings), final=GONE)
    return {"status": answer.status}


def _keys(guard: "Guard", payload: WebhookNotice, settings: Settings) -> Sequence[str]:
    """What to sign with. Raises SecretsMissing, and Fail where the URL may not be asked."""
    try:
        to = guard.check(payload.url)
    except OutboundRefused as refused:
        raise Fail(str(refused)) from None
    if payload.secrets:
        known = load_secrets(settings)
        try:
            return [known.released(name, to.scheme, to.host, to.port) for name in payload.secrets]
        except OutboundRefused as refused:
            raise SecretsMissing(str(refused)) from None
    if not settings.webhook_keys:
        raise SecretsMissing("WEBHOOK_SECRETS is not set for this worker; a notice is not sent unsigned.")
    return settings.webhook_keys
