"""Commands that show the service: task types, queues, workers, numbers."""

from typing import Annotated

import typer

from taskclient.models import Limits
from taskctl import completion, show
from taskctl.options import Limit
from taskctl.session import Session


def task_types(
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(autocompletion=completion.task_types, help="Only this one, with its payload's schema."),
    ] = None,
) -> None:
    """Show what kinds of work there are."""
    if name is None:
        session.give(session.client.task_types(), show.task_types)
    else:
        session.tell(session.client.task_type(name), show.task_type)


def queues(session: Session) -> None:
    """Show what waits and runs in each queue."""
    session.give(session.client.queues(), show.queues)


QueueName = Annotated[str, typer.Argument(autocompletion=completion.queues, help="A queue.")]


def pause(session: Session, name: QueueName) -> None:
    """Start none of a queue's tasks; what runs goes on."""
    session.tell(session.client.pause_queue(name), lambda one: show.queues([one]))


def resume(session: Session, name: QueueName) -> None:
    """Start a queue's tasks again."""
    session.tell(session.client.resume_queue(name), lambda one: show.queues([one]))


def limit(
    session: Session,
    name: QueueName,
    max_running: Annotated[
        str | None, typer.Option(metavar="N|none", help="So many of its tasks run at once, over all workers.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="N/SECONDS|none", help="So many start in so many seconds, as 100/60.")
    ] = None,
    max_depth: Annotated[
        str | None, typer.Option(metavar="N|none", help="So many may wait; more are refused until there is room.")
    ] = None,
) -> None:
    """Limit how many of a queue's tasks run, start and wait. `none` takes a limit away."""
    limits: Limits = {}
    if max_running is not None:
        limits["max_running"] = _number("--max-running", max_running)
    if max_depth is not None:
        limits["max_depth"] = _number("--max-depth", max_depth)
    if rate is not None:
        count, _, seconds = rate.partition("/")
        limits["rate_limit"] = _number("--rate", count)
        limits["rate_period_seconds"] = None if rate == "none" else _seconds(seconds or "1")
    if not limits:
        raise typer.BadParameter("say what to limit: --max-running, --rate, --max-depth")
    session.tell(session.client.limit_queue(name, **limits), lambda one: show.queues([one]))


def _number(option: str, text: str) -> int | None:
    if text != "none" and not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"{option} takes a whole number or none, not {text!r}")
    return None if text == "none" else int(text)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"--rate takes a number, a slash and seconds, or none, not seconds of {text!r}"
        ) from None


def workers(session: Session) -> None:
    """Show who works, and on what."""
    session.give(session.client.workers(), show.workers)


def audit(
    session: Session,
    action: Annotated[str | None, typer.Option(help="Only this action, like task.cancel.")] = None,
    key: Annotated[str | None, typer.Option(help="Only with the key of this id.")] = None,
    target: Annotated[str | None, typer.Option(help="Only to this, like 'task 17'.")] = None,
    limit: Limit = 20,
) -> None:
    """Show what operators did, newest first."""
    session.give(session.client.audit(action=action, key=key, target=target, limit=limit), show.audit)


def stats(session: Session) -> None:
    """Show totals over all queues."""
    session.tell(session.client.stats(), show.stats)
