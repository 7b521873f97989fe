"""The part of `taskctl doctor` that looks at the machine itself, with the settings of its environment. Needs the service
installed; nothing else of taskctl does, but `check`."""

import asyncio
from dataclasses import asdict

from app.core.env_file import ignored_names
from app.core.errors import SettingsError
from app.core.settings import Settings, load_settings
from app.models.database import Database
from app.services.diagnosis import PlaceDiagnosis, Report
from app.services.insights import Insights
from app.services.registry import ExecutorRegistry
from taskclient.models import Finding


def examined() -> tuple[list[str], list[Finding]]:
    """What was looked at on this machine, and what was found."""
    try:
        settings = load_settings()
    except SettingsError as error:
        return ["settings"], [
            Finding(
                code="wrong-setting",
                severity="critical",
                what=str(error),
                why="No API and no worker starts with it.",
                what_to_do="Mend it in the environment or in .env; USAGE.md, Settings, has every one with its default.",
            )
        ]
    report = asyncio.run(_examined(settings))
    return ["settings", *report.checked], [*_slips(), *(Finding.model_validate(asdict(one)) for one in report.findings)]


def _slips() -> list[Finding]:
    ignored = ignored_names()
    if ignored is None:
        return []
    return [
        Finding(
            code="unknown-setting",
            severity="warning",
            what=ignored,
            why="What they were to set has its default.",
            what_to_do="Correct the names in .env, or take them out; USAGE.md, Settings, has every one.",
        )
    ]


async def _examined(settings: Settings) -> Report:
    database = Database(settings.database_url)
    try:
        return await PlaceDiagnosis(database, settings, Insights(database, settings, ExecutorRegistry({}))).examine()
    finally:
        await database.close()
