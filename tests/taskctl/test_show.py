import io
from datetime import UTC, datetime

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


def test_a_silent_worker_says_for_how_long() -> None:
    beating = Worker.model_validate(WORKER)
    silent = Worker.model_validate(WORKER | {"state": "silent", "silent_seconds": 31.4})
    assert "silent" not in written(show.workers([beating]))
    assert "silent for 31.4 s" in written(show.workers([silent]))
