"""Nothing that a task names leads to where it must not: not to loopback, not into private networks, not to metadata.

A canary listens on loopback at the very port that each vector names, on IPv4 and IPv6, and must never hear of a connection.
"""

import asyncio
import socket
from collections.abc import Callable

import pytest

from app.core.errors import OutboundFailed, OutboundRefused
from app.core.outbound import allowance
from app.services.outbound import Guard, Outgoing
from tests.security.conftest import Names, plain, redirect, serving

LOOPBACK = [
    *("127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0.0.1"),
    *("0177.0.0.1", "0177.1", "017700000001", "00000177.0.0.1", "0", "0.0.0.0", "0x0", "00.0.0.0"),
    *("[::1]", "[0:0:0:0:0:0:0:1]", "[0000::1]", "[::]", "[::0001]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
    *("[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[::7f00:1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]"),
    *("[2002:7f00:1::]", "[2002:7f00:0001::1]", "[::ffff:0:127.0.0.1]", "[64:ff9b:1::7f00:1]", "[::1%25lo]"),
    *("[2001:0:7f00:1::80ff:fffe]", "[fe80::1%25lo]", "[::ffff:0.0.0.0]"),
    *("①②⑦.⓪.⓪.①", "１２７.０.０.１", "127。0。0。1", "127.0.0.1.", "ⓛocalhost", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "LOCALHOST", "localhost"),
    *("localhost.", "127.0.0.1%00", "127.0.0.1%2e", "%31%32%37.0.0.1", "127.0.0.1%20", "127.000.000.001"),
]
INSIDE = [
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.169.254", "169.254.170.2"),
    *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe", "100.100.100.200", "168.63.129.16"),
    *("192.0.0.192", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "0.1.2.3"),
    *("[fd00:ec2::254]", "[fc00::1]", "[fe80::1]", "[fec0::1]", "[ff02::1]", "[ff0e::1]", "[2001:db8::1]", "[100::1]"),
    *("[::ffff:169.254.169.254]", "[::ffff:10.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b::10.0.0.1]"),
    *("[2002:a9fe:a9fe::]", "[2002:a00:1::]", "[::169.254.169.254]", "[5f00::1]", "[3fff::1]", "[2001:2::1]"),
    *("[4000::1]", "[200::1]", "[8000::1]", "[e000::1]", "[::ffff:0:a9fe:a9fe]"),
    *("[2001:0:a00:1::]", "[64:ff9b:1::1]", "[::ffff:168.63.129.16]", "[64:ff9b::a83f:8110]"),
]
SHAPES = [
    *("file:///etc/passwd", "gopher://127.0.0.1:{port}/_x", "dict://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/"),
    *("ldap://127.0.0.1:{port}/", "data:text/plain,x", "javascript:alert(1)", "jar:http://127.0.0.1:{port}!/"),
    *("http://example.test@127.0.0.1:{port}/", "http://user:password@example.test:{port}/", "http://@127.0.0.1:{port}"),
    *("http://example.test:{port}@127.0.0.1:{port}/", "http://example.test\\@127.0.0.1:{port}/", "http://\\127.0.0.1"),
    *("http://127.0.0.1:{port}\\@example.test/", "http:///127.0.0.1:{port}/", "http:127.0.0.1:{port}", "//127.0.0.1"),
    *("http://127.0.0.1:{port}#@example.test/", "http://127.0.0.1:{port}?@example.test/", "http://:{port}/", "http://"),
    *("http://127.0.0.1:{port}\r\nHost: x/", "http://127.0.0.1\t:{port}/", " http://127.0.0.1:{port}/", "http://a b/"),
    *("http://example.test:22/", "http://example.test:6379/", "http://example.test:0/", "http://example.test:65536/"),
    *("http://example.test:-1/", "http://[::1:{port}/", "http://127.0.0.1:{port}/" + "a" * 4000, "http://x\x00.test/"),
    *("HTTP+UNIX://%2Fvar%2Frun%2Fdocker.sock/", "unix:///var/run/docker.sock", "", "example.test", "http://\u202e/"),
    *("http://" + "a" * 64 + ".test/", "http://" + "a." * 200 + "test/", "http://-.test\x7f/", "http://exa mple.test/"),
]
VECTORS = [
    *(f"{scheme}://{host}:{{port}}/" for host in LOOPBACK for scheme in ("http", "https")),
    *(f"http://{host}:{{port}}/latest/meta-data/" for host in INSIDE),
    *SHAPES,
]


def _as_the_system_reads_it(host: str, port: int, *rest: int) -> list[object]:
    """The real resolver, which takes 127.1, octal, hexadecimal and circled digits for addresses."""
    return list(socket.getaddrinfo(host, port, *rest))


@pytest.mark.parametrize("vector", VECTORS)
async def test_no_vector_reaches_the_canary(vector: str, guarded: Callable[..., Guard]) -> None:
    async with serving(plain(), "127.0.0.1", "::1") as canary:
        guard = guarded(_as_the_system_reads_it, outbound_ports=(80, 443, canary.port), outbound_timeout_seconds=5.0)
        with pytest.raises((OutboundRefused, OutboundFailed)):
            await guard.send(Outgoing(vector.replace("{port}", str(canary.port)), follow_redirects=True))
        assert canary.connections == 0


def test_there_are_at_least_eighty_vectors() -> None:
    assert len(set(VECTORS)) >= 80


async def test_the_canary_can_be_reached_where_it_is_allowed(guarded: Callable[..., Guard]) -> None:
    """What the vectors prove is worth something only if the canary hears."""
    async with serving(plain(), "127.0.0.1", "::1") as canary:
        guard = guarded(outbound_allow=(f"127.0.0.1:{canary.port}", f"[::1]:{canary.port}"))
        for host in ("127.0.0.1", "[::1]"):
            answer = await guard.send(Outgoing(f"http://{host}:{canary.port}/x"))
            assert (answer.status, answer.body) == (200, b"hello")
        assert [asked.headers["host"] for asked in canary.asked] == [
            f"{host}:{canary.port}" for host in ("127.0.0.1", "[::1]")
        ]


# Names.


@pytest.mark.parametrize("address", [one.strip("[]") for one in INSIDE if one.count(".") in (0, 3) and "x" not in one])
async def test_a_name_that_leads_inside_is_refused(address: str, guarded: Callable[..., Guard]) -> None:
    names = Names({"example.test": [[address]]})
    with pytest.raises((OutboundRefused, OutboundFailed)):
        await guarded(names).send(Outgoing("http://example.test/"))


async def test_one_wrong_address_among_right_ones_refuses_the_name(guarded: Callable[..., Guard]) -> None:
    async with serving(plain()) as canary:
        names = Names({"example.test": [["93.184.216.34", "127.0.0.1"]]})
        with pytest.raises(OutboundRefused):
            await guarded(names, outbound_ports=(canary.port,)).send(Outgoing(f"http://example.test:{canary.port}/"))
        assert canary.connections == 0


async def test_a_name_that_changes_its_mind_is_asked_once(guarded: Callable[..., Guard]) -> None:
    """Rebinding: public when it is judged, loopback when one connects. There is no second question."""
    async with serving(plain()) as canary, serving(plain(body=b"public"), "127.0.0.2") as public:
        names = Names({"example.test": [["127.0.0.2"], ["127.0.0.1"]]})
        guard = guarded(names, outbound_allow=(f"127.0.0.2:{public.port}", f"127.0.0.9:{canary.port}"))
        answer = await guard.send(Outgoing(f"http://example.test:{public.port}/"))
        assert answer.body == b"public"
        assert names.asked == ["example.test"]
        with pytest.raises(OutboundRefused):
            await guard.send(Outgoing(f"http://example.test:{public.port}/"))
        assert canary.connections == 0


async def test_two_hundred_changes_of_mind_never_reach_the_canary(guarded: Callable[..., Guard]) -> None:
    async with serving(plain()) as canary, serving(plain(), "127.0.0.2") as public:
        flips = [["127.0.0.2"], ["127.0.0.1"]] * 100
        guard = guarded(Names({"example.test": flips}), outbound_allow=(f"127.0.0.2:{public.port}",))
        for _ in range(100):
            answer = await guard.send(Outgoing(f"http://example.test:{public.port}/"))
            assert answer.status == 200
            with pytest.raises(OutboundRefused):
                await guard.send(Outgoing(f"http://example.test:{public.port}/"))
        assert (canary.connections, public.connections) == (0, 100)


async def test_a_name_that_is_never_answered_costs_no_more_than_the_deadline(guarded: Callable[..., Guard]) -> None:
    answered = asyncio.Event()

    def silent(*_: object) -> list[object]:
        asyncio.run_coroutine_threadsafe(answered.wait(), loop).result()
        return []

    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(OutboundFailed, match=r"did not answer within 0\.5 seconds"):
        await guarded(silent, outbound_timeout_seconds=0.5).send(Outgoing("http://example.test/"))
    assert loop.time() - started < 5
    answered.set()


async def test_a_refusal_does_not_say_where_the_name_leads(guarded: Callable[..., Guard]) -> None:
    with pytest.raises(OutboundRefused) as refused:
        await guarded(Names({"db.test": [["10.1.2.3"]]})).send(Outgoing("http://db.test/"))
    assert "10.1.2.3" not in str(refused.value)


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target",
    [
        *("http://127.0.0.1:{port}/", "http://[::1]:{port}/", "http://2130706433:{port}/", "//127.0.0.1:{port}/"),
        *("http://inside.test:{port}/", "http://169.254.169.254/latest/", "file:///etc/passwd", "gopher://127.0.0.1/"),
        *("http://a@127.0.0.1:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://①②⑦.⓪.⓪.①:{port}/", "http://"),
    ],
)
async def test_a_redirect_leads_nowhere_that_could_not_be_asked_itself(
    target: str, status: int, guarded: Callable[..., Guard]
) -> None:
    async with serving(plain(), "127.0.0.1", "::1") as canary:
        location = target.replace("{port}", str(canary.port))
        async with serving(redirect(location, status), "127.0.0.2") as public:
            names = Names({"inside.test": [["127.0.0.1"]]})
            allowed = (f"127.0.0.2:{public.port}",)
            guard = guarded(names, outbound_allow=allowed, outbound_ports=(80, 443, canary.port))
            with pytest.raises((OutboundRefused, OutboundFailed)):
                await guard.send(Outgoing(f"http://127.0.0.2:{public.port}/", follow_redirects=True))
            assert canary.connections == 0


async def test_a_redirect_is_only_followed_where_that_was_asked_for(guarded: Callable[..., Guard]) -> None:
    async with serving(plain()) as second, serving(redirect(f"{second.url}/there")) as first:
        guard = guarded(outbound_allow=(f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"))
        answer = await guard.send(Outgoing(first.url))
        assert (answer.status, second.connections) == (302, 0)
        answer = await guard.send(Outgoing(first.url, follow_redirects=True))
        assert (answer.status, answer.url) == (200, f"{second.url}/there")


async def test_an_endless_chain_of_redirects_ends(guarded: Callable[..., Guard]) -> None:
    async with serving(redirect("/again")) as site:
        guard = guarded(outbound_allow=(f"127.0.0.1:{site.port}",))
        with pytest.raises(OutboundRefused, match="more than 5 times"):
            await guard.send(Outgoing(site.url, follow_redirects=True))
        assert site.connections == 6


async def test_secrets_stay_with_their_origin(guarded: Callable[..., Guard]) -> None:
    async with serving(plain()) as second, serving(redirect(second.url)) as first:
        guard = guarded(outbound_allow=(f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"))
        headers = {"Authorization": "Bearer x", "X-Api-Key": "x", "Cookie": "x=y", "X-Own": "x", "Accept": "text/plain"}
        await guard.send(Outgoing(first.url, headers=headers, follow_redirects=True))
        assert first.asked[0].headers["authorization"] == "Bearer x"
        assert second.asked[0].headers.keys() & {"authorization", "x-api-key", "cookie", "x-own"} == set()
        assert second.asked[0].headers["accept"] == "text/plain"


async def test_a_body_is_not_sent_on_to_another_origin(guarded: Callable[..., Guard]) -> None:
    async with serving(plain()) as second, serving(redirect(second.url, 307)) as first:
        guard = guarded(outbound_allow=(f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"))
        with pytest.raises(OutboundRefused, match="another origin"):
            await guard.send(Outgoing(first.url, "POST", body=b"secret", follow_redirects=True))
        assert second.connections == 0


# What operators allow.


@pytest.mark.parametrize(
    ("allow", "url", "reaches"),
    [
        ("127.0.0.1", "http://127.0.0.1:{port}/", False),  # without a port: only those of OUTBOUND_PORTS
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}/", True),
        ("127.0.0.0/8:{port}", "http://127.0.0.1:{port}/", True),
        ("127.0.1.0/24:{port}", "http://127.0.0.1:{port}/", False),
        ("inside.test:{port}", "http://inside.test:{port}/", True),
        ("inside.test:{port}", "http://INSIDE.test:{port}/", True),
        ("inside.test:{port}", "http://127.0.0.1:{port}/", False),
        ("*.test:{port}", "http://inside.test:{port}/", True),
        ("*.inside.test:{port}", "http://inside.test:{port}/", False),
        ("127.0.0.1:1", "http://127.0.0.1:{port}/", False),
        ("[::ffff:127.0.0.1]:{port}", "http://127.0.0.1:{port}/", False),
        ("127.0.0.1:{port}", "http://[::ffff:127.0.0.1]:{port}/", True),
    ],
)
async def test_an_allowance_opens_what_it_names_and_no_more(
    allow: str, url: str, reaches: bool, guarded: Callable[..., Guard]
) -> None:
    async with serving(plain()) as canary:
        names = Names({"inside.test": [["127.0.0.1"]]})
        entry = allow.replace("{port}", str(canary.port))
        request = Outgoing(url.replace("{port}", str(canary.port)))
        if reaches:
            assert (await guarded(names, outbound_allow=(entry,)).send(request)).status == 200
        else:
            with pytest.raises(OutboundRefused):
                await guarded(names, outbound_allow=(entry,)).send(request)
        assert (canary.connections > 0) == reaches


async def test_the_environment_names_no_proxy(guarded: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain()) as proxy, serving(plain()) as site:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        await guarded(outbound_allow=(f"127.0.0.1:{site.port}",)).send(Outgoing(site.url))
        assert (proxy.connections, site.connections) == (0, 1)


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1/8", "http://x", "x:0", "x:65536", "x/y", "[x]:80", "a b", "x:y", "*", "::1:x"]
)
def test_an_allowance_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no host, address or network"):
        allowance(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Host", "inside"), ("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Proxy-Authorization", "x")),
        *(("X", "a\r\nHost: b"), ("X\r\nY", "a"), ("X", "ä"), ("X Y", "a"), ("", "a"), ("Connection", "upgrade")),
    ],
)
async def test_a_header_cannot_speak_past_the_guard(name: str, value: str, guarded: Callable[..., Guard]) -> None:
    async with serving(plain()) as site:
        with pytest.raises(OutboundRefused, match="header"):
            await guarded(outbound_allow=(f"127.0.0.1:{site.port}",)).send(Outgoing(site.url, headers={name: value}))
        assert site.connections == 0
