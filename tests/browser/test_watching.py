"""What the dashboard shows while one watches, in a real browser: why tasks wait, what workers use."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Route, expect

from tests.browser.conftest import Visitor
from tests.browser.test_pages import submit

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_list_says_why_tasks_wait(visitor: Visitor, api: httpx.AsyncClient) -> None:
    await api.patch("/queues/halted", json={"paused": True})
    task_id = await submit(api, "echo", {}, queue="halted")
    page = await visitor.open("#/tasks?queue=halted")
    row = page.locator("tbody tr", has=page.get_by_role("link", name=f"#{task_id}"))
    await expect(row).to_contain_text("Queue halted is paused.")
    await api.patch("/queues/halted", json={"paused": False})
    await expect(row).not_to_contain_text("Queue halted is paused.")


async def test_the_overview_is_told_its_numbers(visitor: Visitor, api: httpx.AsyncClient) -> None:
    """By its stream alone: what is looked up here is never answered again."""
    page = await visitor.open()
    async with page.expect_response(re.compile(r"/events$")) as opened:
        await page.reload()
    assert (await (await opened.value).header_value("content-type") or "").startswith("text/event-stream")
    scheduled = page.locator(".tile", has_text="Scheduled").locator(".value")
    before = int(await scheduled.inner_text())  # up to a second old: what came just before may not be in it
    await page.route(re.compile(r"/(stats|queues|breakers)$"), hold)
    await submit(api, "echo", {}, delay_seconds=3600, queue="told")
    now = (await api.get("/stats")).json()["scheduled"]
    assert now > before
    await expect(scheduled).to_have_text(str(now))
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="told"))
    await api.patch("/queues/told", json={"paused": True, "max_depth": 7})
    await expect(row).to_contain_text("paused")
    await expect(row).to_contain_text("7 may wait")
    await api.post("/breakers/payments/trip", json={"reason": "Told at once", "seconds": 60})
    await expect(page.get_by_role("table", name="Breakers")).to_contain_text("Told at once")
    await api.post("/breakers/payments/reset")
    await expect(page.get_by_role("table", name="Breakers")).not_to_contain_text("Told at once")


async def test_the_throughput_begins_with_what_was_counted_before(visitor: Visitor) -> None:
    """1,200 tasks ended in the last whole minute but one: twenty a second."""
    at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)

    async def count(route: Route) -> None:
        if "step=60" not in route.request.url or "by=" in route.request.url:
            await route.continue_()
            return
        answer = await (await route.fetch()).json()
        durations = {"count": 0, "mean": None, "p50": None, "p95": None, "p99": None}
        tally = dict.fromkeys(("submitted", "failed", "retried", "cancelled"), 0)
        tally |= {"completed": 1200, "wait_seconds": durations, "run_seconds": durations}
        series = {"queue": None, "task_type": None, "total": tally, "points": [{"at": at.isoformat(), **tally}]}
        await route.fulfill(json=answer | {"range": answer["range"] | {"series": [series]}})

    await visitor.page.route(re.compile(r"/stats\?"), count)
    page = await visitor.open()
    chart = page.get_by_role("img", name="Throughput.")
    await expect(chart).to_have_attribute("aria-label", re.compile("completed: .*highest 20/s. failed"))


async def hold(route: Route) -> None:
    """Leave it without an answer."""


async def test_without_its_stream_the_overview_looks_its_numbers_up(visitor: Visitor, api: httpx.AsyncClient) -> None:
    visitor.expects_refusals = True
    asked: list[str] = []

    async def refuse(route: Route) -> None:
        asked.append(route.request.url)
        await route.fulfill(status=403, json={"detail": "Not you."})

    await visitor.page.route(re.compile(r"/events$"), refuse)
    page = await visitor.open()
    scheduled = page.locator(".tile", has_text="Scheduled").locator(".value")
    before = int(await scheduled.inner_text())
    await submit(api, "echo", {}, delay_seconds=3600, queue="looked-up")
    await expect(scheduled).to_have_text(str(before + 1))
    assert len(asked) == 1


async def test_the_memory_of_a_worker_and_what_it_runs_are_shown(
    visitor: Visitor, api: httpx.AsyncClient, go: Path
) -> None:
    task_id = await submit(api, "rebuild_index", {"folder": str(go.parent)})
    page = await visitor.open()
    workers = page.get_by_role("table", name="Workers")
    await expect(workers.get_by_role("link", name=f"#{task_id}")).to_be_visible()
    await expect(workers.get_by_role("cell").filter(has_text="MiB")).to_be_visible()
    go.touch()


async def test_a_silent_worker_is_shown_as_one(visitor: Visitor) -> None:
    """As the service says, of which other tests see to it; the age of its last beat goes on."""

    async def silence(route: Route) -> None:
        answer = await (await route.fetch()).json()
        beat_at = (datetime.now(UTC) - timedelta(seconds=40)).isoformat()
        silent = {"state": "silent", "silent_seconds": 40.0, "beat_at": beat_at}
        await route.fulfill(json={"items": [one | silent for one in answer["items"]]})

    await visitor.page.route(re.compile(r"/workers$"), silence)
    page = await visitor.open()
    state = page.get_by_role("table", name="Workers").locator("td[data-label=State]")
    await expect(state).to_have_text(re.compile(r"silent\s*for 4\d s"))
    await expect(page.locator(".tile[data-key=Workers]")).to_contain_text("1 silent")


async def test_what_an_attempt_prints_is_shown_while_it_runs(
    visitor: Visitor, api: httpx.AsyncClient, go: Path
) -> None:
    """As text, whatever it is."""
    task_id = await submit(api, "talk", {"folder": str(go.parent)})
    page = await visitor.open(f"#/tasks/{task_id}")
    lines = page.get_by_role("group", name="Lines of attempt 1").get_by_role("listitem")
    await expect(lines.filter(has_text="<b>line 1</b>")).to_be_visible()
    await expect(lines.filter(has_text="<b>line 5</b>")).to_be_visible()
    await expect(page.locator(".summary .badge")).to_have_text("running")
    go.touch()
    await expect(lines.filter(has_text='ready {"order":17}')).to_be_visible()
    assert (await lines.first.inner_text()).endswith("<b>line 0</b>")


async def test_tasks_are_found_by_a_text_in_them(visitor: Visitor, api: httpx.AsyncClient) -> None:
    task_id = await submit(api, "say", {"text": "zanzibar <i>1</i>"})
    await submit(api, "say", {"text": "something else"})
    page = await visitor.open("#/tasks")
    await page.get_by_role("textbox", name="Text in it").fill("zanzibar <i>")
    await page.get_by_role("textbox", name="Text in it").press("Enter")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page.get_by_role("link", name=f"#{task_id}")).to_be_visible()
