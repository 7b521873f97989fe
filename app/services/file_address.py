"""Which file store an address means."""

from pathlib import Path

from app.core.errors import SettingsError
from app.services.file_folder import FileFolder
from app.services.file_store import FileStore


def open_file_store(place: str) -> FileStore:
    """The store at `place`: an address `s3://bucket/prefix`, or the path of a folder. Raises SettingsError."""
    if not place.startswith("s3://"):
        return FileFolder(Path(place))
    try:
        from app.services.file_bucket import FileBucket  # its library is loaded where there is a bucket, and only there
    except ImportError:
        raise SettingsError(f"{place} needs the package obstore: pip install 'task-service[s3]'") from None
    return FileBucket(place)
