"""The tests of test_parsers.py with inputs that are led by what they reach in `app` (atheris), each in a process of its own.

    python -m tests.security.fuzz                       every one for a minute; exit status 1 if one fails
    python -m tests.security.fuzz --seconds 600 cursor  those whose name has the word, ten minutes each

One line for each: how many inputs it was given, and how many places in the code they reached. What fails is shown whole, with
the input that did it.
"""

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence

READERS = "tests.security.test_parsers"
LONGEST_INPUT = 4096
"""Bytes that Hypothesis makes texts of."""


def fuzz(name: str, options: Sequence[str]) -> None:
    """Try one of them until libFuzzer's `options` say that it is enough. Ends the process."""
    import atheris

    with atheris.instrument_imports(include=["app", "ssrfguard"]):
        readers = importlib.import_module(READERS)
    tried = getattr(readers, name).hypothesis.fuzz_one_input
    atheris.Setup([sys.argv[0], *options, f"-max_len={LONGEST_INPUT}"], lambda data: (tried(data), None)[1])
    atheris.Fuzz()


def names(words: Sequence[str] = ()) -> list[str]:
    """The tests that there are, or those that have one of `words` in their name."""
    readers = importlib.import_module(READERS)
    found = [name for name in vars(readers) if name.startswith("test_")]
    return [name for name in found if not words or any(word in name for word in words)]


def run(name: str, options: Sequence[str]) -> tuple[bool, str]:
    """One of them in a process of its own: whether it held, and what is to be said of it."""
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.security.fuzz", "--one", name, *options, f"-artifact_prefix={folder}/"],
            capture_output=True,
            text=True,
            errors="replace",
        )
    said = ended.stdout + ended.stderr
    done = re.search(r"^Done (\d+) runs", said, re.MULTILINE)
    reached = re.findall(r"cov: (\d+)", said)
    if ended.returncode or done is None or not reached:
        return False, f"FAILED\n{said}"
    return True, f"{int(done[1]):,} inputs, {reached[-1]} places reached"


def main(words: Sequence[str], seconds: int) -> int:
    """Try those that are wanted. Returns the exit status."""
    good = True
    for name in names(words):
        held, said = run(name, [f"-max_total_time={seconds}"])
        good &= held
        print(f"{name}: {said}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wanted", nargs="*", metavar="WORD", help="what the name of a test must have")
    parser.add_argument("--seconds", type=int, default=60, help="so long for each (60)")
    given = parser.parse_args()
    sys.exit(main(given.wanted, given.seconds))
