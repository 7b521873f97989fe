"""Which failures have one cause: an error without what differs from one occurrence to the next."""

import hashlib
import re

FINGERPRINT = r"^[0-9a-f]{16}$"

_LONGEST = 500
# In this order: each leaves nothing for the next to take apart.
_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{8,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"0x[0-9a-f]+", re.IGNORECASE), "<number>"),
    (re.compile(r"(?:\d+[.,:])*\d+"), "<number>"),
    (re.compile(r"\s+"), " "),
)


def essence(message: str) -> str:
    """A message with its ids and numbers taken out: what is left is the same for every occurrence of one cause."""
    text = message[:_LONGEST]
    for pattern, placeholder in _VARYING:
        text = pattern.sub(placeholder, text)
    return text.strip()


def fingerprint(task_type: str, error_type: str, message: str) -> str:
    """16 hexadecimal digits that stand for task type, class of error, and the essence of its message."""
    parts = "\x00".join((task_type, error_type, essence(message)))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]
