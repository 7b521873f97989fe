"""Redis and PostgreSQL for the benchmarks: started on spare ports with a folder of their own, or given by URL."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

REDIS = "Redis, AOF every second"
POSTGRESQL = "PostgreSQL, fsync and synchronous_commit on"
DATABASE = "task_service_bench"


class Missing(Exception):
    """A server that cannot be had; the text says why."""


class Servers:
    """Starts each server when it is first asked for. A given one is used as it is, but what is in its first databases (Redis) or in
    databases `task_service_bench*` (PostgreSQL) is thrown away."""

    def __init__(self, redis: str | None = None, postgresql: str | None = None) -> None:
        self._redis, self._postgresql = redis, postgresql
        self._programs: list[subprocess.Popen[bytes]] = []
        self._folders: list[Path] = []
        self.versions: dict[str, str] = {}

    def redis(self, number: int = 0) -> str:
        """URL of the Redis database of that number, empty. Raises Missing."""
        if self._redis is None:
            self._redis = self._start_redis()
        parts = urlsplit(self._redis)
        where = parts.hostname or "127.0.0.1", parts.port or 6379
        self.versions["Redis"] = _redis_command(*where, "INFO server").split(b"redis_version:")[1].split()[0].decode()
        _redis_command(*where, f"SELECT {number}\r\nFLUSHDB")
        return parts._replace(path=f"/{number}").geturl()

    def postgresql(self, ending: str = "") -> str:
        """URL of an empty PostgreSQL database, one for each `ending`. Raises Missing."""
        if self._postgresql is None:
            self._postgresql = self._start_postgresql()
        name = f"{DATABASE}{ending}"
        for statement in (f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}", "CHECKPOINT"):
            self._psql(statement)
        self.versions["PostgreSQL"] = self._psql("SHOW server_version").split()[0]
        parts = urlsplit(self._postgresql)
        return parts._replace(path=f"/{name}").geturl()

    def close(self) -> None:
        for program in self._programs:
            program.terminate()
        for program in self._programs:
            try:
                program.wait(20)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, name: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
        self._folders.append(folder)
        return folder

    def _start_redis(self) -> str:
        program = shutil.which("redis-server")
        if program is None:
            raise Missing("redis-server is not installed")
        folder, port = self._folder("redis"), spare_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", "everysec", "--logfile", str(folder / "log")]
        running = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        self._programs.append(running)
        # Between looking for a port and taking it somebody else may have: ask who answers.
        self._wait(running, folder / "log", lambda: f"process_id:{running.pid}\r" in _redis_info(port))
        return f"redis://127.0.0.1:{port}"

    def _start_postgresql(self) -> str:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
        binaries = found[-1].parent if found else Path(shutil.which("postgres") or "/nowhere/postgres").parent
        if not (binaries / "initdb").exists():
            raise Missing("PostgreSQL is not installed")
        folder, port = self._folder("postgresql"), spare_port()
        as_user: list[str] = []
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                raise Missing("run as root, it needs a user `postgres`") from None
            os.chown(folder, user.pw_uid, user.pw_gid)
            as_user = ["runuser", "-u", "postgres", "--"]
        data, log = folder / "data", folder / "log"
        command = [*as_user, str(binaries / "initdb"), "-D", str(data), "-U", "bench", "-A", "trust", "--no-sync"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"initdb failed: {done.stderr.strip().splitlines()[-1]}")
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            # What any guide says first: a quarter of the memory, within reason, and a log that need not be recycled often.
            "shared_buffers": "512MB",
            "max_wal_size": "4GB",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with log.open("wb") as output:
            running = subprocess.Popen(
                [*as_user, str(binaries / "postgres"), "-D", str(data), *options],
                cwd=folder,
                stdout=output,
                stderr=output,
            )
        self._programs.append(running)
        url = f"postgresql://bench@127.0.0.1:{port}/postgres"
        self._wait(running, log, lambda: "ready to accept connections" in log.read_text() and _listens(port))
        return url

    def _psql(self, statement: str) -> str:
        program = shutil.which("psql")
        if program is None:
            raise Missing("psql is not installed")
        command = [program, "-X", "-q", "-A", "-t", "-d", str(self._postgresql), "-c", statement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"{statement}: {done.stderr.strip()}")
        return done.stdout.strip()

    def _wait(self, program: subprocess.Popen[bytes], log: Path, ready: "object") -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and program.poll() is None:
            if ready():  # type: ignore[operator]
                return
            time.sleep(0.05)
        raise Missing(f"it did not start: {log.read_text()[-300:]}")


def spare_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _redis_command(host: str, port: int, command: str) -> bytes:
    """The answer to one command; several lines are several commands, and the last answer counts."""
    try:
        with socket.create_connection((host, port), 5) as connection:
            connection.sendall(f"{command}\r\nQUIT\r\n".encode())
            answer = b""
            while chunk := connection.recv(1 << 16):
                answer += chunk
    except OSError as error:
        raise Missing(f"Redis at {host}:{port}: {error}") from None
    if answer.startswith(b"-"):
        raise Missing(f"Redis at {host}:{port}: {answer.decode().splitlines()[0]}")
    return answer


def _redis_info(port: int) -> str:
    try:
        return _redis_command("127.0.0.1", port, "INFO server").decode()
    except Missing:
        return ""


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
