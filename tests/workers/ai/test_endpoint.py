import base64

import pytest

from app.core.settings import Settings
from app.services.executors import Fail
from app.workers.ai.endpoint import Endpoint, endpoint_of

KEY = 'sk-a/b+c"d-0123456789'


def named(url: str, key: str = "") -> Endpoint:
    return endpoint_of(Settings(ai_base_url=url, ai_api_key=key))


@pytest.mark.parametrize(
    ("url", "asked", "shown"),
    [
        ("http://localhost:11434/v1", "http://localhost:11434/v1/chat/completions", None),
        (" https://api.example.com/v1/ ", "https://api.example.com/v1/chat/completions", None),
        ("http://[::1]:8080", "http://[::1]:8080/chat/completions", None),
        (
            "https://user:password@host/a?api-version=2024-10-21&code=hidden-value#part",
            "https://host/a/chat/completions?api-version=2024-10-21&code=hidden-value",
            "https://host/a/chat/completions",
        ),
    ],
)
def test_the_address_is_the_base_and_the_call_and_is_shown_without_secrets(
    url: str, asked: str, shown: str | None
) -> None:
    endpoint = named(url)
    assert str(endpoint.url) == asked
    assert endpoint.shown == (shown or asked)


@pytest.mark.parametrize(
    ("url", "key", "says"),
    [
        ("", "", r"^No AI endpoint is configured: set AI_BASE_URL \(and AI_MODEL, AI_API_KEY\) for the worker\.$"),
        ("localhost:11434/v1", "", "must begin with http:// or https://"),
        ("file:///etc/passwd", "", "must begin with http:// or https://"),
        ("http://", "", "name a host"),
        ("http://host:port/v1", "", "is no address"),
        ("http://host/v1", "sk-sécret", "visible ASCII"),
        ("http://host/v1", "sk-secret\nX-Other: 1", "visible ASCII"),
    ],
)
def test_what_cannot_be_used_fails_at_once_without_saying_the_key(url: str, key: str, says: str) -> None:
    with pytest.raises(Fail, match=says) as raised:
        named(url, key)
    assert "sk-s" not in str(raised.value)


def test_the_key_goes_before_the_user_name_and_the_user_name_before_nothing() -> None:
    basic = base64.b64encode(b"user:password").decode()
    assert named("http://user:password@host", "sk-1\n").headers["Authorization"] == "Bearer sk-1"
    assert named("http://user:password@host").headers["Authorization"] == f"Basic {basic}"
    assert "Authorization" not in named("http://host", " ").headers


def test_nothing_secret_is_in_its_repr() -> None:
    shown = repr(named("http://user:password@host/v1?code=hidden-value", KEY))
    assert not [secret for secret in (KEY, "sk-a", "password", "hidden") if secret in shown]


@pytest.mark.parametrize(
    "spelt",
    [
        KEY,
        KEY.upper(),
        'sk-a/b+c\\"d-0123456789',
        'sk-a\\/b+c\\"d-0123456789',
        "sk-a%2Fb%2Bc%22d-0123456789",
        "pass",
        base64.b64encode(b"username:pass").decode(),
        "username",
        "hidden-value",
    ],
)
def test_each_secret_is_redacted_however_it_is_spelt(spelt: str) -> None:
    endpoint = named("http://username:pass@host/v1?code=hidden-value&v=1", KEY)
    assert endpoint.redact(f"<{spelt}> v=1") == "<[redacted]> v=1"


def test_a_placeholder_for_a_key_is_left_in_answers() -> None:
    endpoint = named("http://host", "ollama")
    assert endpoint.redact_answer("I run on ollama") == endpoint.certain("I run on ollama") == "I run on ollama"
    assert endpoint.redact("Bearer ollama") == "Bearer [redacted]"


@pytest.mark.parametrize(
    ("text", "certain"),
    [
        ("It is " + KEY, "It is [redacted]"),
        ("It is " + KEY[:-1], "It is "),
        ("It is " + KEY[:-1].upper(), "It is "),
        ("It is s", "It is "),
        ("It was", "It wa"),
        ("It is " + KEY[:-1] + ".", "It is " + KEY[:-1] + "."),
        ("", ""),
    ],
)
def test_of_an_unfinished_answer_nothing_is_shown_that_may_become_the_key(text: str, certain: str) -> None:
    assert named("http://host", KEY).certain(text) == certain
