"""The ways in which operators are told of alerts: a signed webhook, a chat that takes what Slack takes, e-mail.

The HTTP ones go out by the same guard as every other request. The mail server is named by a setting alone, is often a
neighbour, and is not judged.
"""

import asyncio
from collections.abc import Callable
from email import policy
from email.message import EmailMessage
from typing import TYPE_CHECKING, Protocol

from app.core.clock import Clock
from app.core.errors import OutboundError, OutboundFailed
from app.core.notices import SEND_SECONDS, headline, mail_body, slack_body
from app.core.secrets import redactor_of
from app.core.settings import Settings
from app.core.signature import signed
from app.services.threads import on_thread

if TYPE_CHECKING:
    import smtplib

MAIL_SECONDS = 20.0
"""Longest silence of a mail server."""
LONGEST_ERROR = 300
ONE_LINE = policy.default.clone(max_line_length=400)
"""A subject is not folded: some read the fold as a space at its beginning."""


class Channel(Protocol):
    """One way to tell. `name` is a word that notices are stored under."""

    name: str

    async def send(self, message_id: str, told: str) -> None:
        """Tell it. Raises OutboundError."""


class SignedWebhook:
    """POST, signed as notices of ended tasks are; any 2xx is its receipt."""

    name = "webhook"

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def send(self, message_id: str, told: str) -> None:
        body = told.encode()
        # Signed anew for each attempt: the receiver refuses what was signed long ago.
        headers = signed(self._settings.webhook_keys, message_id, int(self._clock().timestamp()), body)
        await _post(self._settings, self._settings.alert_webhook_url.get_secret_value(), body, headers)


class SlackWebhook:
    """POST of a line of text, as Slack, Mattermost, Rocket.Chat and others take it."""

    name = "slack"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def send(self, message_id: str, told: str) -> None:
        await _post(self._settings, self._settings.alert_slack_url.get_secret_value(), slack_body(told), {})


async def _post(settings: Settings, url: str, body: bytes, headers: dict[str, str]) -> None:
    from app.services.outbound import Guard, Outgoing  # heavy, and most processes never send

    guard = Guard(settings)
    sent = Outgoing(url, "POST", {"Content-Type": "application/json"} | headers, body, most_bytes=2048)
    answer = await guard.send(sent)
    if not 200 <= answer.status < 300:
        # The host alone: the path of such an address is often its password.
        raise OutboundFailed(f"{guard.check(url).host} answered {answer.status}.")


class Mail:
    """A message to each of the addresses, through a mail server. On a thread: the standard library's client blocks, and a
    message now and then is not worth a dependency."""

    name = "mail"

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def send(self, message_id: str, told: str) -> None:
        await on_thread(lambda: self._send(self._message(message_id, told)), "mail")

    def _message(self, message_id: str, told: str) -> EmailMessage:
        message = EmailMessage(ONE_LINE)
        message["From"] = self._settings.alert_mail_from
        message["To"] = ", ".join(self._settings.alert_mail_to)
        message["Subject"] = headline(told)[:200]
        message["Date"] = self._clock()
        # The same for each delivery: a mailbox shows one that came twice once.
        message["Message-ID"] = f"<{message_id}@{self._settings.alert_mail_from.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail_body(told))
        return message

    def _send(self, message: EmailMessage) -> None:
        import smtplib
        import ssl

        settings = self._settings
        try:
            with self._connected() as server:
                if settings.smtp_security == "starttls":
                    server.starttls(context=ssl.create_default_context())
                if settings.smtp_user:
                    server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
                server.send_message(message)
        except (smtplib.SMTPException, OSError) as error:
            raise OutboundFailed(f"{settings.smtp_host} did not take the message: {_told(error)}") from None

    def _connected(self) -> "smtplib.SMTP":
        import smtplib
        import ssl

        settings, place = self._settings, (self._settings.smtp_host, self._settings.smtp_port)
        if settings.smtp_security == "tls":
            return smtplib.SMTP_SSL(*place, timeout=MAIL_SECONDS, context=ssl.create_default_context())
        return smtplib.SMTP(*place, timeout=MAIL_SECONDS)


def _told(error: Exception) -> str:
    reply = getattr(error, "smtp_error", None)
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(error)
    return " ".join(text.split()) or type(error).__name__


def open_channels(settings: Settings, clock: Clock) -> dict[str, Channel]:
    """Those that the settings name, by name."""
    channels: list[Channel] = []
    if settings.alert_webhook_url.get_secret_value():
        channels.append(SignedWebhook(settings, clock))
    if settings.alert_slack_url.get_secret_value():
        channels.append(SlackWebhook(settings))
    if settings.alert_mail_to:
        channels.append(Mail(settings, clock))
    return {channel.name: channel for channel in channels}


class Sender:
    """Tells a channel within a time, and says what went wrong in words that are fit to be stored."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.channels = open_channels(settings, clock)
        self._redact: Callable[[str], str] = redactor_of(settings).message if self.channels else str

    async def send(self, channel: str, message_id: str, told: str) -> str | None:
        """None once it was taken; else why not."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self.channels[channel].send(message_id, told)
        except TimeoutError:
            return f"It did not take the message within {SEND_SECONDS:g} seconds."
        except OutboundError as error:
            return self._redact(str(error))[:LONGEST_ERROR]
        return None
