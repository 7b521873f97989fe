"""How many tasks of one tenant may wait, whoever makes them wait: a submission, a retry, a requeue of dead letters."""

from collections.abc import Sequence

from app.core.errors import QuotaExceeded
from app.models import tasks as rows
from app.models.database import Connection


class Quota:
    """The same for each tenant; what belongs to none is not counted."""

    def __init__(self, most: int) -> None:
        """`most`: so many may wait, 0 is any number."""
        self._most = most

    async def over(self, connection: Connection, tenants: Sequence[str]) -> dict[int, QuotaExceeded]:
        """Of tasks of these tenants, that are to wait from now on, those that there is no room for, by their places."""
        if not self._most:
            return {}
        room = {
            tenant: self._most - await rows.count_waiting(connection, tenant, self._most)
            for tenant in sorted(set(tenants) - {""})
        }
        over = {}
        for place, tenant in enumerate(tenants):
            if tenant:
                room[tenant] -= 1
                if room[tenant] < 0:
                    over[place] = QuotaExceeded(tenant, self._most)
        return over
