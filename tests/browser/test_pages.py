"""Every page of the dashboard in a real browser: it loads, is alive, can be read by everybody, and fits on a phone."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.browser.conftest import PHONE, Visitor
from tests.conftest import until
from tests.walk.conftest import ROOT, ended

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = [
    "#/",
    "#/tasks",
    "#/tasks/TASK",
    "#/new?type=image_processing",
    "#/new?from=TASK",
    "#/dead-letters",
    "#/queues",
    "#/webhooks",
    "#/webhooks/WEBHOOK",
    "#/alerts",
    "#/audit",
]


async def webhook(api: httpx.AsyncClient) -> str:
    """The id of one for all pages that show webhooks; it is told of nothing."""
    asked = {"url": "https://example.com/", "description": "shown on pages", "secrets": ["x"], "task_types": ["nobody"]}
    known = (await api.get("/webhooks")).json()["items"]
    made = [one for one in known if one["description"] == asked["description"]]
    return str((made[0] if made else (await api.post("/webhooks", json=asked)).raise_for_status().json())["id"])


async def submit(api: httpx.AsyncClient, task_type: str, payload: dict[str, Any], **fields: Any) -> int:
    answer = await api.post("/tasks", json={"task_type": task_type, "payload": payload, **fields})
    assert answer.status_code == 201, answer.text
    task_id: int = answer.json()["id"]
    return task_id


async def failed_task(api: httpx.AsyncClient) -> int:
    """A task that has failed three times."""
    task_id = await submit(api, "send_invoice", {"order": 3}, tags=["nightly"], metadata={"by": "test"})
    assert (await ended(api, task_id))["status"] == "failed"
    return task_id


@pytest.mark.parametrize("place", PAGES)
async def test_a_page_is_sound_on_a_desk_and_on_a_phone(visitor: Visitor, api: httpx.AsyncClient, place: str) -> None:
    """No error, no breach of the policy, nothing asked from elsewhere, no horizontal scrolling, and what axe looks for."""
    place = place.replace("TASK", str(await failed_task(api))).replace("WEBHOOK", await webhook(api))
    page = await visitor.open(place)
    await expect(page.locator("main form.submission")).to_be_visible() if "new" in place else await settled(page)
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        found = await Axe().run(page)
        assert found.response["violations"] == [], found.generate_report()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.set_viewport_size(PHONE)
    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


async def settled(page: Page) -> None:
    """Wait until the first numbers are there."""
    await expect(page.locator("main table, main .empty, main .group, main dl").first).to_be_visible()


async def test_numbers_move_without_a_reload(visitor: Visitor, api: httpx.AsyncClient) -> None:
    page = await visitor.open()
    scheduled = page.locator(".tile", has_text="Scheduled").locator(".value")
    before = int(await scheduled.inner_text())
    await submit(api, "echo", {"number": 1}, delay_seconds=3600, queue="later")
    await expect(scheduled).to_have_text(str(before + 1))
    await expect(page.get_by_role("table", name="Queues").get_by_role("link", name="later")).to_be_visible()


async def test_a_task_is_followed_from_progress_to_result(visitor: Visitor, api: httpx.AsyncClient, go: Path) -> None:
    task_id = await submit(api, "rebuild_index", {"folder": str(go.parent), "percent": 37.5})
    page = await visitor.open(f"#/tasks/{task_id}")
    await expect(page.get_by_role("progressbar")).to_have_attribute("value", "37.5")
    await expect(page.get_by_text("6,900 of 18,400 articles")).to_be_visible()
    go.touch()
    await expect(page.locator(".summary .badge")).to_have_text("completed")
    await expect(page.get_by_role("region", name="Result")).to_contain_text('"articles": 18400')
    await expect(page.get_by_role("log")).to_contain_text(f"Task {task_id} is now completed.")


async def test_what_one_reads_in_the_list_does_not_move(visitor: Visitor, api: httpx.AsyncClient) -> None:
    first = await submit(api, "echo", {}, queue="still")
    page = await visitor.open("#/tasks?queue=still")
    await page.get_by_role("link", name=f"#{first}").focus()
    second = await submit(api, "echo", {}, queue="still")
    await expect(page.get_by_role("button", name="Show 1 new task")).to_be_visible()
    assert await page.locator("tbody a.id").all_inner_texts() == [f"#{first}"]
    assert await page.evaluate("document.activeElement.textContent") == f"#{first}"
    await page.get_by_role("button", name="Show 1 new task").click()
    assert await page.locator("tbody a.id").all_inner_texts() == [f"#{second}", f"#{first}"]


async def test_filters_are_in_the_address_and_pages_lead_there_and_back(
    visitor: Visitor, api: httpx.AsyncClient
) -> None:
    tasks = [{"task_type": "echo", "queue": "long", "delay_seconds": 3600} for _ in range(60)]
    await api.post("/tasks/bulk", json={"tasks": tasks})
    page = await visitor.open("#/tasks")
    await page.get_by_role("checkbox", name="scheduled").check()
    await page.get_by_role("combobox", name="Queue").fill("long")
    await page.get_by_role("combobox", name="Queue").press("Enter")
    await expect(page.locator("tbody tr")).to_have_count(50)
    assert re.search(r"#/tasks\?status=scheduled&queue=long$", page.url)
    await page.get_by_role("link", name="Next").click()
    await expect(page.locator("tbody tr")).to_have_count(10)
    await page.reload()
    await expect(page.locator("tbody tr")).to_have_count(10)
    await page.get_by_role("link", name="Previous").click()
    await expect(page.locator("tbody tr")).to_have_count(50)
    assert await page.get_by_role("checkbox", name="scheduled").is_checked()


async def test_a_picture_is_shown_as_a_picture(visitor: Visitor, api: httpx.AsyncClient) -> None:
    picture = (ROOT / "examples/lighthouse.jpg").read_bytes()
    stored = (await api.post("/files", files={"file": ("lighthouse.jpg", picture, "image/jpeg")})).json()
    task_id = await submit(api, "image_processing", {"file_id": stored["id"]})
    await ended(api, task_id)
    page = await visitor.open(f"#/tasks/{task_id}")
    image = page.get_by_role("img", name="Produced picture")
    await expect(image).to_be_visible()
    assert await image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download lighthouse.jpg").click()
    assert Path(await (await download.value).path()).read_bytes() == picture


async def test_integers_beyond_a_double_keep_their_digits(visitor: Visitor, api: httpx.AsyncClient) -> None:
    number = 2**60 + 1
    task_id = await submit(api, "echo", {"number": number})
    await ended(api, task_id)
    page = await visitor.open(f"#/tasks/{task_id}")
    for label in ("Payload", "Result"):
        await expect(page.get_by_role("region", name=label)).to_contain_text(str(number))


async def test_it_can_be_used_by_keyboard_alone(visitor: Visitor, api: httpx.AsyncClient) -> None:
    task_id = await failed_task(api)
    page = await visitor.open()
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.keyboard.type("gt")
    await expect(page.locator("h1")).to_have_text("Tasks")
    await expect(page.locator("tbody tr").first).to_contain_text(f"#{task_id}")  # no longer a table of the page before
    await page.keyboard.press("j")
    assert await page.evaluate("document.activeElement.textContent") == f"#{task_id}"
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text(f"Task {task_id}")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_focus_and_open_details_outlast_an_update(visitor: Visitor, api: httpx.AsyncClient) -> None:
    task_id = await failed_task(api)
    page = await visitor.open(f"#/tasks/{task_id}")
    await page.get_by_text("Traceback", exact=True).click()
    await page.get_by_role("button", name="Delete…").focus()
    async with page.expect_response(f"**/tasks/{task_id}"):
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert await page.evaluate("document.activeElement.textContent") == "Delete…"
    assert not await page.locator(".error details").evaluate("details => details.open")


async def test_it_says_when_the_service_is_away_and_goes_on_afterwards(visitor: Visitor) -> None:
    page = await visitor.open()
    await page.route("**/stats", lambda route: route.abort())
    live = page.locator("#live")
    await expect(live).to_have_text("No answer")
    await page.unroute("**/stats")
    await expect(live).to_have_text("Live")
    visitor.faults[:] = [fault for fault in visitor.faults if "ERR_FAILED" not in fault]


async def test_live_updates_can_be_paused(visitor: Visitor) -> None:
    page = await visitor.open()
    await page.get_by_role("button", name="Live").click()
    await expect(page.locator("#live")).to_have_attribute("aria-pressed", "false")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    assert await page.locator("#live").inner_text() == "Paused"
    await page.get_by_role("button", name="Paused").click()
    await until(lambda: asked, 15)
