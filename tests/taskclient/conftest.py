"""A client in front of the real application, within the test."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from taskclient import AsyncClient

URL = "http://test"


@pytest.fixture
async def tasks(client: httpx.AsyncClient) -> AsyncIterator[AsyncClient]:
    """`client` is the bare one, for the same application."""
    app = client.app  # type: ignore[attr-defined]
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with AsyncClient(URL, transport=transport) as tasks:
        yield tasks


@pytest.fixture
async def tasks_of(serve: Callable[[Settings], Any]) -> AsyncIterator[Callable[[Settings], Any]]:
    """Makes a client of an application with other settings."""
    made: list[AsyncClient] = []

    async def make(settings: Settings) -> AsyncClient:
        app = (await serve(settings)).app
        made.append(AsyncClient(URL, transport=httpx.ASGITransport(app, raise_app_exceptions=False)))
        return made[-1]

    yield make
    for one in made:
        await one.close()
