"""The yardstick: a FastAPI application that validates and answers as ours does, and stores nothing."""

from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel


class Submission(BaseModel):
    task_type: str
    payload: dict[str, Any]
    queue: str = "default"
    priority: int = 0


class Many(BaseModel):
    tasks: list[Submission]


class Task(BaseModel):
    id: int
    task_type: str
    status: str
    queue: str
    priority: int
    attempts: int
    created_at: datetime
    payload: dict[str, Any] | None
    result: Any = None


class Page(BaseModel):
    items: list[Task]


app = FastAPI()
STORED = Task(
    id=1,
    task_type="bench.nothing",
    status="completed",
    queue="default",
    priority=0,
    attempts=1,
    created_at=datetime.now(UTC),
    payload={"number": 1},
    result={"number": 1},
)
LISTED = [STORED.model_copy(update={"id": number, "payload": None, "result": None}) for number in range(50, 0, -1)]


@app.post("/tasks", status_code=201)
async def create(submission: Submission) -> Task:
    return STORED.model_copy(update={"task_type": submission.task_type, "payload": submission.payload})


@app.post("/tasks/bulk", status_code=201)
async def create_many(many: Many) -> dict[str, list[int]]:
    return {"ids": list(range(len(many.tasks)))}


@app.get("/tasks")
async def search(limit: int = 50) -> Page:
    return Page(items=LISTED[:limit])


@app.get("/tasks/{task_id}")
async def read(task_id: int) -> Task:
    return STORED


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}
