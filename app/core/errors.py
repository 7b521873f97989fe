"""Every error of our own, in one tree. Status codes for them live in api/errors.py alone.

AppError
├── SettingsError            a setting is wrong; the process cannot start
├── PluginError              an executor module cannot be loaded or declares nonsense
├── StoreError
│   ├── StoreUnavailable     the database or the folder of files cannot be used now (busy, read-only, away)
│   │   ├── StoreFull        its disk is full
│   │   ├── StoreDamaged     the database file is broken, or no database
│   │   ├── StoreContended   the transaction was undone to let another one through
│   │   └── OutcomeUnknown   the connection was lost during the commit, and nobody could be asked what came of it
│   └── SchemaError          the database's schema cannot be brought to the version this program needs
├── BrokerUnavailable        the broker cannot be used now; work is found by looking
├── InvalidRequest           what the caller sent is refused; nothing was stored
│   ├── MalformedJson        the body is no JSON that every store can keep
│   ├── UnknownTaskType      no executor has that name
│   └── PayloadInvalid       the payload does not fit its executor's model
├── NotFound                 there is no such row
├── Conflict                 the row's present state forbids it
│   ├── UniqueKeyTaken       another unfinished task holds the unique key
│   └── IdempotencyMismatch  the idempotency key was used before with another body
├── TooLarge                 a body, payload or result is over its limit
├── UnsupportedMediaType     the body is declared as something other than JSON
├── KeyEnded                 the key was good when the call came, and is not any more
├── Forbidden                the key may not do this
├── QuotaExceeded            the tenant has as many tasks waiting as it may
├── Overloaded               as much of this goes on already as may; trying again later may work
│   └── QueueFull            as many tasks wait in the queue as may
├── OutboundError            a request to another host came to nothing
│   ├── OutboundRefused      it is not allowed; trying again will not help
│   └── OutboundFailed       the host could not be reached, or did not answer properly and in time
└── LeaseLost                the worker's right to finish an attempt is gone
"""

from typing import Any


class AppError(Exception):
    """Root of the tree; its text is fit for a user to read."""


class SettingsError(AppError):
    """A setting is wrong."""


class PluginError(AppError):
    """An executor module cannot be used."""


class StoreError(AppError):
    """The database cannot do what is asked."""


class StoreUnavailable(StoreError):
    """The database or the folder of files could not be used within its deadline; trying again later may work."""


class StoreFull(StoreUnavailable):
    """The disk of the database or of the files has no room; trying again may work once somebody has made some."""


class StoreDamaged(StoreUnavailable):
    """The file is no database, or a broken one; waiting will not mend it."""


class StoreContended(StoreUnavailable):
    """The store undid the transaction to let another one through; it may be done again at once."""


class OutcomeUnknown(StoreUnavailable):
    """The connection was lost during the commit, and the store could not be asked in time what came of it."""


class SchemaError(StoreError):
    """The schema could not be brought to the version this program needs."""


class BrokerUnavailable(AppError):
    """The broker did not do what was asked. Nothing is lost by it: everyone looks at the rows now and then."""


class InvalidRequest(AppError):
    """The request is refused. `errors` has one {"location": [...], "message": ..., "type": ...} for each fault found."""

    def __init__(self, message: str, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []


class MalformedJson(InvalidRequest):
    """The body is not JSON, or JSON that is ambiguous or cannot be kept."""


class UnknownTaskType(InvalidRequest):
    """No executor is registered under `task_type`."""

    def __init__(self, task_type: str, known: list[str], location: list[str | int] | None = None) -> None:
        message = f"Unknown task_type {task_type!r}. Known: {', '.join(known)}."
        where = [*(location or []), "task_type"]
        super().__init__(message, [{"location": where, "message": message, "type": "unknown_task_type"}])
        self.task_type = task_type
        self.known = known


class PayloadInvalid(InvalidRequest):
    """The payload does not fit the model its executor declares."""


class NotFound(AppError):
    """There is no `noun` with this id."""

    def __init__(self, noun: str, id: int | str) -> None:  # noqa: A002 the field is called id everywhere
        super().__init__(f"There is no {noun} {id}.")
        self.noun = noun
        self.id = id


class Conflict(AppError):
    """The present state of the row forbids the change; `status` is that state where a task is meant."""

    def __init__(self, message: str, status: str | None = None) -> None:
        super().__init__(message)
        self.status = status


class UniqueKeyTaken(Conflict):
    """Another unfinished task, `holder_id`, holds the unique key."""

    def __init__(self, unique_key: str, holder_id: int, status: str | None = None) -> None:
        super().__init__(f"Task {holder_id} holds the unique key {unique_key!r} and is not finished.", status)
        self.unique_key = unique_key
        self.holder_id = holder_id


class IdempotencyMismatch(Conflict):
    """The idempotency key already belongs to `task_id`, which was made from another request."""

    def __init__(self, idempotency_key: str, task_id: int) -> None:
        super().__init__(f"Idempotency-Key {idempotency_key!r} was used for task {task_id} with another request.")
        self.idempotency_key = idempotency_key
        self.task_id = task_id


class TooLarge(AppError):
    """Something is over its limit of `limit_bytes`."""

    def __init__(self, noun: str, limit_bytes: int) -> None:
        super().__init__(f"The {noun} is larger than the limit of {limit_bytes} bytes.")
        self.noun = noun
        self.limit_bytes = limit_bytes


class QuotaExceeded(AppError):
    """`tenant` has `most` tasks waiting, as many as it may."""

    def __init__(self, tenant: str, most: int) -> None:
        super().__init__(f"Tenant {tenant} may have {most} tasks waiting; try again when some have run.")
        self.tenant = tenant
        self.most = most


OPENS_NOTHING = "The key is unknown, expired or revoked."
"""All that is said of a key that is no good, whatever the reason."""


class KeyEnded(AppError):
    """The caller's key was revoked, or has expired, while it waited for the answer."""

    def __init__(self) -> None:
        super().__init__(OPENS_NOTHING)


class Forbidden(AppError):
    """The caller's key may not do this."""


class UnsupportedMediaType(AppError):
    """The body is not declared as JSON."""


class Overloaded(AppError):
    """A limit on what may go on at once is reached. `retry_after_seconds` is when there should be room again, None where
    nobody can tell."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueFull(Overloaded):
    """As many tasks wait in `queue` as may."""

    def __init__(self, queue: str, depth: int, max_depth: int, retry_after_seconds: float) -> None:
        waiting = f"{depth} tasks wait in queue {queue}, and" if depth < max_depth else f"Queue {queue} is full:"
        super().__init__(f"{waiting} at most {max_depth} may wait in it.", retry_after_seconds)
        self.queue = queue
        self.max_depth = max_depth


class OutboundError(AppError):
    """A request to another host came to nothing."""


class OutboundRefused(OutboundError):
    """The address may not be asked, or not in this way: trying again will not help."""


class OutboundFailed(OutboundError):
    """The host could not be reached, or did not answer properly and in time; trying again may work."""


class LeaseLost(AppError):
    """The lease of task `task_id` is no longer `lease`; nothing was written."""

    def __init__(self, task_id: int, lease: int) -> None:
        super().__init__(f"Task {task_id} is no longer ours under lease {lease}.")
        self.task_id = task_id
        self.lease = lease
