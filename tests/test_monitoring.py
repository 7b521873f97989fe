"""deploy/prometheus and deploy/grafana name metrics that there are, and Prometheus's own tool is content with the rules."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.core.events import EventBus
from app.workers.metrics import WorkerMetrics
from tests.api.conftest import completed, run, services_of, submit

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/taskservice.json").read_text())
RULES = (DEPLOY / "prometheus/alerts.yml").read_text()
NAME = re.compile(r"\b(?:taskservice|process)_[a-z_]+\b")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian has it in the package prometheus)"
)


def expressions() -> dict[str, str]:
    """Every expression of the dashboard, by the title of its panel and its letter."""
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found[f"${variable['name']}"] = variable["query"]["query"]
    return found


@pytest.fixture
async def names(client: httpx.AsyncClient) -> dict[str, set[str]]:
    """Every series there is, with its labels: of the API, and of a worker."""
    await submit(client, queue="q", unique_key="u")
    await run(client, completed(1))
    await client.patch("/queues/q", json={"max_depth": 5, "max_running": 5})
    await client.post("/breakers/echo/trip", json={"reason": "no"})
    await services_of(client).workers.sign_in("w", (), ("echo",), 4)
    worker = WorkerMetrics(EventBus(), 4)
    worker._attempts.labels("echo", "completed").inc()
    texts = [(await client.get("/metrics")).text, generate_latest(worker.registry).decode()]
    found: dict[str, set[str]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for suffix in SUFFIXES[family.type]:
                name = family.name.removesuffix("_total") + suffix
                found.setdefault(name, set())
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("place", expressions())
async def test_every_expression_of_the_dashboard_names_metrics_that_there_are(
    names: dict[str, set[str]], place: str
) -> None:
    expression = expressions()[place]
    used = set(NAME.findall(expression))
    assert used
    assert used <= names.keys(), f"{place}: {expression}"


async def test_every_rule_names_metrics_that_there_are(names: dict[str, set[str]]) -> None:
    used = set(NAME.findall(RULES))
    assert len(used) >= 8
    assert used <= names.keys()


async def test_every_selector_names_labels_that_there_are(names: dict[str, set[str]]) -> None:
    selector = re.compile(r"\b((?:taskservice|process)_[a-z_]+)\{([^}]*)\}")
    for text in (RULES, *expressions().values()):
        for name, labels in selector.findall(text):
            assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels)) <= names[name], (name, labels)


def test_the_dashboard_is_whole() -> None:
    """Ids differ, panels do not lie over each other, and each says what it shows."""
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["targets"]


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "alerts.yml")


@needs_promtool
def test_the_rules_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_every_rule_is_tried_both_ways() -> None:
    tried = (DEPLOY / "prometheus/alerts_test.yml").read_text()
    for alert in re.findall(r"- alert: (\w+)", RULES):
        assert re.search(rf"alertname: {alert}, exp_alerts: \[\]", tried), alert
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n", tried), alert


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
