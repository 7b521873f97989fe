"""The servers that benchmarks start are theirs alone, begin empty and leave nothing."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.servers import Missing, Servers, _redis_command

# They are of the benchmarks, not of the service: CI may do without them.
needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
needs_postgresql = pytest.mark.skipif(
    not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")), reason="PostgreSQL is not installed"
)


@pytest.fixture
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


@needs_redis
def test_a_redis_database_is_empty_each_time_it_is_asked_for(servers: Servers) -> None:
    parts = urlsplit(servers.redis(2))
    assert parts.path == "/2"
    where = str(parts.hostname), int(parts.port or 0)
    _redis_command(*where, "SELECT 2\r\nSET a b")
    assert b"b" in _redis_command(*where, "SELECT 2\r\nGET a")
    assert urlsplit(servers.redis(3)).port == parts.port
    assert b"b" in _redis_command(*where, "SELECT 2\r\nGET a")
    servers.redis(2)
    assert b"$-1" in _redis_command(*where, "SELECT 2\r\nGET a")
    assert servers.versions["Redis"]


@needs_redis
def test_nothing_is_left_of_a_server(servers: Servers) -> None:
    port = int(urlsplit(servers.redis()).port or 0)
    folders = list(servers._folders)
    servers.close()
    assert [folder for folder in folders if folder.exists()] == []
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), 1):  # noqa: PT011 whichever refusal
        pass


@needs_postgresql
def test_a_postgresql_database_is_empty_each_time_it_is_asked_for(servers: Servers) -> None:
    url = servers.postgresql("_one")
    assert urlsplit(url).path == "/task_service_bench_one"
    servers._postgresql, before = url, servers._postgresql
    servers._psql("CREATE TABLE left_over ()")
    servers._postgresql = before
    assert servers.postgresql("_one") == url
    servers._postgresql = url
    assert servers._psql("SELECT count(*) FROM pg_class WHERE relname = 'left_over'") == "0"
    assert servers.versions["PostgreSQL"]


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Missing, match="Redis at"):
        Servers(redis=url).redis()


def test_a_program_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PATH", "/nowhere")
    with pytest.raises(Missing, match="redis-server is not installed"):
        Servers().redis()
