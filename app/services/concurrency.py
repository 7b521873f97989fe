"""Gives the places of concurrency keys to tasks, within the transactions that free a place or bring a new task."""

from collections.abc import Iterable, Mapping

from app.core.concurrency import Contender, Shift, shift
from app.core.task import Status
from app.models import concurrency as rows
from app.models.database import Connection


async def share_out(connection: Connection, keys: Iterable[str | None]) -> dict[int, str]:
    """Let those tasks of these keys be ready that have a place, and no others. Returns the queue of each that became ready,
    by id. Costs nothing where every key is None."""
    ahead = sorted({key for key in keys if key is not None})
    admitted: dict[int, str] = {}
    if ahead:
        await rows.reserve(connection, ahead)
    while ahead:
        contenders = await rows.contenders(connection, ahead)
        shifts = {key: shift(found) for key, found in contenders.items()}
        displaced = await rows.displace(connection, [id_ for one in shifts.values() for id_ in one.displaced])
        chosen = [id_ for one in shifts.values() for id_ in _still_fitting(one, displaced)]
        admitted |= await rows.admit(connection, chosen)
        ahead = [key for key in ahead if _may_have_more(contenders.get(key, []), shifts)]
    return admitted


def _still_fitting(one: Shift, displaced: Iterable[int]) -> tuple[int, ...]:
    """Those that are admitted, when some could not be displaced because they are being claimed."""
    staying = len(set(one.displaced) - set(displaced))
    return one.admitted[: len(one.admitted) - staying] if staying else one.admitted


def _may_have_more(contenders: list[Contender], shifts: Mapping[str, Shift]) -> bool:
    """Whether all the blocked ones that were seen got a place, so that there may be one for the next."""
    blocked = sum(one.status is Status.BLOCKED for one in contenders)
    return blocked == rows.FIRST_BLOCKED and len(shifts[contenders[0].key].admitted) == blocked
