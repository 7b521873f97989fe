"""The one way out. Every request to an address that a task names is sent by a `Guard`, and by nothing else.

A name is resolved once, each of its addresses is judged, and the connection goes to the very address that was judged, with the
name in TLS and in the Host header. Proxies, netrc and cookies are never used.
"""

import asyncio
import socket
import ssl
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import ip_address
from typing import Any

import httpcore
import httpx

from app.core.errors import OutboundFailed, OutboundRefused
from app.core.outbound import Address, check_headers
from app.core.settings import Settings
from app.services.destinations import Destination, Rules
from app.services.threads import on_thread

Resolver = Callable[..., Iterable[tuple[Any, Any, Any, Any, tuple[Any, ...]]]]
"""Called as `socket.getaddrinfo`, on a thread of its own."""

MOST_REDIRECTS = 5
MOST_ADDRESSES = 4
"""Of one name, that are tried; how many it has is for others to say."""
CONNECT_SECONDS = 10.0
MOST_HEADERS = 200
MOST_HEADER_BYTES = 32 * 1024
USER_AGENT = "task-service"

KEPT_ACROSS_ORIGINS = frozenset(["accept", "accept-language", "user-agent"])


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request to another host. `headers` are dropped where a redirect leads to another origin.

    `most_bytes`: so much of the body is read, once it is decompressed; the rest is left.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    most_bytes: int = 2**20
    follow_redirects: bool = False


@dataclass(frozen=True, slots=True)
class Incoming:
    """An answer, whatever its status. `url` is the one that gave it; `truncated`: there was more body than was read."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)
    truncated: bool
    url: str

    def header(self, name: str) -> str | None:
        """The first value of a header, by its name in lower case."""
        return next((value for key, value in self.headers if key == name), None)


class Guard:
    """Sends requests to other hosts by the settings' rules. Holds no connection; may be used from several loops."""

    def __init__(self, settings: Settings, resolver: Resolver = socket.getaddrinfo) -> None:
        rules = Rules(settings)
        self.check = rules.check
        self._judge = rules.judge
        self._seconds = settings.outbound_timeout_seconds
        self._resolver = resolver

    async def send(self, request: Outgoing) -> Incoming:
        """Send it, and read the answer up to its cap. Raises OutboundRefused or OutboundFailed.

        It is over within OUTBOUND_TIMEOUT_SECONDS, however slowly the other side goes on.
        """
        destination = self.check(request.url)
        try:
            check_headers(request.headers.items())
        except ValueError as error:
            raise OutboundRefused(f"The request cannot be sent: {error}.") from None
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(request, destination)
        except TimeoutError:
            raise OutboundFailed(f"{destination.host} did not answer within {self._seconds:g} seconds.") from None
        except httpcore.TimeoutException:
            raise OutboundFailed(f"The connection to {destination.host} took too long.") from None
        except (httpcore.NetworkError, ssl.SSLError) as error:
            why = ": its certificate is not trusted" if "CERTIFICATE_VERIFY" in str(error) else ""
            raise OutboundFailed(f"The connection to {destination.host} failed{why}.") from None
        except httpcore.ProtocolError:
            raise OutboundFailed(f"{destination.host} did not answer in proper HTTP.") from None

    def fetch(self, url: str, most_bytes: int) -> Incoming:
        """GET for plain executors: follows redirects, blocks the thread. Raises what `send` raises, and for an answer that
        is not 200 or larger than `most_bytes` too."""
        answer = asyncio.run(self.send(Outgoing(url, most_bytes=most_bytes, follow_redirects=True)))
        shown = self.check(answer.url).shown
        if answer.status != 200:
            kind = OutboundFailed if answer.status in TEMPORARY or answer.status >= 500 else OutboundRefused
            raise kind(f"{shown} answered {answer.status}.")
        if answer.truncated:
            raise OutboundRefused(f"What {shown} answers is larger than the limit of {most_bytes} bytes.")
        return answer

    # One request.

    async def _follow(self, request: Outgoing, destination: Destination) -> Incoming:
        for _ in range(MOST_REDIRECTS + 1):
            answer = await self._ask(request, destination)
            location = answer.header("location") if answer.status in (301, 302, 303, 307, 308) else None
            if location is None or not request.follow_redirects:
                return answer
            following = self.check(destination.joined(location))
            request = _redirected(request, answer.status, destination, following)
            destination = following
        raise OutboundRefused(f"{destination.host} redirects more than {MOST_REDIRECTS} times.")

    async def _ask(self, request: Outgoing, destination: Destination) -> Incoming:
        url = httpcore.URL(
            scheme=destination.scheme.encode(),
            host=destination.host.encode(),
            port=destination.port,
            target=destination.target.encode(),
        )
        headers = {"host": destination.authority, "user-agent": USER_AGENT, "accept": "*/*"}
        headers |= {name.lower(): value for name, value in request.headers.items()}
        headers |= {"accept-encoding": "gzip", "connection": "close"}
        content = request.body if request.body is not None or request.method in ("GET", "HEAD") else b""
        network = _Pinned(await self._addresses(destination))
        try:
            async with (
                httpcore.AsyncConnectionPool(ssl_context=_trusted(), network_backend=network) as pool,
                pool.stream(request.method, url, headers=list(headers.items()), content=content) as response,
            ):
                received = _headers(response, destination)
                body, truncated = await _body(response, received, request.most_bytes, destination)
        finally:
            await network.close()
        return Incoming(response.status, received, body, truncated, destination.url)

    async def _addresses(self, destination: Destination) -> list[Address]:
        """Where the name leads, asked once; every address may be asked. Raises OutboundRefused or OutboundFailed."""
        try:
            asked = (destination.host, destination.port, 0, socket.SOCK_STREAM, 0, _numeric(destination))
            answers = await on_thread(lambda: list(self._resolver(*asked)), "resolver")
            addresses = list(dict.fromkeys(ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers))
        except (OSError, UnicodeError, ValueError):
            raise OutboundFailed(f"The name {destination.host} leads nowhere at present.") from None
        if not addresses:
            raise OutboundFailed(f"The name {destination.host} leads nowhere at present.")
        for address in addresses:
            self._judge(destination.host, destination.port, address)
        return addresses[:MOST_ADDRESSES]


TEMPORARY = frozenset((408, 425, 429))
"""And everything from 500 on; any other answer would be the same the next time."""


def _numeric(destination: Destination) -> int:
    try:
        ip_address(destination.host)
    except ValueError:
        return 0
    return socket.AI_NUMERICHOST


def _redirected(request: Outgoing, status: int, before: Destination, after: Destination) -> Outgoing:
    """What to ask after a redirect. Raises OutboundRefused where it would give away what was meant for another."""
    if before.scheme == "https" and after.scheme != "https":
        raise OutboundRefused(f"{before.host} redirects from https to http.")
    method, body = request.method, request.body
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", None
    headers = dict(request.headers)
    if body is None:
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    if before.origin != after.origin:
        if body is not None or method not in ("GET", "HEAD"):
            raise OutboundRefused(f"{before.host} redirects a {method} to another origin; it is not sent there.")
        headers = {name: value for name, value in headers.items() if name.lower() in KEPT_ACROSS_ORIGINS}
    return replace(request, url=after.url, method=method, body=body, headers=headers)


@cache
def _trusted() -> ssl.SSLContext:
    # Reading the certificates takes 0.1 s; once for a process. The environment must not change whom we trust.
    context = httpx.create_ssl_context(trust_env=False)
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were judged, whatever name it is given."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._below = httpcore.AnyIOBackend()
        self._opened: list[httpcore.AsyncNetworkStream] = []

    async def close(self) -> None:
        """Close what it opened. httpcore leaves a connection open whose TLS handshake is cancelled."""
        for stream in self._opened:
            await stream.aclose()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError()
        for address in self._addresses:
            try:
                stream = await self._below.connect_tcp(str(address), port, CONNECT_SECONDS, None, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            self._opened.append(stream)
            peer = stream.get_extra_info("server_addr")
            if ip_address(str(peer[0]).partition("%")[0]) != address:
                raise OutboundRefused(f"The connection to {host} went elsewhere.")
            return stream
        raise failure

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise OutboundRefused("Unix sockets may not be asked.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _headers(response: httpcore.Response, destination: Destination) -> tuple[tuple[str, str], ...]:
    size = sum(len(name) + len(value) for name, value in response.headers)
    if len(response.headers) > MOST_HEADERS or size > MOST_HEADER_BYTES:
        raise OutboundFailed(f"{destination.host} answered with more headers than are taken.")
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers)


async def _body(
    response: httpcore.Response, headers: Sequence[tuple[str, str]], most_bytes: int, destination: Destination
) -> tuple[bytes, bool]:
    """The decompressed body up to `most_bytes`, and whether there was more."""
    encodings = [value.strip().lower() for name, value in headers if name == "content-encoding"]
    if any(one not in ("gzip", "x-gzip", "identity", "") for one in encodings) or len(encodings) > 1:
        raise OutboundFailed(f"{destination.host} answered in an encoding that was not asked for.")
    unpack = zlib.decompressobj(wbits=31) if encodings and "gzip" in encodings[0] else None
    body = bytearray()
    received = 0
    async for chunk in response.aiter_stream():
        received += len(chunk)
        try:
            # Never more at once than there is room for: a kilobyte may unfold to a megabyte.
            body += chunk if unpack is None else unpack.decompress(chunk, most_bytes + 1 - len(body))
        except zlib.error:
            raise OutboundFailed(f"{destination.host} answered with gzip that cannot be read.") from None
        if len(body) > most_bytes or received > 2 * most_bytes + 2**16:
            return bytes(body[:most_bytes]), True
        if unpack is not None and unpack.eof:
            break
    return bytes(body), False
