"""`taskctl files`: what goes in and out of tasks."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from taskctl import show
from taskctl.options import TaskId
from taskctl.session import Session

FileId = Annotated[str, typer.Argument(metavar="FILE_ID", help="The id of a stored file.")]


def upload(
    session: Session,
    path: Annotated[str, typer.Argument(help="A file, or - for standard input.")],
    name: Annotated[str | None, typer.Option(help="What to call it. Default: its own name.")] = None,
    content_type: Annotated[str | None, typer.Option(help="Default: guessed from the name.")] = None,
) -> None:
    """Store a file. Its id goes into a payload."""
    source = sys.stdin.buffer if path == "-" else Path(path)
    stored = session.client.files.upload(
        source, name=name or ("stdin" if path == "-" else None), content_type=content_type
    )
    session.tell(stored, lambda file: show.files([file]))


def download(
    session: Session,
    file_id: FileId,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where it goes; - for standard output.")],
) -> None:
    """Fetch a file. What breaks off is taken up again, and its SHA-256 is compared."""
    if str(output) == "-":
        session.client.files.download(file_id, sys.stdout.buffer)
        return
    size = session.client.files.download(file_id, output)
    if session.as_json:
        session.emit({"file_id": file_id, "path": str(output), "size": size})
    else:
        session.show(f"{output}  {size:,} bytes")


def list_(session: Session, task_id: TaskId) -> None:
    """List the files that a task keeps."""
    session.give(session.client.task_files(task_id), show.files)


def delete(session: Session, file_id: FileId) -> None:
    """Delete a file that no task keeps."""
    session.client.files.delete(file_id)
    if session.as_json:
        session.emit({"file_id": file_id, "deleted": True})
    else:
        session.show(f"file {file_id}  deleted")
