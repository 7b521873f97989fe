"""How often one key, all keys of one tenant, or one address may call; and how that is told."""

import mmap
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from math import ceil
from pathlib import Path

from starlette.types import Message, Scope, Send

from app.core.keys import ApiKey
from app.core.rate import Rate, Standing
from app.core.settings import Settings

SHARED = "TASK_SERVICE_RATES"
"""The variable that names the file in which the API processes of one program keep their buckets."""
SLOTS, NEAR = 16_384, 16
MEMORY_BYTES = 16 * SLOTS


class Levels:
    """The buckets by name, in memory that processes share: of each a hash of its name, and when it is full.

    A bucket that is full need not be kept, so a new one takes the place of whichever near by was full first. Nobody waits
    for anybody: of two processes that take from one bucket within the same microsecond one may not be counted.
    """

    def __init__(self, path: Path | None = None) -> None:
        """In the file at `path`, which has MEMORY_BYTES bytes, for several processes; else for this one alone."""
        if path is None:
            memory = mmap.mmap(-1, MEMORY_BYTES)
        else:
            with path.open("r+b") as file:
                memory = mmap.mmap(file.fileno(), MEMORY_BYTES)
        view = memoryview(memory)
        self._names, self._full_at = view[: 8 * SLOTS].cast("Q"), view[8 * SLOTS :].cast("d")

    def take(self, name: str, rate: Rate, now: float) -> Standing:
        """Take a token out of the bucket of that name. `now` is by the machine's monotonic clock."""
        known = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
        place = self._place(known)
        ours = self._names[place] == known
        full_at, standing = rate.take(self._full_at[place] if ours else now, now)
        self._names[place], self._full_at[place] = known, full_at
        return standing

    def _place(self, known: int) -> int:
        """Where the bucket is, or where it is to be."""
        start = known % (SLOTS - NEAR)
        near = range(start, start + NEAR)
        for place in near:
            if self._names[place] == known:
                return place
        return min(near, key=self._full_at.__getitem__)


class Limits:
    """What keys and addresses may do, for all API processes of one program together."""

    def __init__(self, settings: Settings, shared: str | None = None) -> None:
        """`shared`: the file of the program's buckets, None where there is one process."""
        self._of_keys = Rate(settings.key_requests_per_second) if settings.key_requests_per_second else None
        addresses = settings.address_requests_per_second
        self._of_addresses = Rate(addresses) if addresses else None
        self._levels = Levels(Path(shared) if shared else None) if self.on else None

    @property
    def on(self) -> bool:
        """Whether anything is limited."""
        return self._of_keys is not None or self._of_addresses is not None

    def address(self, scope: Scope, now: float) -> Standing | None:
        """What the address that calls may do; None where addresses are not limited."""
        if self._levels is None or self._of_addresses is None:
            return None
        client = scope.get("client")
        return self._levels.take(f"address {network(client[0] if client else '')}", self._of_addresses, now)

    def key(self, key: ApiKey, now: float) -> Standing | None:
        """What the key may do; None where keys are not limited. All keys of a tenant share a bucket: it may be able to make
        as many as it likes."""
        if self._levels is None or self._of_keys is None:
            return None
        return self._levels.take(f"tenant {key.tenant}" if key.tenant else f"key {key.id}", self._of_keys, now)


def network(host: str) -> str:
    """The address; of IPv6 the part that one caller cannot change at will."""
    if ":" not in host:
        return host
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped) if mapped else address.packed[:8].hex()


def headers_of(standing: Standing) -> dict[str, str]:
    """The RateLimit headers; Retry-After where the answer is no."""
    headers = {
        "RateLimit-Limit": str(standing.limit),
        "RateLimit-Remaining": str(standing.remaining),
        "RateLimit-Reset": str(_whole(standing.reset_seconds)),
    }
    return headers if standing.allowed else headers | {"Retry-After": str(max(1, _whole(standing.wait_seconds)))}


def _whole(seconds: float) -> int:
    """Whole seconds that are enough; the last bit of a fraction is none."""
    return ceil(seconds - 1e-6)


def told(send: Send, standing: Standing) -> Send:
    """`send`, with the RateLimit headers in the answer."""
    lines = [(name.lower().encode(), value.encode()) for name, value in headers_of(standing).items()]

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *lines]}
        await send(message)

    return with_headers
