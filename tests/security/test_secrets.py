"""Canary secrets: nothing that this service writes or says holds one, whatever fails."""

import base64
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.core import secrets as secrets_module
from app.core.errors import OutboundRefused, SettingsError
from app.core.secrets import Redactor, Secrets, load_secrets, redactor_of
from app.core.settings import Settings, load_settings
from app.core.task import Status
from tests.security.conftest import Asked, serving
from tests.workers.conftest import Start

CANARY = 'Canary/"Müller"+0123456789'
PLAIN = "canary-plain-0123456789"
ROOT = Path(__file__).parents[2]


def _written(secret: str) -> list[str]:
    return [
        *(secret, secret.upper(), json.dumps(secret), json.dumps(secret, ensure_ascii=False), quote(secret, safe="")),
        *(json.dumps(secret).replace("/", "\\/"), base64.b64encode(secret.encode()).decode()),
    ]


@pytest.mark.parametrize("text", [*_written(CANARY), *_written(PLAIN)])
def test_a_known_secret_is_cut_out_however_it_is_written(text: str) -> None:
    redacted = Redactor([CANARY, PLAIN])(f"before {text} after")
    assert "[redacted]" in redacted
    assert "0123456789" not in redacted
    assert redacted.startswith("before ")
    assert redacted.endswith(" after")


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("secret", ["crmSecretToken-0123456789", "?>~?>~?>~?>", "8 signs!", "größer~~>>??"])
def test_a_secret_inside_a_text_in_base64_is_cut_out(secret: str, encode: Any) -> None:
    redact = Redactor([secret])
    for before, after in itertools.product(("", "u", "u:", "us:", "user"), ("", "a", "ab", "abc")):
        text = encode(f"{before}{secret}{after}".encode()).decode()
        left, found, right = redact(text).partition("[redacted]")
        assert found
        # Of the secret at most the bits of one character on each side, and what stood beside it.
        assert len(left) <= (8 * len(before) + 5) // 6
        assert len(right) <= 4 * ((len(after) + 2) // 3) + 4
        assert encode(secret.encode()).decode().rstrip("=")[2:-1] not in redact(text)


BREAKS = ["\n", "\r\n", "\n  ", "\r\n\t", "\\n", "\\r\\n", "\\n\\t", "\\\\n", "\\\\r\\\\n", "\\\\\\\\n"]


def _broken(text: str, width: int, line_break: str) -> str:
    return line_break.join(text[start : start + width] for start in range(0, len(text), width))


@pytest.mark.parametrize("line_break", BREAKS)
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_that_is_broken_into_lines_is_found(line_break: str, encode: Any) -> None:
    redact = Redactor([CANARY, PLAIN])
    for secret, before, width in itertools.product((CANARY, PLAIN), range(40, 64), (76, 64, 7, 1)):
        text = encode(b"u" * before + secret.encode() + b"v" * 60).decode()
        shown = redact(f"said {_broken(text, width, line_break)} after").replace(line_break, "")
        left, found, right = shown.partition("[redacted]")
        assert found
        assert (left, right) == (f"said {text[: len(left) - 5]}", f"{text[-len(right) + 6 :]} after")
        assert len(left) - 5 <= (8 * before + 5) // 6
        assert len(right) - 6 <= 84


def test_base64_with_lines_is_found_in_json_and_in_bytes_as_python_shows_them() -> None:
    text = base64.encodebytes(b"a" * 45 + CANARY.encode() + PLAIN.encode() + b"?" * 60).decode()
    for written in (json.dumps({"a": [text]}), json.dumps(json.dumps(text)), repr(text.encode()), repr([repr(text)])):
        for slashes in (written, written.replace("/", "\\/")):
            shown = Redactor([CANARY, PLAIN])(slashes)
            assert shown.count("[redacted]") == 2
            assert shown.startswith(slashes[:20])
            assert shown.endswith(slashes[-20:])


@given(st.text("\\\\\\nr \n\r\tN\u2003/aR"))
def test_the_quick_look_takes_out_the_same_breaks_as_the_exact_one(text: str) -> None:
    assert secrets_module._without_breaks(text.lower()) == secrets_module._Joined(text).text.lower()


@pytest.mark.parametrize(
    "text",
    ["\\n" * 500_000, "\\" * 1_000_000, "\n" * 1_000_000, "YWFh\n" * 200_000, "YWFhYWFhYWFhYWFh\\r" * 55_000],
    ids=["escapes", "backslashes", "lines", "beginnings", "long beginnings"],
)
def test_a_megabyte_of_breaks_takes_no_time(text: str) -> None:
    redact = Redactor(["a" * 40 + "b", PLAIN])
    began = time.process_time()
    redact(text)
    redact(f"{base64.encodebytes(PLAIN.encode() * 9).decode()}{text}")  # where something is found, too
    assert time.process_time() - began < 15  # a quadratic one takes hours


def test_half_a_secret_in_broken_base64_at_the_end_of_what_was_cut_goes_too() -> None:
    redact = Redactor([PLAIN])
    text = base64.b64encode(PLAIN.encode()).decode()[:-1]
    for length, line_break in itertools.product(range(8, len(text) - 1), ("\n", "\\r\\n")):
        assert redact.beginning(f"said: {_broken(text[:length], 5, line_break)}") == "said: "
    assert redact.beginning("said: \nnothing\nat all") == "said: \nnothing\nat all"


def test_the_longer_of_two_secrets_is_cut_out_whole() -> None:
    assert Redactor(["secret-one", "secret-one-and-more"])("a secret-one-and-more b") == "a [redacted] b"


def test_half_a_secret_at_the_end_of_what_was_cut_goes_too() -> None:
    redact = Redactor([PLAIN, "aaaabaaaa"])
    for length in range(1, len(PLAIN)):
        assert redact.beginning(f"said {PLAIN} {PLAIN[:length]}") == "said [redacted] "
        assert redact.beginning(f"said {PLAIN[:length].upper()}") == "said "
    assert redact.beginning("said aaaabaaaa") == "said [redacted]"
    assert redact.beginning("said aaaabaaa") == "said "
    assert redact.beginning(f"said {PLAIN[1:]}") == f"said {PLAIN[1:]}", "no beginning of it"
    assert Redactor().beginning("said c") == "said c"


def test_it_takes_no_time_to_look_for_half_a_long_secret() -> None:
    began = time.process_time()
    Redactor(["a" * 65535 + "b"]).beginning("a" * 65535 + "c")
    assert time.process_time() - began < 5


def test_what_is_no_secret_stays() -> None:
    redact = Redactor(["ollama", PLAIN])
    assert redact("ollama answered 404") == "ollama answered 404"
    assert Redactor()(PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer [redacted]"),
        ("basic dXNlcjpwYXNz!", "basic [redacted]!"),
        ("key sk-0123456789abcdefXYZ is wrong", "key [redacted] is wrong"),
        ("GET /x?api_key=0123456&a=b", "GET /x?api_key=[redacted]&a=b"),
        ("ghp_0123456789abcdef0123456789", "[redacted]"),
        ("AKIAABCDEFGHIJKLMNOP", "[redacted]"),
        ("whsec_MDEyMzQ1Njc4OWFiY2RlZg==", "[redacted]"),
        ("the task-18 was asked to bear with us", "the task-18 was asked to bear with us"),
    ],
)
def test_an_error_loses_what_looks_like_somebodys_key(text: str, shown: str) -> None:
    assert Redactor().message(text) == shown


def test_data_is_redacted_string_by_string() -> None:
    redact = Redactor(["1234567890"])
    value = {"a": [1234567890, "x 1234567890"], "1234567890": None}
    assert redact.data(value) == {"a": [1234567890, "x [redacted]"], "[redacted]": None}


def test_the_redactor_knows_every_secret_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_ONE", "named-secret-1")
    settings = load_settings(
        database_url="postgresql://user:data%2Fbase-pass@host/db",
        ai_base_url="https://user:endpoint-pass@host/v1",
        ai_api_key="the-ai-key-1",
    )
    text = "named-secret-1 data/base-pass data%2Fbase-pass endpoint-pass the-ai-key-1"
    assert redactor_of(settings)(text) == " ".join(["[redacted]"] * 5)


# Where named secrets come from.


def _secrets(**settings: Any) -> Secrets:
    return load_secrets(load_settings(**settings))


def test_a_file_beats_a_variable_and_a_line_end_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_CRM", "from-variable")
    (tmp_path / "crm").write_text("from-the-file\r\n")
    (tmp_path / ".hidden").write_text("no secret of ours")
    (tmp_path / "..data").mkdir()
    assert _secrets(secrets_dir=str(tmp_path)).values["crm"] == "from-the-file"
    assert ".hidden" not in _secrets(secrets_dir=str(tmp_path)).values


@pytest.mark.parametrize("hosts", ["crm", "=x", "crm=", "crm=a b", "crm=http//x", "crm=*", "crm=a*.b", "c!m=x"])
def test_a_list_of_hosts_that_says_nothing_is_refused(hosts: str) -> None:
    with pytest.raises(SettingsError, match="SECRETS_HOSTS"):
        _secrets(secrets_hosts=hosts)


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="SECRETS_DIR"):
        _secrets(secrets_dir="/nowhere")


@pytest.mark.parametrize(
    ("hosts", "to", "goes"),
    [
        ("crm=api.test", ("https", "api.test", 443), True),
        ("crm=api.test", ("http", "api.test", 80), False),
        ("crm=http://api.test", ("http", "api.test", 80), True),
        ("crm=api.test:8443", ("https", "api.test", 443), False),
        ("crm=a.test|*.api.test", ("https", "x.api.test", 443), True),
        ("crm=*.api.test", ("https", "api.test", 443), False),
        ("crm=*.api.test", ("https", "evil-api.test", 443), False),
        ("CRM=API.test", ("https", "api.test", 443), True),
        ("crm=[::1]", ("https", "::1", 443), True),
        ("", ("https", "api.test", 443), False),
    ],
)
def test_a_secret_goes_to_its_hosts_alone(
    hosts: str, to: tuple[str, str, int], goes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_CRM", PLAIN)
    secrets = _secrets(secrets_hosts=hosts)
    if goes:
        assert secrets.released("crm", *to) == PLAIN
    else:
        with pytest.raises(OutboundRefused) as refused:
            secrets.released("crm", *to)
        assert PLAIN not in str(refused.value)


def test_nothing_shows_a_secret_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_CRM", PLAIN)
    assert PLAIN not in repr(_secrets(secrets_hosts="crm=x.test"))
    assert PLAIN not in repr(load_settings(ai_api_key=PLAIN))


# In use.


def test_no_line_of_the_log_holds_one() -> None:
    program = """
import logging, os, sys, structlog
from app.core.logs import configure_logging
from app.core.secrets import redactor_of
from app.core.settings import load_settings
settings = load_settings()
for style in ("json", "console"):
    configure_logging("info", style, redact=redactor_of(settings))
    secret = os.environ["SECRET_CRM"]
    structlog.get_logger("ours").info("said " + secret, field=secret, data={"deep": [secret]})
    logging.getLogger("theirs").warning("careful %s", secret)
    try:
        raise ValueError(secret)
    except ValueError:
        structlog.get_logger("ours").exception("failed")
"""
    environment = {"SECRET_CRM": CANARY, "PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.count("[redacted]") >= 8
    assert "0123456789" not in done.stderr


async def test_a_host_that_says_secrets_back_gives_none_away(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a body that is kept, a body of an error, a header, a redirect; then every byte that was written is looked at."""

    async def echo(asked: Asked, writer: Any) -> None:
        secret = asked.headers["x-key"]
        status = asked.path.strip("/")
        head = f"HTTP/1.1 {status} Told\r\nContent-Type: text/plain; {secret}\r\nLocation: /x?{secret}\r\n"
        body = json.dumps({"you sent": secret, "again": secret * 30})
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    with structlog.testing.capture_logs() as lines:
        async with serving(echo) as site:
            monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
            monkeypatch.setenv("SECRET_CRM", PLAIN)
            monkeypatch.setenv("SECRETS_HOSTS", "crm=http://127.0.0.1")
            running = await start()
            headers = {"X-Key": {"secret": "crm"}}
            ended = {
                status: await running.run(
                    "http_request", payload={"url": f"{site.url}/{status}", "headers": headers}, max_attempts=1
                )
                for status in ("200", "302", "404", "500")
            }
            await running.stop()
    assert ended["200"].status is Status.COMPLETED
    assert {ended[status].status for status in ("302", "404", "500")} == {Status.FAILED}
    assert "[redacted]" in str(ended["200"].result)
    assert "[redacted]" in str(ended["404"].error)
    assert all(asked.headers["x-key"] == PLAIN for asked in site.asked)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or PLAIN.encode() not in path.read_bytes()
    assert PLAIN not in str(lines) + caplog.text


async def test_an_executor_that_gives_a_secret_away_is_redacted(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_CRM", PLAIN)
    with structlog.testing.capture_logs() as lines:
        running = await start(executor_modules=("tests.security.telling_executors",))
        task = await running.run("tell", payload={}, max_attempts=1)
        await running.stop()
    assert task.error is not None
    assert task.error.count("[redacted]") >= 3
    assert "said" in str(lines)
    assert "printed" in str(lines)
    assert PLAIN not in str(lines)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or PLAIN.encode() not in path.read_bytes()


async def test_a_payload_cannot_bring_a_secret(client: httpx.AsyncClient) -> None:
    payload = {"url": "https://example.com/", "headers": {"Authorization": f"Bearer {PLAIN}"}}
    answer = await client.post("/tasks/", json={"task_type": "http_request", "payload": payload})
    assert answer.status_code == 422
    assert "name a secret of the worker" in answer.text
    assert PLAIN not in answer.text


def test_a_wrong_setting_does_not_show_its_secret() -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(ai_api_key=["list-of-secrets-1"])
    assert "list-of-secrets-1" not in str(refused.value)
    assert isinstance(Settings(), Settings)
