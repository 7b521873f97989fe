"""What one builds over HTTP with FastAPI and Celery: take a model, enqueue, give the id; status and result from the backend."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from tasks import app as celery
from tasks import no_op


class Payload(BaseModel):
    number: int


class Submission(BaseModel):
    task_type: str
    payload: Payload
    queue: str = "default"
    priority: int = 0


class Many(BaseModel):
    tasks: list[Submission]


class Accepted(BaseModel):
    id: str


class AcceptedMany(BaseModel):
    ids: list[str]


class Status(BaseModel):
    id: str
    status: str
    result: Any = None


# `delay` waits for Redis. FastAPI's documentation wants such a call in a `def`, which runs in a thread: `app`. In an `async def`
# it is quicker while Redis answers at once, and holds up every other request while it does not: `in_the_loop`.
app = FastAPI()
in_the_loop = FastAPI()


@app.post("/tasks", status_code=201)
def create(submission: Submission) -> Accepted:
    return Accepted(id=no_op.delay(submission.payload.number).id)


@app.post("/tasks/bulk", status_code=201)
def create_many(many: Many) -> AcceptedMany:
    return AcceptedMany(ids=[no_op.delay(submission.payload.number).id for submission in many.tasks])


@app.get("/tasks/{task_id}")
def read(task_id: str) -> Status:
    result = celery.AsyncResult(task_id)
    return Status(id=task_id, status=result.status, result=result.result if result.successful() else None)


@in_the_loop.post("/tasks", status_code=201)
async def create_in_the_loop(submission: Submission) -> Accepted:
    return create(submission)


@in_the_loop.post("/tasks/bulk", status_code=201)
async def create_many_in_the_loop(many: Many) -> AcceptedMany:
    return create_many(many)


@in_the_loop.get("/tasks/{task_id}")
async def read_in_the_loop(task_id: str) -> Status:
    return read(task_id)


@app.get("/health")
@in_the_loop.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}
