"""What is said to a real Redis server, and what is heard from it."""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.core.errors import BrokerUnavailable, SettingsError
from app.core.hint import MOST_PASSES, Hint
from app.models import streams as streams_module
from app.models.streams import GROUP, MOST_MESSAGES, GroupGone, Streams
from tests.certificate import new_certificate
from tests.conftest import until
from tests.proxy import Proxy
from tests.redis_server import RedisServer

Process = Callable[..., Streams]


@pytest.fixture
def store() -> str:
    return "sqlite"  # no store is needed here


@pytest.fixture
async def process(redis_url: str, broker_prefix: str) -> AsyncIterator[Process]:
    """Makes what a process has."""
    opened: list[Streams] = []

    def open_process(url: str = redis_url) -> Streams:
        opened.append(Streams(url, broker_prefix))
        return opened[-1]

    yield open_process
    for streams in opened:
        await streams.close()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(redis_url) as redis:
        yield redis


async def test_a_hint_is_heard_by_one_reader_only(process: Process) -> None:
    caller, readers = process(), [process(), process(), process()]
    for reader in readers:
        await reader.join(["q"])
    reading = [asyncio.create_task(reader.read(["q"], 0.3)) for reader in readers]
    await caller.say([Hint("q", 7)])
    heard = await asyncio.gather(*reading)
    assert sorted(heard, key=len) == [[], [], [Hint("q", 7)]]


async def test_a_hint_waits_for_a_reader_that_comes_later(process: Process) -> None:
    caller, reader = process(), process()
    await caller.say([Hint("q", 2)])
    await reader.join(["q"])
    assert await reader.read(["q"], 1) == [Hint("q", 2)]


async def test_a_reader_hears_only_of_its_queues(process: Process) -> None:
    reader = process()
    await reader.join(["a", "b"])
    await reader.say([Hint("a"), Hint("c")])
    assert await reader.read(["a", "b"], 1) == [Hint("a")]
    assert await reader.read(["a", "b"], 0.05) == []


async def test_nothing_is_ever_pending(process: Process, redis: Any, broker_prefix: str) -> None:
    reader = process()
    await reader.join(["q"])
    await reader.say([Hint("q")] * 5)
    assert len(await reader.read(["q"], 1)) == 5
    assert (await redis.xpending(f"{broker_prefix}:queue:q", GROUP))["pending"] == 0


async def test_streams_are_trimmed(process: Process, redis: Any, broker_prefix: str) -> None:
    caller = process()
    for _ in range(10):
        await caller.say([Hint("q")] * 500)
    assert await redis.xlen(f"{broker_prefix}:queue:q") < 2 * MOST_MESSAGES


async def test_junk_is_worth_one_look_and_is_counted(process: Process, redis: Any, broker_prefix: str) -> None:
    reader = process()
    await reader.join(["q"])
    for fields in ({"tasks": "many"}, {"id": "17"}, {"tasks": "1", "passes": "99"}, {b"\xff\x00": b"\xff"}):
        await redis.xadd(f"{broker_prefix}:queue:q", fields)
    assert await reader.read(["q"], 1) == [Hint("q", 1, MOST_PASSES)] * 4
    assert reader.strange == 4


@pytest.mark.parametrize("loss", ["stream", "group", "type"])
async def test_a_reader_that_waits_is_told_when_its_stream_or_group_goes(
    process: Process, redis: Any, broker_prefix: str, loss: str
) -> None:
    reader, key = process(), f"{broker_prefix}:queue:q"
    await reader.join(["q"])
    reading = asyncio.create_task(reader.read(["q"], 20))
    await until(lambda: _waits(redis, reader))
    if loss == "stream":
        await redis.delete(key)
    elif loss == "group":
        await redis.xgroup_destroy(key, GROUP)
    else:
        await redis.set(key, "something else")
    # Servers differ in what they say of a stream that has become something else; joining tells.
    with pytest.raises((GroupGone, BrokerUnavailable) if loss == "type" else GroupGone):
        await asyncio.wait_for(reading, 10)
    if loss == "type":
        with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
            await reader.join(["q"])
    else:
        await reader.join(["q"])
        await reader.say([Hint("q", 9)])
        assert await reader.read(["q"], 1) == [Hint("q", 9)]


async def _waits(redis: Any, reader: Streams) -> bool:
    """Whether the server holds a command of the reader back."""
    wires = [one._writer for one in reader._redis.connection_pool._in_use_connections if one._writer]
    ours = ["{}:{}".format(*wire.get_extra_info("sockname")) for wire in wires]
    return any(client["addr"] in ours and "b" in client["flags"] for client in await redis.client_list())


async def test_readers_that_left_or_died_are_not_kept(process: Process, redis: Any, broker_prefix: str) -> None:
    one, dead, alive = process(), process(), process()
    for reader in (one, dead, alive):
        await reader.join(["q"])
        await reader.say([Hint("q")])
        await reader.read(["q"], 1)
    key = f"{broker_prefix}:queue:q"
    await one.leave(["q"])
    assert len(await redis.xinfo_consumers(key, GROUP)) == 2
    await until(lambda: _idle_for(redis, key, 200))
    await alive.say([Hint("q")])
    await alive.read(["q"], 1)
    await alive.remove_silent(["q"], 0.15)
    assert [reader["name"].decode() for reader in await redis.xinfo_consumers(key, GROUP)] == [alive._reader]


async def _idle_for(redis: Any, key: str, milliseconds: int) -> bool:
    return all(reader["idle"] > milliseconds for reader in await redis.xinfo_consumers(key, GROUP))


async def test_queues_are_announced_to_those_who_serve_every_queue(
    process: Process, redis: Any, broker_prefix: str
) -> None:
    caller, reader = process(), process()
    assert await reader.announced("0") == ([], "0")
    await caller.announce(["a", "b"])
    names, known_to = await reader.announced("0")
    assert names == ["a", "b"]
    await redis.xadd(f"{broker_prefix}:queues", {"queues": "c no/name \u20ac"})
    await redis.xadd(f"{broker_prefix}:queues", {"something": "else"})
    names, known_to = await reader.announced(known_to)
    assert names == ["c"]
    assert await reader.announced(known_to) == ([], known_to)


async def test_a_command_that_is_given_up_leaves_no_answer_for_the_next_one(process: Process, redis_url: str) -> None:
    async with Proxy(redis_url) as proxy:
        streams = process(proxy.url)
        await streams.join(["q"])
        proxy.latency_seconds = 0.1
        for number in range(20):
            asking = asyncio.create_task(streams.say([Hint("q", number + 1)]))
            await asyncio.sleep(0.005 * (number % 5))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        proxy.latency_seconds = 0.0
        await streams.announce(["x"])
        assert (await streams.announced("0"))[0] == ["x"]
        await streams.read(["q"], 0.05)
        assert await streams.read(["q"], 0.05) == []
        assert streams.strange == 0


@pytest.mark.parametrize("size", [0, 1, 7, 30])
async def test_an_answer_that_is_cut_is_an_error_and_the_next_is_whole(
    process: Process, redis_url: str, size: int
) -> None:
    async with Proxy(redis_url) as proxy:
        streams = process(proxy.url)
        await streams.join(["q"])
        await streams.say([Hint("q", 3), Hint("q", 4)])
        proxy.cut_answer_after(size)
        with pytest.raises(BrokerUnavailable):
            await streams.read(["q"], 1)
        await streams.say([Hint("q", 5)])
        assert (await streams.read(["q"], 1))[-1] == Hint("q", 5)


async def test_tls_is_spoken_and_a_certificate_of_somebody_else_refused(
    redis_url: str, broker_prefix: str, tmp_path: Path
) -> None:
    certificate, key = new_certificate(tmp_path, "127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with Proxy(redis_url, tls) as proxy:
        address = proxy.url.replace("redis://", "rediss://", 1)
        trusting = Streams(f"{address}?ssl_ca_certs={certificate}", broker_prefix)
        await trusting.join(["q"])
        await trusting.say([Hint("q", 4)])
        assert await trusting.read(["q"], 1) == [Hint("q", 4)]
        await trusting.close()
        doubting = Streams(address, broker_prefix)
        with pytest.raises(BrokerUnavailable, match="certificate"):
            await doubting.answers()
        await doubting.close()


async def test_a_frozen_server_is_told_within_its_time(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module.Streams._answered, "__defaults__", (0.2,))
    monkeypatch.setattr(streams_module, "ANSWER_SECONDS", 0.2)
    streams = Streams(redis_server.url, "t")
    await streams.join(["q"])
    redis_server.freeze()
    for asking in (streams.answers(), streams.say([Hint("q")]), streams.read(["q"], 0.1)):
        with pytest.raises(BrokerUnavailable, match="does not answer"):
            await asking
    redis_server.thaw()
    await streams.say([Hint("q")])
    await streams.close()


async def test_rights_on_stream_commands_under_the_prefix_are_enough(redis_url: str, broker_prefix: str) -> None:
    name, password = f"test-{secrets.token_hex(4)}", "p@ss/word:%"
    async with Redis.from_url(redis_url) as redis:
        await redis.execute_command("ACL", "SETUSER", name, "on", f">{password}", f"~{broker_prefix}:*", "+@stream")
        try:
            address = redis_url.replace("redis://", f"redis://{name}:p%40ss%2Fword%3A%25@", 1)
            streams = Streams(address, broker_prefix)
            assert "p%40" not in streams.name
            await streams.answers()
            await streams.announce(["q"])
            await streams.join(["q"])
            await streams.say([Hint("q", 2)])
            assert (await streams.announced("0"))[0] == ["q"]
            assert await streams.read(["q"], 1) == [Hint("q", 2)]
            await streams.remove_silent(["q"], 60)
            await streams.leave(["q"])
            assert await streams.eviction() is None  # it may not ask, and goes on without
            elsewhere = Streams(address, "elsewhere")
            with pytest.raises(BrokerUnavailable, match="permission"):
                await elsewhere.answers()
            await elsewhere.close()
            await streams.close()
        finally:
            await redis.execute_command("ACL", "DELUSER", name)


@pytest.mark.parametrize(("secret", "said"), [("wrong", "WRONGPASS|invalid"), ("", "NOAUTH|Authentication")])
async def test_a_wrong_password_is_told_without_it(redis_server: RedisServer, secret: str, said: str) -> None:
    redis_server.kill()
    redis_server.start("--requirepass", "right")
    streams = Streams(redis_server.url.replace("//", f"//:{secret}@") if secret else redis_server.url, "t")
    with pytest.raises(BrokerUnavailable, match=said) as told:
        await streams.answers()
    assert "right" not in str(told.value)
    assert "wrong" not in str(told.value)
    await streams.close()


async def test_the_name_of_a_server_shows_no_piece_of_a_password() -> None:
    for secret in ("s3cret", "s3c@ret", "s3c%2Fret@"):
        streams = Streams(f"redis://user:{secret}@[::1]:6380/2", "t")
        assert streams.name == "redis://[::1]:6380/2"
        await streams.close()


async def test_a_server_that_is_not_there_is_one_line() -> None:
    streams = Streams("redis://127.0.0.1:1/0", "t")
    with pytest.raises(BrokerUnavailable, match=r"^connection refused$"):
        await streams.answers()
    await streams.close()


async def test_an_option_that_nobody_knows_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="BROKER_URL: there is no option 'no_such_option'"):
        Streams("redis://127.0.0.1/0?no_such_option=1", "t")


@pytest.mark.parametrize(
    ("policy", "told"), [("allkeys-lru", "allkeys-lru"), ("noeviction", "noeviction"), ("volatile-ttl", "volatile-ttl")]
)
async def test_what_the_server_does_when_it_is_full_is_known(redis_server: RedisServer, policy: str, told: str) -> None:
    streams = Streams(redis_server.url, "t")
    assert await streams.eviction() is None  # no limit, so it never happens
    async with Redis.from_url(redis_server.url) as redis:
        await redis.config_set("maxmemory-policy", policy)
        await redis.config_set("maxmemory", "50mb")
    assert await streams.eviction() == told
    await streams.close()
