"""Every benchmark one after the other, and then the documents: what docs/performance.md says is what this wrote.

python benchmarks/all.py            about two hours, on a machine that does nothing else
python benchmarks/all.py --quick --results FOLDER    whether everything works, some minutes; the documents stay as they are
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = ("budgets", "endpoints", "overhead", "growth", "pages", "peers", "anatomy", "scaling", "soak", "streams")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="pass --quick on")
    parser.add_argument(
        "--ours", default="sqlite", help="this project's stores in peers.py: sqlite, postgresql or both"
    )
    parser.add_argument("--results", type=Path, help="keep the figures there and leave the documents alone")
    options = parser.parse_args()
    arguments = ["--quick"] if options.quick else []
    arguments += ["--results", str(options.results.resolve())] if options.results else []
    ends = {}
    for name in SCRIPTS:
        print(f"\n== {time.strftime('%H:%M')} {name}", flush=True)
        command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments]
        command += ["--ours", options.ours] if name == "peers" else []
        ends[name] = subprocess.run(command, cwd=ROOT, check=False).returncode
    if not options.quick and options.results is None:
        ends["report"] = subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / "report.py")], check=False
        ).returncode
    for name, code in ends.items():
        if code:
            print(
                f"{name} ended with status {code}"
                + (": a budget was missed, see its table" if name == "budgets" else "")
            )
    return max(code for name, code in ends.items() if name != "budgets")


if __name__ == "__main__":
    sys.exit(main())
