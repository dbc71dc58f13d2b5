"""pyroVED's shift-VAE on the same patches, in the Python that has it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from factor_task import Outcome, Trace, gauge_free_error
from machine import print_table
from napari_shiftvae.core.factors import FactorPatches

NEAR_PX = 0.1
PROCESS = Path(__file__).with_name("pyroved_process.py")


def compare(python: str, epochs: int, task: FactorPatches, outcome: Outcome, trace: Trace) -> None:
    """Train pyroVED and print both.

    Parameters
    ----------
    python : str
        Interpreter of an environment with pyroVED.
    epochs : int
    task : FactorPatches
    outcome, trace
        Of this project, from the same patches.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "patches.npz", Path(folder) / "result.npz"
        np.savez(source, patches=task.patches)
        command = [python, str(PROCESS), str(source), str(target), str(epochs), "0"]
        subprocess.run(command, check=True)
        with np.load(target) as result:
            seconds, shifts, latents = (
                result[name] for name in ("seconds", "shift_yx_px", "latents")
            )
    errors = [gauge_free_error(*one, task) for one in zip(shifts, latents, strict=True)]
    theirs = list(zip(np.cumsum(seconds).tolist(), errors, strict=True))
    epoch_seconds = float(np.min(seconds))
    print_table(
        "Beside pyroVED, same patches (seed 0). Shift errors of training in the gauge that is best "
        "for them",
        [
            {
                "": f"pyroVED 0.3.0, {epochs} epochs",
                "s/epoch": f"{epoch_seconds:.2f}",
                "shift px": f"{errors[-1]:.4f}",
                "/bound": f"{errors[-1] / task.bound_shift_px:.1f}",
                f"s to {NEAR_PX} px": _time_to(theirs),
                "total s": f"{seconds.sum():.1f}",
            },
            {
                "": f"this project, {outcome.epochs} epochs, before refinement",
                "s/epoch": f"{outcome.epoch_seconds:.3f}",
                "shift px": f"{trace[-1][1]:.4f}",
                "/bound": f"{trace[-1][1] / task.bound_shift_px:.1f}",
                f"s to {NEAR_PX} px": _time_to(trace),
                "total s": f"{outcome.train_seconds:.1f}",
            },
            {
                "": "this project, refined",
                "s/epoch": "",
                "shift px": f"{outcome.shift:.4f}",
                "/bound": f"{outcome.shift_bound:.3f}",
                f"s to {NEAR_PX} px": "",
                "total s": f"{outcome.total_seconds:.1f}",
            },
        ],
    )
    slower, worse = epoch_seconds / outcome.epoch_seconds, errors[-1] / outcome.shift
    print(
        f"\n  pyroVED takes {slower:.0f} times as long per epoch, and after {epochs} epochs its "
        f"shift error is {worse:.0f} times as large."
    )


def _time_to(trace: Trace) -> str:
    """Seconds until the error falls below `NEAR_PX` for good."""
    late = [seconds for seconds, error in trace if not error < NEAR_PX]
    after = [seconds for seconds, error in trace if not late or seconds > late[-1]]
    return f"{after[0]:.1f}" if after else f"> {trace[-1][0]:.0f}"
