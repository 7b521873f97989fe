"""What is accepted comes back as it was, wherever it went; what no store takes is a failed attempt that says why.

Hypothesis makes the values; API, worker and runners are real, on one database.
"""

import asyncio
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from app.api.app import create_app
from app.core.settings import Settings
from app.services.wiring import open_services
from app.workers.worker import Worker, WorkerOptions
from tests.chaos.conftest import LONG, SEED, amount, checked

LEVELS = 32
"""MAX_JSON_DEPTH"""
RESULT_BYTES = 2**20


class Service:
    """An API and a worker in one loop, which lasts for all examples of a test."""

    def __init__(self, folder: Path, migrated: Path) -> None:
        shutil.copy(migrated, folder / "tasks.db")
        self.url = f"sqlite:///{folder}/tasks.db"
        self._settings = Settings(
            database_url=self.url,
            files_dir=folder / "files",
            executor_modules=("tests.chaos_executors",),
            durability="relaxed",
            stop_grace_seconds=1,
        )
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.client: httpx.AsyncClient = self._runner.run(self._open())

    async def _open(self) -> httpx.AsyncClient:
        app = create_app(self._settings)
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        services = await self._stack.enter_async_context(open_services(self._settings))
        worker = Worker(services, WorkerOptions("w", (), 1, 4))
        working = asyncio.create_task(worker.run())

        async def stop() -> None:
            worker.stop()
            await working

        self._stack.push_async_callback(stop)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=60)
        return await self._stack.enter_async_context(client)

    def post(self, body: Any) -> httpx.Response:
        content = json.dumps(body)  # in ASCII: what no UTF-8 has, lone surrogates, goes as escapes
        return self._runner.run(
            self.client.post("/tasks", content=content, headers={"Content-Type": "application/json"})
        )

    def ended(self, task_id: int) -> dict[str, Any]:
        """The task once it has ended; it must end."""
        answer = self._runner.run(self.client.get(f"/tasks/{task_id}", params={"wait": 30}))
        task: dict[str, Any] = answer.json()
        assert task["finished_at"] is not None, f"it is stuck: {task}"
        return task

    def read(self, path: str) -> Any:
        answer = self._runner.run(self.client.get(path))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        try:
            self._runner.run(checked(self.url, final=True))
        finally:
            self._runner.close()


@pytest.fixture
def service(tmp_path: Path, migrated: Path, quiet: None) -> Iterator[Service]:
    service = Service(tmp_path, migrated)
    yield service
    service.close()


def examples(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


# Values.

any_text = st.text(max_size=20)
"""NUL is among its characters."""
any_leaf = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**53 + 1, 0])
    | st.floats(allow_nan=True, allow_infinity=True)
    | any_text
    | st.text(st.sampled_from("a\ud83d\ude80"), max_size=3)  # halves of a pair, that make one character or none
)
any_value = st.recursive(
    any_leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4), max_leaves=12
)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def same(first: Any, second: Any) -> bool:
    """Equal, and of the same types: 1 is not 1.0, and -0.0 is not 0.0."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def fault(value: Any, levels: int) -> str | None:
    """What keeps a value of JSON from being taken, from what the documentation says; None if nothing does."""
    if levels < 0:
        return "nested"
    if isinstance(value, str):
        if "\x00" in value:
            return "NUL"
        return "surrogate" if any("\ud800" <= character <= "\udfff" for character in value) else None
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else "64 bits"
    if isinstance(value, float):
        return None if value - value == 0 else "no number"
    if isinstance(value, list):
        return next((found for one in value if (found := fault(one, levels - 1))), None)
    inside = [*value, *value.values()]
    return next((found for one in inside if (found := fault(one, levels - 1))), None)


@pytest.mark.timeout(1800)
def test_what_is_accepted_comes_back_as_it_was_from_everywhere(service: Service) -> None:
    """Matrix G7: payload, metadata, tags, checkpoint, progress, result."""
    told: Counter[str] = Counter()
    names = st.text("abcXYZ019._:-", min_size=1, max_size=64)

    @seed(SEED)
    @examples(amount(200, 2000))
    @example("a\x00b", None, [])
    @example("\ud800", None, [])
    @example(math.nan, None, [])
    @example(2**63, None, [])
    @example(nested(LEVELS - 1), None, [])
    @example(1, {"a": [math.inf]}, [])
    @given(
        any_value | st.integers(0, 2 * LEVELS).map(nested),
        st.none() | st.dictionaries(any_text, any_value, max_size=3),
        st.lists(names, max_size=5, unique=True),
    )
    def goes_round(value: Any, metadata: Any, tags: list[str]) -> None:
        body = {"task_type": "mirror", "payload": {"value": value}, "metadata": metadata, "tags": tags}
        sent = json.loads(json.dumps(body))  # two halves of a pair that happen to meet are one character from here on
        answer = service.post(body)
        wrong = fault(sent, LEVELS)
        told[wrong or "accepted"] += 1
        if wrong:
            assert answer.status_code == 400, (wrong, answer.text)
            return
        assert answer.status_code == 201, answer.text
        task = service.ended(answer.json()["id"])
        assert task["status"] == "completed", task["error"]
        for name in ("payload", "metadata", "tags"):
            assert same(task[name], sent[name])
            assert same(answer.json()[name], sent[name])
        assert same(task["progress"]["data"], sent["payload"]["value"])
        assert same(task["result"], {"value": sent["payload"]["value"], "kept": [sent["payload"]["value"]]})
        assert same(service.read(f"/tasks/{task['id']}/result"), task["result"])

    goes_round()
    print(f"{told.total()} examples: {dict(told)}, CHAOS_SEED={SEED}")
    assert {"accepted", "NUL", "surrogate", "64 bits", "no number", "nested"} <= set(told)


# Recipes.

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text("aé世\U0001f680", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=6,
)


HOSTILE: dict[str, dict[str, list[Any]]] = {
    "text": {"points": [[0], [0xD800], [97, 0xDFFF, 98]]},
    "float": {"name": ["nan", "inf", "-inf"]},
    "integer": {"sign": [1, -1], "power": [64, 100, 20_000]},
    "long": {"length": [RESULT_BYTES, RESULT_BYTES + 1, 2 * RESULT_BYTES]},
    "deep": {"levels": [255, 900, 5000]},
} | {word: {} for word in ("cycle", "set", "bytes", "key", "same keys", "moment", "object")}
"""What JSON has no word for, or no store takes; each with what may be chosen about it."""


def hostile(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Recipes for one of them."""
    return st.one_of(
        st.fixed_dictionaries(
            {"~": st.just(word), "inside": inner} | {name: st.sampled_from(among) for name, among in choices.items()}
        )
        for word, choices in HOSTILE.items()
    )


@st.composite
def recipes(draw: st.DrawFn) -> tuple[Any, str | None]:
    """A recipe, and what is wrong with what it makes: somewhere in plain JSON, one thing that cannot be stored, or none."""
    if draw(st.integers(0, 4)) == 0:
        return draw(plain), None
    recipe = draw(hostile(plain))
    wrong = recipe["~"]
    for _ in range(draw(st.integers(0, 3))):
        beside = draw(plain)
        recipe = draw(st.sampled_from([[beside, recipe], {"a": recipe, "b": beside}, [recipe]]))
    return recipe, wrong


@pytest.mark.timeout(1800)
def test_what_no_store_takes_is_a_failed_attempt_that_says_why(service: Service) -> None:
    """Matrix G7: as a result, as progress, as a checkpoint, as the message of an error."""
    told: Counter[str] = Counter()

    @seed(SEED)
    @examples(amount(100, 2000))
    @example(({"~": "long", "length": 12_000_000}, "long"), "result")
    @example(({"~": "integer", "sign": -1, "power": 64}, "integer"), "progress")
    @example(({"~": "float", "name": "nan"}, "float"), "checkpoint")
    @example(({"~": "text", "points": [0, 0xD800]}, "text"), "error")
    @given(recipes(), st.sampled_from(["result", "progress", "checkpoint", "error"]))
    def ends(made: tuple[Any, str | None], where: str) -> None:
        recipe, wrong = made
        told.update([wrong or "plain", where])
        answer = service.post({"task_type": "cook", "payload": {"where": where, "value": recipe}})
        assert answer.status_code == 201, answer.text
        task = service.ended(answer.json()["id"])
        if where == "error":
            assert (task["status"], task["error"]["type"]) == ("failed", "ValueError")
            assert len(task["error"]["message"]) <= 2000
        elif wrong is None:
            assert task["status"] == "completed"
            assert same(task["result"], recipe if where == "result" else None)
        else:
            assert (task["status"], task["result"]) == ("failed", None)
            assert task["error"]["type"] == "Unstorable", task["error"]
            assert len(task["error"]["message"]) > 20
        assert "\x00" not in json.dumps(task, ensure_ascii=False)
        (attempt,) = service.read(f"/tasks/{task['id']}/attempts")["items"]
        assert attempt["error"] == task["error"]

    ends()
    print(f"{told.total() // 2} examples: {dict(told)}, CHAOS_SEED={SEED}")
    assert set(told) >= {"plain", "result", "progress", "checkpoint", "error", *(HOSTILE if LONG else ())}
