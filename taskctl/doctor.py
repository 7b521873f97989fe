"""`taskctl doctor`: what is wrong, why it matters, what to do. What the service finds wrong with itself it is asked for
(`GET /diagnosis`); here is what shows only from outside."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from taskclient import ClientError, NoAnswer, NotAllowed, NotFound, UnexpectedAnswer
from taskclient.connection import DEFAULT_URL
from taskclient.models import Finding
from taskctl import show
from taskctl.session import API_KEY, URL, Exit, Session

LONGEST_SECONDS = 10.0
"""For one answer: a store that is stuck is told after five."""
OFF_SECONDS = 2.0
"""Clocks that differ by less are as good as equal: an answer takes its time, too."""


def doctor(
    session: Session,
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            help="Also look at this machine: settings, database, disk, SQLite. Run it where the service runs, in its folder.",
        ),
    ] = False,
) -> None:
    """Find out what is wrong with a service.

    Each finding says what, why it matters, and what to do. The exit status is 1 if there are any. Everything is asked over
    HTTP, but what --local looks at.
    """
    checked, findings = examined(session)
    if local:
        there, found = _local()
        checked, findings = [*there, *checked], [*found, *findings]
    if session.as_json:
        session.emit(*findings)
    else:
        session.show(*(show.finding(one) for one in findings))
        number = "1 finding" if len(findings) == 1 else f"{len(findings) or 'no'} findings"
        session.show(f"Looked at {', '.join(dict.fromkeys(checked))}: {number}.")
    if findings:
        raise typer.Exit(Exit.BAD)


def examined(session: Session) -> tuple[list[str], list[Finding]]:
    """What was looked at over HTTP, and what was found."""
    checked = ["address"]
    client = session.connect(timeout=LONGEST_SECONDS, retries=0)
    try:
        client.health()
        checked.append("API")
        diagnosis = client.diagnosis()
    except NotFound:
        return checked, [_too_old()]
    except ClientError as error:
        return checked, [unreachable(error, session.url)]
    off = clocks_differ((datetime.now(UTC) - diagnosis.at).total_seconds())
    return [*checked, "clock", *diagnosis.checked], [*off, *diagnosis.items]


def unreachable(error: ClientError, url: str) -> Finding:
    """Why the service cannot be asked."""
    text = str(error)
    match error:
        case NotAllowed():
            return _critical("not-allowed", text, "Nothing can be asked.", f"Set {API_KEY} to a key of this service.")
        case UnexpectedAnswer():
            return _critical(
                "not-the-service",
                text,
                "Another program answers there, or a proxy in between.",
                f"Check the address, {url}: --url or {URL} says where the service is (by default {DEFAULT_URL}).",
            )
        case NoAnswer() if "Name or service not known" in text or "name resolution" in text:
            return _critical(
                "unknown-host",
                text,
                "There is no machine of that name.",
                f"Check the address, {url}; it comes from --url or {URL}.",
            )
        case NoAnswer() if "CERTIFICATE" in text.upper():
            return _critical(
                "certificate",
                text,
                "Whoever answers cannot prove who it is.",
                "Use the name that is in the certificate; or make its issuer known with SSL_CERT_FILE.",
            )
        case NoAnswer() if "refused" in text:
            return _critical(
                "not-running",
                text,
                "Nothing listens there: the API does not run, or listens on another port or address.",
                f"Start it (taskapi, or python run_api.py); or say where it is with --url or {URL}."
                " One that listens on 127.0.0.1 is not reached from other machines: API_HOST.",
            )
        case NoAnswer():
            return _critical(
                "no-answer",
                text,
                "The way there is blocked, or the API is stuck.",
                "See whether a firewall is in between, and what the API's log says.",
            )
    return _critical("refused", text, "The service answers, and cannot be asked.", "See what the API's log says.")


def clocks_differ(seconds: float) -> list[Finding]:
    """`seconds`: how far this machine's clock is ahead of the API's."""
    if abs(seconds) < OFF_SECONDS:
        return []
    return [
        Finding(
            code="clock-skew",
            severity="warning",
            what=f"The clock here is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the API's.",
            why="Moments that are given here, like --at and --expires-at, come to pass that much earlier or later.",
            what_to_do="Set the clocks of both machines by NTP; or use --in, which the API's clock measures.",
        )
    ]


def _too_old() -> Finding:
    return _critical(
        "api-too-old",
        "The API does not know GET /diagnosis.",
        "It is older than this taskctl, which can therefore not see what is wrong with it.",
        "Upgrade the service, or use the taskctl of its version.",
    )


def _critical(code: str, what: str, why: str, what_to_do: str) -> Finding:
    return Finding(code=code, severity="critical", what=what, why=why, what_to_do=what_to_do)


def _local() -> tuple[list[str], list[Finding]]:
    """What the machine has that this runs on."""
    try:
        from taskctl import local
    except ImportError as error:
        raise typer.BadParameter(f"--local needs the service installed here, not its client alone: {error}") from None
    return local.examined()
