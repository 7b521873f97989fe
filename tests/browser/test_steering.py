"""Queues are steered, a wait is explained, and one looks back: done in the browser, looked up by the API."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from tests.browser.conftest import PHONE, Visitor
from tests.browser.test_actions import confirm
from tests.browser.test_pages import submit
from tests.conftest import until
from tests.walk.conftest import ended

pytestmark = pytest.mark.asyncio(loop_scope="session")

OVERLAPPING = """(row) => {
    const boxes = [...row.querySelectorAll("td a, td button, td .badge, td small, td .none")]
        .filter((node) => node.offsetParent).map((node) => [node.textContent, node.getBoundingClientRect()]);
    const right = row.getBoundingClientRect().right;
    const apart = (one, other) => one.right <= other.left || other.right <= one.left || one.bottom <= other.top || other.bottom <= one.top;
    return [
        ...boxes.filter(([, box]) => box.right > right).map(([text]) => text),
        ...boxes.flatMap(([text, box], place) => boxes.slice(place + 1).filter(([, other]) => !apart(box, other)).map(([other]) => `${text} ${other}`)),
    ];
}"""
"""Texts in a row that leave it, or lie on one another."""


async def steered(api: httpx.AsyncClient, name: str, **expected: Any) -> None:
    """Wait until the API gives these values of the queue."""

    async def agrees() -> bool:
        found = (await api.get(f"/queues/{name}")).json()
        return found | expected == found

    await until(agrees)


async def test_a_queue_is_paused_limited_and_goes_on(visitor: Visitor, api: httpx.AsyncClient) -> None:
    await submit(api, "echo", {}, queue="slow", delay_seconds=3600)
    await api.patch("/queues/slow", json={"max_running": 4})
    page = await visitor.open("#/queues")
    row = page.get_by_role("row").filter(has_text="slow")
    await expect(row).to_contain_text("4 at once")
    await row.get_by_role("button", name="Pause queue slow").click()
    await confirm(page, "Pause it")
    await expect(row.locator(".badge")).to_have_text("paused")
    await steered(api, "slow", paused=True)
    await row.get_by_role("button", name="Limits of queue slow").click()
    await page.get_by_label("Most tasks that run at once").fill("")
    await page.get_by_label("Most tasks that wait").fill("100")
    await confirm(page, "Set them")
    await expect(row).to_contain_text("100 may wait")
    await steered(api, "slow", max_running=None, rate_limit=None, rate_period_seconds=None, max_depth=100)
    await row.get_by_role("button", name="Resume queue slow").click()
    await expect(row.locator(".badge")).to_have_count(0)
    await steered(api, "slow", paused=False)


async def test_a_queue_on_a_phone_is_told_in_words_that_do_not_overlap(
    visitor: Visitor, api: httpx.AsyncClient
) -> None:
    name = "reports-of-the-whole-company"
    await submit(api, "echo", {}, queue=name, delay_seconds=3600)
    limits = {"paused": True, "max_running": 4, "rate_limit": 100, "rate_period_seconds": 60, "max_depth": 5000}
    await api.patch(f"/queues/{name}", json=limits)
    await visitor.page.set_viewport_size(PHONE)
    page = await visitor.open("#/queues")
    row = page.get_by_role("row").filter(has_text=name)
    await expect(row).to_contain_text("4 at once, 100 starts in 60 s, 5,000 may wait")
    await expect(row.get_by_text("paused")).to_be_visible()
    assert await row.evaluate(OVERLAPPING) == []


async def test_the_reasons_why_a_task_waits_are_shown(visitor: Visitor, api: httpx.AsyncClient) -> None:
    await api.post("/queues/shut/pause")
    for _ in range(2):
        await submit(api, "echo", {}, queue="shut")
    task_id = await submit(api, "echo", {}, queue="shut", delay_seconds=3600)
    page = await visitor.open(f"#/tasks/{task_id}")
    told = (await api.get(f"/tasks/{task_id}/explain")).json()["reasons"]
    assert {"not_due", "queue_paused"} <= {one["reason"] for one in told}
    for one in told:
        await expect(page.locator(".reasons")).to_contain_text(one["message"])


async def test_one_can_look_back(visitor: Visitor, api: httpx.AsyncClient) -> None:
    done = await submit(api, "send_invoice", {"order": 1}, queue="ledger")
    failed = await submit(api, "send_invoice", {"order": 5}, queue="ledger", max_attempts=1)
    assert [(await ended(api, one))["status"] for one in (done, failed)] == ["completed", "failed"]

    async def tallied() -> bool:
        asked = {"from": (datetime.now(UTC) - timedelta(hours=1)).isoformat(), "by": "queue"}
        series = (await api.get("/stats", params=asked)).json()["range"]["series"]
        # The API counts submissions and the worker ends, and each writes when it will.
        totals = [one["total"] for one in series if one["queue"] == "ledger"]
        return [(total["completed"], total["failed"]) for total in totals] == [(1, 1)]

    await until(tallied, 60)
    page = await visitor.open("#/?range=day")
    await expect(page.get_by_role("img", name="Waiting.").locator("xpath=..")).to_contain_text("Drawn from now on")
    await expect(
        page.get_by_role("table", name="By queue").get_by_role("row").filter(has_text="ledger")
    ).to_contain_text("50.0 %")
    await expect(page.get_by_role("table", name="By task type")).to_contain_text("send_invoice")
    await expect(page.get_by_role("img", name="Run time.")).to_be_visible()
