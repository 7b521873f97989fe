"""Where `taskctl` starts: the console command, and `python -m taskctl` in a checkout that is not installed."""

import sys


def main() -> int:
    """Run the command line; the exit status."""
    try:
        from taskctl.main import main as run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print("taskctl needs typer and rich: pip install 'task-service-client[cli]'", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
