"""Precision and speed of the whole method on patches with known truth, beside pyroVED.

python benchmarks/shiftvae.py --seeds 10 --sweep --pyroved /path/to/its/python
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from factor_task import Case, Outcome, run_case
from machine import on_this_machine, print_table
from pyroved_side import compare

# What the project aims at, for 2,000 patches of 40 px on two cores.
MOST = {
    "shift_bound": 1.05,
    "central_bound": 1.05,
    "along_bound": 1.05,
    "shift_sd": 1.05,
    "central_sd": 1.05,
    "epoch_seconds": 0.15,
    "total_seconds": 8.0,
}
LEAST = {"shift_sd": 0.95, "central_sd": 0.95, "r2_intensity": 0.99, "r2_displacement": 0.99}


def sweep(case: Case) -> dict[str, Case]:
    """Other noise, geometry, numbers and priors: nothing may be tuned to the one case."""
    small = replace(
        case,
        patches=300,
        patch_size_px=13,
        half_diagonal_px=4.55,
        sigma_px=0.88,
        shift_sd_px=0.52,
        displacement_px=0.52,
    )
    return {
        "noise 2 %": replace(case, noise=0.02),
        "noise 10 %": replace(case, noise=0.1),
        "noise 20 %": replace(case, noise=0.2),
        "noise 20 %, 60 epochs": replace(case, noise=0.2, epochs=60),
        "noise 20 %, 60 epochs, seed 1": replace(case, noise=0.2, epochs=60, seed=1),
        "100 electrons, background 0.1": replace(case, electrons=100.0, background=0.1),
        "20 electrons, background 0.05": replace(case, electrons=20.0, background=0.05),
        "atoms of sigma 3.5 px": replace(case, sigma_px=3.5),
        "atoms of sigma 2 px": replace(case, sigma_px=2.0),
        "cage of 11 px": replace(case, half_diagonal_px=11.0),
        "patches of 30 px": replace(
            case, patch_size_px=30, half_diagonal_px=10.5, sigma_px=2.0, shift_sd_px=1.5
        ),
        "300 patches of 13 px": small,
        "300 patches of 13 px, seed 1": replace(small, seed=1),
        "300 patches of 13 px, seed 2": replace(small, seed=2),
        "1,000 patches of 13 px, seed 2": replace(small, patches=1000, seed=2),
        "patches of 55 px": replace(case, patch_size_px=55, half_diagonal_px=19.0, sigma_px=3.7),
        "250 patches": replace(case, patches=250),
        "1,000 patches": replace(case, patches=1000),
        "5,000 patches": replace(case, patches=5000),
        "prior 1/4 of the shifts": replace(case, shift_prior_px=0.5),
        "prior 2 x the shifts": replace(case, shift_prior_px=4.0),
    }


def row(name: str, outcome: Outcome) -> dict[str, str]:
    """One line of a table."""
    return {
        "": name,
        "shift px": f"{outcome.shift:.4f}",
        "/bound": f"{outcome.shift_bound:.3f} ({outcome.shift_luck:.3f})",
        "central/bound": f"{outcome.central_bound:.3f}",
        "along/bound": f"{outcome.along_bound:.3f} ({outcome.along_luck:.3f})",
        "shift/sd": f"{outcome.shift_sd:.3f}",
        "central/sd": f"{outcome.central_sd:.3f}",
        "R2 intensity": f"{outcome.r2_intensity:.4f} ({outcome.r2_intensity_ideal:.4f})",
        "R2 displacement": f"{outcome.r2_displacement:.4f} ({outcome.r2_displacement_ideal:.4f})",
        "lost": f"{outcome.lost}",
        "epochs": f"{outcome.epochs}",
        "s/epoch": f"{outcome.epoch_seconds:.3f}",
        "train s": f"{outcome.train_seconds:.1f}",
        "refine s": f"{outcome.refine_seconds:.1f}",
        "total s": f"{outcome.total_seconds:.1f}",
    }


def verdict(outcomes: Iterable[Outcome]) -> str:
    """Say for each aim whether every seed reached it."""
    outcomes = list(outcomes)
    lines = []
    for name in dict.fromkeys([*MOST, *LEAST]):
        values = [getattr(outcome, name) for outcome in outcomes]
        low, high = LEAST.get(name, -math.inf), MOST.get(name, math.inf)
        met = low <= min(values) and max(values) <= high
        aim = " ".join(
            text
            for text in (
                f">= {low:g}" if np.isfinite(low) else "",
                f"<= {high:g}" if np.isfinite(high) else "",
            )
            if text
        )
        found = f"{min(values):.3f} to {max(values):.3f}"
        lines.append(f"  {name:16} {found:18} aim {aim:16} {'met' if met else 'MISSED'}")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 (default 10)")
    parser.add_argument("--sweep", action="store_true", help="other noise, geometry, numbers")
    parser.add_argument("--pyroved", metavar="PYTHON", help="Python that has pyroVED 0.3.0")
    parser.add_argument("--pyroved-epochs", type=int, default=5, metavar="N")
    case = Case()
    parser.add_argument("--patches", type=int, default=case.patches)
    parser.add_argument("--patch-size", type=int, default=case.patch_size_px, metavar="PX")
    parser.add_argument("--noise", type=float, default=case.noise, help="over the mean peak")
    parser.add_argument("--sigma", type=float, default=case.sigma_px, metavar="PX")
    parser.add_argument("--half-diagonal", type=float, default=case.half_diagonal_px, metavar="PX")
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> None:
    """Measure and print."""
    case = Case(
        patches=chosen.patches,
        patch_size_px=chosen.patch_size,
        noise=chosen.noise,
        sigma_px=chosen.sigma,
        half_diagonal_px=chosen.half_diagonal,
    )
    task = case.make()
    print(
        f"\n{case.patches:,} patches of {case.patch_size_px} x {case.patch_size_px} px, noise "
        f"{100 * case.noise:g} %. Cramer-Rao bounds for seed 0: shift {task.bound_shift_px:.4f} "
        f"px,\ncentral atom {task.bound_central_px:.4f} px, along its displacement "
        f"{task.bound_central_along_px:.4f} px. Errors are RMS; in brackets what a fit\nof the "
        "true motif reaches on the same noise. '/sd' is the error over the posterior standard\n"
        "deviation. R2 in brackets is that of estimates off by the bound."
    )
    runs = {seed: run_case(replace(case, seed=seed)) for seed in range(chosen.seeds)}
    outcomes = [outcome for outcome, _ in runs.values()]
    rows = [row(f"seed {seed}", outcome) for seed, (outcome, _) in runs.items()]
    print_table("Shift-VAE, whole analysis", rows)
    print(f"\n{verdict(outcomes)}")
    if chosen.sweep:
        rows = [row(name, run_case(other)[0]) for name, other in sweep(case).items()]
        print_table("The same in other conditions, seed 0", rows)
    if chosen.pyroved:
        compare(chosen.pyroved, chosen.pyroved_epochs, task, *runs[0])


if __name__ == "__main__":
    chosen = options()
    with on_this_machine():
        main(chosen)
