"""Payloads, results, errors and names are data: whatever they hold, nothing of it runs and nothing of it is markup."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import Visitor
from tests.browser.test_pages import PAGES, settled, submit, webhook
from tests.walk.conftest import ended

pytestmark = pytest.mark.asyncio(loop_scope="session")

CORPUS = [
    "<script>window.ran = 1</script>",
    "<img src=x onerror=window.ran=1>",
    "<svg/onload=window.ran=1>",
    '"><svg><animate onbegin=window.ran=1 attributeName=x dur=1s>',
    "'\"--></style></script><script>window.ran=1</script>",
    "<iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.ran=1>",
    "<a href='javascript:window.ran=1'>click</a>",
    "javascript:window.ran=1//",
    "data:text/html,<script>window.ran=1</script>",
    "<base href=//elsewhere.invalid/><link rel=stylesheet href=//elsewhere.invalid/x.css>",
    "<meta http-equiv=refresh content='0;url=//elsewhere.invalid'>",
    "<form action=//elsewhere.invalid><input name=x autofocus onfocus=window.ran=1></form>",
    "<details open ontoggle=window.ran=1><style>*{background:url(//elsewhere.invalid)}</style>",
    "{{constructor.constructor('window.ran=1')()}} ${window.ran=1} #{window.ran=1}",
    "__proto__",
    "constructor",
    "\u202egnp.tpircs\u202c\u0007\ufeff\u2028",
    "<" * 3000,
]
EVERYTHING = "\n".join(CORPUS)
NAME = '"><img src=x onerror=window.ran=1><svg onload=window.ran=1>.png'


async def assert_harmless(page: Page) -> None:
    """Nothing has run, no element is there that we did not make, and no link leads anywhere else."""
    assert await page.evaluate("window.ran") is None
    assert await page.evaluate("Object.prototype.polluted") is None
    assert await page.locator("script, iframe, object, embed, base, form[action], style").count() == 1  # our own script
    on_page = await page.evaluate(
        """[...document.querySelectorAll("*")].flatMap((node) => [...node.attributes]
        .filter(({ name }) => name.startsWith("on") || name === "style" || name === "srcdoc").map(({ name }) => name))"""
    )
    assert on_page == []
    links = await page.evaluate("[...document.querySelectorAll('a[href]')].map((a) => a.getAttribute('href'))")
    assert [link for link in links if not link.startswith(("#", "/docs"))] == []


@pytest.mark.parametrize("how", ["result", "error", "progress", "file"])
async def test_what_a_task_holds_is_never_markup(visitor: Visitor, api: httpx.AsyncClient, how: str) -> None:
    text = EVERYTHING if how != "file" else NAME
    fields = {"metadata": {word[:50]: word for word in CORPUS}, "unique_key": "<script>window.ran=1</script>"}
    task_id = await submit(api, "say", {"text": text, "how": how}, **fields)
    if how != "progress":
        await ended(api, task_id)
    page = await visitor.open(f"#/tasks/{task_id}")
    await expect(page.locator("main")).to_contain_text(NAME if how == "file" else CORPUS[0])
    await assert_harmless(page)
    for place in ("#/tasks", "#/dead-letters", "#/", f"#/new?from={task_id}"):
        await visitor.open(place)
        await settled(page) if "new" not in place else None
        await assert_harmless(page)
    await api.post(f"/tasks/{task_id}/cancel")


async def test_notes_and_reasons_are_never_markup(visitor: Visitor, api: httpx.AsyncClient) -> None:
    task_id = await submit(api, "say", {"text": "no", "how": "error"})
    await ended(api, task_id)
    await api.post("/dead-letters/resolve", json={"ids": [task_id], "note": EVERYTHING[:1000]})
    await api.post("/breakers/payments/trip", json={"reason": EVERYTHING[:500], "seconds": 60})
    page = await visitor.open(f"#/tasks/{task_id}")
    await expect(page.locator("main")).to_contain_text(CORPUS[0])
    await assert_harmless(page)
    await visitor.open("#/")
    await expect(page.locator("main")).to_contain_text(CORPUS[0])
    await assert_harmless(page)
    await api.post("/breakers/payments/reset")


@pytest.mark.parametrize("place", PAGES)
async def test_even_an_answer_that_no_service_gives_is_never_markup(
    visitor: Visitor, api: httpx.AsyncClient, place: str
) -> None:
    """Names of queues and task types cannot hold markup; here every text of every answer does."""
    task_id = await submit(api, "say", {"text": "no", "how": "error"})
    await ended(api, task_id)
    await submit(api, "echo", {}, delay_seconds=3600)
    await api.post(f"/tasks/{await submit(api, 'echo', {}, delay_seconds=3600)}/cancel")  # for the audit log
    hook = await webhook(api)
    times = iter(range(1_000_000))

    async def spoil(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, body=json.dumps(spoiled(await answer.json(), times)))

    def is_api(url: str) -> bool:
        path = urlsplit(url).path
        return path != "/" and not path.startswith("/dashboard/") and not path.endswith("/events")

    async def spoil_stream(route: Route) -> None:
        data = json.dumps(spoiled(await overview_of(api), times))
        await route.fulfill(content_type="text/event-stream", body=f"id: 1\nevent: overview\ndata: {data}\n\n")

    await visitor.page.route(is_api, spoil)
    await visitor.page.route(re.compile(r"/events$"), spoil_stream) if place == "#/" else None
    page = await visitor.open(place.replace("TASK", str(task_id)).replace("WEBHOOK", hook))
    await assert_harmless(page)
    if "new" not in place:
        await settled(page)
    await assert_harmless(page)
    assert next(times) > 0


async def overview_of(api: httpx.AsyncClient) -> Any:
    """What the stream of the overview tells first."""
    async with api.stream("GET", "/events") as stream:
        lines = [line async for line in _up_to_data(stream)]
    return json.loads(lines[-1].removeprefix("data: "))


async def _up_to_data(stream: httpx.Response) -> AsyncIterator[str]:
    async for line in stream.aiter_lines():
        yield line
        if line.startswith("data: "):
            return


KEPT = {"id", "status", "created_at", "started_at", "finished_at", "beat_at", "at", "updated_at", "type", "$ref"}


def spoiled(node: Any, times: Any, name: str = "") -> Any:
    """The same answer with hostile texts wherever the dashboard does not need the true ones."""
    if isinstance(node, dict):
        return {key: spoiled(value, times, key) for key, value in node.items()}
    if isinstance(node, list):
        return [spoiled(value, times, name) for value in node]
    moment = name.endswith("_at") or name in KEPT
    return CORPUS[next(times) % (len(CORPUS) - 1)] if isinstance(node, str) and not moment else node


async def test_an_address_made_by_a_stranger_does_nothing(visitor: Visitor) -> None:
    for address in (
        *(
            "#/tasks?tag=<img src=x onerror=window.ran=1>",
            "#javascript:window.ran=1",
            "#/tasks/1<script>",
            "#//elsewhere.invalid",
        ),
        *(
            "#/new?type=<svg onload=window.ran=1>",
            "#/dead-letters?task_type='\"><script>window.ran=1</script>",
            "#/%3Cscript%3E",
        ),
    ):
        visitor.expects_refusals = True
        page = await visitor.open(address)
        await assert_harmless(page)


async def test_a_file_is_handed_out_as_bytes_and_never_shown(visitor: Visitor, api: httpx.AsyncClient) -> None:
    """An SVG or a page that calls itself a picture is not shown; what is downloaded has no type that a browser runs."""
    hostile = b"<svg xmlns='http://www.w3.org/2000/svg' onload='window.ran=1'/>"
    stored = (await api.post("/files", files={"file": (NAME, hostile, "image/svg+xml")})).json()
    task_id = await submit(api, "copy_file_shared", {"file_id": stored["id"]})
    await ended(api, task_id)
    page = await visitor.open(f"#/tasks/{task_id}")
    await expect(page.get_by_role("button", name="Download").first).to_be_visible()
    assert await page.locator("main img").count() == 0
    types = await page.evaluate("""async () => {
        const made = [], make = URL.createObjectURL;
        URL.createObjectURL = (blob) => { made.push(blob.type); return make.call(URL, blob); };
        for (const button of document.querySelectorAll("ul.files button")) button.click();
        while (made.length < document.querySelectorAll("ul.files button").length) await new Promise((go) => setTimeout(go, 20));
        return made;
    }""")
    assert set(types) == {"application/octet-stream"}
    await assert_harmless(page)


async def test_the_policy_stops_what_would_get_through(visitor: Visitor) -> None:
    """The guard behind the guard: markup put into the page by force is refused by the browser."""
    page = await visitor.open()
    for attempt in (
        'document.body.innerHTML = "<img src=x onerror=window.ran=1>"',
        'document.body.setAttribute("onclick", "window.ran = 1")',
        'document.createElement("script").src = "/files/1"',
        'document.createElement("iframe").srcdoc = "<script>parent.ran=1</script>"',
    ):
        refused = await page.evaluate(f"() => {{ try {{ {attempt}; return false }} catch {{ return true }} }}")
        assert refused, attempt
    assert await page.evaluate("window.ran") is None
    assert all("TrustedHTML" in fault or "Trusted" in fault for fault in visitor.faults)
    visitor.faults.clear()
