"""Files over HTTP: a round trip, ranges, headers, and every way a form can be wrong."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from app.services.wiring import Services
from tests.conftest import both_places
from tests.file_places import names_in

__all__ = ["both_places"]

DATA = bytes(range(256)) * 2000


def services_of(client: httpx.AsyncClient) -> Services:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    return services


async def upload(client: httpx.AsyncClient, data: bytes = DATA, name: str = "a.bin", kind: str = "image/png") -> Any:
    answer = await client.post("/files", files={"file": (name, data, kind)})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/files/{answer.json()['id']}"
    return answer.json()


def stored(client: httpx.AsyncClient) -> list[str]:
    return list(names_in(services_of(client).settings))


async def test_a_round_trip(client: httpx.AsyncClient) -> None:
    file = await upload(client, name="Bild ä.png")
    assert file["size"] == len(DATA)
    assert file["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert (file["name"], file["content_type"]) == ("Bild ä.png", "image/png")
    answer = await client.get(f"/files/{file['id']}/")
    assert answer.content == DATA
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["etag"] == f'"{file["sha256"]}"'


async def test_a_download_is_nothing_a_browser_would_show_or_run(client: httpx.AsyncClient) -> None:
    file = await upload(client, b"<script>alert(1)</script>", 'x"; evil=.html\r\nX-Evil: 1', "text/html")
    headers = (await client.get(f"/files/{file['id']}")).headers
    assert headers["content-disposition"].startswith('attachment; filename="')
    assert "\n" not in headers["content-disposition"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert "x-evil" not in headers


@pytest.mark.parametrize(
    ("wanted", "status", "span"),
    [
        ("bytes=0-0", 206, (0, 1)),
        ("bytes=10-19", 206, (10, 20)),
        ("bytes=511990-", 206, (511990, 512000)),
        ("bytes=-5", 206, (511995, 512000)),
        ("bytes=-99999999", 206, (0, 512000)),
        ("bytes=511999-99999999999", 206, (511999, 512000)),
        ("bytes=512000-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-2", 200, (0, 512000)),
        ("bytes=0-1,5-6", 200, (0, 512000)),
        ("bytes=-", 200, (0, 512000)),
        ("lines=1-2", 200, (0, 512000)),
        ("bytes=99999999999999999999-", 200, (0, 512000)),
    ],
)
async def test_ranges(client: httpx.AsyncClient, wanted: str, status: int, span: tuple[int, int] | None) -> None:
    file = await upload(client)
    answer = await client.get(f"/files/{file['id']}", headers={"Range": wanted})
    assert answer.status_code == status
    if span is None:
        assert answer.headers["content-range"] == "bytes */512000"
        assert answer.json()["type"].endswith("range-not-satisfiable")
        return
    assert answer.content == DATA[span[0] : span[1]]
    assert answer.headers.get("content-range") == (f"bytes {span[0]}-{span[1] - 1}/512000" if status == 206 else None)


async def test_a_range_of_another_version_is_the_whole_file(client: httpx.AsyncClient) -> None:
    file = await upload(client)
    for tag, status in ((f'"{file["sha256"]}"', 206), ('"other"', 200)):
        answer = await client.get(f"/files/{file['id']}", headers={"Range": "bytes=0-0", "If-Range": tag})
        assert answer.status_code == status
    answer = await client.get(f"/files/{file['id']}", headers={"If-None-Match": f'"{file["sha256"]}"'})
    assert (answer.status_code, answer.content) == (304, b"")


async def test_an_empty_file_is_a_file(client: httpx.AsyncClient) -> None:
    file = await upload(client, b"")
    answer = await client.get(f"/files/{file['id']}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await client.get(f"/files/{file['id']}", headers={"Range": "bytes=0-0"})).status_code == 416


async def test_a_file_may_be_deleted_while_no_task_keeps_it(client: httpx.AsyncClient) -> None:
    file = await upload(client)
    task = (await client.post("/tasks", json={"task_type": "copy_file", "payload": {"file_id": file["id"]}})).json()
    answer = await client.delete(f"/files/{file['id']}")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:task-service:problem:conflict")
    (item,) = (await client.get(f"/tasks/{task['id']}/files")).json()["items"]
    assert item == file | {"role": "input", "expires_at": None}
    assert (await client.delete(f"/tasks/{task['id']}")).status_code == 204
    assert (await client.get(f"/files/{file['id']}")).status_code == 404
    other = await upload(client)
    assert (await client.delete(f"/files/{other['id']}")).status_code == 204
    assert (await client.delete(f"/files/{other['id']}")).status_code == 404


async def test_what_is_not_there_is_404_and_what_is_no_id_is_422(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"/files/{'0' * 32}")).status_code == 404
    assert (await client.get("/files/1")).status_code == 422
    assert (await client.get("/files/..%2f..%2fetc%2fpasswd")).status_code in (404, 422)
    assert (await client.get("/tasks/77/files")).status_code == 404
    answer = await client.post("/tasks", json={"task_type": "copy_file", "payload": {"file_id": "0" * 32}})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["location"] == ["body", "payload"]


def form(*parts: bytes, boundary: bytes = b"B", end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + end


PART = b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\ndata'
MULTIPART = "multipart/form-data; boundary=B"


@pytest.mark.parametrize(
    ("content_type", "body", "status", "says"),
    [
        ("application/json", b"{}", 415, "multipart/form-data"),
        ("", b"x", 415, "multipart/form-data"),
        ("multipart/form-data", b"x", 415, "multipart/form-data"),
        ("multipart/form-data; boundary=" + "x" * 1000, b"x", 422, "oundary"),
        (MULTIPART, b"", 422, "too early"),
        (MULTIPART, b"junk", 422, "no multipart form"),
        (MULTIPART, form(PART, end=b""), 422, "too early"),
        (MULTIPART, form(), 422, "no field `file`"),
        (MULTIPART, form(PART.replace(b'"file"', b'"other"')), 422, "'other'"),
        (MULTIPART, form(PART, PART), 422, "more than one"),
        (MULTIPART, form(PART, PART.replace(b'"file"', b'"x"')), 422, "'x'"),
        (MULTIPART, form(b"X: " + b"y" * 100_000 + b"\r\n\r\ndata"), 422, "no multipart form"),
        (MULTIPART, form(b"X: y\r\n" * 1000 + b"\r\ndata"), 422, "no multipart form"),
        (MULTIPART, form(b"\r\ndata"), 422, "''"),
        (MULTIPART, form(b'Content-Disposition: form-data; name="\xff\xfe"\r\n\r\nx'), 422, "takes `file` alone"),
    ],
)
async def test_a_wrong_form_is_refused_and_nothing_is_stored(
    client: httpx.AsyncClient, content_type: str, body: bytes, status: int, says: str
) -> None:
    answer = await client.post("/files", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
    assert stored(client) == []


async def test_a_file_over_the_limit_is_413_whether_it_says_so_or_not(
    serve: Callable[[Settings], Any], settings: Settings
) -> None:
    client = await serve(settings.model_copy(update={"max_upload_bytes": 1000}))
    assert (await upload(client, b"x" * 1000))["size"] == 1000

    async def endless() -> AsyncIterator[bytes]:
        yield form(PART, end=b"")[:-2]
        while True:
            yield b"x" * 10_000

    for body in (form(PART + b"x" * 1000), form(PART + b"x" * 200_000), endless()):
        answer = await client.post("/files", content=body, headers={"Content-Type": MULTIPART})
        assert answer.status_code == 413
        assert answer.json()["limit_bytes"] == 1000
    assert len(stored(client)) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_a_form_may_arrive_cut_anywhere(client: httpx.AsyncClient, size: int) -> None:
    body = form(PART + b"\r\n--\r\n--Bx")

    async def dribble() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    answer = await client.post("/files", content=dribble(), headers={"Content-Type": MULTIPART})
    assert answer.status_code == 201
    assert (await client.get(f"/files/{answer.json()['id']}")).content == b"data\r\n--\r\n--Bx"


async def test_an_upload_that_breaks_off_leaves_nothing(client: httpx.AsyncClient) -> None:
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield form(PART, end=b"") + b"x" * 1_000_000
        begun.set()
        await asyncio.Event().wait()

    sending = asyncio.create_task(client.post("/files", content=stuck(), headers={"Content-Type": MULTIPART}))
    await begun.wait()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert stored(client) == []
