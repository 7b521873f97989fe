"""What the documentation says is compared with the code: settings, routes, options, fields, files, words.

The curl lines and the executors of USAGE.md are run by tests/walk/test_usage.py.
"""

import itertools
import re
import shlex
import tomllib
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import pytest
from packaging.requirements import Requirement
from pydantic import SecretStr
from typer.testing import CliRunner

from app.api import errors
from app.api.app import create_app
from app.api.main import command as api_command
from app.api.schemas import TaskPatch
from app.core import lifecycle
from app.core.settings import Settings
from app.core.task import FailureReason, Status
from app.core.version import VERSION
from app.services.executors import Context, RecordedReports
from app.services.submissions import Submission
from app.workers.executors.text_processing import Operation, TextProcessing
from app.workers.main import command as worker_command
from app.workers.text.language_names import NAMES
from app.workers.text.readability import FORMULAS
from app.workers.text.stop_words import STOP_WORDS
from taskclient.client import Alerts, Breakers, Client, DeadLetters, Files, Keys, TaskHandle, Webhooks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
USAGE = (ROOT / "USAGE.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
PAGES = {"README.md": README, "USAGE.md": USAGE, "CHANGELOG.md": CHANGELOG} | {
    str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))
}
# The page on performance speaks of other systems too, with their words.
DOCUMENTS = {name: page for name, page in PAGES.items() if name != "docs/performance.md"}

GLOSSARY = {
    *("task", "task_type", "payload", "queue", "priority", "rank", "attempt", "lease", "outcome", "change", "executor"),
    *("worker", "runner", "slot", "claim", "renew", "settle", "release", "sweep", "hint", "chore", "dead letter"),
    *("breaker", "probe", "finding", "broker", "key", "scope", "tenant", "place", "tally", "alert", "silence"),
    *("webhook", "notice", "delivery", "room"),
}
# Words that other systems have for ours.
FOREIGN = r"\b(jobs?|dequeued?|acked|nacked|consumers?|visibility timeout|heartbeats?)\b"


def section(document: str, heading: str) -> str:
    """What stands below a heading, to the next one of the same level or above."""
    level = heading.split(" ", 1)[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", document, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading {heading!r}"
    return found[1]


def rows(text: str, heading: str = "") -> list[list[str]]:
    """The cells of the tables in `text` whose first heading is `heading`, or of all."""
    tables = re.findall(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|\n?)+)", text, re.MULTILINE)
    heads = re.findall(r"^\| *(.*?) *\|.*\n\|[-|]+\|$", text, re.MULTILINE)
    chosen = [table for head, table in zip(heads, tables, strict=True) if heading in ("", head)]
    assert chosen, f"no table {heading!r}"
    lines = [line for table in chosen for line in table.strip().splitlines()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cells: list[list[str]]) -> list[str]:
    """What stands in backquotes in the first column."""
    return [name for row in cells for name in re.findall(r"`([^`]+)`", row[0])]


def shown(default: Any) -> str:
    """A default as one writes it in an environment."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


# Settings and options


def test_every_setting_is_documented_with_its_default_and_no_other() -> None:
    table = rows(section(USAGE, "## Settings"), "Setting")
    documented = {row[0].strip("`"): row[2].strip("`") for row in table}
    assert documented == {name.upper(): shown(field.default) for name, field in Settings.model_fields.items()}


def test_settings_with_a_unit_name_it() -> None:
    for name, unit, *_ in rows(section(USAGE, "## Settings"), "Setting"):
        ending = name.strip("`").rsplit("_", 1)[-1]
        assert unit == (ending.lower() if ending in ("SECONDS", "BYTES") else ""), name


def test_the_example_file_lists_every_setting_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(line.startswith("#") for line in lines if line), "uncommented settings would win over new defaults"
    found = dict(line[1:].split("=", 1) for line in lines if re.match(r"#[A-Z_]+=", line))
    assert found == {name.upper(): shown(field.default) for name, field in Settings.model_fields.items()}


def test_the_example_file_uncommented_changes_nothing(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text()
    (tmp_path / "env").write_text(re.sub(r"^#(?=[A-Z_]+=)", "", text, flags=re.MULTILINE))
    assert Settings(_env_file=tmp_path / "env") == Settings()  # type: ignore[call-arg]  # pydantic-settings' own argument


@pytest.mark.parametrize(
    ("program", "command"), [("python run_api.py", api_command), ("python run_worker.py", worker_command)]
)
def test_every_option_is_documented_and_told_by_help(program: str, command: Any) -> None:
    text = section(USAGE, "## Programs and their options")
    documented = names(rows(text[text.index(program) :].split("`python ", 1)[0], "Option"))
    told = CliRunner().invoke(command, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert set(documented) == set(re.findall(r"(?<!\S)--[a-z-]+", told)) - {"--help"}


# The HTTP interface


def operations() -> dict[str, dict[str, Any]]:
    """What the application offers, as "GET /tasks/{id}", with what OpenAPI says about it."""
    paths = create_app(Settings()).openapi()["paths"]
    return {
        f"{method.upper()} {re.sub(r'{[a-z]+_id}', '{id}', path)}": operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


def test_every_route_is_documented_and_no_other() -> None:
    documented = re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`?]*)", USAGE)
    assert {re.sub(r"(?<=\w)/$", "", route) for route in documented} == {
        *operations(),
        "GET /docs",
        "GET /openapi.json",
    }


def test_every_route_has_a_curl_line() -> None:
    called = set()
    for command in re.findall(r"^\$ (curl .*)", USAGE, re.MULTILINE):
        method = re.search(r"-X ([A-Z]+)", command)
        path = re.search(r"localhost:8000(/[^\s'?]*)", command)
        assert path is not None, command
        route = re.sub(r"(?<=\w)/$", "", re.sub(r"/(\$[A-Z]+|\d+)(?=/|$)", "/{id}", path[1]))
        route = re.sub(r"^/task-types/\w+", "/task-types/{task_type}", route)
        route = re.sub(r"(?<=^/breakers/)[^/]+|(?<=^/queues/)[^/]+", "{name}", route)
        called.add(f"{method[1] if method else 'GET'} {route}")
    assert called == {*operations(), "GET /docs", "GET /openapi.json"}


def test_every_field_of_a_submission_is_documented() -> None:
    assert names(rows(section(USAGE, "## Submit a task"), "Field")) == list(Submission.model_fields)


def test_every_field_that_can_be_changed_is_documented() -> None:
    sentence = section(USAGE, "## Change, cancel, retry, delete").split("```", 1)[0]
    assert [name for name in re.findall(r"`([a-z_]+)`", sentence) if name in TaskPatch.model_fields] == list(
        TaskPatch.model_fields
    )


def test_every_parameter_of_the_list_is_documented() -> None:
    parameters = {parameter["name"] for parameter in operations()["GET /tasks"]["parameters"]}
    assert set(names(rows(section(USAGE, "## List tasks"), "Parameter"))) == parameters


def test_every_kind_of_problem_is_documented_with_its_status() -> None:
    documented = {(int(row[0]), row[1].strip("`")) for row in rows(section(USAGE, "## Errors"), "Status")}
    of_routes = {(409, "no-result"), (405, "method-not-allowed")}
    at_the_door = {(401, "unauthorized"), (403, "foreign-origin"), (429, "too-many-requests")}
    of_the_server = {
        (400, "malformed-request"),
        (408, "too-slow"),
        (414, "target-too-long"),
        (431, "head-too-large"),
        (431, "framing-too-large"),
        (503, "too-many-connections"),
    }
    assert documented == {*errors.STATUS.values(), *of_routes, *at_the_door, *of_the_server}


def test_states_reasons_and_outcomes_are_all_documented() -> None:
    states = section(USAGE, "## States and failure reasons")
    assert names(rows(states, "Status")) == [str(status) for status in Status]
    assert names(rows(states, "`failure_reason`")) == [str(reason) for reason in FailureReason]
    for outcome in get_args(lifecycle.Outcome):
        assert f"`{outcome.word}`" in section(USAGE, "## Wait for a task")


def test_every_code_of_a_finding_is_documented() -> None:
    made = set(re.findall(r'Finding\(\s+"([a-z-]+)"', (ROOT / "app/core/diagnosis.py").read_text()))
    assert set(names(rows(section(USAGE, "## Look at the service"), "`code`"))) == made


def test_the_text_operations_and_their_languages_are_documented() -> None:
    text = section(USAGE, "## The text_processing task type")
    assert names(rows(text, "Payload field"))[:5] == list(TextProcessing.model_fields)
    table = {row[0].strip("`"): row[2] for row in rows(text, "Operation")}
    assert set(table) == set(get_args(Operation))
    assert table["readability"].split(", ") == sorted(FORMULAS)
    assert table["keywords"].removeprefix("RAKE for ").split(";")[0].split(", ") == sorted(STOP_WORDS)
    assert table["language"] == str(len(NAMES))


# Executors


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", USAGE, re.MULTILINE | re.DOTALL)


def test_the_example_executor_is_shown_as_it_is() -> None:
    assert blocks("python")[0] in (ROOT / "examples/greetings.py").read_text()


def test_every_call_of_the_context_is_documented_and_no_other() -> None:
    context = Context(reports=RecordedReports())
    offered = {name for name in dir(context) if not name.startswith("_")} - {"stop"}  # `stop` is for the runner
    assert set(re.findall(r"context\.(\w+)", section(USAGE, "### What the context offers"))) == offered


def test_the_unit_test_of_an_executor_passes() -> None:
    (block,) = (block for block in blocks("python") if "RecordedReports()" in block)
    namespace: dict[str, Any] = {}
    exec(compile(block, "USAGE.md", "exec"), namespace)
    namespace["test_greeting_reports_progress"]()


# README and architecture


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, document in PAGES.items():
        commands = re.findall(r"(?:^|`)make ([a-z-]+)", document, re.MULTILINE)
        assert set(commands) <= targets, name
    assert {"demo", "test"} <= set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))


@pytest.mark.parametrize("document", PAGES)
def test_every_file_that_is_named_exists(document: str) -> None:
    text = PAGES[document]
    named = set(re.findall(r"`((?:app|taskclient|taskctl|clients|tests|examples|benchmarks|scripts)/[\w./-]+)`", text))
    named |= set(re.findall(r"python ((?!-)[\w/]+\.py)", text))
    named |= set(re.findall(r"-r (\S+\.txt)", text))
    missing = sorted(path for path in named if not (ROOT / path).exists())
    links = set(re.findall(r"\]\(((?!https?:)[^)#]+)", text))
    missing += sorted(path for path in links if not (ROOT / document).parent.joinpath(path).exists())
    assert not missing


@pytest.mark.parametrize("document", PAGES)
def test_every_link_within_a_document_has_its_heading(document: str) -> None:
    for target, anchor in re.findall(r"\]\(((?!https?:)[^)#]*)#([^)]+)\)", PAGES[document]):
        place = (ROOT / document).parent.joinpath(target).resolve() if target else ROOT / document
        headings = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_errors_of_the_client_are_shown_as_they_are() -> None:
    drawn = section(PAGES["docs/client.md"], "## Errors").split("```text\n")[1].split("```")[0]
    assert drawn in (ROOT / "taskclient/errors.py").read_text()


def test_every_call_of_the_client_is_on_its_page() -> None:
    page = PAGES["docs/client.md"]
    parts = {"dead_letters": DeadLetters, "breakers": Breakers, "webhooks": Webhooks, "alerts": Alerts}
    parts |= {"keys": Keys, "files": Files}
    calls = [name for name in vars(Client) if not name.startswith("_") and name not in parts]
    calls += [name for name in vars(TaskHandle) if not name.startswith("_")]
    calls += [name for part in parts.values() for name in vars(part) if not name.startswith("_")]
    assert [name for name in calls if not re.search(rf"`(?:client|\w+)?\.?{name}\(|`{name}\(|\.{name}\(", page)] == []
    options = names(rows(page, "`Client(...)`"))
    assert options == list(signature(Client).parameters)


def test_every_heading_of_the_usage_is_in_its_contents() -> None:
    contents = re.findall(r"^- \[(.+)\]\(#", USAGE, re.MULTILINE)
    assert contents == re.findall(r"^## (.+)$", USAGE, re.MULTILINE)


def test_the_walk_of_a_task_names_functions_that_exist() -> None:
    for _, cell in rows(section(ARCHITECTURE, "## The walk of one task"), "Step"):
        for functions, file in re.findall(r"((?:`\w+`(?:, )?)+) in `([\w/.]+)`", cell):
            source = (ROOT / file).read_text()
            for function in re.findall(r"`(\w+)`", functions):
                assert re.search(rf"def {function}\(", source), f"{function} is not in {file}"


def test_there_are_eight_promises_and_each_names_its_tests() -> None:
    promises = rows(section(README, "## Promises"), "Promise")
    assert len(promises) == 8
    assert all(re.search(r"`tests/\S+\.py`", row[2]) for row in promises)


def test_every_direct_dependency_is_explained_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups, extras = project["dependency-groups"], project["project"]["optional-dependencies"]
    running, developing = (
        {Requirement(line).name for line in lines}
        for lines in (
            [*project["project"]["dependencies"], *itertools.chain(*extras.values()), *groups["test"]],
            groups["dev"] + groups["dist"] + groups["audit"],
        )
    )
    tables = section(ARCHITECTURE, "## Dependencies").split("Only for development")
    assert set(names(rows(tables[0], "Package"))) == running
    assert set(names(rows(tables[1], "Package"))) == developing


def test_the_glossary_has_every_word() -> None:
    assert set(re.findall(r"\*\*([a-z_ ]+)\*\*", section(ARCHITECTURE, "## Glossary"))) == GLOSSARY


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_other_word_is_used_for_what_the_glossary_names(document: str) -> None:
    assert re.findall(FOREIGN, DOCUMENTS[document], re.IGNORECASE) == []


def test_the_changelog_speaks_of_this_version() -> None:
    assert re.search(rf"^## .*{re.escape(VERSION)}", CHANGELOG, re.MULTILINE)


def test_the_commands_of_the_documents_can_be_split_by_a_shell() -> None:
    for document in PAGES.values():
        for block in re.findall(r"^```sh\n(.*?)^```", document, re.MULTILINE | re.DOTALL):
            assert shlex.split(block, comments=True)
