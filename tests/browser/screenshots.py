"""Makes the pictures of docs/screenshots: a small shop at work, each page in both colour schemes.

`python -m tests.browser.screenshots` takes some minutes, because the charts have to have something to show.
"""

import asyncio
import contextlib
import io
import itertools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.browser.conftest import arguments, chromium
from tests.walk.conftest import ROOT, House

FOLDER = ROOT / "docs/screenshots"
SCHEMES = ("light", "dark")
SIZE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
MOST_BYTES = 150_000
SEEN_SECONDS = 150
WITHOUT_FOLDER = """(folder) => {
    const told = [...document.querySelectorAll("pre")].filter((node) => node.textContent.includes(folder));
    for (const node of told) node.textContent = node.textContent.replaceAll(folder, "/srv/shop");
}"""
ELSEWHERE = """() => {
    const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    const local = /http:\\/\\/127\\.0\\.0\\.1:\\d+/g;
    for (let node; (node = texts.nextNode()); ) node.data = node.data.replace(local, "https://shop.example");
}"""


@asynccontextmanager
async def receiver() -> AsyncIterator[int]:
    """Takes whatever it is sent; yields its port."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length:")[2].split(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def shop() -> AsyncIterator[httpx.AsyncClient]:
    """An API and two workers on a database of their own, with some history."""
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        house.settings["EXECUTOR_MODULES"] = "tests.dashboard_executors"
        house.settings["WEBHOOK_SECRETS"] = "a-secret-of-the-pictures"
        house.settings |= {"ALERT_DEAD_LETTERS": "1000", "ALERT_DEAD_LETTERS_GROWTH": "1000"}
        async with receiver() as port:
            house.settings["OUTBOUND_ALLOW"] = f"127.0.0.1:{port}"
            _, api = await house.api()
            await house.worker("--name", "mill-1", "--queues", "mail,payments")
            await house.worker("--name", "mill-2", "--processes", "2")
            await prepare(api)
            await subscribe(api, port)
            try:
                yield api
            finally:
                await house.close()


async def submit(api: httpx.AsyncClient, task_type: str, payload: dict[str, Any], **fields: Any) -> int:
    answer = await api.post("/tasks", json={"task_type": task_type, "payload": payload, **fields})
    answer.raise_for_status()
    task_id: int = answer.json()["id"]
    return task_id


async def prepare(api: httpx.AsyncClient) -> None:
    """What stands still while the pictures are taken."""
    outage = {"reason": "The payment provider answers 503 since 14:02", "seconds": 3600}
    await api.post("/breakers/payments/trip", json=outage)
    for order in range(42):
        await submit(api, "charge_card", {"order": order}, queue="payments", priority=50)
    for order in range(160):
        await submit(api, "send_invoice", {"order": order}, queue="mail", delay_seconds=7200, tags=["monthly"])
    for shelf in (4, 9):
        await submit(api, "say", {"text": f"shelf {shelf} is empty", "how": "error"}, queue="stock")


async def subscribe(api: httpx.AsyncClient, port: int) -> None:
    """Two who want to hear of ends, one of whom has enough of it."""
    for path, about, events, enabled in (
        ("hooks/orders", "the shop's own books", ["completed", "failed"], True),
        ("hooks/pager", "whoever is on call", ["failed"], False),
    ):
        body = {"url": f"http://127.0.0.1:{port}/{path}", "description": about, "events": events, "tags": ["shop"]}
        answer = await api.post("/webhooks", json=body)
        answer.raise_for_status()
        if not enabled:
            (await api.patch(f"/webhooks/{answer.json()['id']}", json={"enabled": False})).raise_for_status()


async def trade(api: httpx.AsyncClient) -> None:
    """Orders come in waves until cancelled."""
    for second in itertools.count():
        many = 6 + 5 * (second // 12 % 3) + second * 7 % 5
        tasks = [
            {
                "task_type": "send_invoice",
                "queue": "mail",
                "tags": ["shop"],
                "payload": {"order": 2000 + 40 * second + one, "customer": "Grace Hopper"},
            }
            for one in range(many)
        ]
        await api.post("/tasks/bulk", json={"tasks": tasks})
        await asyncio.sleep(1)


async def last_orders(api: httpx.AsyncClient) -> None:
    """A list with something of everything; returns when what can end has."""
    picture = (ROOT / "examples/lighthouse.jpg").read_bytes()
    stored = (await api.post("/files", files={"file": ("lighthouse.jpg", picture, "image/jpeg")})).json()
    ids = [
        await submit(api, "text_processing", {"text": f"Order {order} came at once. Thank you!"}) for order in range(3)
    ]
    for order in range(9800, 9816):
        ids.append(await submit(api, "send_invoice", {"order": order}, queue="mail", tags=["shop"]))
        if order % 6 == 0:
            ids.append(await submit(api, "image_processing", {"file_id": stored["id"]}, tags=["catalogue"]))
        if order % 5 == 0:
            await submit(api, "charge_card", {"order": order}, queue="payments", priority=50)
        if order % 7 == 0:
            await submit(api, "rebuild_index", {}, queue="search", delay_seconds=8 * 3600, tags=["nightly"])
    for task_id in ids:
        await api.get(f"/tasks/{task_id}", params={"wait": 30}, timeout=40)


async def example_tasks(api: httpx.AsyncClient) -> dict[str, int]:
    """One that runs, one that failed, one that made a picture."""
    picture = (ROOT / "examples/lighthouse.jpg").read_bytes()
    stored = (await api.post("/files", files={"file": ("lighthouse.jpg", picture, "image/jpeg")})).json()
    operations = [{"operation": "thumbnail", "width": 320, "height": 320}, {"operation": "palette", "colors": 4}]
    tasks = {
        "running": await submit(
            api, "rebuild_index", {"percent": 64.5, "seconds": 600}, queue="search", tags=["nightly"], priority=-20
        ),
        "picture": await submit(api, "image_processing", {"file_id": stored["id"], "operations": operations}),
        "failed": await submit(
            api,
            "send_invoice",
            {"order": 1480, "channel": "post"},
            queue="mail",
            tags=["shop"],
            metadata={"basket": 77120},
        ),
    }
    for name in ("picture", "failed"):
        answer = await api.get(f"/tasks/{tasks[name]}", params={"wait": 60}, timeout=70)
        assert answer.json()["finished_at"], name
    return tasks


async def picture(page: Page, name: str) -> None:
    """Take it, with fewer colours if it were large; where this checkout lies is left out, and that the receiver of webhooks is next door."""
    await page.evaluate(WITHOUT_FOLDER, str(ROOT))
    await page.evaluate(ELSEWHERE)
    shot = Image.open(io.BytesIO(await page.screenshot())).convert("RGB")
    path = FOLDER / f"{name}.png"
    shot.save(path, optimize=True)
    if path.stat().st_size >= MOST_BYTES:
        shot.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE, kmeans=2).save(
            path, optimize=True
        )
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}  {size:,} bytes")  # noqa: T201
    assert size < MOST_BYTES, name


async def pages(browser: Browser, address: str, tasks: dict[str, int], webhook_id: str) -> None:
    places = {
        "tasks": "#/tasks",
        "task": f"#/tasks/{tasks['running']}",
        "task-picture": f"#/tasks/{tasks['picture']}",
        "task-failed": f"#/tasks/{tasks['failed']}",
        "new-task": "#/new?type=send_invoice",
        "dead-letters": "#/dead-letters",
        "queues": "#/queues",
        "alerts": "#/alerts",
        "audit": "#/audit",
        "webhooks": "#/webhooks",
        "webhook": f"#/webhooks/{webhook_id}",
    }
    for scheme in SCHEMES:
        page = await browser.new_page(viewport=SIZE, color_scheme=scheme)
        for name, place in places.items():
            await page.goto(f"{address}/{place}")
            await expect(page.locator("main :is(table, .group, dl, form.submission)").first).to_be_visible()
            if name == "task-picture":
                await expect(page.locator("main img").first).to_be_visible()
            if name == "new-task":
                await page.get_by_role("button", name="Fill in the example").click()
                await expect(page.locator(".toast")).to_have_count(0)
            await picture(page, f"{name}-{scheme}")
        await page.close()


async def overviews(pages: dict[str, Page]) -> None:
    for scheme in SCHEMES:
        await picture(pages[scheme], f"overview-{scheme}")
        await pages[scheme].set_viewport_size(PHONE)
        await picture(pages[scheme], f"overview-phone-{scheme}")


async def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with shop() as api, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=arguments())
        address = str(api.base_url).rstrip("/")
        watching = {scheme: await browser.new_page(viewport=SIZE, color_scheme=scheme) for scheme in SCHEMES}
        for page in watching.values():
            await page.goto(address)
        tasks = await example_tasks(api)
        trading = asyncio.create_task(trade(api))
        await asyncio.sleep(SEEN_SECONDS)
        await overviews(watching)
        trading.cancel()
        await asyncio.gather(trading, return_exceptions=True)
        await last_orders(api)
        webhooks = (await api.get("/webhooks")).json()["items"]
        await pages(browser, address, tasks, webhooks[0]["id"])
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
