"""`taskctl breakers`: circuit breakers."""

from typing import Annotated

import typer

from taskctl import completion, show
from taskctl.session import Session

Name = Annotated[str, typer.Argument(autocompletion=completion.breakers, help="A breaker, or a task type.")]


def list_(session: Session) -> None:
    """List circuit breakers, and what waits behind those that are open."""
    session.give(session.client.breakers.list(), show.breakers)


def trip(
    session: Session,
    name: Name,
    reason: Annotated[str, typer.Option(help="For whoever wonders why tasks wait.")],
    seconds: Annotated[float | None, typer.Option(help="How long; left out: until it is reset.")] = None,
) -> None:
    """Hold back the tasks of a dependency, or of a task type."""
    session.tell(session.client.breakers.trip(name, reason, seconds=seconds), lambda one: show.breakers([one]))


def reset(session: Session, name: Name) -> None:
    """Close a breaker: what waits runs at once."""
    session.tell(session.client.breakers.reset(name), lambda one: show.breakers([one]))
