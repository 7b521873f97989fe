"""What `.env` says that nobody reads: mostly a slip, whose setting keeps its default without a word."""

import re
from difflib import get_close_matches
from pathlib import Path

from dotenv import dotenv_values

from app.core.secrets import PREFIX
from app.core.settings import Settings

OURS = (
    *("TASKCTL_URL", "TASKCTL_API_KEY", "TASKS_API_KEY"),  # taskctl, the Python client, the demos
    *("TASKS_ADDRESS", "TASKS_IMAGE", "DATABASE_URL_FILE"),  # compose.yaml
    *("TEST_POSTGRES_URL", "TEST_REDIS_URL"),
)
"""Read by other programs of this project."""
THEIRS = re.compile(
    r"AWS_|COMPOSE_|DOCKER_|GF_|OTEL_|PG[A-Z]+$|POSTGRES_|PYTHON|UVICORN_|((ALL|HTTPS?|NO)_PROXY|LANG|NO_COLOR|PATH|TZ)$"
    r"|(LC|SSL|XDG)_",
    re.IGNORECASE,
)
"""Beginnings of names that libraries and tools beside this service read, once something brings them into the environment."""
NEAR = 0.8
"""As difflib measures it: DATABSE_URL is as near as 0.96, LOGLEVEL 0.94, TIMEOUT 0.64."""


def ignored_names() -> str | None:
    """One line about the names in `.env` that mean nothing here, each with the setting that may be meant; None if there are
    none. No value is shown."""
    file = Settings.model_config.get("env_file")
    # A pipe, which some keepers of secrets put there, may give what it has only once.
    names = dotenv_values(str(file)) if file and Path(str(file)).is_file() else {}
    unknown = [_told(name) for name in names if not _is_known(name)]
    if not unknown:
        return None
    return f"Ignored in .env, because no setting is called so: {', '.join(unknown)}."


def _is_known(name: str) -> bool:
    is_named_secret = name.startswith(PREFIX)
    return name.lower() in Settings.model_fields or name in OURS or is_named_secret or bool(THEIRS.match(name))


def _told(name: str) -> str:
    known = [*(field.upper() for field in Settings.model_fields), *OURS]
    near = get_close_matches(name.upper(), known, 1, NEAR)
    return f"{name} (is {near[0]} meant?)" if near else name
