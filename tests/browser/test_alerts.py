"""Alerts and the audit log in a real browser: what fires is seen, silenced and told; who did what is found; none of it runs."""

import httpx
import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visitor
from tests.browser.test_actions import confirm
from tests.browser.test_hostile import CORPUS, EVERYTHING, assert_harmless
from tests.browser.test_pages import submit
from tests.security.conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_fires_is_on_the_overview_and_is_silenced(
    visitor: Visitor, api: httpx.AsyncClient, chat: Site
) -> None:
    await api.post("/breakers/host:bank.example.com:443/trip", json={"reason": "The bank is closed"})
    page = await visitor.open()
    alerts = page.get_by_role("region", name="Alerts")
    await expect(alerts).to_contain_text("Breaker host:bank.example.com:443 is open")
    await alerts.get_by_text("Breaker host:bank.example.com:443 is open").click()
    await expect(alerts).to_contain_text("taskctl breakers reset host:bank.example.com:443")
    await expect(
        page.get_by_role("region", name="What is wrong").filter(has_text="host:bank.example.com:443")
    ).to_have_count(0)
    await alerts.get_by_role("link", name="All about 1 alert").click()
    now = page.get_by_role("table", name="Alerts now")
    await expect(now).to_contain_text("firing")
    await expect(now).to_contain_text("slack: fired")
    await page.get_by_role("button", name="Silence…").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Rule").fill("breaker-open")
    await dialog.get_by_label("Minutes").fill("5")
    await dialog.get_by_label("Note").fill("It is Sunday")
    await confirm(page, "Silence them")
    silences = page.get_by_role("table", name="Silences")
    await expect(silences).to_contain_text("It is Sunday")
    await expect(now).to_contain_text("silenced")
    (made,) = (await api.get("/alerts/silences")).json()["items"]
    assert (made["rule"], made["queue"], made["note"]) == ("breaker-open", None, "It is Sunday")
    await page.get_by_role("button", name=f"End silence {made['id']}").click()
    await expect(silences).to_have_count(0)
    await api.post("/breakers/host:bank.example.com:443/reset")
    await expect(page.get_by_role("table", name="Past alerts").locator("tbody tr").first).to_contain_text("cleared")
    assert (await api.get("/alerts/silences")).json() == {"items": []}
    assert any(b"Breaker host:bank.example.com:443 is open" in asked.body for asked in chat.asked)


async def test_the_test_button_reaches_the_channel(visitor: Visitor, chat: Site) -> None:
    page = await visitor.open("#/alerts")
    before = len(chat.asked)
    await page.get_by_role("button", name="Test channels").click()
    await expect(page.get_by_text("slack took the test.")).to_be_visible()
    assert any(b"This is a test" in asked.body for asked in chat.asked[before:])


async def test_who_did_what_is_found(visitor: Visitor, api: httpx.AsyncClient) -> None:
    task_id = await submit(api, "echo", {}, delay_seconds=3600)
    await api.post(f"/tasks/{task_id}/cancel")
    page = await visitor.open("#/audit")
    await page.get_by_label("Target").fill(f"task {task_id}")
    await page.get_by_label("Target").press("Enter")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("task.cancel")
    await expect(rows).to_contain_text("anonymous")
    await rows.locator("summary").click()
    await expect(rows).to_contain_text('"status": "scheduled"')
    await expect(rows).to_contain_text('"status": "cancelled"')


async def test_reasons_and_notes_of_alerts_are_never_markup(visitor: Visitor, api: httpx.AsyncClient) -> None:
    await api.post("/breakers/payments/trip", json={"reason": EVERYTHING[:500], "seconds": 60})
    await api.post("/alerts/silences", json={"queue": "none", "seconds": 30, "note": EVERYTHING[:500]})
    for place in ("#/alerts", "#/audit"):
        page = await visitor.open(place)
        await expect(page.locator("main")).to_contain_text(CORPUS[0] if place == "#/alerts" else "breaker.trip")
        for summary in await page.locator("tbody summary").all():
            await summary.click()
        await assert_harmless(page)
    await api.post("/breakers/payments/reset")
