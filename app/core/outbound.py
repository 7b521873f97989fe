"""What operators allow on the way out besides public addresses, and which headers a task may set. Reading only: who may be
asked is judged in services/destinations.py."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_ANSWERED = re.compile(r"\S+ answered ([1-5][0-9]{2})\b")
USUAL_PORTS = {"http": 80, "https": 443}
_WITH_PORT = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<other>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")


NEVER_OURS = frozenset(
    [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Headers that belong to the connection; who could set them could speak past us."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")


@dataclass(frozen=True, slots=True)
class Allowance:
    """One entry of OUTBOUND_ALLOW: a host or a network, and the port, None for those of OUTBOUND_PORTS."""

    host: str | None = None
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    def opens(self, port: int, usual_ports: Collection[int]) -> bool:
        """Whether it is about this port."""
        return port in usual_ports if self.port is None else port == self.port

    def names(self, host: str) -> bool:
        """Whether it vouches for this host, wherever its name leads."""
        return self.host is not None and matches(self.host, host)

    def holds(self, address: Address) -> bool:
        """Whether the address lies in its network; one that is mapped into IPv6 counts as what it is."""
        if self.network is None:
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return (mapped or address) in self.network


def status_in(message: str) -> int | None:
    """The HTTP status in the message of an attempt that got an answer, "https://... answered 503 ..."; None in any other."""
    found = _ANSWERED.match(message)
    return int(found[1]) if found else None


def host_in(url: str) -> tuple[str, str, int] | None:
    """The scheme of a URL, the host that it leads to, in small letters, and its port; None where it leads nowhere. Judges nothing."""
    try:
        parts = urlsplit(url)
        port = parts.port or USUAL_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname.rstrip("."), port) if parts.hostname and port else None


def matches(pattern: str, host: str) -> bool:
    """Whether `host` is the one named, or, for `*.example.com`, one below it."""
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def allowance(text: str) -> Allowance:
    """An entry as it is written: `host`, `*.host`, `10.0.0.0/8`, `[::1]`, each with `:port` or without. Raises ValueError."""
    whole = _network(text)
    if whole is not None:
        return Allowance(network=whole)
    found = _WITH_PORT.fullmatch(text.lower())
    name = (found["six"] or found["other"]) if found else ""
    port = int(found["port"]) if found and found["port"] else None
    network = _network(name)
    named = network is not None or (found is not None and not found["six"] and _HOST.fullmatch(name))
    if not named or not (port is None or 1 <= port <= 65535):
        raise ValueError(f"{text!r} is no host, address or network, with :port or without")
    return Allowance(host=None if network else name, network=network, port=port)


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError for a header that nobody may set, or that is none."""
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name[:100]!r} is no name of a header")
        if name.lower() in NEVER_OURS or name.lower().startswith("proxy-"):
            raise ValueError(f"the header {name} is set by the service and by nobody else")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name} must be visible ASCII characters, with blanks between")
