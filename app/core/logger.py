"""structlog without rich: where it finds rich it loads it, with 80 modules, 4 MB and a tenth of a second, to draw tracebacks.
Ours are plain. Whoever logs imports structlog from here."""

import sys

_unseen = "rich" not in sys.modules
if _unseen:
    sys.modules["rich"] = None  # type: ignore[assignment]  # how Python is told that there is no such module
try:
    import structlog
finally:
    if _unseen:
        del sys.modules["rich"]

__all__ = ["structlog"]
