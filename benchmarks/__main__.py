"""All benchmarks, each in a process of its own: `make benchmark`, `python benchmarks --quick`."""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "benchmarks.md"
HEADING = "\n## Figures\n"
NOT_QUIET = "NOT QUIET"  # as machine.py says it, which `python -m benchmarks` cannot import


def run(script: str, *arguments: str) -> tuple[bool, str]:
    """Run one script with this Python; whether it succeeded, and what it printed."""
    heading = f"\n=== benchmarks/{' '.join([script, *arguments])}\n"
    print(heading, flush=True)
    command = [sys.executable, str(FOLDER / script), *arguments]
    lines = [heading, "\n"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode == 0, "".join(lines)


def record(printed: str) -> None:
    """Put what was printed at the end of the page on benchmarks, in place of older figures."""
    if NOT_QUIET in printed:
        sys.exit(f"{PAGE.name} is left as it was: other programs were at work. Try again later.")
    text = PAGE.read_text(encoding="utf-8").partition(HEADING)[0].rstrip()
    day = dt.datetime.now(tz=dt.UTC).date()
    block = f"```text\n{printed.strip()}\n```"
    PAGE.write_text(f"{text}\n{HEADING}\nAs printed on {day}.\n\n{block}\n", encoding="utf-8")
    print(f"\nWrote {PAGE}")


def main() -> None:
    """Run all, whatever becomes of one; exit status 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, no sweep, few epochs")
    parser.add_argument("--seeds", type=int, default=3, help="of the main task (default 3)")
    parser.add_argument("--pyroved", metavar="PYTHON", help="Python that has pyroVED 0.3.0")
    parser.add_argument("--pyroved-epochs", default="5", metavar="N")
    parser.add_argument("--atomap", metavar="PYTHON", help="Python that has Atomap 0.4.2")
    parser.add_argument("--record", action="store_true", help=f"write docs/{PAGE.name}")
    chosen = parser.parse_args()
    quick = ["--quick"] if chosen.quick else []
    task = ["--seeds", "1"] if chosen.quick else ["--seeds", str(chosen.seeds), "--sweep"]
    if chosen.pyroved:
        task += ["--pyroved", chosen.pyroved, "--pyroved-epochs", chosen.pyroved_epochs]
    done = [
        run("gui_stall.py", *quick),
        run("training_time.py", *quick),
        run("shiftvae.py", *task),
        run("spectra.py", "--seeds", "1" if chosen.quick else "3"),
        run("poses.py", "--seeds", "1", "--patches", "500" if chosen.quick else "2000"),
        run("atom_refinement.py", *quick, *(["--atomap", chosen.atomap] if chosen.atomap else [])),
    ]
    if not all(succeeded for succeeded, _ in done):
        sys.exit(1)
    if chosen.record:
        record("".join(printed for _, printed in done))


if __name__ == "__main__":
    main()
