import httpx
import pytest

from app.api.explain import ExplanationView
from tests.api.conftest import assert_problem, finished, submit


async def test_a_task_is_explained(client: httpx.AsyncClient) -> None:
    task = await submit(client, delay_seconds=600)
    answer = await client.get(f"/tasks/{task['id']}/explain")
    assert answer.status_code == 200
    ExplanationView.model_validate_json(answer.content, extra="forbid")
    found = answer.json()
    assert (found["task_id"], found["status"], found["position"]) == (task["id"], "scheduled", None)
    assert [(one["reason"], one["until"]) for one in found["reasons"]] == [
        ("not_due", task["scheduled_at"]),
        ("no_worker", None),
    ]
    assert found["reasons"][1]["message"] == "No worker is alive."
    assert found["estimated_start_at"] is None


async def test_a_task_that_has_ended_waits_for_nothing(client: httpx.AsyncClient) -> None:
    task = await finished(client, "completed")
    found = (await client.get(f"/tasks/{task['id']}/explain/")).json()
    assert (found["status"], found["reasons"], found["drained_per_second"]) == ("completed", [], None)


@pytest.mark.parametrize(("task_id", "status"), [("99", 404), ("0", 404), ("9" * 30, 404), ("x", 422)])
async def test_what_is_no_task_cannot_be_explained(client: httpx.AsyncClient, task_id: str, status: int) -> None:
    assert_problem(await client.get(f"/tasks/{task_id}/explain"), status)
