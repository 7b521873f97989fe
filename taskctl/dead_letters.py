"""`taskctl dead-letters`: failed tasks that nobody has dealt with."""

from typing import Annotated, Any

import typer

from taskclient.models import Done
from taskctl import show
from taskctl.options import Limit, Queue, TaskType, given
from taskctl.session import Session

Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="These.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only with this failure_reason.")]
Fingerprint = Annotated[str | None, typer.Option("--fingerprint", help="Only of this group.")]
All = Annotated[bool, typer.Option("--all", help="Every one.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be changed.")]


def list_(
    session: Session,
    task_type: TaskType = None,
    queue: Queue = None,
    reason: Reason = None,
    fingerprint: Fingerprint = None,
    limit: Limit = 20,
) -> None:
    """List dead letters, newest first."""
    found = session.client.dead_letters.list(
        task_type=task_type, queue=queue, failure_reason=reason, fingerprint=fingerprint, limit=limit
    )
    session.give(found, show.dead_letters)


def groups(
    session: Session, task_type: TaskType = None, queue: Queue = None, reason: Reason = None, limit: Limit = 20
) -> None:
    """Show the causes, the most frequent first."""
    found = session.client.dead_letters.groups(task_type=task_type, queue=queue, failure_reason=reason, limit=limit)
    session.give(found.items, show.groups)


def requeue(
    session: Session,
    ids: Ids = None,
    fingerprint: Fingerprint = None,
    task_type: TaskType = None,
    queue: Queue = None,
    reason: Reason = None,
    every: All = False,
    dry_run: DryRun = False,
) -> None:
    """Run them again, with a fresh budget of attempts."""
    choice = _choice(ids, fingerprint, task_type, queue, reason, every, dry_run)
    session.tell(session.client.dead_letters.requeue(**choice), _told("requeued"))


def resolve(
    session: Session,
    ids: Ids = None,
    note: Annotated[str | None, typer.Option(help="For whoever looks at the tasks later.")] = None,
    fingerprint: Fingerprint = None,
    task_type: TaskType = None,
    queue: Queue = None,
    reason: Reason = None,
    every: All = False,
    dry_run: DryRun = False,
) -> None:
    """Say that they are dealt with. They stay failed, and are no dead letters any more."""
    choice = _choice(ids, fingerprint, task_type, queue, reason, every, dry_run)
    session.tell(session.client.dead_letters.resolve(note=note, **choice), _told("resolved"))


def purge(
    session: Session,
    ids: Ids = None,
    fingerprint: Fingerprint = None,
    task_type: TaskType = None,
    queue: Queue = None,
    reason: Reason = None,
    every: All = False,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete them, with their history and files. Asks first, unless told --yes."""
    choice = _choice(ids, fingerprint, task_type, queue, reason, every, dry_run)
    letters = session.client.dead_letters
    if not (yes or dry_run):
        _ask(session, letters.purge(**{**choice, "dry_run": True}).matched)
    session.tell(letters.purge(**choice), _told("deleted"))


def _choice(
    ids: list[int] | None,
    fingerprint: str | None,
    task_type: str | None,
    queue: str | None,
    reason: str | None,
    every: bool,
    dry_run: bool,
) -> Any:
    """What was chosen. Nothing at all is refused here, as the service does, rather than taken for everything."""
    choice = given(ids=ids, fingerprint=fingerprint, task_type=task_type, queue=queue, failure_reason=reason)
    if bool(choice) == every:
        raise typer.BadParameter("Name ids, a --fingerprint, --task-type, --queue or --reason; or say --all.")
    return choice | ({"all": True} if every else {}) | ({"dry_run": True} if dry_run else {})


def _ask(session: Session, number: int) -> None:
    if not session.out.is_terminal:
        raise typer.BadParameter(f"{number} dead letters would be deleted. Say --yes, or look first with --dry-run.")
    typer.confirm(f"Delete {number} dead letters, with their history and files?", abort=True)


def _told(verb: str) -> Any:
    def told(done: Done) -> str:
        would = f"would be {verb}" if done.dry_run else verb
        ids = ", ".join(map(str, done.task_ids)) + (", …" if done.changed > len(done.task_ids) else "")
        text = f"{done.changed} of {done.matched} {would}" + (f": {ids}" if ids else "")
        left = [f"left alone: {', '.join(f'{name} {value}' for name, value in one.items())}" for one in done.skipped]
        return "\n".join([text, *left])

    return told
