"""The command line of `taskctl`, put together."""

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from taskctl import alerts, breakers, dead_letters, doctor, files, keys, service, submit, tasks, watch, webhooks
from taskctl.session import Exit, add

OF_DISTRIBUTIONS = ("task-service", "task-service-client")


app = typer.Typer(
    name="taskctl",
    help="Submit tasks, follow them, steer the service. It speaks HTTP; TASKCTL_URL says where, TASKCTL_API_KEY is the key.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if show_version:
        typer.echo(f"taskctl {_version()}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _version() -> str:
    try:
        from app.core.version import VERSION
    except ImportError:  # the client alone is installed
        pass
    else:
        return VERSION
    for name in OF_DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def group(name: str, about: str, *functions: Callable[..., None]) -> None:
    """A command with commands of its own."""
    made = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
    add(made, *functions)
    app.add_typer(made, name=name, help=about)


add(app, submit.submit, tasks.get, tasks.wait, tasks.list_, watch.watch)
add(app, tasks.cancel, tasks.retry, tasks.edit, tasks.delete, tasks.attempts, tasks.logs, tasks.explain, tasks.events)
add(app, service.task_types, service.queues, service.workers, service.stats, service.audit)
add(app, service.pause, service.resume, service.limit)
letters = (dead_letters.list_, dead_letters.groups, dead_letters.requeue, dead_letters.resolve, dead_letters.purge)
group("dead-letters", "Failed tasks that nobody has dealt with.", *letters)
group("breakers", "Circuit breakers.", breakers.list_, breakers.trip, breakers.reset)
group(
    "webhooks",
    "Subscriptions to the ends of tasks.",
    *(webhooks.list_, webhooks.create, webhooks.edit, webhooks.on, webhooks.off, webhooks.delete),
    *(webhooks.test, webhooks.deliveries, webhooks.redeliver),
)
told = (alerts.list_, alerts.history, alerts.silences, alerts.silence, alerts.end_silence, alerts.test)
group("alerts", "What is wrong with the service, and who is told.", *told)
group("keys", "API keys, for a key with the scope admin.", keys.list_, keys.create, keys.revoke)
group("files", "Files that go in and out of tasks.", files.upload, files.download, files.list_, files.delete)
add(app, doctor.doctor)


def as_typed(function: Callable[[typer.Context], None]) -> None:
    """A command whose words are read by a program of the service, which runs on this machine."""
    words = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(context_settings=words, add_help_option=False)(function)


@as_typed
def check(context: typer.Context) -> None:
    """Check every invariant of a database. Runs where the database is, not over HTTP: `python -m app.check`."""
    try:
        from app.check import command
    except ImportError:
        raise _not_here("check") from None
    _run(command, context)


@as_typed
def transfer(context: typer.Context) -> None:
    """Move a database to another store. Runs where both are reached, not over HTTP: `python -m app.transfer`."""
    try:
        from app.transfer import command
    except ImportError:
        raise _not_here("transfer") from None
    _run(command, context)


def _not_here(name: str) -> typer.BadParameter:
    return typer.BadParameter(f"{name} needs the service installed here, not its client alone.")


def _run(command: typer.Typer, context: typer.Context) -> None:
    name = f"taskctl {context.info_name}"
    raise typer.Exit(command(args=context.args, prog_name=name, standalone_mode=False) or Exit.OK)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    try:
        status = app(args=arguments, prog_name="taskctl", standalone_mode=False)
    except typer.TyperException as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "taskctl")
        message = " ".join(error.format_message().split()).rstrip(".")
        message += "" if message.endswith("?") else "."
        typer.echo(f"{message} See: {where} --help", err=True)
        return Exit.USAGE
    except typer.Abort:
        return 130
    return status if isinstance(status, int) else Exit.OK
