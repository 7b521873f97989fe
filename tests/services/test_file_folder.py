import os
import time
from pathlib import Path

import pytest

from app.core.errors import StoreFull, StoreUnavailable, TooLarge
from app.services.file_folder import FileFolder


def test_a_committed_file_can_be_read_and_a_draft_cannot(tmp_path: Path) -> None:
    store = FileFolder(tmp_path / "files")
    with store.create(100) as draft:
        draft.write(b"Hello ")
        draft.write(b"World")
        with pytest.raises(FileNotFoundError):
            store.open(draft.id)
        assert draft.commit() == "a591a6d40bf420404a011733cfb7b190d62c65bf0bcda32b57b277d9ad9f146e"
    with store.open(draft.id) as stream:
        assert stream.read() == b"Hello World"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [draft.id]


def test_what_is_not_committed_leaves_nothing_behind(tmp_path: Path) -> None:
    store = FileFolder(tmp_path)
    with store.create(100) as draft:
        draft.write(b"x")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_over_the_limit_is_refused_while_it_comes_in(tmp_path: Path) -> None:
    with FileFolder(tmp_path).create(10) as draft:
        draft.write(b"x" * 10)
        with pytest.raises(TooLarge, match="10 bytes"):
            draft.write(b"x")


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    store = FileFolder(tmp_path / "files")
    for name in ("../secret", "/etc/passwd", "..", "", "drafts/x", "A" * 32, "0" * 32 + "\n", "ab/../../secret"):
        with pytest.raises(FileNotFoundError):
            store.open(name)


def test_removing_twice_is_fine(tmp_path: Path) -> None:
    store = FileFolder(tmp_path)
    with store.create(10) as draft:
        draft.commit()
    store.remove(draft.id)
    store.remove(draft.id)
    with pytest.raises(FileNotFoundError):
        store.open(draft.id)


def test_only_drafts_that_nobody_writes_to_any_more_are_cleared(tmp_path: Path) -> None:
    store = FileFolder(tmp_path)
    dead, alive = store.create(10), store.create(10)
    long_ago = time.time() - 1000
    os.utime(tmp_path / "drafts" / dead.id, (long_ago, long_ago))
    store.clear_drafts(idle_seconds=900)
    assert [path.name for path in (tmp_path / "drafts").iterdir()] == [alive.id]
    for draft in (dead, alive):
        draft.discard()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="folder of files is not available"):
        FileFolder(tmp_path / "file").create(10)


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with FileFolder(tmp_path).create(2**20) as draft:
        draft._stream.close()
        draft._stream = full.open("wb", buffering=0)  # type: ignore[assignment]  # raw, so that it fails at once
        with pytest.raises(StoreFull, match="There is no room for files: No space left"):
            draft.write(b"x")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_cannot_be_deleted_now_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has become read-only the draft stays, for the chore that clears them away."""

    def read_only(self: Path, **_: bool) -> None:
        raise OSError(30, "Read-only file system", str(self))

    store = FileFolder(tmp_path)
    with monkeypatch.context() as patch, store.create(10) as draft:
        patch.setattr(Path, "unlink", read_only)
        draft.discard()
        os.utime(tmp_path / "drafts" / draft.id, (0, 0))
        with pytest.raises(StoreUnavailable, match="The folder of files is not available: Read-only file system"):
            store.clear_drafts(idle_seconds=900)
    store.clear_drafts(idle_seconds=900)
    assert list((tmp_path / "drafts").iterdir()) == []
