"""What one builds over HTTP with FastAPI and arq: take a model, enqueue, give the id; status and result from Redis."""

from typing import Any

from arq.jobs import Job
from fastapi import FastAPI
from pydantic import BaseModel
from tasks import enqueue, enqueue_many, pool


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


app = FastAPI()


@app.post("/tasks", status_code=201)
async def create(submission: Submission) -> Accepted:
    return Accepted(id=await enqueue(submission.payload.number))


@app.post("/tasks/bulk", status_code=201)
async def create_many(many: Many) -> AcceptedMany:
    return AcceptedMany(ids=await enqueue_many([submission.payload.number for submission in many.tasks]))


@app.get("/tasks/{task_id}")
async def read(task_id: str) -> Status:
    job = Job(task_id, await pool())
    info = await job.result_info()
    if info is None:
        return Status(id=task_id, status=await job.status())
    return Status(id=task_id, status="complete", result=info.result)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}
