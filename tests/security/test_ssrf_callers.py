"""Each of those that ask another host does so through the guard: none reaches the canary, each takes what is allowed."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.core.errors import OutboundFailed
from app.services.executors import Context, Fail, RecordedReports, RunnerSetup
from app.workers.executors.http_request import HttpRequest, request_http
from app.workers.executors.image_processing import EXAMPLE, process_image
from app.workers.executors.text_processing import TextProcessing, process_text
from app.workers.image.payload import ImageProcessing
from tests.security.conftest import plain, redirect, serving

Ask = Callable[[str], Awaitable[dict[str, Any]]]
PICTURE = base64.b64decode(str(EXAMPLE["image_base64"]))


def _context() -> Context:
    return Context(reports=RecordedReports(), setup=RunnerSetup())


async def _http(url: str) -> dict[str, Any]:
    return await request_http(HttpRequest(url=url, method="GET", follow_redirects=True), _context())


async def _image(url: str) -> dict[str, Any]:
    return await asyncio.to_thread(process_image, ImageProcessing(image_url=url), _context())


async def _text(url: str) -> dict[str, Any]:
    return await asyncio.to_thread(process_text, TextProcessing(text_url=url), _context())


CALLERS = {"http_request": _http, "image_url": _image, "text_url": _text}
HOSTILE = [
    *("http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/", "http://2130706433:{port}/"),
    *("http://[::ffff:127.0.0.1]:{port}/", "http://0x7f.1:{port}/", "http://0:{port}/", "http://①②⑦.⓪.⓪.①:{port}/"),
    *("http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[64:ff9b::7f00:1]:{port}/"),
    *("file:///etc/passwd", "gopher://127.0.0.1:{port}/", "http://a:b@127.0.0.1:{port}/"),
]


@pytest.mark.parametrize("vector", HOSTILE)
@pytest.mark.parametrize("ask", CALLERS.values(), ids=CALLERS)
async def test_no_caller_reaches_the_canary(ask: Ask, vector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain(), "127.0.0.1", "::1") as canary:
        monkeypatch.setenv("OUTBOUND_PORTS", f"80,{canary.port}")
        with pytest.raises(Fail):
            await ask(vector.replace("{port}", str(canary.port)))
        assert canary.connections == 0


@pytest.mark.parametrize("ask", CALLERS.values(), ids=CALLERS)
async def test_no_redirect_of_a_caller_reaches_the_canary(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain()) as canary, serving(redirect(canary.url)) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        with pytest.raises(Fail):
            await ask(site.url)
        assert (canary.connections, site.connections) == (0, 1)


async def test_a_picture_at_a_url_is_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain(body=PICTURE)) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        result = await _image(f"{site.url}/picture.png")
    assert (result["format"], result["width"]) == ("png", 16)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("I love Zürich.".encode(), "text/plain"),
        ("I love Zürich.".encode("latin-1"), "text/plain; charset=ISO-8859-1"),
        (b"\xef\xbb\xbf" + "I love Zürich.".encode(), 'text/html; x=y; charset="utf-8"'),
    ],
)
async def test_a_text_at_a_url_is_processed(body: bytes, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain(body=body, Content_Type=kind)) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        assert (await _text(site.url))["statistics"]["words"] == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (plain("404 Not Found"), "answered 404"),
        (plain(body=b"\xff\xff", Content_Type="text/plain"), "no UTF-8 text"),
        (plain(Content_Type="image/png"), "image/png, which is no text"),
        (plain(Content_Type="text/plain; charset=zip"), "no zip text"),
        (plain(body=b" \n"), "besides white space"),
        (plain(body=b"x" * 300_000), "larger than the limit of 262144 bytes"),
    ],
)
async def test_what_is_no_text_fails_at_once(answer: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answer) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        with pytest.raises(Fail, match=message):
            await _text(site.url)


@pytest.mark.parametrize("ask", [_image, _text])
async def test_a_host_in_trouble_may_be_asked_again(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain("503 Down")) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        with pytest.raises(OutboundFailed, match="answered 503"):
            await ask(site.url)
