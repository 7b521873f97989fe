from datetime import UTC, datetime

import httpx
import pytest

from app.core.settings import Settings
from app.workers.ai.endpoint import Endpoint, endpoint_of
from app.workers.ai.refusals import reason, retry_after

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def endpoint() -> Endpoint:
    return endpoint_of(Settings(ai_base_url="http://host/v1", ai_api_key="sk-secret-key"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("86400", 300.0),
        ("9" * 400, 300.0),
        ("Wed, 25 Nov 2026 12:00:30 GMT", 30.0),
        ("Wed, 25 Nov 2026 12:00:30 -0000", 30.0),
        ("Wed, 25 Nov 2026 11:00:00 GMT", 0.0),
        ("Fri, 25 Dec 2026 12:00:00 GMT", 300.0),
        ("-1", None),
        ("nan", None),
        ("soon", None),
        ("Wed, 99 Nov 2026 12:00:30 GMT", None),
        ("Wed, 25 Nov 2026 12:00:30 +99999999999999999999", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_bounded(value: str, seconds: float | None) -> None:
    assert retry_after(httpx.Headers({"retry-after": value}), NOW) == seconds
    assert retry_after(httpx.Headers(), NOW) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": {"message": "no such model", "code": 404}}', "no such model"),
        ('{"error": "model \\"x\\" not found"}', 'model "x" not found'),
        ('{"object": "error", "message": "too long"}', "too long"),
        ('{"detail": [{"loc": ["body"], "msg": "Feld fehlt ä"}]}', '[{"loc": ["body"], "msg": "Feld fehlt ä"}]'),
        ('{"error": {"code": 9}}', '{"code": 9}'),
        ("<h1>Bad\n\n  Gateway</h1>", "<h1>Bad Gateway</h1>"),
        ("", ""),
        ("[" * 100_000, "[" * 499 + "…"),
        ("x" * 499 + "sk-secret-key", "x" * 499 + "…"),
        (
            '{"error": {"message": "Incorrect API key provided: sk-se****-key."}}',
            "Incorrect API key provided: [redacted].",
        ),
        ('{"error": {"message": "got SK-SECRET-KEY"}}', "got [redacted]"),
    ],
)
def test_the_servers_own_words_are_found_cut_and_free_of_the_key(endpoint: Endpoint, body: str, said: str) -> None:
    assert reason(body, endpoint) == said
