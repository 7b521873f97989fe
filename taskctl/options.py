"""Options that several commands have, and how what was typed becomes what is sent."""

from typing import Annotated, Any

import typer

from taskctl import completion

TaskId = Annotated[int, typer.Argument(metavar="ID", min=1, help="The task.")]
TaskIds = Annotated[list[int], typer.Argument(metavar="ID...", min=1, help="The tasks.")]
TaskType = Annotated[
    str | None, typer.Option("--task-type", autocompletion=completion.task_types, help="Only this task type.")
]
Queue = Annotated[str | None, typer.Option("--queue", autocompletion=completion.queues, help="Only this queue.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0, metavar="SECONDS", help="Wait at most so long; then the status is 7."),
]
Result = Annotated[bool, typer.Option("--result", "-r", help="Print the result alone.")]
Priority = Annotated[
    str | None, typer.Option("--priority", help="-100 to 100, or low, normal, high, critical. Higher runs first.")
]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="May be repeated.")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Like a payload. May be repeated.")
]
MaxAttempts = Annotated[int | None, typer.Option("--max-attempts", help="Runs it may have, the first included.")]


def priority_of(typed: str | None) -> int | str | None:
    """`20` is a number, `high` a word."""
    try:
        return None if typed is None else int(typed)
    except ValueError:
        return typed


def given(**options: Any) -> Any:
    """The options that were given."""
    return {name: value for name, value in options.items() if value not in (None, [])}
