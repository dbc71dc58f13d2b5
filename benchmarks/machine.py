"""On what the figures were measured, and how they are printed."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil
import torch

QUIET = 0.05  # share of the cores that other programs may use
NOT_QUIET = "NOT QUIET"


@contextmanager
def on_this_machine() -> Iterator[None]:
    """Say what machine this is, and at the end how much of it other programs had."""
    cores = os.cpu_count() or 1
    print(
        f"{cores} cores ({_processor()}), {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} torch threads",
        flush=True,
    )
    began, busy, own = time.perf_counter(), _busy_seconds(), _own_seconds()
    yield
    others = _busy_seconds() - busy - (_own_seconds() - own)
    share = max(0.0, others / cores / (time.perf_counter() - began))
    print(f"\n  Other programs used {100 * share:.0f} % of the cores meanwhile.")
    if share > QUIET:
        print(f"  {NOT_QUIET}: times above are too long.")


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def print_table(title: str, rows: list[dict[str, str]]) -> None:
    """Print rows under the names of their columns."""
    print(f"\n{title}\n\n{pd.DataFrame(rows).to_string(index=False)}", flush=True)
