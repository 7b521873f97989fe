"""Executors of a small shop, for the dashboard: with every kind of field, progress, failures, files, a breaker."""

import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.core.breaker import Breaker
from app.core.retry import RetryPolicy
from app.services.executors import Context, Fail, executor


class Line(BaseModel):
    article: str = Field(description="Number in the catalogue.", max_length=40)
    pieces: int = Field(1, ge=1, le=1000)


class Invoice(BaseModel):
    """What is sent to whom."""

    order: int = Field(ge=0, description="Number of the order.")
    customer: str = Field("Ada Lovelace", max_length=100)
    channel: Literal["mail", "post"] = Field("mail", description="How it is sent.")
    discount: float = Field(0, ge=0, le=0.5, description="Share of the price.")
    express: bool = False
    lines: list[Line] = Field([], description="What was ordered.")
    address: dict[str, str] = Field({}, description="Where to, if not where it always is.")


class Index(BaseModel):
    """Where the file appears that ends it, and how far it is meanwhile."""

    folder: str = "/nowhere"
    percent: float = Field(42, ge=0, le=100)
    seconds: float = Field(0, ge=0, le=600)


class Words(BaseModel):
    """What is said, and how: as a result, an error, a progress message, or the name of a file."""

    text: str
    how: Literal["result", "error", "progress", "file"] = "result"


class Payment(BaseModel):
    order: int = 0


@executor(
    "send_invoice",
    payload=Invoice,
    max_attempts=3,
    retry=RetryPolicy(0.01, 0.02),
    example={"order": 1017, "customer": "Grace Hopper", "lines": [{"article": "A-17", "pieces": 2}]},
)
def send_invoice(payload: Invoice, context: Context) -> dict[str, Any]:
    """Send an invoice to a customer."""
    if payload.order % 7 == 3:
        raise ConnectionRefusedError(f"the mail server refused message {payload.order * 31}")
    if payload.order % 11 == 5:
        raise ValueError(f"customer {payload.order} has no address")
    return {"message": f"m-{payload.order:06}", "lines": len(payload.lines), "channel": payload.channel}


@executor("rebuild_index", payload=Index, timeout_seconds=600, max_attempts=1)
def rebuild_index(payload: Index, context: Context) -> dict[str, int]:
    """Rebuild the index of the shop's search."""
    end = time.monotonic() + (payload.seconds or 600)
    while time.monotonic() < end and not (Path(payload.folder) / "go").exists():
        context.progress(payload.percent, f"{round(payload.percent * 184):,} of 18,400 articles")
        time.sleep(0.05)
    return {"articles": 18400}


@executor("talk", payload=Index, timeout_seconds=600, max_attempts=1)
def talk(payload: Index, context: Context) -> None:
    """Print a line every now and then, until the file is there."""
    number = 0
    while not (Path(payload.folder) / "go").exists():
        print(f"<b>line {number}</b>")  # noqa: T201
        number += 1
        time.sleep(0.1)
    context.log("ready", order=17)


@executor("say", payload=Words, max_attempts=1)
def say(payload: Words, context: Context) -> Any:
    """Say something in one of several ways."""
    match payload.how:
        case "error":
            raise Fail(payload.text)
        case "progress":
            for _ in range(600):
                context.progress(50, payload.text, {payload.text: payload.text})
                time.sleep(0.05)
        case "file":
            context.save_file(payload.text.encode(), payload.text, "text/html")
    return {payload.text: [payload.text]}


@executor("charge_card", payload=Payment, breaker=Breaker(name="payments"))
def charge_card(payload: Payment, context: Context) -> dict[str, int]:
    """Charge a customer's card."""
    return {"charged": payload.order}
