"""Polar displacement read from models: zero, magnitude and standard deviations against the truth.

python benchmarks/polar.py [--seeds 6] [--epochs 150]

Simulated ferroelectrics with 180-degree walls; every seed has a noise, domains and, one in three,
an unpolar half of its own. Models of the B columns alone, of both sublattices, and of both with
patterns of their own; beside them, refined columns against their neighbours.

z is the mean error of the atoms deep in a domain over what is stated for that mean: the part that
they share, and the rest averaged. "own" is the scatter about that mean over what is stated for it.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from machine import print_table
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.gaussians import refine_gaussians
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
KEYS = ("zero off px", "magnitude / truth", "error / stated sd", "own / stated", "z of means")
FEWEST = 10  # atoms of a domain
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


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

    def compare(model: str, used: Mask, moved: Floats, sd: Floats, shared: Floats) -> None:
        for name in sorted(set(names[used])):
            mine = names[used] == name
            error, ideal = (moved - exact[used])[mine], exact[used][mine, 0]
            known = np.isfinite(error).all(axis=1)
            deep = known & (np.abs(ideal) > DEEP * np.nanmax(np.abs(ideal)))
            variance, common = sd[mine] ** 2, shared[mine] ** 2
            domains = [deep & (np.sign(ideal) == way) for way in (-1, 1)]
            domains = [each for each in domains if each.sum() >= FEWEST]
            means = [error[each].mean(axis=0) for each in domains]
            stated = [
                (common + (variance - common) / each.sum())[each].mean(axis=0) for each in domains
            ]
            about = [error[e] - mean for e, mean in zip(domains, means, strict=True)]
            own = rms(np.concatenate(about)) / np.sqrt(
                np.mean(np.concatenate([(variance - common)[each] for each in domains]), axis=0)
            )
            unpolar = known & metal[used][mine] & (np.abs(ideal) < 0.01)
            sign = np.sign(ideal[deep])
            rows.append(
                {
                    "seed": str(seed),
                    "noise": f"{noise:g}",
                    "from": model,
                    "atoms": name,
                    "zero off px": np.mean(means, axis=0) if len(means) == 2 else "-",
                    "unpolar half px": error[unpolar].mean(axis=0) if unpolar.any() else "-",
                    "magnitude / truth": 1 + error[deep, :1].T @ sign / np.abs(ideal[deep]).sum(),
                    "RMS error px": rms(error[known]),
                    "error / stated sd": rms(error[known]) / rms(sd[mine][known]),
                    "own / stated": own[:1],
                    "z of means": rms(np.array(means) / np.sqrt(stated)),
                }
            )

    fits = refine_gaussians(made.image, start, separation_px=made.separation_px)
    found = np.where((fits.flag == "")[:, None], fits.positions_yx, np.nan)
    moved, sd = np.full_like(truth, np.nan), np.full_like(truth, np.nan)
    for own in (is_b, ~is_b):
        made_of = against_neighbours(
            found[own],
            found[~own],
            sd_yx_px=fits.position_sd_yx[own],
            cage_sd_yx_px=fits.position_sd_yx[~own],
        )
        moved[own], sd[own] = made_of.yx_px, made_of.sd_yx_px
    compare("columns", is_b | ~is_b, moved, sd, np.zeros_like(sd))
    for model, used, given in (
        ("B", is_b, False),
        ("A and B", is_b | ~is_b, False),
        ("own patterns", is_b | ~is_b, True),
    ):
        told = names[used] if given else None
        run = finish(analyse(image, config, positions_yx=start[used], given=told))
        field = read_out(run, Options()).field
        shared = run.atoms[[f"polar_{axis}_shared_sd_px" for axis in "yx"]].to_numpy()
        compare(model, used, field.yx_px, field.true_sd_yx_px, shared)
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
    for origin in ("columns", "models"):
        print(f"From {origin}:")
        some = [row for row in rows if (row["from"] == "columns") == (origin == "columns")]
        for key in KEYS:
            values = np.array([row[key] for row in some if not isinstance(row[key], str)])
            print(
                f"  {key}: mean {values.mean(axis=0).round(3)}, root mean square "
                f"{rms(values).round(3)}, from {values.min(axis=0).round(3)} to "
                f"{values.max(axis=0).round(3)}"
            )


if __name__ == "__main__":
    main()
