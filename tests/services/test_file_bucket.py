"""Files in a bucket: sent in parts while they come in, read from any place on, and one clear line where they cannot be."""

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.errors import SettingsError, StoreError, StoreUnavailable, TooLarge
from app.core.settings import Settings, load_settings
from app.services import file_bucket
from app.services.file_address import open_file_store
from app.services.file_bucket import PART_BYTES, BucketDraft, FileBucket
from app.services.wiring import open_services
from tests.conftest import until
from tests.file_places import BUCKET, BucketPlace, S3Server

ROOT = Path(__file__).parents[2]
PIECE = os.urandom(256 * 1024)
LONG = 12 * 2**20


@pytest.fixture
def place() -> str:
    return "bucket"


@pytest.fixture
def store() -> str:
    return "sqlite"


@pytest.fixture
def bucket(file_place: BucketPlace) -> FileBucket:
    return FileBucket(file_place.address)


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """One that may be stopped."""
    server = S3Server()
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_bucket, "RETRY_SECONDS", 0.2)


def unfinished_uploads(server: S3Server) -> str:
    """What the server still has of uploads that were begun."""
    return httpx.get(f"{server.environment['AWS_ENDPOINT_URL']}/{BUCKET}?uploads").text


def test_a_committed_file_can_be_read_and_a_draft_cannot(bucket: FileBucket, file_place: BucketPlace) -> None:
    with bucket.create(100) as draft:
        draft.write(b"Hello ")
        draft.write(b"World")
        with pytest.raises(FileNotFoundError):
            bucket.open(draft.id)
        assert draft.commit() == "a591a6d40bf420404a011733cfb7b190d62c65bf0bcda32b57b277d9ad9f146e"
    with bucket.open(draft.id) as stream:
        assert stream.read() == b"Hello World"
    assert file_place.names() == {draft.id}
    assert bucket.size(draft.id) == draft.size == 11


def test_a_long_file_is_sent_in_parts_and_read_from_any_place_on(bucket: FileBucket) -> None:
    with bucket.create(LONG) as draft:
        for _ in range(LONG // len(PIECE)):
            draft.write(PIECE)
        sha256 = draft.commit()
    with bucket.open(draft.id) as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == sha256
        assert stream.seek(-3, io.SEEK_END) == LONG - 3
        assert stream.read() == PIECE[-3:]
        stream.seek(len(PIECE) + 5)
        assert stream.read(10) == PIECE[5:15]
        stream.seek(-10, io.SEEK_CUR)
        assert stream.read(2 * 2**20) == (PIECE * 10)[5 : 5 + 2 * 2**20]
        stream.seek(LONG + 100)
        assert stream.read() == b""
        with pytest.raises(ValueError, match="negative"):
            stream.seek(-1)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1])
def test_a_file_of_any_length_comes_back(bucket: FileBucket, size: int) -> None:
    data = (PIECE * (size // len(PIECE) + 1))[:size]
    with bucket.create(size) as draft:
        draft.write(data)
        assert draft.commit() == hashlib.sha256(data).hexdigest()
    with bucket.open(draft.id) as stream:
        assert stream.read() == data


def test_what_is_not_committed_leaves_nothing_behind(
    bucket: FileBucket, file_place: BucketPlace, s3_server: S3Server
) -> None:
    with bucket.create(LONG) as draft:
        for _ in range(LONG // len(PIECE)):
            draft.write(PIECE)
        with pytest.raises(TooLarge, match=f"{LONG} bytes"):
            draft.write(b"x")
    assert file_place.names() == set()
    assert draft.id not in unfinished_uploads(s3_server)


def test_no_name_leads_out_of_the_prefix(bucket: FileBucket) -> None:
    for name in ("../secret", "/etc/passwd", "..", "", "A" * 32, "0" * 32 + "\n", "ab/../../secret"):
        with pytest.raises(FileNotFoundError):
            bucket.open(name)


def test_removing_twice_is_fine(bucket: FileBucket) -> None:
    with bucket.create(10) as draft:
        draft.commit()
    bucket.remove(draft.id)
    bucket.remove(draft.id)
    with pytest.raises(FileNotFoundError):
        bucket.open(draft.id)


def test_a_bucket_that_can_be_used_is_left_as_it_was(bucket: FileBucket, file_place: BucketPlace) -> None:
    bucket.ensure_usable()
    assert file_place.names() == set()


def test_a_bucket_that_goes_away_is_no_missing_file(own_server: S3Server, impatient: None) -> None:
    """What is said to be missing would be forgotten."""
    bucket = FileBucket("s3://no-such-bucket/files")
    for use in (lambda: bucket.open("0" * 32), lambda: bucket.size("0" * 32), bucket.create(10).commit):
        with pytest.raises(StoreUnavailable, match="no-such-bucket/files are not available: "):
            use()


def test_an_upload_whose_server_goes_away_ends_in_an_error(own_server: S3Server, impatient: None) -> None:
    with FileBucket(f"s3://{BUCKET}").create(2**30) as draft:
        for _ in range(PART_BYTES // len(PIECE) + 1):
            draft.write(PIECE)
        own_server.stop()
        with pytest.raises(StoreUnavailable, match=r"not available: no answer from http://127\.0\.0\.1:"):
            write_on(draft)


def write_on(draft: BucketDraft) -> None:
    for _ in range(1000):
        draft.write(PIECE)


async def test_while_the_server_is_away_calls_are_503_and_then_go_on(
    own_server: S3Server, impatient: None, serve: Callable[[Settings], Any], database_url: str
) -> None:
    settings = Settings(database_url=database_url, files_url=f"s3://{BUCKET}/a")
    client: httpx.AsyncClient = await serve(settings)
    file = (await client.post("/files", files={"file": ("a", b"data", "text/plain")})).json()
    own_server.stop()
    for answer in (
        await client.post("/files", files={"file": ("a", b"data", "text/plain")}),
        await client.get(f"/files/{file['id']}"),
    ):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert f"The files in s3://{BUCKET}/a are not available: no answer from" in answer.json()["detail"]
    assert (await client.get("/health/ready")).status_code == 200, "tasks without files go on"
    own_server.start()
    again = await until(lambda: _uploaded(client))
    assert (await client.get(f"/files/{again}")).content == b"data"


async def _uploaded(client: httpx.AsyncClient) -> str | None:
    answer = await client.post("/files", files={"file": ("a", b"data", "text/plain")})
    return answer.json()["id"] if answer.status_code == 201 else None


async def test_wrong_credentials_a_wrong_bucket_and_no_server_are_one_line_at_the_start(
    own_server: S3Server, impatient: None, database_url: str
) -> None:
    async def refusal(files_url: str) -> str:
        with pytest.raises(StoreError) as refused:
            async with open_services(Settings(database_url=database_url, files_url=files_url)):
                pass
        assert "\n" not in str(refused.value)
        return str(refused.value).removeprefix(f"The files in {files_url} cannot be used: ")

    url = f"s3://{BUCKET}/files"
    assert await refusal("s3://no-such-bucket/files") == "there is no such bucket."
    ask_who_one_is(own_server)
    said = "The AWS Access Key Id you provided does not exist in our records (InvalidAccessKeyId)"
    assert await refusal(url) == said
    with pytest.raises(StoreUnavailable, match="does not exist in our records"):
        FileBucket(url).open("0" * 32)
    own_server.stop()
    assert await refusal(url) == f"no answer from http://127.0.0.1:{own_server.port}"


def ask_who_one_is(server: S3Server) -> None:
    """From now on the server does. It knows nobody."""
    httpx.post(f"{server.environment['AWS_ENDPOINT_URL']}/moto-api/reset-auth", content="0").raise_for_status()


@pytest.mark.parametrize("program", ["run_api.py", "run_worker.py"])
def test_a_program_whose_bucket_is_wrong_ends_with_status_2(
    s3_server: S3Server, file_place: BucketPlace, database_url: str, program: str
) -> None:
    settings = {"DATABASE_URL": database_url, "FILES_URL": "s3://no-such-bucket/files", "API_PORT": "0"}
    run = [sys.executable, str(ROOT / program)]
    ended = subprocess.run(run, env=os.environ | settings, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "The files in s3://no-such-bucket/files cannot be used: there is no such bucket.\n"


def test_without_its_library_the_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "app.services.file_bucket", None)
    with pytest.raises(SettingsError, match=r"needs the package obstore: pip install 'task-service\[s3\]'"):
        open_file_store("s3://bucket/files")


@pytest.mark.parametrize(
    "url", ["s3://", "s3://B", "s3://bucket/a b", "s3://bucket?x", "https://bucket", "s3://-bucket"]
)
def test_what_is_no_address_of_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="FILES_URL"):
        load_settings(files_url=url)
