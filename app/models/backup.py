"""Copies a database that is in use, as it is at one moment, through the one SQLite library."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from app.core.errors import StoreError
from app.models.sqlite import LibraryError, connect

PAGES_A_STEP = 1000


def copy(source: Path, target: Path, progress: Callable[[float], None]) -> None:
    """Write the database at `source` to `target`, an empty file, and tell the part that is done. Blocks its thread, but
    nobody who writes to `source`. The caller syncs. Raises StoreError."""
    try:
        with (
            closing(connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as reading,
            closing(connect(target, isolation_level=None)) as writing,
        ):
            # All steps within one read transaction: otherwise each commit of anybody makes SQLite begin again, and under
            # load the copy is never done.
            reading.execute("PRAGMA query_only=ON")
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_master")
            # Whoever breaks this off throws the copy away, so its own crash safety would only cost time.
            writing.execute("PRAGMA journal_mode=OFF")
            writing.execute("PRAGMA synchronous=OFF")
            reading.backup(
                writing, pages=PAGES_A_STEP, progress=lambda _, left, total: progress((total - left) / max(1, total))
            )
    except LibraryError as error:
        raise StoreError(f"{source} cannot be copied to {target}: {error}") from error
