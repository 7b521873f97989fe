import re
from pathlib import Path

import pytest

from app.core.env_file import OURS, ignored_names
from app.core.settings import Settings
from taskclient.connection import API_KEY as CLIENT_KEY
from taskctl.session import API_KEY, URL

ROOT = Path(__file__).parents[2]


def ignored(file: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    file.write_text(text)
    monkeypatch.setitem(Settings.model_config, "env_file", file)
    return ignored_names()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("DATABSE_URL=sqlite:///x.db\n", "DATABSE_URL (is DATABASE_URL meant?)."),
        ("export LOGLEVEL=debug\n", "LOGLEVEL (is LOG_LEVEL meant?)."),
        ("lease_second=5\n", "lease_second (is LEASE_SECONDS meant?)."),
        ("TASK_API_KEY=tk.x\n", "TASK_API_KEY (is TASKS_API_KEY meant?)."),
        (
            "COLOUR=red\nMAX_ATEMPTS=2\nPOL_SECONDS=3\n",
            "MAX_ATEMPTS (is MAX_ATTEMPTS meant?), POL_SECONDS (is POLL_SECONDS meant?).",
        ),
    ],
)
def test_a_name_that_nothing_reads_is_told_with_the_nearest_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    told = ignored(tmp_path / ".env", text, monkeypatch)
    assert told == f"Ignored in .env, because no setting is called so: {says}"


@pytest.mark.parametrize(
    "name",
    [
        *("DATABASE_URL", "database_url", "SECRET_CRM_TOKEN", *OURS),
        *("COLOUR", "CRM_ADDRESS", "secret_crm", "API_KEY", "POSTGRES_URL", "TEST_POSTGRES_URL"),
        *("AWS_ACCESS_KEY_ID", "COMPOSE_PROFILES", "OTEL_SERVICE_NAME", "POSTGRES_PASSWORD", "https_proxy", "TZ"),
    ],
)
def test_what_somebody_may_read_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert ignored(tmp_path / ".env", f"{name}=1\n", monkeypatch) is None


def test_lines_of_a_key_that_was_pasted_without_quotes_are_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a name without a value to python-dotenv, and no redactor knows it."""
    pasted = "WEBHOOK_KEY=-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\nMzEfYyji+tW3h/=\nsk-live-abcdefghijkl\nU29tZUtleQ==\n"
    assert ignored(tmp_path / ".env", pasted, monkeypatch) is None


def test_only_the_file_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABSE_URL", "sqlite:///x.db")
    assert ignored(tmp_path / ".env", "# DATABSE_URL=\n", monkeypatch) is None
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / "none")
    assert ignored_names() is None


def test_what_our_other_programs_read_is_known() -> None:
    in_compose = re.findall(r"\$\{([A-Z_]+)", (ROOT / "compose.yaml").read_text())
    assert {CLIENT_KEY, API_KEY, URL, *in_compose} <= set(OURS)
