"""What is stored of results and errors: the parts that need no runner."""

import hashlib

from app.core.secrets import Redactor
from app.workers.results import LONGEST_MESSAGE, LONGEST_TRACEBACK, MOST_LOOKED_AT, described

SECRET = hashlib.sha512(b"secret").hexdigest()


def test_of_a_huge_message_neither_a_secret_nor_a_half_of_one_is_kept() -> None:
    """Wherever it is cut: each filling moves the cut by one."""
    redact = Redactor([SECRET])
    for moved in range(0, len(SECRET), 7):
        error = ValueError("x" * moved + SECRET * (2 * MOST_LOOKED_AT // len(SECRET)))
        _, message, trace = described(error, redact)
        assert "[redacted][redacted]" in message
        assert "[redacted][redacted]" in trace
        assert not any(SECRET[at : at + 8] in message + trace for at in range(len(SECRET) - 8))
        assert len(message) <= LONGEST_MESSAGE
        assert len(trace) <= LONGEST_TRACEBACK


def test_a_long_text_keeps_what_matters_of_it() -> None:
    _, message, trace = described(ValueError("begins" + "x" * 2 * MOST_LOOKED_AT + "ends"))
    assert message.startswith("beginsxxx")
    assert message.endswith("x…")
    assert trace.rstrip().endswith("xends")
