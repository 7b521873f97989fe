"""Whether a call comes from a page of our own: what a browser says of the page that makes it, and which addresses are ours.

A page of another site can have a browser call us, with our cookie, or by a name of its own that leads to this machine. It
cannot choose what the browser then says in `Origin`, `Sec-Fetch-Site` and `Host`.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
MARK = b"x-same-origin"
"""The header that scripts of the dashboard send. A form cannot, and a script of another origin has to ask first, which is
never allowed. A token in the page would prove the same, and would have to be kept and renewed beside the session."""
MOST_HOSTS = 64

FOREIGN_HOST = "The service is not known by the name in the Host header. Ask for it by localhost, or name its address in PUBLIC_URLS."
FOREIGN_ORIGIN = "A page of another origin may not do this."
UNPROVEN = "Whoever is signed in by a cookie has to send X-Same-Origin: 1 with this, from a page of this service."

Told = tuple[bytes | None, bytes | None, bytes | None, bool]
"""Host, Origin, Sec-Fetch-Site, and whether there is the mark."""


class Origins:
    """The addresses that are ours."""

    def __init__(self, public_urls: tuple[str, ...]) -> None:
        """`public_urls`: where browsers reach the service beside the address that it listens on."""
        self._public = frozenset(url.lower().encode() for url in public_urls)
        self._public_hosts = frozenset(urlsplit(url).hostname or "" for url in public_urls)
        self._over_tls = any(url.startswith("https:") for url in public_urls)
        self._known: set[bytes] = set()

    def over_tls(self, scope: Scope) -> bool:
        """Whether the caller speaks TLS, with us or with the proxy before us."""
        return self._over_tls or scope["scheme"] == "https"

    def refused(self, scope: Scope) -> str | None:
        """Why a call that nobody answers for by a key is not taken; None where it is.

        A name that leads to loopback and is not ours was made to (DNS rebinding). Programs say nothing of an origin.
        """
        told = _told(scope)
        host = told[0]
        if host is not None and host not in self._known and not self._expected(host, scope):
            return FOREIGN_HOST
        return FOREIGN_ORIGIN if scope["method"] not in SAFE and self._foreign(told, scope) else None

    def crossing(self, scope: Scope) -> str | None:
        """Why a page may not have somebody signed in; None where no other origin is named."""
        return FOREIGN_ORIGIN if self._foreign(_told(scope), scope) else None

    def unproven(self, scope: Scope) -> str | None:
        """Why a call with the cookie is not taken; None where it is: it changes nothing, or a page of ours made it."""
        if scope["method"] in SAFE:
            return None
        told = _, origin, site, marked = _told(scope)
        if self._foreign(told, scope):
            return FOREIGN_ORIGIN
        return None if marked and (origin is not None or site == b"same-origin") else UNPROVEN

    def _foreign(self, told: Told, scope: Scope) -> bool:
        """Whether the browser names another origin. Its own judgement counts first: a proxy may have changed the Host.
        `none` is what a person does, not a page."""
        host, origin, site, _ = told
        if site is not None:
            return site not in (b"same-origin", b"none")
        return origin is not None and not self._own(origin, host, scope)

    def _own(self, origin: bytes, host: bytes | None, scope: Scope) -> bool:
        scheme, _, place = origin.partition(b"://")
        # Behind a proxy we may not know that it is TLS; where we do, what was read in the clear is not ours.
        right = scheme == b"https" or (scheme == b"http" and scope["scheme"] == "http")
        return (right and place == host) or origin in self._public

    def _expected(self, host: bytes, scope: Scope) -> bool:
        """Whether the name may lead here. Where others reach us too we cannot know by which names they do."""
        server = scope.get("server")
        if server is None or not is_loopback(server[0]):
            return True
        name = _name(host.decode("latin-1"))
        known = name in self._public_hosts or name == "localhost" or name.endswith(".localhost") or is_loopback(name)
        if known and len(self._known) < MOST_HOSTS:
            self._known.add(host)
        return known


def is_loopback(address: str) -> bool:
    """Whether it is an address of loopback; a name is none."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The Host header without the port."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def _told(scope: Scope) -> Told:
    host = origin = site = None
    marked = False
    for name, value in scope["headers"]:
        if name == b"host":
            host = value
        elif name == b"origin":
            origin = value
        elif name == b"sec-fetch-site":
            site = value
        elif name == MARK:
            marked = True
    return host, origin, site, marked
