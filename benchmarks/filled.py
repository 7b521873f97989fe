"""Tables with many rows, made by the store itself."""

from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, cast, insert, literal, literal_column, null, select, type_coerce

from app.core.clock import to_milliseconds
from app.models.database import Connection
from app.models.tables import tasks
from app.models.types import Moment

Kind = Literal["completed", "failed", "pending", "scheduled", "running"]
PAYLOAD = '{"number":1}'
ERROR = '{"type":"ValueError","message":"no","attempt":1,"at":"2026-01-01T00:00:00Z"}'
CAUSE = "0123456789abcdef"


async def fill(connection: Connection, count: int, kind: Kind, now: datetime) -> None:
    """Add `count` tasks of the type bench.nothing in that state: completed and failed ones ended just now, the
    latter for one cause; scheduled ones are due in a
    day, running ones have a lease until then."""
    if not count:
        return
    numbers = select(literal_column("1", BigInteger).label("i")).cte("numbers", recursive=True)
    following = cast(numbers.c.i + literal_column("1"), BigInteger)
    numbers = numbers.union_all(select(following).where(numbers.c.i < count))
    ended, running, later = kind in ("completed", "failed"), kind == "running", now + timedelta(days=1)
    failed = kind == "failed"
    values: dict[str, ColumnElement[Any]] = {
        "task_type": literal("bench.nothing"),
        "queue": literal("default"),
        "status": literal(kind),
        "priority": literal(0),
        "rank": cast(
            literal(to_milliseconds(later if kind == "scheduled" else now), BigInteger) + numbers.c.i, BigInteger
        ),
        "payload": literal(PAYLOAD),
        "result": literal(PAYLOAD) if kind == "completed" else null(),
        "error": literal(ERROR) if failed else null(),
        "failure_reason": literal("error") if failed else null(),
        "fingerprint": literal(CAUSE) if failed else null(),
        "attempts": literal(int(ended or running)),
        "max_attempts": literal(3),
        "timeout_seconds": literal(300.0),
        "lease": literal(int(ended or running), BigInteger),
        "created_at": moment(now),
        "started_at": moment(now) if ended or running else null(),
        "finished_at": moment(now) if ended else null(),
        "scheduled_at": moment(later) if kind == "scheduled" else null(),
        "lease_expires_at": moment(later) if running else null(),
        "worker_id": literal("elsewhere") if running else null(),
    }
    chosen = [type_coerce(value, tasks.c[name].type).label(name) for name, value in values.items()]
    await connection.execute(insert(tasks).from_select(list(values), select(*chosen).select_from(numbers)))


def moment(at: datetime) -> ColumnElement[Any]:
    return literal(at, Moment)
