"""Webhooks whose workers are killed and whose receivers misbehave: whoever answers well is told of every end, in time."""

import asyncio
import base64
import hashlib
import hmac
import json
import signal
import ssl
import time
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.certificate import new_certificate
from tests.chaos.conftest import LONG, amount, checked
from tests.chaos.test_processes import QUICK
from tests.conftest import SAMPLES, until
from tests.security.conftest import Asked, plain, redirect, serving
from tests.walk.conftest import House

SECRET = "secret-of-the-tests-1"
FAILURES = 3
CHUNK = b"x" * 65536
GIGABYTE = 2**30
TOLD_SECONDS = 2.0
"""From the end of a task to its receipt, for 99 of 100."""


class Receiver:
    """Takes everything, and keeps when it was told of what."""

    def __init__(self) -> None:
        self.ids: dict[int, set[str]] = {}
        self.times: dict[int, float] = {}
        self.count = 0

    async def answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        message_id, timestamp = asked.headers["webhook-id"], asked.headers["webhook-timestamp"]
        expected = hmac.digest(SECRET.encode(), f"{message_id}.{timestamp}.".encode() + asked.body, hashlib.sha256)
        assert asked.headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
        data = json.loads(asked.body)["data"]
        self.ids.setdefault(data["id"], set()).add(message_id)
        ended = datetime.fromisoformat(data["finished_at"]).timestamp()
        self.times.setdefault(data["id"], time.time() - ended)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")


class Flood:
    """Answers with a body without end."""

    sent = 0

    async def answer(self, _asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n" % GIGABYTE)
        while self.sent < GIGABYTE:
            writer.write(CHUNK)
            await writer.drain()
            self.sent += len(CHUNK)


async def silent(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def untrusted(stack: AsyncExitStack, folder: Path) -> int:
    """The port of a server with a certificate that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*new_certificate(folder, "127.0.0.1"))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    stack.callback(server.close)
    port: int = server.sockets[0].getsockname()[1]
    return port


async def submitted(client: httpx.AsyncClient, count: int) -> list[int]:
    """The ids of new tasks that end at once."""
    ids: list[int] = []
    for start in range(0, count, 1000):
        tasks = [
            {"task_type": "echo", "payload": {"number": number}} for number in range(start, min(count, start + 1000))
        ]
        ids += (await client.post("/tasks/bulk", json={"tasks": tasks})).raise_for_status().json()["ids"]
    return ids


@pytest.mark.timeout(1800 if LONG else 150)
async def test_whoever_answers_well_is_told_of_every_end_whatever_others_and_workers_do(
    house: House, tmp_path: Path, random: Random
) -> None:
    """Matrix F10. First nobody dies and the receipts are timed; then workers are killed again and again."""
    good, flood = Receiver(), Flood()
    async with AsyncExitStack() as stack:
        canary = await stack.enter_async_context(serving(plain()))
        sites = {
            "good": await stack.enter_async_context(serving(good.answer)),
            "failing": await stack.enter_async_context(serving(plain("500 Oops", b"no"))),
            "silent": await stack.enter_async_context(serving(silent)),
            "elsewhere": await stack.enter_async_context(serving(redirect(canary.url))),
            "flood": await stack.enter_async_context(serving(flood.answer)),
        }
        urls = {name: site.url for name, site in sites.items()}
        urls["untrusted"] = f"https://127.0.0.1:{await untrusted(stack, tmp_path)}"
        house.settings |= QUICK | {
            "EXECUTOR_MODULES": SAMPLES,
            "WEBHOOK_SECRETS": SECRET,
            "WEBHOOK_OFF_AFTER_FAILURES": str(FAILURES),
            "WEBHOOK_OFF_AFTER_SECONDS": "0",
            "OUTBOUND_ALLOW": ",".join(url.partition("://")[2] for url in [*urls.values(), canary.url]),
            "OUTBOUND_TIMEOUT_SECONDS": "1",
        }
        _, client = await house.api()
        hooks = {}
        for name, url in urls.items():
            made = await client.post("/webhooks", json={"url": url, "events": ["completed"], "task_types": ["echo"]})
            hooks[name] = made.raise_for_status().json()["id"]
        running = [await house.worker("--name", f"w{number}", LOG_LEVEL="info") for number in range(2)]

        timed = await submitted(client, amount(30, 2500))
        await until(lambda: set(timed) <= set(good.ids), amount(40, 600))
        slow = sorted(good.times.values())[int(len(timed) * 0.99) - 1]
        print(f"{len(timed)} ends told; 99 of 100 within {slow:.2f} s")
        assert slow <= TOLD_SECONDS or not LONG  # what times is not for a machine that has much else to do

        killed = await submitted(client, amount(60, 2500))
        for number in range(amount(2, 20)):
            await asyncio.sleep(random.uniform(0.2, 1.0))  # the interval between kills, which is part of the experiment
            await running[number % 2].kill()
            running[number % 2] = await house.worker("--name", f"w{number % 2}", LOG_LEVEL="info")
        await until(lambda: set(killed) <= set(good.ids), amount(60, 600))

        assert {task_id for task_id, ids in good.ids.items() if len(ids) != 1} == set()
        assert set(good.ids) == {*timed, *killed}
        print(f"{good.count - len(good.ids)} told twice, {flood.sent} bytes of a flood of {GIGABYTE} taken")
        assert flood.sent < 64 * 2**20
        assert canary.asked == []

        async def given_up() -> bool:
            for name in set(hooks) - {"good"}:
                if await switched_off(client, hooks[name]) is None:
                    return False
            return True

        await until(given_up, 60)
        assert await switched_off(client, hooks["good"]) is None

        async def all_received() -> bool:
            return {one["status"] for one in await deliveries(client, hooks["good"])} == {"completed"}

        # One whose worker was killed between the receipt and its record runs until its lease is over, and is sent again.
        await until(all_received, 60)
        for one in running:
            one.signal(signal.SIGTERM)
            assert await one.ended() == 0
    await checked(house.database_url)


async def switched_off(client: httpx.AsyncClient, hook: str) -> str | None:
    reason: str | None = (await client.get(f"/webhooks/{hook}")).raise_for_status().json()["switched_off_at"]
    return reason


async def deliveries(client: httpx.AsyncClient, hook: str) -> list[dict[str, Any]]:
    """All of them."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 100}
    while True:
        page = (await client.get(f"/webhooks/{hook}/deliveries", params=query)).raise_for_status().json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]
