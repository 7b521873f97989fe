from pathlib import Path

import pytest

from app.core.errors import SettingsError
from app.core.settings import SHIPPED_EXECUTORS, Settings, load_settings, sqlite_path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_SECONDS", "0"),
        ("LEASE_SECONDS", "0.01"),
        ("LEASE_SECONDS", "nan"),
        ("LEASE_SECONDS", "inf"),
        ("LEASE_SECONDS", "soon"),
        ("MAX_ATTEMPTS", "0"),
        ("MAX_ATTEMPTS", "1.5"),
        ("API_PORT", "65536"),
        ("LOG_LEVEL", "loud"),
        ("DURABILITY", "none"),
        ("DATABASE_URL", "mysql://x"),
        ("DATABASE_URL", "sqlite:///"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("MAX_PAYLOAD_BYTES", "-1"),
        ("RESERVE_BYTES", "1000000"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert name in str(caught.value)
    assert value in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_folder_of_secrets_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    (tmp_path / "database_url").write_text("postgresql://tasks:secret@db/tasks\n")
    assert load_settings().database_url == "postgresql://tasks:secret@db/tasks"
    monkeypatch.setenv("DATABASE_URL", "sqlite:///here.db")
    assert load_settings().database_url == "sqlite:///here.db"


def test_a_secret_that_is_wrong_or_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "database_url"
    secret.write_text("mysql://tasks:hush@db/tasks")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    with pytest.raises(SettingsError, match="DATABASE_URL") as caught:
        load_settings()
    assert "hush" not in str(caught.value)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="SECRETS_DIR: there is no folder"):
        load_settings()


def test_a_secret_that_may_not_be_read_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "database_url").write_text("sqlite:///here.db")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", "database_url")

    monkeypatch.setattr(Path, "read_text", refused)  # root may read everything
    with pytest.raises(SettingsError, match=r"SECRETS_DIR: .*Permission denied: 'database_url'"):
        load_settings()


def test_the_environment_wins_over_defaults_and_arguments_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "9000")
    assert load_settings().api_port == 9000
    assert load_settings(api_port=9001).api_port == 9001


def test_settings_come_from_a_dotenv_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("MAX_ATTEMPTS=7\nSOMETHING_ELSE=1\n")
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    assert load_settings().max_attempts == 7


def test_executor_modules_are_separated_by_commas_or_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECUTOR_MODULES", "one.two, three,,four ")
    settings = load_settings()
    assert settings.executor_modules == ("one.two", "three", "four")
    assert settings.all_executor_modules == (*SHIPPED_EXECUTORS, "one.two", "three", "four")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///data/tasks.db", "data/tasks.db"),
        ("sqlite+aiosqlite:////var/tasks.db", "/var/tasks.db"),
        ("sqlite:///a b.db?x=1", "a b.db"),
    ],
)
def test_where_the_file_of_a_url_is(url: str, path: str) -> None:
    assert sqlite_path(url) == Path(path)
