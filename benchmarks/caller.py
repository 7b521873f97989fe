"""A client that costs little: the standard library's, over one kept-alive connection. A richer one spends a millisecond of its
own before the first byte leaves."""

import http.client
import json
import time
from typing import Any

SILENT_SECONDS = 10.0
"""A connection that said nothing for longer may be closed at the other end: ours are after 30."""


class Caller:
    """Calls one server, one request at a time."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=120)
        self._called_at = 0.0

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """`body` as JSON, or as it is where it is text already."""
        return self._call("POST", path, body if isinstance(body, str) else json.dumps(body))

    def text(self, path: str) -> bytes:
        """What a GET is answered, as it is."""
        return self._asked("GET", path, None)

    def _call(self, method: str, path: str, body: str | None) -> Any:
        return json.loads(self._asked(method, path, body))

    def _asked(self, method: str, path: str, body: str | None) -> bytes:
        if time.monotonic() - self._called_at > SILENT_SECONDS:
            self._connection.close()  # it opens itself again
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        self._called_at = time.monotonic()
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300].decode(errors='replace')}")
        return content

    def close(self) -> None:
        self._connection.close()

    def submit_many(self, task: Any, count: int) -> list[int]:
        """Submit the same task over and over, at most 10,000 a request; the ids in order."""
        ids: list[int] = []
        while len(ids) < count:
            ids += self.post("/tasks/bulk", {"tasks": [task] * min(count - len(ids), 10_000)})["ids"]
        return ids

    def completed(self, task_id: int) -> Any:
        """The task, once it has completed. A long poll, so that watching costs the service next to nothing."""
        while (task := self.get(f"/tasks/{task_id}?wait=30"))["finished_at"] is None:
            pass
        if task["status"] != "completed":
            raise RuntimeError(f"task {task_id} is {task['status']}: {task['error']}")
        return task
