"""Motifs that are shifted, turned and magnified: every part of the pose, against its bound.

python benchmarks/poses.py --seeds 2
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from numpy.typing import NDArray

from machine import on_this_machine, print_table
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.model import Invariance
from napari_shiftvae.core.pose_simulation import pose_patches
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig

MOST = 1.1  # times the bound, every part of the pose that the model has
SIDE = 40
CASES: dict[str, tuple[tuple[Invariance, ...], float, float]] = {
    "shift, rotation": (("shift", "rotation"), 0.4, 0.0),
    "shift, rotation, scale": (("shift", "rotation", "scale"), 0.4, 0.1),
    "shift, rotation to 0.8 rad": (("shift", "rotation"), 0.8, 0.0),
    "shift only, as a control": (("shift",), 0.4, 0.0),
}


def measure(name: str, seed: int, count: int) -> dict[str, float | str]:
    """Analyse one data set; errors are RMS over their bound, and over their deviation."""
    invariances, rotation_rad, log_scale = CASES[name]
    task = pose_patches(
        rng=np.random.default_rng(seed),
        count=count,
        patch_size_px=SIDE,
        rotation_rad=rotation_rad,
        log_scale=log_scale,
    )
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    tiles = np.zeros((rows * columns, SIDE, SIDE), dtype=np.float32)
    tiles[:count] = task.patches
    mosaic = tiles.reshape(rows, columns, SIDE, SIDE).swapaxes(1, 2)
    centres = np.column_stack(np.divmod(np.arange(count), columns)) * SIDE + (SIDE - 1) / 2
    config = AnalysisConfig(
        patch_size_px=SIDE,
        separation_px=12.0,
        shift_prior_px=1.5,
        normalisation="global",
        invariances=invariances,
        latent_dim=1 if "rotation" in invariances else 2,
        train=TrainConfig(seed=seed),
    )
    image = MicroscopeImage(data=mosaic.reshape(rows * SIDE, columns * SIDE), name="mosaic")
    run = finish(analyse(image, config, positions_yx=centres))

    def table(*names: str) -> NDArray[np.float64]:
        return run.atoms[list(names)].to_numpy(dtype=np.float64)

    def compare(
        found: NDArray[np.float64], deviation: NDArray[np.float64], *parameters: int
    ) -> tuple[float, str]:
        truth = task.truth[:, list(parameters)]
        error = (found - found.mean(axis=0)) - (truth - truth.mean(axis=0))
        over_bound = float(np.sqrt(np.mean(error**2))) / task.bound(*parameters)
        return over_bound, f"{np.sqrt(np.mean((error / deviation) ** 2)):.3f}"

    shift = table("shift_y_px", "shift_x_px")
    row: dict[str, float | str] = {"": name, "seed": str(seed)}
    row["shift/bound"], row["/sd"] = compare(shift, table("shift_y_sd_px", "shift_x_sd_px"), 0, 1)
    atom = table("atom_y_px", "atom_x_px") - centres
    row["atom/bound"], _ = compare(atom, table("atom_y_sd_px", "atom_x_sd_px"), 0, 1)
    if "rotation" in invariances:
        found = compare(table("rotation_rad"), table("rotation_sd_rad"), 2)
        row["rotation/bound"], row["/sd "] = found
        row["bound rad"] = f"{task.bound(2):.5f}"
    if "scale" in invariances:
        scale = table("scale")
        found = compare(np.log(scale), table("scale_sd") / scale, 3)
        row["scale/bound"], row["/sd  "] = found
    return row | {
        "train s": f"{run.seconds['train']:.1f}",
        "refine s": f"{run.seconds['refine']:.1f}",
    }


def main(seeds: int, count: int) -> None:
    """Measure and print."""
    rows = [measure(name, seed, count) for name in CASES for seed in range(seeds)]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    shown = [
        {
            key: f"{cell:.3f}" if isinstance(cell := row.get(key, ""), float) else cell
            for key in columns
        }
        for row in rows
    ]
    print_table(f"Poses, {count:,} patches of {SIDE} px, noise 5 %", shown)
    worst = max(
        cell
        for row in rows
        for key, cell in row.items()
        if isinstance(cell, float) and "rotation/bound" in row
    )
    print(f"  worst {worst:.3f}, aim <= {MOST:g}: {'met' if worst <= MOST else 'MISSED'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2, help="how many, from 0 (default 2)")
    parser.add_argument("--patches", type=int, default=2000)
    chosen = parser.parse_args()
    with on_this_machine():
        main(chosen.seeds, chosen.patches)
