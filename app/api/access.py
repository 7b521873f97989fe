"""Who may call what: the scope that each route asks for, and the door at which keys are shown."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import cookie
from app.api.body import header
from app.api.errors import CHALLENGE, problem
from app.api.limits import Limits, headers_of, told
from app.api.origin import Origins
from app.core.audit import ANONYMOUS, Actor
from app.core.errors import OPENS_NOTHING, Forbidden, StoreUnavailable
from app.core.keys import ApiKey
from app.core.keys import Scope as KeyScope
from app.core.rate import Standing
from app.services.keys import KeyRing
from app.services.sessions import Sessions

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

CALLER = "caller"
"""Where in the scope of a request its key is. Nothing is there while no keys are asked for."""
STRANGER = ApiKey("", "", (), "", "", datetime(1970, 1, 1, tzinfo=UTC))
"""Who calls what needs no key: may do nothing else, whatever the path turns out to lead to."""
SCHEME = b"bearer "


@dataclass(frozen=True, slots=True)
class Access:
    """What a route asks for: a scope, None where no key is needed. `whole`: it is about the whole service, so that the key
    of a tenant is not enough. `counted`: no more often than its limits allow."""

    scope: KeyScope | None
    whole: bool = False
    counted: bool = True


def needs(scope: KeyScope, *, whole: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Say which scope a key must have to call the endpoint. A route without it cannot be made."""
    return _with(Access(scope, whole))


def public(endpoint: Endpoint) -> Endpoint:
    """Say that nobody needs a key to call the endpoint."""
    return _with(Access(None, counted=False))(endpoint)


def entrance(endpoint: Endpoint) -> Endpoint:
    """Say that the endpoint itself looks at who calls, and that calls are counted."""
    return _with(Access(None))(endpoint)


def _with(access: Access) -> Callable[[Endpoint], Endpoint]:
    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.access = access  # type: ignore[attr-defined]  # functions take attributes
        return endpoint

    return mark


def access_of(endpoint: Callable[..., Any]) -> Access:
    """What was said of the endpoint. Raises TypeError if nothing was: then nobody may call it."""
    access = getattr(endpoint, "access", None)
    if not isinstance(access, Access):
        raise TypeError(f"{endpoint.__module__}.{endpoint.__qualname__} needs @needs(...) or @public")
    return access


def tenant_of(request: Request) -> str:
    """Whose tasks and files the caller sees; empty for everyone's."""
    caller: ApiKey | None = request.scope.get(CALLER)
    return "" if caller is None else caller.tenant


def actor_of(request: Request) -> Actor:
    """Who calls, for the audit log, and from which address: that of the next proxy where one stands before us that the server
    was not told of."""
    caller: ApiKey | None = request.scope.get(CALLER)
    client = request.scope.get("client")
    address = str(client[0])[:64] if client else ""
    return (
        Actor(None, ANONYMOUS, "", address) if caller is None else Actor(caller.id, caller.name, caller.tenant, address)
    )


def ensure_allowed(caller: ApiKey, access: Access) -> None:
    """Raises Forbidden."""
    if access.scope is None:
        return
    if not caller.may(access.scope):
        raise Forbidden(
            f"This needs a key with the scope {access.scope}; yours has {', '.join(caller.scopes) or 'none'}."
        )
    if access.whole and caller.tenant:
        raise Forbidden(f"This is about the whole service; your key is for tenant {caller.tenant} alone.")


class Gate:
    """What the door of one application knows. Until its services are there, it is told nothing, and nobody comes."""

    def __init__(self, limits: Limits, origins: Origins) -> None:
        self.limits = limits
        self.origins = origins
        self.ring: KeyRing | None = None
        self.sessions: Sessions | None = None
        self.public: frozenset[str] = frozenset()
        self.entrances: frozenset[str] = frozenset()


class Door:
    """Lets nobody in without a key, once there is one: neither to a route nor to find out that there is none. And nobody too
    often. Who signed in shows a cookie in place of a key. As long as there is no key, pages of other sites stay out.

    What needs no key, and has no limit, is known by its exact path, as the router will see it.
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate
        self._limited = gate.limits.on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ring = self._gate.ring
        if ring is None or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not ring.on and any(name == b"authorization" for name, _ in scope["headers"]):
            try:
                await ring.notice()
            except StoreUnavailable as error:
                await _away(Request(scope), error)(scope, receive, send)
                return
        if not ring.on:
            why = self._gate.origins.refused(scope)
            if why is not None:
                await _foreign(scope, why)(scope, receive, send)
                return
            if not self._limited:
                await self._app(scope, receive, send)
                return
        if scope["path"] in self._gate.public:
            await self._app({**scope, CALLER: STRANGER} if ring.on else scope, receive, send)
        else:
            await self._let_in(ring, scope, receive, send)

    async def _let_in(self, ring: KeyRing, scope: Scope, receive: Receive, send: Send) -> None:
        limits, now = self._gate.limits, monotonic()
        request = Request(scope, receive, send)
        standing = limits.address(scope, now)
        if standing is not None and not standing.allowed:
            await _too_often(request, standing)(scope, receive, send)
            return
        if ring.on:
            caller = await self._caller(request, ring)
            if isinstance(caller, Response):
                await caller(scope, receive, send)
                return
            scope[CALLER], renewed = caller
            send = send if renewed is None else cookie.given(send, renewed)
            of_key = limits.key(scope[CALLER], now) if scope[CALLER] is not STRANGER else None
            if of_key is not None and (standing is None or of_key.remaining <= standing.remaining):
                standing = of_key
            if of_key is not None and not of_key.allowed:
                await _too_often(request, of_key)(scope, receive, send)
                return
        await self._app(scope, receive, send if standing is None else told(send, standing))

    async def _caller(self, request: Request, ring: KeyRing) -> "Caller | Response":
        """Whose key was shown, or who signed in; or the refusal. The same is said of every key that opens nothing, for
        whatever reason."""
        if request.scope["path"] in self._gate.entrances:
            return STRANGER, None
        shown = header(request, b"authorization")
        try:
            if shown is None:
                return await self._guest(request)
            if shown[: len(SCHEME)].lower() != SCHEME:
                return refusal(request, "The Authorization header must be: Bearer KEY.")
            key = await ring.holder(shown[len(SCHEME) :].decode("latin-1").strip(" "))
        except StoreUnavailable as error:
            return _away(request, error)
        return refusal(request) if key is None else (key, None)

    async def _guest(self, request: Request) -> "Caller | Response":
        """Who signed in. A page of another origin cannot change anything by the cookie. Raises StoreUnavailable."""
        origins, sessions = self._gate.origins, self._gate.sessions
        secure = origins.over_tls(request.scope)
        token = cookie.shown(request.scope, secure)
        if token is None or sessions is None:
            return refusal(request, "This needs a key: Authorization: Bearer KEY.")
        why = origins.unproven(request.scope)
        if why is not None:
            return _foreign(request.scope, why)
        guest = await sessions.holder(token)
        if guest is None:
            return refusal(request, "Nobody is signed in by this cookie, or no longer.")
        renewed = None if guest.token is None else cookie.line(guest.token, guest.session.seconds, secure)
        return guest.key, renewed


Caller = tuple[ApiKey, tuple[bytes, bytes] | None]
"""A key, and the header that renews the cookie which stood for it."""


def _foreign(scope: Scope, why: str) -> Response:
    return problem(Request(scope), 403, "foreign-origin", why)


def _away(request: Request, error: StoreUnavailable) -> Response:
    return problem(request, 503, "store-unavailable", str(error), headers={"Retry-After": "2"})


def _too_often(request: Request, standing: Standing) -> Response:
    headers = headers_of(standing)
    detail = f"Too many requests; the next may come in {headers['Retry-After']} s."
    return problem(request, 429, "too-many-requests", detail, headers=headers)


async def still_welcome(ring: KeyRing, caller: ApiKey | None) -> bool:
    """Whether who was let in would be let in now: for what lasts, a stream or a wait."""
    if caller is None:
        return not ring.on
    try:
        return await ring.usable(caller.id) is not None
    except StoreUnavailable:
        return False


def refusal(request: Request, why: str = OPENS_NOTHING) -> Response:
    """The answer to who may not come in."""
    return problem(request, 401, "unauthorized", why, headers={"WWW-Authenticate": CHALLENGE})
