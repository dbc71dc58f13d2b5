"""All benchmarks, each in a process of its own: `make benchmark`, `python benchmarks --quick`."""

from __future__ import annotations

import argparse
import datetime as dt
import re
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


def record(printed: dict[str, str]) -> None:
    """Put what scripts printed on the page on benchmarks, each in place of its older figures.

    What was printed while other programs were at work is left out.
    """
    text, _, figures = PAGE.read_text(encoding="utf-8").partition(HEADING)
    blocks = dict(
        re.findall(r"(### benchmarks/(?:\S+).*?\n)(.*?)(?=### benchmarks/|\Z)", figures, re.DOTALL)
    )
    day = dt.datetime.now(tz=dt.UTC).date()
    for script, lines in printed.items():
        if NOT_QUIET in lines:
            print(f"{script}: not recorded, other programs were at work. Try again later.")
            continue
        command, _, rest = lines.strip().removeprefix("=== ").partition("\n")
        command = re.sub(r"(--(?:atomap|pyroved)) \S+", r"\1 PYTHON", command)
        for heading in [one for one in blocks if one.split()[1] == f"benchmarks/{script}"]:
            del blocks[heading]
        blocks[f"### {command}\n"] = f"\nAs printed on {day}.\n\n```text\n{rest.strip()}\n```\n\n"
    ordered = sorted(blocks.items())
    body = "".join(heading + block for heading, block in ordered)
    PAGE.write_text(f"{text.rstrip()}\n{HEADING}\n{body.rstrip()}\n", encoding="utf-8")
    print(f"\nWrote {PAGE}")


def main() -> None:
    """Run all, whatever becomes of one; exit status 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, no sweep, few epochs")
    parser.add_argument("--seeds", type=int, default=10, help="of the main task (default 10)")
    parser.add_argument("--pyroved", metavar="PYTHON", help="Python that has pyroVED 0.3.0")
    parser.add_argument("--pyroved-epochs", default="5", metavar="N")
    parser.add_argument("--atomap", metavar="PYTHON", help="Python that has Atomap 0.4.2")
    parser.add_argument("--record", action="store_true", help=f"write docs/{PAGE.name}")
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help="only these, such as spectra")
    chosen = parser.parse_args()
    quick = ["--quick"] if chosen.quick else []
    task = ["--seeds", "1"] if chosen.quick else ["--seeds", str(chosen.seeds), "--sweep"]
    if chosen.pyroved:
        task += ["--pyroved", chosen.pyroved, "--pyroved-epochs", chosen.pyroved_epochs]
    scripts = {
        "startup.py": [],
        "gui_stall.py": quick,
        "long_use.py": ["--runs", "10"] if chosen.quick else [],
        "training_time.py": quick,
        "shiftvae.py": task,
        "spectra.py": ["--seeds", "1" if chosen.quick else "3"],
        "poses.py": ["--seeds", "1", "--patches", "500" if chosen.quick else "2000"],
        "anywhere.py": ["--seeds", "1", *(["--align"] if chosen.quick else [])],
        "atom_refinement.py": quick + (["--atomap", chosen.atomap] if chosen.atomap else []),
        "fields.py": [],
        "polar.py": ["--seeds", "1" if chosen.quick else "12"],
        "smoothness.py": ["--seeds", "1" if chosen.quick else "5"],
        "classes.py": [],
        "devices.py": [],
        "preview.py": [],
        "scatter.py": [],
        "explore.py": [],
        "large.py": ["--frames", "20"] if quick else [],
    }
    wanted = [name if name.endswith(".py") else f"{name}.py" for name in chosen.scripts]
    unknown = set(wanted) - set(scripts)
    if unknown:
        parser.error(f"no script {', '.join(sorted(unknown))}: choose from {', '.join(scripts)}")
    done = {name: run(name, *scripts[name]) for name in wanted or scripts}
    if chosen.record:
        record({name: printed for name, (succeeded, printed) in done.items() if succeeded})
    if not all(succeeded for succeeded, _ in done.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
