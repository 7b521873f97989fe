"""`taskctl keys`: API keys."""

from typing import Annotated

import typer

from taskctl import show
from taskctl.session import Session


def list_(session: Session) -> None:
    """List API keys, without their secrets."""
    session.give(session.client.keys.list(), show.keys)


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    scopes: Annotated[str, typer.Option(help="Separated by commas: read, submit, work, manage, admin.")],
    tenant: Annotated[str | None, typer.Option(help="Whose tasks and files it sees; left out: everyone's.")] = None,
    expires_in_seconds: Annotated[float | None, typer.Option(help="Left out: until it is revoked.")] = None,
) -> None:
    """Make an API key and print it. It is not shown again."""
    words = [word for word in scopes.replace(",", " ").split() if word]
    made = session.client.keys.create(name, words, tenant=tenant, expires_in_seconds=expires_in_seconds)
    session.tell(made, lambda one: one.key)


def revoke(session: Session, key_id: Annotated[str, typer.Argument(metavar="ID", help="The key.")]) -> None:
    """End an API key."""
    session.client.keys.revoke(key_id)
    session.note(f"Key {key_id} is revoked.")
