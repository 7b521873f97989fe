"""The dashboard's page and files: who gets them, under which policy, and that they are our own and plain."""

import re
from importlib.resources import files
from typing import Any

import httpx
import pytest

from app.api.dashboard import TYPES

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
ASSETS = files("app.api") / "assets"
NAMES = sorted(file.name for file in ASSETS.iterdir() if file.name != "index.html")
SCRIPTS = [name for name in NAMES if name.endswith(".js")]


def source(name: str) -> str:
    return (ASSETS / name).read_text()


def policy(answer: httpx.Response) -> dict[str, str]:
    directives = [one.strip().split(" ", 1) for one in answer.headers["content-security-policy"].split(";")]
    return {name: " ".join(values) for name, *values in directives}


@pytest.mark.parametrize(
    ("accept", "shown"),
    [
        *((BROWSER, True), ("text/html", True), ("TEXT/HTML;charset=utf-8", True), ("text/html;q=0.3", True)),
        *(("application/json, text/html", True), ("text/html;q=0.9, application/json;q=0.1", True)),
        *((None, False), ("", False), ("*/*", False), ("application/json", False), ("text/*", False)),
        *(("text/html;q=0", False), ("text/html;q=0.000", False), ("application/json, text/html;q=0.9", False)),
        *(("text/html;q=nan", False), ("text/html;q=-1", False), ("text/htmlx", False), (";;;,,,=q", False)),
        *(("é", False), (" " * 20_000 + ",", False), ("text/html;" * 2_000, True)),
    ],
)
async def test_the_page_is_for_those_who_ask_for_html(
    client: httpx.AsyncClient, accept: str | None, shown: bool
) -> None:
    headers = {} if accept is None else {"Accept": accept.encode()}
    client.headers.pop("accept")
    answer = await client.get("/", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["vary"] == "Accept"
    assert answer.headers["content-type"] == ("text/html; charset=utf-8" if shown else "application/json")
    assert answer.text.startswith("<!doctype html>") if shown else answer.json()["service"] == "task-service"


async def test_the_page_is_under_a_strict_policy(client: httpx.AsyncClient) -> None:
    answer = await client.get("/", headers={"Accept": BROWSER})
    nothing = ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types")
    ours = ("script-src", "style-src", "connect-src")
    assert policy(answer) == {
        **dict.fromkeys(nothing, "'none'"),
        **dict.fromkeys(ours, "'self'"),
        "img-src": "'self' blob:",
        "require-trusted-types-for": "'script'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", NAMES)
async def test_a_file_has_its_type_and_is_asked_for_again_only_if_it_changed(
    client: httpx.AsyncClient, name: str
) -> None:
    answer = await client.get(f"/dashboard/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES[name.rsplit(".", 1)[1]]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert policy(answer)["script-src"] == "'self'"
    again = await client.get(f"/dashboard/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "__init__.py", "..%2fapp.py", "%2e%2e/app.py", "%00", "dashboard.py"])
async def test_nothing_but_its_files_is_served(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/dashboard/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_everything_the_page_needs_is_there(client: httpx.AsyncClient) -> None:
    page = (await client.get("/", headers={"Accept": BROWSER})).text
    wanted = set(re.findall(r'(?:src|href)="([^"#]+)"', page))
    for name in SCRIPTS:
        wanted |= {f"/dashboard/{module}" for module in re.findall(r'from "\./([^"]+)"', source(name))}
    for link in wanted:
        assert (await client.get(link)).status_code == 200, link
    assert {f"/dashboard/{name}" for name in SCRIPTS} <= wanted, "a script that nobody asks for"


def test_the_page_has_no_script_and_no_style_within_it() -> None:
    page = source("index.html")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert re.findall(r"<script[^>]*>(.*?)</script>", page) == [""]


FORBIDDEN = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML|\beval\("
)
FORBIDDEN += r"|new Function|import\(|\.style\b|cssText|setTimeout\(\s*[\"'`]|postMessage|window\.open|localStorage\.setItem\(KEY"


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_or_code_of_text(name: str) -> None:
    assert re.findall(FORBIDDEN, source(name)) == []


@pytest.mark.parametrize("name", ["index.html", *NAMES])
def test_a_file_is_plain_and_names_no_other_place(name: str) -> None:
    text = source(name)
    assert [
        place for place in re.findall(r"https?://[^\s\"']+", text) if not place.startswith("http://www.w3.org/")
    ] == []
    assert "@import" not in text
    assert "sourceMappingURL" not in text
    assert max(map(len, text.splitlines())) < 400, "minified"


def test_only_one_script_speaks_http() -> None:
    speaking: list[Any] = [
        name for name in SCRIPTS if re.search(r"\bfetch\(|XMLHttpRequest|EventSource|sendBeacon", source(name))
    ]
    assert speaking == ["service.js"]
