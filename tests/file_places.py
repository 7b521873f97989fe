"""Places for the files of a test: a folder, or a part of a bucket on a server of the test's own."""

import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import httpx
import obstore
from obstore.store import S3Store

from app.core.settings import Settings

PLACES = ("folder", "bucket")
BUCKET = "files-of-tests"


class S3Server:
    """Moto's server in a process of its own. `start` may be called again after `stop`: it comes back empty, where it was."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """How clients find it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        program = [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(self.port)]
        self._process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        httpx.put(f"{self.environment['AWS_ENDPOINT_URL']}/{BUCKET}").raise_for_status()

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


class FilePlace(Protocol):
    """Where the files of one test are."""

    @property
    def settings(self) -> dict[str, Any]:
        """What `Settings` has to be told."""
        ...

    @property
    def address(self) -> str:
        """As in FILES_DIR or FILES_URL."""
        ...

    def names(self) -> set[str]:
        """Every file that is there, whole or not, by its last name."""
        ...

    def overwrite(self, name: str, data: bytes) -> None:
        """Damage a file."""
        ...


class FolderPlace:
    """A folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def settings(self) -> dict[str, Any]:
        return {"files_dir": self._path}

    @property
    def address(self) -> str:
        return str(self._path)

    def names(self) -> set[str]:
        return {path.name for path in self._path.rglob("*") if path.is_file()}

    def overwrite(self, name: str, data: bytes) -> None:
        (path,) = self._path.rglob(name)
        path.write_bytes(data)


class BucketPlace:
    """A part of the bucket, found by the environment that the test has set."""

    def __init__(self, address: str = "") -> None:
        self.address = address or f"s3://{BUCKET}/{secrets.token_hex(4)}"

    @property
    def settings(self) -> dict[str, Any]:
        return {"files_url": self.address}

    def names(self) -> set[str]:
        return {name.rpartition("/")[2] for name in self._paths()}

    def _paths(self) -> list[str]:
        return [entry["path"] for page in obstore.list(self._store()) for entry in page]

    def _store(self) -> S3Store:
        return S3Store(BUCKET, prefix=self.address.rpartition("/")[2], client_options={"allow_http": True})

    def overwrite(self, name: str, data: bytes) -> None:
        (path,) = [path for path in self._paths() if path.endswith(name)]
        obstore.put(self._store(), path, data)


def names_in(settings: Settings) -> set[str]:
    """Every file in the place that the settings say, by its last name."""
    place = BucketPlace(settings.files_url) if settings.files_url else FolderPlace(settings.files_dir)
    return place.names()
