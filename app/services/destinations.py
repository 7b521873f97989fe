"""Where a request may go: a strict reading of URLs, and a judgement of addresses. Asks nobody; `outbound.py` does.

Light, because the API reads the URLs of submissions too: no HTTP library is imported here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import quote, urldefrag, urljoin, urlsplit

from pydantic import AfterValidator, Field, ValidationInfo
from ssrfguard import DEFAULT_DENIED, AddressTable, Block, Policy, Reach, SSRFGuardError, Target

from app.core.errors import OutboundRefused
from app.core.outbound import Address
from app.core.settings import Settings

LONGEST_URL = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LEFT_AS_IT_IS = "/%:@!$&'()*+,;=~?[]"

_PORTS = range(1, 65536)
_PUBLIC = AddressTable(
    (
        *DEFAULT_DENIED.blocks,
        # Answers inside every virtual machine of Azure, with secrets; IANA knows it as an ordinary public address.
        Block(ip_network("168.63.129.16/32"), "Cloud platform (Azure)", "", Reach.DENIED),
    )
)


# All that is given out of IPv6 to ask somebody at, and what stands for an address of IPv4 there (NAT64): of this the table
# judges the address that it stands for. What has not been given out is nobody's, or somebody's who took it.
_GIVEN_OUT = (ip_network("2000::/3"), ip_network("64:ff9b::/96"))


def _is_public(address: Address) -> bool:
    given_out = address.version == 4 or address.ipv4_mapped is not None or any(address in one for one in _GIVEN_OUT)
    return given_out and not _PUBLIC.classify(address).blocked


@lru_cache
def _reading(port: int) -> Policy:
    """Any address, and this port: both are judged here, where a host may be allowed more than others. (A policy for all ports at
    once would be a set of 4 MB in every process.)"""
    ports = frozenset({port, *_DEFAULT_PORTS.values()})
    return Policy(allowed_ports=ports, denied_networks=AddressTable(()), max_url_length=LONGEST_URL)


def _port_in(url: str) -> int:
    """The port that a URL names, that of its scheme where it names none that could be one."""
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None
    return port if port is not None and port in _PORTS else _DEFAULT_PORTS["http"]


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL that was read and may be asked, as far as can be said without asking for its addresses.

    `host` is what a resolver understands, IPv6 without brackets; `target` the path with the query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The host as it stands in a URL, with the port unless it is the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if _DEFAULT_PORTS[self.scheme] == self.port else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def shown(self) -> str:
        """Where it leads, fit for a message: no query, which may hold a key."""
        return self.url.partition("?")[0]

    def joined(self, location: str) -> str:
        """Where a redirect leads."""
        try:
            return urljoin(self.url, location)
        except ValueError:
            raise OutboundRefused("A redirect leads to what is no URL.") from None


class Rules:
    """What the settings let tasks ask."""

    def __init__(self, settings: Settings) -> None:
        self._ports = frozenset(settings.outbound_ports)
        self._allowances = settings.outbound_allowances

    def check(self, url: str) -> Destination:
        """Read a URL and judge all of it that can be judged without the network. Raises OutboundRefused."""
        try:
            target = _reading(_port_in(url)).check_url(url)
            read = urlsplit(urldefrag(url).url)
        except SSRFGuardError as error:
            raise OutboundRefused(f"The URL cannot be used: {_reason(error)}.") from None
        except ValueError:
            raise OutboundRefused("The URL cannot be used: it cannot be read.") from None
        if not self._opens(target):
            raise OutboundRefused(
                f"Port {target.port} may not be asked; OUTBOUND_PORTS and OUTBOUND_ALLOW of the worker say which may."
            )
        if target.address is not None:
            self.judge(target.host, target.port, target.address)
        path = quote(read.path or "/", safe=_LEFT_AS_IT_IS)
        query = f"?{quote(read.query, safe=_LEFT_AS_IT_IS)}" if read.query else ""
        return Destination(target.scheme, target.host, target.port, path + query)

    def _opens(self, target: Target) -> bool:
        if target.port in self._ports:
            return True
        return any(
            (one.network is not None or one.names(target.host)) and one.opens(target.port, self._ports)
            for one in self._allowances
        )

    def judge(self, host: str, port: int, address: Address) -> None:
        """Raise OutboundRefused unless this address may be asked. Says no more than that: the answer must not map a
        network."""
        if port in self._ports and _is_public(address):
            return
        for one in self._allowances:
            if one.opens(port, self._ports) and (one.names(host) or one.holds(address)):
                return
        raise OutboundRefused(
            f"{host} may not be asked: it is no public address, and OUTBOUND_ALLOW of API and workers does not name it."
        )


def _reason(error: SSRFGuardError) -> str:
    reason = str(getattr(error, "reason", "it is not allowed"))
    return "it must not hold a user name or password" if "userinfo" in reason or "credential" in reason else reason


def _may_be_asked(url: str, info: ValidationInfo) -> str:
    check: Callable[[str], Destination] | None = (info.context or {}).get("outbound")
    if check is not None:
        try:
            check(url)
        except OutboundRefused as refused:
            raise ValueError(str(refused)) from None
    return url


Url = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_URL, json_schema_extra={"format": "uri"}),
    AfterValidator(_may_be_asked),
]
"""A URL in a payload. It is checked when it is submitted, where whoever validates has the rules at hand, and each time before
it is asked."""
