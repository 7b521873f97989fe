"""A real browser (the distribution's Chromium) before a real API with a real worker."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from app.core.alerts import RULE_NAMES
from tests.conftest import SAMPLES
from tests.security.conftest import Site, plain, serving
from tests.walk.conftest import House

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP = {"width": 1280, "height": 800}
LETTING_GO_SECONDS = 15.0
PHONE = {"width": 390, "height": 844}

expect.set_options(timeout=15_000)


def chromium() -> str:
    """The program. Where there is none the test is skipped, or fails where CI is set."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        missing = "no Chromium (apt-get install chromium): the dashboard was NOT tested in a browser"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def arguments() -> list[str]:
    """Its options: its sandbox does not work for root."""
    return ["--no-sandbox"] if os.geteuid() == 0 else []


class Visitor:
    """A page in a browser, and whatever happens on it that must not."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.faults: list[str] = []
        self.expects_refusals = False
        self._address = address
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.on("request", self._asked)

    async def open(self, place: str = "#/") -> Page:
        """Go there; returns when the page has its heading."""
        await self.page.goto(f"{self._address}/{place}")
        await expect(self.page.locator("h1")).to_be_visible()
        return self.page

    async def heading(self) -> str:
        return await self.page.locator("h1").inner_text()

    def _heard(self, message: ConsoleMessage) -> None:
        refusal = "the server responded with a status of 4" in message.text
        if message.type in ("error", "warning") and not (refusal and self.expects_refusals):
            self.faults.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self._address, f"blob:{self._address}", "about:")):
            self.faults.append(f"asked {request.url}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chat() -> AsyncIterator[Site]:
    """Where the shop tells of its alerts."""
    async with serving(plain("200 OK", b"ok")) as site:
        yield site


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shop(tmp_path_factory: pytest.TempPathFactory, chat: Site) -> AsyncIterator[House]:
    """An API and a worker that do the work of a small shop."""
    chromium()
    house = House(tmp_path_factory.mktemp("shop"))
    house.settings["EXECUTOR_MODULES"] = f"{SAMPLES},tests.dashboard_executors"
    # Of alerts those that a test makes, at once.
    house.settings |= {"ALERT_LOOK_SECONDS": "0.5", "ALERT_HOLD_SECONDS": "0", "ALERT_CLEAR_SECONDS": "0"}
    house.settings |= {"ALERT_RULES_OFF": ",".join(name for name in RULE_NAMES if name != "breaker-open")}
    house.settings |= {"ALERT_SLACK_URL": chat.url, "OUTBOUND_ALLOW": f"127.0.0.1:{chat.port}", "SWEEP_SECONDS": "1"}
    try:
        await house.worker()
        yield house
    finally:
        await house.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(shop: House) -> httpx.AsyncClient:
    """The shop's API, as a client sees it."""
    return (await shop.api())[1]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=arguments())
        yield browser
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LETTING_GO_SECONDS):
                await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser, api: httpx.AsyncClient) -> AsyncIterator[Visitor]:
    """A page with a fresh profile; the test fails if anything on it went wrong."""
    context = await browser.new_context(viewport=DESKTOP)
    visitor = Visitor(await context.new_page(), str(api.base_url).rstrip("/"))
    yield visitor
    # A browser that cannot let go of a page is not what is tested here, and would hold up all that comes after.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LETTING_GO_SECONDS):
            await visitor.page.unroute_all(behavior="ignoreErrors")
            await context.close()
    assert visitor.faults == []


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """The file whose appearance ends a `rebuild_index` of this test."""
    return tmp_path / "go"
