"""Executors with circuit breakers, for the tests."""

import asyncio
import socket

from pydantic import BaseModel

from app.core.breaker import Breaker
from app.core.retry import RetryPolicy
from app.services.executors import Context, DependencyDown, Fail, executor

AT_ONCE = RetryPolicy(base_seconds=0.01, ceiling_seconds=0.02)
PORT = Breaker(name="port", failures=3, window_seconds=60, open_seconds=0.2, ceiling_seconds=0.3)


class Port(BaseModel):
    port: int = 1


class Ending(BaseModel):
    how: str = "return"


@executor("call", payload=Port, retry=AT_ONCE, max_attempts=50, breaker=PORT)
def call(payload: Port, context: Context) -> str:
    """Fails where nobody listens on the port."""
    with socket.create_connection(("127.0.0.1", payload.port), timeout=5) as connection:
        return connection.recv(100).decode()


@executor("call_shared", payload=Port, retry=AT_ONCE, max_attempts=50, breaker=PORT)
async def call_shared(payload: Port, context: Context) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", payload.port)
    answer = await reader.read(100)
    writer.close()
    await writer.wait_closed()
    return answer.decode()


@executor(
    "end", payload=Ending, timeout_seconds=0.3, max_attempts=1, breaker=Breaker(failures=2, open_seconds=10, probes=2)
)
async def end(payload: Ending, context: Context) -> str:
    """Ends as the payload says."""
    match payload.how:
        case "connection":
            raise ConnectionRefusedError("nobody there")
        case "by name":
            raise type("TransportError", (Exception,), {"__module__": "httpx"})("no route")
        case "down":
            raise DependencyDown("maintenance until noon", after=30)
        case "other down":
            raise DependencyDown("no answer", name="port")
        case "undeclared down":
            raise DependencyDown("no answer", name="nobody-declares-this")
        case "bug":
            raise ValueError("a bug")
        case "fail":
            raise Fail("no use")
        case "time":
            await asyncio.sleep(60)
    return "returned"


@executor("free", payload=Ending)
async def free(payload: Ending, context: Context) -> str:
    """Has no breaker."""
    return "returned"
