import io
from datetime import UTC, datetime

import pytest
from rich.console import Console, RenderableType

from taskclient.models import Worker
from taskctl import show

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WORKER = {
    "id": "w-1",
    "name": "w",
    "host": "vm",
    "pid": 7,
    "state": "running",
    "queues": [],
    "task_types": [],
    "slots": 2,
    "running": [],
    "started_at": NOW,
    "beat_at": NOW,
}


def written(shown: RenderableType) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(shown)
    return text.getvalue()


@pytest.mark.parametrize(
    ("room", "told"),
    [
        (None, "2 -"),
        ({"plain": 0, "shared": 0}, "2 none"),
        ({"plain": 0, "shared": 3}, "2 3 shared"),
        ({"plain": 1, "shared": 4}, "2 1 plain or 4 shared"),
    ],
)
def test_a_worker_says_what_it_has_room_for(room: dict[str, int] | None, told: str) -> None:
    _, line = written(show.workers([Worker.model_validate(WORKER | {"room": room})])).splitlines()
    assert f" {told} - " in " ".join(line.split())


def test_a_silent_worker_says_for_how_long() -> None:
    beating = Worker.model_validate(WORKER)
    silent = Worker.model_validate(WORKER | {"state": "silent", "silent_seconds": 31.4})
    assert "silent" not in written(show.workers([beating]))
    assert "silent for 31.4 s" in written(show.workers([silent]))
