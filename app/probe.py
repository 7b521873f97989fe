"""`python -m app.probe`: whether the API of this machine is ready. For health checks of containers, which have no curl.

Ends with 0 if it is, 1 if not. Imports nothing but the standard library, so that it costs little every few seconds.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_SECONDS = 4


def main() -> int:
    """Ask `/health/ready` at API_PORT; say what is wrong, if anything is."""
    connection = HTTPConnection("127.0.0.1", int(os.environ.get("API_PORT", "8000")), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        said = answer.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        print(f"no answer: {error}", file=sys.stderr)  # noqa: T201 a command line program
        return 1
    finally:
        connection.close()
    if answer.status != 200:
        print(f"{answer.status} {said}", file=sys.stderr)  # noqa: T201 a command line program
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
