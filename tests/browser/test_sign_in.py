"""Signing in with a key, in a real browser; and what a page of another origin can then do by the browser's cookie."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import DESKTOP, LETTING_GO_SECONDS, chromium
from tests.browser.test_actions import confirm
from tests.security.conftest import plain, serving
from tests.walk.conftest import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

COOKIE = "task-service"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """An API that wants keys, and its admin's."""
    chromium()
    house = House(tmp_path_factory.mktemp("guarded"))
    try:
        token = await key_of(house)
        _, client = await house.api()
        client.headers["Authorization"] = f"Bearer {token}"
        yield client
    finally:
        await house.close()


async def key_of(house: House) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.keys", "create", "ada", "--scopes", "admin"),
        cwd=house.folder,
        env={"PATH": "/usr/bin:/bin", **house.settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    return out.decode().strip()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(viewport=DESKTOP)
    yield context
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LETTING_GO_SECONDS):
            await context.close()


def address_of(api: httpx.AsyncClient) -> str:
    return str(api.base_url).rstrip("/")


def token_of(api: httpx.AsyncClient) -> str:
    return api.headers["Authorization"].removeprefix("Bearer ")


async def sign_in(page: Page, api: httpx.AsyncClient) -> None:
    await page.goto(f"{address_of(api)}/#/")
    await page.get_by_label("API key").fill(token_of(api))
    await confirm(page, "Sign in")
    await expect(page.locator(".tiles")).to_be_visible()


async def waiting(api: httpx.AsyncClient) -> int:
    answer = await api.post("/tasks", json={"task_type": "echo"})
    task_id: int = answer.json()["id"]
    return task_id


async def status_of(api: httpx.AsyncClient, task_id: int) -> str:
    status: str = (await api.get(f"/tasks/{task_id}")).json()["status"]
    return status


async def test_somebody_signs_in_acts_and_signs_out(guarded: httpx.AsyncClient, context: BrowserContext) -> None:
    page = await context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    await page.goto(f"{address_of(guarded)}/#/")
    await page.get_by_label("API key").fill("tk000000000000.wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text("The key is unknown, expired or revoked.")).to_be_visible()
    said.clear()  # the browser itself notes a 401
    await page.get_by_label("API key").fill(token_of(guarded))
    await confirm(page, "Sign in")
    await expect(page.locator(".tiles")).to_be_visible()
    (cookie,) = await context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (COOKIE, True, "Strict", "/")
    kept = await page.evaluate("[document.cookie, localStorage.length, sessionStorage.length, location.href]")
    assert kept == ["", 0, 0, f"{address_of(guarded)}/#/"], "no script can read it, and nothing else is kept"
    assert token_of(guarded) not in cookie["value"]

    task_id = await waiting(guarded)
    await page.goto(f"{address_of(guarded)}/#/tasks/{task_id}")
    await page.get_by_role("button", name="Cancel…").click()
    await confirm(page, "Cancel the task")
    await expect(page.locator("main")).to_contain_text("cancelled")
    assert await status_of(guarded, task_id) == "cancelled"
    await page.reload()
    await expect(page.locator("main")).to_contain_text("cancelled"), "still signed in"

    await page.get_by_role("button", name="Keyboard shortcuts and signing in").click()
    await page.get_by_role("button", name="Sign out ada").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    assert await context.cookies() == []
    async with httpx.AsyncClient(cookies={COOKIE: cookie["value"]}) as thief:
        assert (await thief.get(f"{address_of(guarded)}/tasks")).status_code == 401, "the server ended it as well"
    assert said == []


async def test_a_revoked_key_shows_its_people_the_door(guarded: httpx.AsyncClient, context: BrowserContext) -> None:
    made = (await guarded.post("/api-keys", json={"name": "bob", "scopes": ["read"]})).json()
    page = await context.new_page()
    await page.goto(f"{address_of(guarded)}/#/")
    await page.get_by_label("API key").fill(made["key"])
    await confirm(page, "Sign in")
    await expect(page.locator("h1")).to_be_visible()
    await guarded.delete(f"/api-keys/{made['id']}")
    await expect(page.get_by_label("API key")).to_be_visible()


ATTACK = """
<!doctype html><title>evil</title><body><script>
const api = "ADDRESS", id = "TASK";
async function attack() {
  const done = [];
  const say = (what, call) => call.then(() => done.push(what + " answered"), () => done.push(what + " failed"));
  const calls = [["POST", "/tasks/" + id + "/cancel"], ["DELETE", "/tasks/" + id], ["PATCH", "/tasks/" + id],
    ["POST", "/tasks"], ["POST", "/dead-letters/purge"], ["DELETE", "/session"]];
  for (const [method, path] of calls) {
    await say("plain " + method, fetch(api + path, { method, credentials: "include", mode: method === "POST" ? "no-cors" : "cors" }));
    await say("text " + method, fetch(api + path, { method, credentials: "include", mode: method === "POST" ? "no-cors" : "cors",
      body: '{"task_type": "echo"}', headers: { "Content-Type": "text/plain" } }));
    await say("marked " + method, fetch(api + path, { method, credentials: "include", body: "{}",
      headers: { "Content-Type": "application/json", "X-Same-Origin": "1" } }));
  }
  try { done.push("read " + (await (await fetch(api + "/tasks", { credentials: "include" })).text()).length); } catch { done.push("read failed"); }
  for (const [path, type] of [["/tasks/" + id + "/cancel", "text/plain"], ["/tasks", "application/x-www-form-urlencoded"],
      ["/files", "multipart/form-data"]]) {
    const frame = document.createElement("iframe");
    frame.name = "f" + Math.random();
    const form = document.createElement("form");
    Object.assign(form, { method: "POST", action: api + path, enctype: type, target: frame.name });
    document.body.append(frame, form);
    const loaded = new Promise((go) => { frame.onload = go; });
    form.submit();
    await Promise.race([loaded, new Promise((go) => setTimeout(go, 2000))]);
    done.push("form " + path);
  }
  document.title = "done";
  return done;
}
</script>
"""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("keys", [True, False])
async def test_a_page_of_another_origin_can_do_nothing(
    guarded: httpx.AsyncClient, api: httpx.AsyncClient, context: BrowserContext, host: str, keys: bool
) -> None:
    """Of another site (localhost), and of the same one on another port, which even a strict cookie is sent from; with a
    session, and where no key was ever made."""
    service = guarded if keys else api
    if keys:
        await sign_in(await context.new_page(), service)
    task_id = (await service.post("/tasks", json={"task_type": "echo", "delay_seconds": 3600})).json()["id"]
    before = await everything(service, task_id)
    page = await context.new_page()
    script = ATTACK.replace("ADDRESS", address_of(service)).replace("TASK", str(task_id))
    async with serving(plain(body=script.encode(), Content_Type="text/html")) as site:
        statuses: list[tuple[str, int]] = []
        page.on("response", lambda one: statuses.append((one.request.method, one.status)))
        await page.goto(f"http://{host}:{site.port}/")
        done: list[str] = await page.evaluate("attack()")
    assert len(done) == 22, done
    assert "read failed" in done
    assert {status for method, status in statuses if method in ("POST", "DELETE", "PATCH")} <= {401, 403}
    assert not any(what.startswith("marked") and what.endswith("answered") for what in done)
    assert await everything(service, task_id) == before
    if keys:
        own = await context.new_page()
        await own.goto(f"{address_of(service)}/#/tasks/{task_id}")
        await own.get_by_role("button", name="Cancel…").click()
        await confirm(own, "Cancel the task")
        await expect(own.locator("main")).to_contain_text("cancelled")


async def everything(api: httpx.AsyncClient, task_id: int) -> Any:
    """What the attack would have changed."""
    listed = (await api.get("/tasks", params={"limit": 500, "task_type": "echo"})).json()["items"]
    return (await api.get(f"/tasks/{task_id}")).json(), len(listed)


async def test_the_attack_names_what_the_page_sends() -> None:
    """Were the header renamed, the attack would try in vain and prove nothing."""
    assert "X-Same-Origin" in (Path(__file__).parents[2] / "app/api/assets/service.js").read_text()
