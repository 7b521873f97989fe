"""The page of webhooks: who is told, what was delivered, and what can be done about it."""

import httpx
import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visitor
from tests.browser.test_actions import confirm
from tests.browser.test_hostile import EVERYTHING, assert_harmless
from tests.browser.test_pages import settled

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_one_is_made_tried_switched_and_deleted(visitor: Visitor, api: httpx.AsyncClient) -> None:
    visitor.expects_refusals = True  # the page may still ask for what was deleted a moment ago
    """The receiver lies inside, where no task may ask; so its delivery is given up at once, and says why."""
    url = "https://hooks.example.com/of-the-browser"
    page = await visitor.open("#/webhooks")
    await settled(page)
    await page.get_by_role("button", name="New webhook").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("URL").fill(url)
    await dialog.get_by_label("Ends").fill("failed, cancelled")
    await dialog.get_by_label("Tags").fill("red")
    await dialog.get_by_label("Secrets").fill("crm, crm_old")
    await confirm(page, "Create it")
    row = page.get_by_role("row").filter(has_text=url)
    await expect(row).to_contain_text("failed, cancelled; tags: red")
    (made,) = [one for one in (await api.get("/webhooks")).json()["items"] if one["url"] == url]
    assert (made["events"], made["tags"], made["secrets"]) == (["failed", "cancelled"], ["red"], ["crm", "crm_old"])
    await row.get_by_role("button", name="Switch off").click()
    await expect(row).to_contain_text("off")
    await row.get_by_role("button", name="Switch on").click()
    await expect(row.get_by_role("button", name="Switch off")).to_be_visible()
    await row.get_by_role("button", name="Test").click()
    await row.get_by_role("link", name=url).click()
    delivery = page.get_by_role("table", name="Deliveries").get_by_role("row").nth(1)
    await expect(delivery).to_contain_text("webhook.test")
    await expect(delivery).to_contain_text("SECRET_CRM")
    (sent,) = (await api.get(f"/webhooks/{made['id']}/deliveries")).json()["items"]
    assert (await api.post(f"/tasks/{sent['task_id']}/cancel")).status_code == 200
    await page.get_by_role("button", name=f"Redeliver {sent['task_id']}").click()
    await expect(page.get_by_role("table", name="Deliveries").get_by_role("row")).to_have_count(3)
    await page.get_by_role("button", name="Delete webhook").click()
    await confirm(page, "Delete it")
    await expect(page.locator("h1")).to_have_text("Webhooks")
    await expect(page.get_by_role("row").filter(has_text=url)).to_have_count(0)


async def test_what_a_webhook_holds_is_never_markup(visitor: Visitor, api: httpx.AsyncClient) -> None:
    asked = {
        "url": "https://example.com/<script>window.ran=1</script>",
        "description": EVERYTHING[:200],
        "secrets": ["x"],
    }
    answer = await api.post("/webhooks", json=asked)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    for place in ("#/webhooks", f"#/webhooks/{made['id']}"):
        page = await visitor.open(place)
        await expect(page.locator("main")).to_contain_text("<script>window.ran = 1</script>")
        await assert_harmless(page)
    await api.delete(f"/webhooks/{made['id']}")
