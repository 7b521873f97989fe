"""What lies at a URL, for plain executors that take a URL in place of the thing itself."""

from app.core.errors import OutboundRefused
from app.core.settings import Settings
from app.services.executors import Fail
from app.services.outbound import Guard, Incoming


def fetched(url: str, settings: Settings, most_bytes: int) -> Incoming:
    """The answer to a GET, whole. Blocks the thread. Raises Fail where another attempt would end alike, OutboundFailed where
    it may not."""
    try:
        return Guard(settings).fetch(url, most_bytes)
    except OutboundRefused as refused:
        raise Fail(str(refused)) from None


def text_of(answer: Incoming) -> str:
    """The body as text, in the encoding that the answer names, UTF-8 unless it does. Raises Fail for what is no text."""
    kind, _, parameters = (answer.header("content-type") or "text/plain").partition(";")
    kind = kind.strip().lower()
    if not (kind.startswith("text/") or kind.endswith(("json", "xml", "yaml"))):
        raise Fail(f"What lies at text_url is {kind[:100]}, which is no text.")
    named = [
        part.strip()[8:].strip('"') for part in parameters.split(";") if part.strip().lower().startswith("charset=")
    ]
    try:
        return answer.body.decode(named[0] if named else "utf-8-sig")
    except (LookupError, ValueError):  # an unknown name, bytes that are none of its characters
        raise Fail(f"What lies at text_url is no {named[0][:40] if named else 'UTF-8'} text.") from None
