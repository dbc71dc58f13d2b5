"""Polar displacement read from models: zero, magnitude and standard deviations against the truth.

python benchmarks/polar.py [--seeds 6] [--epochs 150]

Simulated ferroelectrics with 180-degree walls; every seed has a noise, domains and, one in three,
an unpolar half of its own. Models of the B columns alone, of both sublattices, and of both with
patterns of their own.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from machine import print_table
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.polarisation import against_neighbours
from napari_shiftvae.core.readout import Options, read_out
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

FIRST_SEED = 701
NOISES = (0.02, 0.05, 0.08, 0.1)
DOMAINS_NM = (3.0, 6.0, 4.0)  # of an image of 7.7 nm: the last but one makes them unequal
DEEP = 0.97  # of the displacement
Floats = NDArray[np.float64]


def rms(values: Floats) -> Floats:
    """Root mean squares of columns."""
    return np.asarray(np.sqrt(np.mean(values**2, axis=0)))


def measure(seed: int, epochs: int | None) -> list[dict[str, str | Floats]]:
    """Compare each sublattice of each model with the truth; y is the polar axis."""
    noise = NOISES[seed % len(NOISES)]
    made = perovskite(
        rng=np.random.default_rng(seed),
        noise=noise,
        rotation_rad=0.0,
        domain_width_nm=DOMAINS_NM[seed % len(DOMAINS_NM)],
        interface=0.5 if seed % 3 == 0 else None,
    )
    truth = made.truth[["y_px", "x_px"]].to_numpy()
    is_b = (made.truth["sublattice"] == "B").to_numpy()
    metal = (made.truth["kind"] == "metal").to_numpy()
    exact = np.full_like(truth, np.nan)
    for own in (is_b, ~is_b):
        exact[own] = against_neighbours(truth[own], truth[~own]).yx_px
    names = np.where(is_b, "B", "A").astype(object)
    start = truth + np.random.default_rng(seed).uniform(-0.7, 0.7, truth.shape)
    image = MicroscopeImage(data=made.image, name="perovskite")
    config = AnalysisConfig(
        separation_px=made.separation_px, train=TrainConfig(epochs=epochs, seed=seed)
    )
    rows: list[dict[str, str | Floats]] = []
    for model, used, given in (
        ("B", is_b, False),
        ("A and B", is_b | ~is_b, False),
        ("own patterns", is_b | ~is_b, True),
    ):
        told = names[used] if given else None
        run = finish(analyse(image, config, positions_yx=start[used], given=told))
        field = read_out(run, Options()).field
        for name in sorted(set(names[used])):
            error = (field.yx_px - exact[used])[names[used] == name]
            sd = field.true_sd_yx_px[names[used] == name]
            ideal = exact[used][names[used] == name, 0]
            known = np.isfinite(error).all(axis=1)
            deep = known & (np.abs(ideal) > DEEP * np.nanmax(np.abs(ideal)))
            sign = np.sign(ideal[deep])
            domains = [error[deep][sign == way].mean(axis=0) for way in (-1, 1) if way in sign]
            unpolar = known & metal[used][names[used] == name] & (np.abs(ideal) < 0.01)
            rows.append(
                {
                    "seed": str(seed),
                    "noise": f"{noise:g}",
                    "model of": model,
                    "atoms": name,
                    "zero off px": np.mean(domains, axis=0),
                    "unpolar half px": error[unpolar].mean(axis=0) if unpolar.any() else "-",
                    "magnitude / truth": 1 + error[deep, :1].T @ sign / np.abs(ideal[deep]).sum(),
                    "RMS error px": rms(error[known]),
                    "error / stated sd": rms(error[known]) / rms(sd[known]),
                }
            )
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--epochs", type=int, help="by default as many as the program makes")
    chosen = parser.parse_args()
    rows = []
    for seed in range(FIRST_SEED, FIRST_SEED + chosen.seeds):
        rows += measure(seed, chosen.epochs)
    shown = [
        {
            key: value if isinstance(value, str) else " ".join(f"{each:.3f}" for each in value)
            for key, value in row.items()
        }
        for row in rows
    ]
    print_table("Polar displacement of 2 px: along the polar axis, and across it", shown)
    for key in ("zero off px", "magnitude / truth", "error / stated sd"):
        values = np.array([row[key] for row in rows], dtype=np.float64)
        print(
            f"{key}: mean {values.mean(axis=0).round(3)}, root mean square {rms(values).round(3)}, "
            f"from {values.min(axis=0).round(3)} to {values.max(axis=0).round(3)}"
        )


if __name__ == "__main__":
    main()
