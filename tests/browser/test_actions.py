"""What can be done from the dashboard, done in a real browser, and looked up by the API."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import Visitor
from tests.browser.test_pages import failed_task, submit
from tests.walk.conftest import ended

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def read(api: httpx.AsyncClient, task_id: int) -> dict[str, object]:
    task: dict[str, object] = (await api.get(f"/tasks/{task_id}")).json()
    return task


async def confirm(page: Page, name: str) -> None:
    """Say yes in the dialog that is open."""
    await page.get_by_role("dialog").get_by_role("button", name=name).click()
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def task_on(page: Page) -> int:
    """The task whose page is shown."""
    await expect(page.locator("h1")).to_have_text(re.compile(r"^Task \d+$"))
    return int((await page.locator("h1").inner_text()).removeprefix("Task "))


async def test_a_task_is_made_by_a_form_of_its_schema(visitor: Visitor, api: httpx.AsyncClient) -> None:
    page = await visitor.open("#/new?type=send_invoice")
    await page.get_by_label("order required").fill("20")
    await page.get_by_label("customer").fill("Émilie du Châtelet")
    await page.get_by_label("channel").select_option("post")
    await page.get_by_label("discount").fill("0.25")
    await page.get_by_label("express").select_option("yes")
    await page.get_by_role("button", name="Add to lines").click()
    await page.get_by_label("article required").fill("B-2")
    await page.get_by_label("address").fill('{"town": "Lowick"}')
    await page.get_by_text("Queue, priority, delay").click()
    await page.get_by_label("priority").fill("7")
    await page.get_by_role("button", name="Submit").click()
    task = await ended(api, await task_on(page))
    about = {"order": 20, "customer": "Émilie du Châtelet", "channel": "post", "discount": 0.25, "express": True}
    assert task["payload"] == about | {"lines": [{"article": "B-2"}], "address": {"town": "Lowick"}}
    assert (task["priority"], task["status"]) == (7, "completed")


async def test_what_the_service_refuses_is_told_beside_the_field(visitor: Visitor) -> None:
    visitor.expects_refusals = True
    page = await visitor.open("#/new?type=send_invoice")
    await page.get_by_role("button", name="Submit").click()
    await expect(page.get_by_label("order required")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_label("order required")).to_be_focused()
    await page.get_by_label("order required").fill("1")
    await page.get_by_role("button", name="Add to lines").click()
    await page.get_by_label("article required").fill("x")
    await page.get_by_label("pieces").fill("5000")
    await page.get_by_role("button", name="Submit").click()
    await expect(page.get_by_label("pieces")).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("pieces").fill("five")
    await page.get_by_role("button", name="Submit").click()
    await expect(page.get_by_text("A whole number, please.")).to_be_visible()


async def test_a_form_can_be_filled_by_the_example_and_turned_into_json(
    visitor: Visitor, api: httpx.AsyncClient
) -> None:
    page = await visitor.open("#/new?type=image_processing")
    await page.get_by_role("button", name="Edit as JSON").click()
    await page.get_by_label("Payload as JSON").fill(
        '{"image_base64": "AAAA", "operations": [{"operation": "rotate", "degrees": 90}]}'
    )
    await page.get_by_role("button", name="Edit in a form").click()
    await expect(page.get_by_label("degrees required")).to_have_value("90")
    await page.get_by_label("Task type").select_option("send_invoice")
    await page.get_by_role("button", name="Fill in the example").click()
    await expect(page.get_by_label("customer")).to_have_value("Grace Hopper")


async def test_a_waiting_task_is_cancelled_after_a_question(visitor: Visitor, api: httpx.AsyncClient) -> None:
    task_id = await submit(api, "echo", {}, delay_seconds=3600)
    page = await visitor.open(f"#/tasks/{task_id}")
    await page.get_by_role("button", name="Cancel…").click()
    await page.keyboard.press("Escape")
    assert (await read(api, task_id))["status"] == "scheduled"
    await page.get_by_role("button", name="Cancel…").click()
    await confirm(page, "Cancel the task")
    await expect(page.locator(".summary .badge")).to_have_text("cancelled")
    assert (await read(api, task_id))["status"] == "cancelled"


async def test_a_running_task_is_asked_to_stop(visitor: Visitor, api: httpx.AsyncClient, go: Path) -> None:
    task_id = await submit(api, "rebuild_index", {"folder": str(go.parent)})
    page = await visitor.open(f"#/tasks/{task_id}")
    await expect(page.get_by_role("progressbar")).to_be_visible()
    await page.get_by_role("button", name="Cancel…").click()
    await confirm(page, "Cancel the task")
    await expect(page.locator(".summary .badge")).to_have_text("cancelled")


async def test_a_failed_task_is_retried_and_its_attempts_stay(visitor: Visitor, api: httpx.AsyncClient) -> None:
    task_id = await failed_task(api)
    page = await visitor.open(f"#/tasks/{task_id}")
    await expect(page.locator(".timeline > li")).to_have_count(3)
    await page.get_by_role("button", name="Retry").click()
    await expect(page.locator(".timeline > li")).to_have_count(6)


async def test_a_replay_is_a_new_task_with_the_changed_payload(visitor: Visitor, api: httpx.AsyncClient) -> None:
    task_id = await failed_task(api)
    page = await visitor.open(f"#/tasks/{task_id}")
    await page.get_by_role("link", name="Replay with changes…").click()
    await expect(page.get_by_label("order required")).to_have_value("3")
    await page.get_by_label("order required").fill("4")
    await page.get_by_role("button", name="Submit as a new task").click()
    replay = await ended(api, await task_on(page))
    assert replay["id"] > task_id
    assert (replay["payload"], replay["status"]) == ({"order": 4}, "completed")
    assert (replay["tags"], replay["metadata"]) == (["nightly"], {"by": "test"})
    assert (await read(api, task_id))["payload"] == {"order": 3}


async def test_a_task_is_deleted_after_a_question(visitor: Visitor, api: httpx.AsyncClient) -> None:
    task_id = await failed_task(api)
    page = await visitor.open(f"#/tasks/{task_id}")
    await page.get_by_role("button", name="Delete…").click()
    await expect(page.get_by_role("button", name="Keep as it is")).to_be_focused()
    await confirm(page, "Delete the task")
    await expect(page.locator("h1")).to_have_text("Tasks")
    assert (await api.get(f"/tasks/{task_id}")).status_code == 404


async def test_a_group_of_dead_letters_is_dealt_with_after_a_dry_run(visitor: Visitor, api: httpx.AsyncClient) -> None:
    await api.post("/dead-letters/purge", json={"all": True})
    ids = [await submit(api, "say", {"text": f"shelf {number} is empty", "how": "error"}) for number in range(3)]
    other = await failed_task(api)
    for task_id in ids:
        await ended(api, task_id)
    page = await visitor.open("#/dead-letters")
    groups = page.get_by_role("article")
    await expect(groups).to_have_count(2)
    await groups.filter(has_text="shelf").get_by_role("button", name="Resolve").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("3 tasks of 3")
    assert (await read(api, ids[0]))["resolved_at"] is None
    await dialog.get_by_label("Note").fill("Refilled.")
    await confirm(page, "Resolve 3 tasks")
    await expect(groups).to_have_count(1)
    assert {(await read(api, task_id))["resolution"] for task_id in ids} == {"Refilled."}
    await groups.first.get_by_role("button", name="Requeue").click()
    await confirm(page, "Requeue 1 task")
    await expect(page.get_by_role("status")).to_contain_text("1 task requeued.")
    await ended(api, other)
    await expect(groups).to_have_count(1)
    await groups.first.get_by_role("button", name="Delete").click()
    await confirm(page, "Delete 1 task")
    await expect(page.get_by_text("No failed task waits for anybody.")).to_be_visible()
    assert (await api.get(f"/tasks/{other}")).status_code == 404


async def test_a_breaker_is_tripped_and_reset(visitor: Visitor, api: httpx.AsyncClient) -> None:
    page = await visitor.open()
    await page.get_by_role("button", name="Trip breaker payments").click()
    await page.get_by_label("Reason").fill("The bank is closed")
    await confirm(page, "Trip it")
    breakers = page.get_by_role("table", name="Breakers")
    await expect(breakers).to_contain_text("The bank is closed")
    await page.get_by_role("button", name="Reset breaker payments").click()
    await expect(breakers).not_to_contain_text("The bank")
    found = {one["name"]: one["state"] for one in (await api.get("/breakers")).json()["items"]}
    assert found["payments"] == "closed"


async def test_what_a_key_may_not_see_is_left_out(visitor: Visitor) -> None:
    """The door is played here: it lets nobody see the workers. Who signs in for true is in test_sign_in.py."""
    visitor.expects_refusals = True

    async def door(route: Route) -> None:
        await route.fulfill(status=403, json={"detail": "Not you."})

    await visitor.page.route(re.compile(r"/workers$"), door)
    page = await visitor.open()
    await expect(page.locator(".tiles")).to_be_visible()
    await expect(page.get_by_role("heading", name="Workers")).to_have_count(0)


async def test_who_may_not_look_back_sees_the_numbers_of_now(visitor: Visitor) -> None:
    """A refusal is remembered, of that call alone. The stream, which would tell the numbers too, is not there."""
    visitor.expects_refusals = True

    async def door(route: Route) -> None:
        await route.fulfill(status=403, json={"detail": "Not you."})

    await visitor.page.route(re.compile(r"/stats\?|/events$"), door)
    page = await visitor.open()
    await expect(page.locator(".tiles")).to_be_visible()
    async with page.expect_response(re.compile(r"/stats$")):  # asked again
        await expect(page.locator(".tiles")).to_be_visible()
    await expect(page.get_by_role("heading", name="Looking back")).to_have_count(0)
