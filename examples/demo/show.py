"""How the demos show things: requests as curl lines, JSON, tables, results, errors, pictures. No calls, no decisions."""

import io
import json
import os
import shlex
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from rich.color import Color
from rich.console import Console, RenderableType
from rich.highlighter import JSONHighlighter
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

LONGEST_SHOWN = 160
STATUS_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


def curl(url: str, method: str, path: str, options: dict[str, Any]) -> Text:
    """A request as curl lines, indented; long texts in its body are cut. Print it softly wrapped, so that it can be copied."""
    query = urlencode(options.get("params", {}))
    address = url + path + ("?" + query if query else "")
    words = ["curl"] if method == "GET" else ["curl", "-X", method]
    first = Text.assemble(("  $ ", "dim"), (" ".join(words), "bold cyan"), " ", shlex.quote(address))
    if options.get("stream"):
        first.append(" -N")
    if "output" in options:
        first.append(f" -o {shlex.quote(str(options['output']))}")
    if "upload" in options:
        first.append(f" -F file=@{shlex.quote(str(options['upload']))}")
    lines = [first] + [Text(f"-H '{name}: {value}'") for name, value in options.get("headers", {}).items()]
    if "json" in options:
        lines.append(Text("-H 'Content-Type: application/json'"))
        lines.append(Text.assemble("-d '", as_json(options["json"]), "'"))
    return Text(" \\\n      ").join(lines)


def as_json(value: Any) -> Text:
    return JSONHighlighter()(Text(json.dumps(shortened(value), ensure_ascii=False)))


def shortened(value: Any) -> Any:
    """`value` with its long texts and lists cut, for showing."""
    if isinstance(value, dict):
        return {name: shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        if len(value) < 5:
            return [shortened(item) for item in value]
        return [shortened(value[0]), f"… {len(value)} in all"]
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        return f"{value[:60]}… ({len(value):,} characters)"
    return value


def grid(*columns: str) -> Table:
    """A table without frames; a name that starts with `>` is a column of numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table


def facts(*rows: tuple[str, RenderableType]) -> Table:
    """Names and what belongs to them, one below the other."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def status_text(status: str) -> Text:
    return Text(status, STATUS_STYLES.get(status, "blue"))


def task_line(task: dict[str, Any]) -> Text:
    """The heart of a task in one line."""
    rest = f"  queue {task['queue']}  priority {task['priority']}  attempts {task['attempts']}/{task['max_attempts']}"
    if task["failure_reason"]:
        rest += f"  failure_reason {task['failure_reason']}"
    return Text.assemble(f"task {task['id']}  ", status_text(task["status"]), (rest, "dim"))


def between(start: str, end: str) -> float:
    """Milliseconds from one time of an answer to another."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000


def milliseconds(start: datetime | None, end: datetime | None) -> float:
    """Milliseconds from one moment to another, which both must be there."""
    assert start is not None and end is not None  # noqa: PT018 one fact
    return (end - start).total_seconds() * 1000


def text_panel(text: str, result: dict[str, Any]) -> Panel:
    """What text_processing found: whichever of the operations the result holds."""
    body = Table.grid()
    body.add_row(Text(text, "italic"))
    body.add_row("")
    body.add_row(facts(*((name, summary_of(name, found)) for name, found in result.items())))
    return Panel(body, title="result", title_align="left", border_style="green")


def summary_of(operation: str, found: dict[str, Any]) -> str:
    """One operation's answer in a few words; an operation that cannot serve the text says why."""
    if "reason" in found:
        return str(found["reason"])
    match operation:
        case "statistics":
            return f"words {found['words']}, sentences {found['sentences']}, characters {found['characters']}"
        case "language":
            return f"{found['name']} ({found['confidence']:.0%})"
        case "sentiment":
            return f"{found['label']} ({found['compound']:+.2f} between -1 and 1)"
        case "keywords":
            return ", ".join(item["keyword"] for item in found["items"][:5])
        case "readability":
            return ", ".join(f"{item['name']} {item['score']}" for item in found["formulas"])
        case "entities":
            kinds = {kind: items for kind, items in found.items() if isinstance(items, list) and items}
            return ", ".join(item["text"] for items in kinds.values() for item in items if isinstance(item, dict))
        case _:
            return str(found.get("text", json.dumps(found, ensure_ascii=False)))[:LONGEST_SHOWN]


def problem_panel(problem: dict[str, Any]) -> Panel:
    """An error as RFC 9457 has it: what kind, what is wrong, and where."""
    faults = Table.grid(padding=(0, 2))
    faults.add_column(style="cyan", overflow="fold")
    faults.add_column(overflow="fold")
    for name in ("type", "detail"):
        faults.add_row(name, str(problem[name]))
    for fault in problem.get("errors", []):
        faults.add_row(".".join(map(str, fault["location"])), Text(fault["message"], "yellow"))
    return Panel(faults, title="problem", title_align="left", border_style="yellow")


def picture(data: bytes, console: Console, columns: int) -> Text | None:
    """A small picture made of half blocks, at most `columns` wide; None where the terminal has too few colours for it."""
    if console.no_color or console.color_system not in ("256", "truecolor") or not _speaks_utf8(console):
        return None
    from PIL import Image  # here alone: a demo without colours does without

    with Image.open(io.BytesIO(data)) as image:
        width = min(columns, console.width - 4)
        small = image.convert("RGB").resize((width, 2 * max(1, round(width * image.height / image.width / 2))))
    pixels = small.tobytes()
    text = Text()
    for row in range(0, small.height, 2):
        for column in range(width):
            upper, lower = (3 * ((row + half) * width + column) for half in (0, 1))
            colors = (Color.from_rgb(*pixels[place : place + 3]) for place in (upper, lower))
            text.append("▀", Style(color=next(colors), bgcolor=next(colors)))
        text.append("\n")
    text.right_crop(1)
    return text


def _speaks_utf8(console: Console) -> bool:
    return console.encoding.startswith("utf") and os.environ.get("TERM") != "linux"
