"""Alerts over real sockets: a signed webhook, a chat, a mail server."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from app.core import notices
from app.core.clock import system_clock
from app.core.errors import SettingsError
from app.core.settings import Settings, load_settings
from app.core.signature import signed
from app.services import channels
from app.services.channels import Sender
from tests.certificate import new_certificate
from tests.security.conftest import Asked, plain, serving

FOLDER = TemporaryDirectory(prefix="mail-")
SECRET = "secret-of-the-tests-1"
TOLD = notices.told_for_test(system_clock())
MAIL = {"alert_mail_to": ("ann@example.com", "bob@example.com"), "alert_mail_from": "tasks@example.com"}


@cache
def certificate() -> tuple[Path, Path]:
    """That of the mail server, and its key."""
    return new_certificate(Path(FOLDER.name), "127.0.0.1")


async def silent(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


def sender(**settings: Any) -> Sender:
    return Sender(Settings(**settings), system_clock)


# Over HTTP


async def test_the_webhook_is_signed_as_notices_of_tasks_are() -> None:
    async with serving(plain("204 No Content", b"")) as site:
        allowed = (f"127.0.0.1:{site.port}",)
        one = sender(alert_webhook_url=f"{site.url}/alerts?a=1", webhook_secrets=SECRET, outbound_allow=allowed)
        assert await one.send("webhook", "alert_1_2", TOLD) is None
    (asked,) = site.asked
    assert asked.line == "POST /alerts?a=1 HTTP/1.1"
    assert asked.body == TOLD.encode()
    expected = signed([SECRET], "alert_1_2", int(asked.headers["webhook-timestamp"]), asked.body)
    assert {name: asked.headers[name] for name in expected} == expected


async def test_a_chat_is_sent_a_line() -> None:
    async with serving(plain("200 OK", b"ok")) as site:
        one = sender(alert_slack_url=f"{site.url}/services/T0/B0/path", outbound_allow=(f"127.0.0.1:{site.port}",))
        assert await one.send("slack", "alert_1_2", TOLD) is None
    assert json.loads(site.asked[0].body) == {"text": notices.headline(TOLD)}


async def test_a_refusal_tells_the_host_and_never_the_path() -> None:
    async with serving(plain("404 Not Found", b"no_team")) as site:
        one = sender(alert_slack_url=f"{site.url}/services/T0/secret", outbound_allow=(f"127.0.0.1:{site.port}",))
        assert await one.send("slack", "alert_1_2", TOLD) == "127.0.0.1 answered 404."


async def test_addresses_of_the_own_network_are_guarded_as_for_tasks() -> None:
    async with serving(plain("200 OK", b"")) as site:
        one = sender(alert_slack_url=site.url, outbound_ports=(site.port,))
        error = await one.send("slack", "alert_1_2", TOLD)
    assert error is not None
    assert "may not be asked" in error
    assert site.asked == []


async def test_a_host_that_is_silent_is_given_up_in_time() -> None:
    async with serving(silent) as site:
        allowed = (f"127.0.0.1:{site.port}",)
        one = sender(alert_slack_url=site.url, outbound_allow=allowed, outbound_timeout_seconds=0.2)
        error = await one.send("slack", "alert_1_2", TOLD)
    assert error == "127.0.0.1 did not answer within 0.2 seconds."


# By e-mail


class Box:
    """What a mail server took, and from whom it wants a password."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.encrypted: list[bool] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.answer = "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 the library's
        self.taken.append(envelope)
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return self.answer

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        # "Not handled": the server answers for itself.
        return AuthResult(success=data.password == b"open sesame", handled=False)


@asynccontextmanager
async def mail_server(box: Box, security: str = "none", **options: Any) -> AsyncIterator[int]:
    """A server on 127.0.0.1; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate())
    if security == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(box, hostname="127.0.0.1", loop=loop, **options),
        *("127.0.0.1", 0),
        ssl=context if security == "tls" else None,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the tests' certificate, as an operator would that of a mail server of the house."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate()[0]))


def mailing(port: int, security: str, **settings: Any) -> Sender:
    return sender(**MAIL, smtp_host="127.0.0.1", smtp_port=port, smtp_security=security, **settings)


async def test_a_mail_reaches_everyone_it_is_for() -> None:
    box = Box()
    async with mail_server(box) as port:
        assert await mailing(port, "none").send("mail", "alert_1_2", TOLD) is None
    (envelope,) = box.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == ("tasks@example.com", list(MAIL["alert_mail_to"]))
    assert isinstance(envelope.content, bytes)
    message = message_from_bytes(envelope.content, policy=policy.default)
    assert message["Subject"] == notices.headline(TOLD)
    assert message["Message-ID"] == "<alert_1_2@example.com>"
    assert message["To"] == "ann@example.com, bob@example.com"
    assert "Nothing is wrong." in message.get_content()  # type: ignore[attr-defined]  # by its policy it is an EmailMessage


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_password_goes_over_an_encrypted_connection_alone(security: str) -> None:
    box = Box()
    async with mail_server(
        box, security, authenticator=box.authenticate, auth_require_tls=security == "starttls"
    ) as port:
        one = mailing(port, security, smtp_user="tasks", smtp_password="open sesame")
        assert await one.send("mail", "alert_1_2", TOLD) is None
    assert (box.logins, box.encrypted) == ([(b"tasks", b"open sesame")], [True])


@pytest.mark.usefixtures("_trusted")
async def test_a_wrong_password_is_told_without_it() -> None:
    box = Box()
    async with mail_server(box, "starttls", authenticator=box.authenticate) as port:
        one = mailing(port, "starttls", smtp_user="tasks", smtp_password="wrong password")
        error = await one.send("mail", "alert_1_2", TOLD)
    assert error is not None
    assert error == "127.0.0.1 did not take the message: 5.7.8 Authentication credentials invalid"
    assert "wrong password" not in error
    assert box.taken == []


async def test_a_certificate_nobody_trusts_gets_neither_password_nor_message() -> None:
    box = Box()
    async with mail_server(box, "starttls", authenticator=box.authenticate) as port:
        one = mailing(port, "starttls", smtp_user="tasks", smtp_password="open sesame")
        error = await one.send("mail", "alert_1_2", TOLD)
    assert error is not None
    assert "CERTIFICATE_VERIFY_FAILED" in error
    assert (box.logins, box.taken) == ([], [])


async def test_a_server_without_starttls_is_sent_nothing() -> None:
    box = Box()
    async with mail_server(box) as port:
        error = await mailing(port, "starttls").send("mail", "alert_1_2", TOLD)
    assert error is not None
    assert "STARTTLS" in error
    assert box.taken == []


async def test_what_a_server_says_against_it_is_told() -> None:
    box = Box()
    box.answer = "451 greylisted, try again"
    async with mail_server(box) as port:
        error = await mailing(port, "none").send("mail", "alert_1_2", TOLD)
    assert error == "127.0.0.1 did not take the message: greylisted, try again"


async def test_a_server_that_is_not_there_or_silent_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(silent) as site:
        monkeypatch.setattr(channels, "MAIL_SECONDS", 0.2)
        error = await mailing(site.port, "none").send("mail", "alert_1_2", TOLD)
        assert error is not None
        assert "timed out" in error
    error = await mailing(site.port, "none").send("mail", "alert_1_2", TOLD)
    assert error is not None
    assert "did not take the message" in error


async def test_a_server_that_drips_does_not_hold_up_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    over, gone = asyncio.Event(), asyncio.Event()

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not over.is_set():
            writer.write(b"220-")
            await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    monkeypatch.setattr(channels, "SEND_SECONDS", 0.3)
    error = await mailing(server.sockets[0].getsockname()[1], "none").send("mail", "alert_1_2", TOLD)
    over.set()
    await gone.wait()
    server.close()
    assert error == "It did not take the message within 0.3 seconds."


# Settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alert_webhook_url": "https://hooks.example.com"}, "needs WEBHOOK_SECRETS"),
        ({"alert_slack_url": "hooks.example.com"}, "ALERT_SLACK_URL: must begin with https"),
        ({"alert_mail_to": "ann@example.com"}, "needs SMTP_HOST and ALERT_MAIL_FROM"),
        ({"alert_mail_to": "ann@example.com,Bcc:<eve@example.com>"}, "no address"),
        ({"alert_mail_from": "Tasks <tasks@example.com>"}, "no address"),
        ({"smtp_user": "tasks", "smtp_security": "none"}, "in the clear"),
        ({"alert_rules_off": "queue-old,nonsense"}, "nonsense is no rule"),
    ],
)
def test_a_channel_that_cannot_work_is_told_at_the_start(wrong: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        load_settings(**wrong)
    assert "hooks.example.com" not in str(error.value)


def test_without_settings_there_is_no_channel() -> None:
    assert list(sender().channels) == []
