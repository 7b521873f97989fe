"""What `.env` says that nobody reads: mostly a slip, whose setting keeps its default without a word."""

from difflib import get_close_matches
from pathlib import Path

from dotenv import dotenv_values

from app.core.secrets import PREFIX
from app.core.settings import Settings

OURS = (
    *("TASKCTL_URL", "TASKCTL_API_KEY", "TASKS_API_KEY"),  # taskctl, the Python client, the demos
    *("TASKS_ADDRESS", "TASKS_IMAGE", "DATABASE_URL_FILE"),  # compose.yaml
)
"""Read by other programs of this project."""
NEAR = 0.9
"""As difflib measures it: DATABSE_URL is as near as 0.96, LOGLEVEL 0.94; API_KEY, which may be anyone's, is 0.82 of AI_API_KEY."""


def ignored_names() -> str | None:
    """One line about the names in `.env` that are nearly those of settings; None if there are none.

    Others are not told: they may be what executors of one's own read, and what python-dotenv takes for a name may be a line of
    a key that was pasted without quotes.
    """
    file = Settings.model_config.get("env_file")
    # A pipe, which some keepers of secrets put there, may give what it has only once.
    names = dotenv_values(str(file)) if file and Path(str(file)).is_file() else {}
    slips = [f"{name} (is {meant} meant?)" for name in names if (meant := _meant(name))]
    return f"Ignored in .env, because no setting is called so: {', '.join(slips)}." if slips else None


def _meant(name: str) -> str | None:
    """The setting whose name this nearly is."""
    if name.lower() in Settings.model_fields or name in OURS or name.startswith(PREFIX):
        return None
    known = [*(field.upper() for field in Settings.model_fields), *OURS]
    return next(iter(get_close_matches(name.upper(), known, 1, NEAR)), None)
