"""`taskctl alerts`: what is wrong with the service by its own rules, silences, and a test of the channels."""

from typing import Annotated

import typer

from taskctl import show
from taskctl.options import Limit, Queue
from taskctl.session import Exit, Session

Rule = Annotated[str | None, typer.Option("--rule", help="Only alerts of this rule.")]


def list_(session: Session) -> None:
    """List what holds and fires now."""
    session.give(session.client.alerts.list(), show.alerts)


def history(session: Session, rule: Rule = None, queue: Queue = None, limit: Limit = 20) -> None:
    """List alerts that fire or have fired, newest first."""
    session.give(session.client.alerts.history(rule=rule, queue=queue, limit=limit), show.alerts)


def silences(session: Session) -> None:
    """List the silences that last."""
    session.give(session.client.alerts.silences(), show.silences)


def silence(
    session: Session,
    seconds: Annotated[float, typer.Option(help="How long it lasts.")],
    note: Annotated[str, typer.Option(help="For whoever wonders why nothing was told.")],
    rule: Rule = None,
    queue: Queue = None,
    every: Annotated[bool, typer.Option("--all", help="Every alert.")] = False,
) -> None:
    """Tell nobody for a while that such alerts fire."""
    if (rule is None and queue is None) != every:
        raise typer.BadParameter("Name a --rule or a --queue; or say --all.")
    made = session.client.alerts.silence(seconds, note, rule=rule, queue=queue, every=every)
    session.tell(made, lambda one: show.silences([one]))


def end_silence(session: Session, silence_id: Annotated[int, typer.Argument(metavar="ID", min=1)]) -> None:
    """End a silence now: what still fires is told."""
    session.client.alerts.end_silence(silence_id)
    session.note(f"Silence {silence_id} is over.")


def test(
    session: Session,
    channel: Annotated[
        str | None, typer.Argument(help="webhook, slack or mail; left out: each that is set.")
    ] = None,  # noqa: PT028
) -> None:
    """Send a test over the channels. The status is 1 if one did not take it."""
    tried = session.client.alerts.test(channel)
    session.give(tried, show.tried)
    if any(one.error is not None for one in tried):
        raise typer.Exit(Exit.BAD)
