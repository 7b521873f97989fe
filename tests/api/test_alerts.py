"""Alerts over HTTP: what is shown, silences, the test of the channels."""

from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from tests.api.conftest import assert_problem, services_of
from tests.security.conftest import Asked, plain, serving

NIGHT = {"rule": "queue-old", "queue": "mail", "seconds": 3600, "note": "planned"}


async def fired(client: httpx.AsyncClient) -> None:
    """A breaker has been open, and somebody has looked, for as long as it takes."""
    services = services_of(client)
    await services.breakers.trip("echo", "not <today>", None)
    await services.alerts.look()


@pytest.fixture
def hasty(settings: Settings) -> Settings:
    """What is wrong is told at once."""
    return settings.model_copy(update={"alert_hold_seconds": 0.0, "alert_clear_seconds": 0.0})


async def test_what_fires_is_shown_with_the_rules_there_are(serve: Any, hasty: Settings) -> None:
    client = await serve(hasty.model_copy(update={"alert_rules_off": ("queue-old",)}))
    empty = (await client.get("/alerts")).json()
    assert (empty["items"], empty["channels"]) == ([], [])
    assert [rule["name"] for rule in empty["rules"] if rule["off"]] == ["queue-old"]
    await fired(client)
    (alert,) = (await client.get("/alerts")).json()["items"]
    assert (alert["rule"], alert["subject"], alert["state"]) == ("breaker-open", "echo", "firing")
    assert "not <today>" in alert["what"]
    assert (alert["told_at"], alert["silenced"], alert["deliveries"]) == (None, False, [])
    (past,) = (await client.get("/alerts/history", params={"rule": "breaker-open"})).json()["items"]
    assert past == alert
    assert (await client.get("/alerts/history", params={"queue": "mail"})).json()["items"] == []


async def test_the_history_has_pages(serve: Any, hasty: Settings) -> None:
    client = await serve(hasty)
    services = services_of(client)
    for name in list(services.registry)[:2]:
        await services.breakers.trip(name, "x", None)
    await services.alerts.judge(await services.alerts._sight())
    everything = [one["id"] for one in (await client.get("/alerts/history")).json()["items"]]
    assert len(everything) == 2
    page = (await client.get("/alerts/history", params={"limit": 1})).json()
    following = (await client.get("/alerts/history", params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert [page["items"][0]["id"], following["items"][0]["id"]] == everything[:2]
    assert_problem(await client.get("/alerts/history?rulee=x"), 422)


async def test_a_silence_is_made_shown_and_ended(client: httpx.AsyncClient) -> None:
    answer = await client.post("/alerts/silences", json=NIGHT)
    assert answer.status_code == 201
    made = answer.json()
    assert {name: made[name] for name in ("rule", "queue", "note", "created_by")} == {
        "rule": "queue-old",
        "queue": "mail",
        "note": "planned",
        "created_by": "",
    }
    assert (await client.get("/alerts/silences")).json() == {"items": [made]}
    assert (await client.delete(f"/alerts/silences/{made['id']}")).status_code == 204
    assert (await client.get("/alerts/silences")).json() == {"items": []}
    assert_problem(await client.delete(f"/alerts/silences/{made['id']}"), 404)
    assert_problem(await client.delete("/alerts/silences/" + 30 * "9"), 404)


@pytest.mark.parametrize(
    "change",
    [
        {"rule": None, "queue": None},
        {"rule": "nonsense"},
        {"queue": "no such name"},
        {"all": True},
        {"seconds": 0},
        {"seconds": "60"},
        {"note": ""},
        {"forever": True},
    ],
)
async def test_a_silence_that_makes_no_sense_is_refused(client: httpx.AsyncClient, change: dict[str, Any]) -> None:
    asked = {name: value for name, value in (NIGHT | change).items() if value is not None}
    assert_problem(await client.post("/alerts/silences", json=asked), 422)
    assert (await client.get("/alerts/silences")).json() == {"items": []}


async def test_everything_is_silenced_only_when_that_is_said(client: httpx.AsyncClient) -> None:
    asked = {"all": True, "seconds": 60, "note": "night"}
    assert (await client.post("/alerts/silences", json=asked)).json()["rule"] is None


async def test_the_test_button_says_what_came_of_each_channel(serve: Any, settings: Settings) -> None:
    async with serving(plain("503 Down", b"")) as site:
        client = await serve(
            settings.model_copy(
                update=Settings(
                    alert_slack_url=f"{site.url}/secret",
                    outbound_allow=(f"127.0.0.1:{site.port}",),
                ).model_dump(include={"alert_slack_url", "outbound_allow"})
            )
        )
        answer = await client.post("/alerts/test")
        assert answer.json() == {"items": [{"channel": "slack", "error": "127.0.0.1 answered 503."}]}
        assert_problem(await client.post("/alerts/test?channel=mail"), 409, "conflict")
        assert_problem(await client.post("/alerts/test?channel=pigeon"), 422)
    assert [isinstance(asked, Asked) for asked in site.asked] == [True]


async def test_without_a_channel_there_is_nothing_to_test(client: httpx.AsyncClient) -> None:
    assert "ALERT_WEBHOOK_URL" in assert_problem(await client.post("/alerts/test"), 409)["detail"]
