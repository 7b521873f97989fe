"""W3C Trace Context: what a caller says of the trace that a task belongs to (https://www.w3.org/TR/trace-context/)."""

import re
from dataclasses import dataclass

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e\t]{1,512}")


@dataclass(frozen=True, slots=True)
class Trace:
    """`parent` is a `traceparent` of version 00; `state` the `tracestate` that goes with it, None for none."""

    parent: str
    state: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """How it is told to others."""
        told = {"traceparent": self.parent}
        return told if self.state is None else {**told, "tracestate": self.state}


def trace_of(parent: str | None, state: str | None = None) -> Trace | None:
    """What two headers say. None for what is no trace, which the standard wants ignored, not refused; a state that is too
    long or no text is left out alone. Of a later version the part is taken that 00 has, too."""
    found = _PARENT.fullmatch(parent or "")
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    kept = state.strip() if state else ""
    return Trace(f"00-{trace_id}-{span_id}-{flags}", kept if _STATE.fullmatch(kept) else None)
