"""PgBouncer in transaction mode before the tests' PostgreSQL, on a free port; it ends with the process that started it.

The program is the one on the path, else the one that `.ci/run` unpacks into .tools/pgbouncer from Debian's package.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.postgres_server import user_options
from tests.redis_server import die_with_parent

UNPACKED = Path(__file__).parents[1] / ".tools" / "pgbouncer"
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 500
default_pool_size = 20
; a test run makes many databases, and the server takes 200 connections
server_idle_timeout = 2
{more}
"""


def program() -> Path | None:
    """Where PgBouncer is, None if it is not here."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found:
        return Path(found)
    unpacked = UNPACKED / "usr" / "sbin" / "pgbouncer"
    return unpacked if unpacked.exists() else None


class PgBouncer:
    """Any database of a server, through a pooler. `start` may be called again after `kill`."""

    def __init__(self, server_url: str, more: str = "") -> None:
        """`more`: further lines of its configuration."""
        self._server = urlsplit(server_url)
        self.base = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self._as = user_options(self.base)
        self._program = self._reachable()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        password = unquote(self._server.password or "").replace("'", "''")
        (self.base / "pgbouncer.ini").write_text(
            CONFIGURATION.format(
                host=self._server.hostname,
                port=self._server.port or 5432,
                user=unquote(self._server.username or "postgres"),
                password=f" password='{password}'" if password else "",
                own_port=self.port,
                more=more,
            )
        )
        self.base.chmod(0o755)
        self.process: subprocess.Popen[bytes] | None = None

    def _reachable(self) -> Path:
        """The program; a copy of what was unpacked, since it refuses root and another user may not enter our folder."""
        found = program()
        if found is None:
            raise RuntimeError("pgbouncer is not installed")
        if not found.is_relative_to(UNPACKED):
            return found
        shutil.copytree(UNPACKED / "usr", self.base / "usr", symlinks=True)
        return self.base / "usr" / "sbin" / "pgbouncer"

    @property
    def url(self) -> str:
        """The address of the server's own database through it."""
        user = self._server.netloc.rpartition("@")[0] or "postgres"
        return self._server._replace(netloc=f"{user}@127.0.0.1:{self.port}").geturl()

    def start(self) -> "PgBouncer":
        """Start it, and return when it takes connections."""
        libraries = ":".join(str(folder) for folder in (self.base / "usr" / "lib").glob("*-linux-*"))
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, self.base / "pgbouncer.ini"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.base,
                env={"LD_LIBRARY_PATH": libraries} if libraries else {},
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
                **self._as,
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            # Another server on the port would answer as well, so ours must be alive.
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"pgbouncer did not start: {(self.base / 'log').read_text()}")
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.base, ignore_errors=True)
