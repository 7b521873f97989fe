"""`taskctl webhooks`: subscriptions to the ends of tasks."""

from typing import Annotated

import typer

from taskclient.models import Subscription
from taskctl import show
from taskctl.session import Session

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="The subscription.")]
Receiver = Annotated[str, typer.Argument(metavar="URL", help="Where to tell.")]
Events = Annotated[
    list[str] | None, typer.Option("--event", help="completed, failed, cancelled; repeatable. Left out: all.")
]
TaskTypes = Annotated[list[str] | None, typer.Option("--task-type", help="Only of these; repeatable.")]
Queues = Annotated[list[str] | None, typer.Option("--queue", help="Only in these; repeatable.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Only with one of these; repeatable.")]
Secrets = Annotated[
    list[str] | None,
    typer.Option("--secret", help="Name of a secret of the workers to sign with; two while the receiver changes over."),
]
Description = Annotated[str | None, typer.Option(help="For whoever looks at it later.")]


def list_(session: Session) -> None:
    """List subscriptions, and how their receivers are."""
    session.give(session.client.webhooks.list(), show.webhooks)


def create(
    session: Session,
    receiver: Receiver,
    event: Events = None,
    task_type: TaskTypes = None,
    queue: Queues = None,
    tag: Tags = None,
    secret: Secrets = None,
    description: Description = None,
    tenant: Annotated[str | None, typer.Option(help="Whose tasks; left out: your own, or everyone's.")] = None,
) -> None:
    """Tell a URL of every task that ends from now on and fits."""
    options = _options(event, task_type, queue, tag, secret, description)
    made = session.client.webhooks.create(receiver, tenant=tenant, **options)
    session.tell(made, lambda one: show.webhooks([one]))


def _options(
    events: list[str] | None,
    task_types: list[str] | None,
    queues: list[str] | None,
    tags: list[str] | None,
    secrets: list[str] | None,
    description: str | None,
) -> Subscription:
    options: Subscription = {}
    if events:
        options["events"] = events
    if task_types:
        options["task_types"] = task_types
    if queues:
        options["queues"] = queues
    if tags:
        options["tags"] = tags
    if secrets:
        options["secrets"] = secrets
    if description is not None:
        options["description"] = description
    return options


def edit(
    session: Session,
    webhook_id: WebhookId,
    receiver: Annotated[str | None, typer.Option("--to", help="Where to tell from now on.")] = None,
    event: Events = None,
    task_type: TaskTypes = None,
    queue: Queues = None,
    tag: Tags = None,
    secret: Secrets = None,
    description: Description = None,
) -> None:
    """Change a subscription; what is left out stays."""
    options = _options(event, task_type, queue, tag, secret, description)
    if receiver is None and not options:
        raise typer.BadParameter("say what to change: --to, --event, --secret and so on")
    change = session.client.webhooks.change
    changed = change(webhook_id, **options) if receiver is None else change(webhook_id, url=receiver, **options)
    session.tell(changed, lambda one: show.webhooks([one]))


def on(session: Session, webhook_id: WebhookId) -> None:
    """Switch a subscription on, and forget its failures."""
    session.tell(session.client.webhooks.change(webhook_id, enabled=True), lambda one: show.webhooks([one]))


def off(session: Session, webhook_id: WebhookId) -> None:
    """Switch a subscription off: nothing that ends is told to it."""
    session.tell(session.client.webhooks.change(webhook_id, enabled=False), lambda one: show.webhooks([one]))


def delete(session: Session, webhook_id: WebhookId) -> None:
    """End a subscription."""
    session.client.webhooks.delete(webhook_id)
    session.note(f"Webhook {webhook_id} is deleted.")


def test(session: Session, webhook_id: WebhookId) -> None:
    """Send a subscription something to try itself with; `deliveries` says what came of it."""
    session.tell(session.client.webhooks.test(webhook_id), lambda one: show.deliveries([one]))


def deliveries(
    session: Session,
    webhook_id: WebhookId,
    status: Annotated[list[str] | None, typer.Option(help="Only in this state; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """Show what was sent to a subscription, newest first."""
    session.give(session.client.webhooks.deliveries(webhook_id, status=status, limit=limit), show.deliveries)


def redeliver(
    session: Session,
    webhook_id: WebhookId,
    task_id: Annotated[int, typer.Argument(metavar="TASK", help="The delivery.")],
) -> None:
    """Send a notice once more, under the same id."""
    session.tell(session.client.webhooks.redeliver(webhook_id, task_id), lambda one: show.deliveries([one]))
