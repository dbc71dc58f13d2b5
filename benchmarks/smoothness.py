"""Smoothness: how much calmer a map gets, and whether a domain wall stays as sharp as it is.

python benchmarks/smoothness.py --seeds 2

The width fitted to one noisy map scatters; 'wider' is what smoothing alone has added to it.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from machine import on_this_machine, print_table
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.rendering import rotated_axes
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import Simulation, perovskite
from napari_shiftvae.core.smoothness import Neighbourhood, neighbourhood
from napari_shiftvae.core.train import TrainConfig

DOMAIN_NM = 4.5
WALL_NM = 0.8  # two unit cells
CASES = {
    "without": TrainConfig(),
    "quadratic, 1": TrainConfig(smoothness=1.0, edge_preserving=False),
    "edge-preserving, 1": TrainConfig(smoothness=1.0),
}

Floats = NDArray[np.float64]


def variation(values: Floats, neighbours: Neighbourhood) -> float:
    """Mean absolute difference of neighbours, in units of the map's standard deviation."""
    partner = neighbours.partner.numpy()
    first, column = np.nonzero(partner >= 0)
    return float(np.abs(values[first] - values[partner[first, column]]).mean() / values.std())


def wall_width_nm(values: Floats, across_nm: Floats) -> float:
    """Width of the walls of alternating domains ``tanh(2 u / width)`` that fits a map best."""

    def profile(of: Floats) -> Floats:
        height, base, place, width = of
        off = across_nm - place
        wall = np.rint(off / DOMAIN_NM)
        sign = np.where(wall % 2 == 0, 1.0, -1.0)
        return base + height * sign * np.tanh(2 * (off - wall * DOMAIN_NM) / width)

    starts = np.arange(0, 2 * DOMAIN_NM, 0.25)
    fits = [
        least_squares(lambda of: profile(of) - values, [values.std(), values.mean(), u, WALL_NM])
        for u in starts
    ]
    return float(abs(min(fits, key=lambda fit: fit.cost).x[3]))


def run_case(made: Simulation, train: TrainConfig, seed: int) -> dict[str, float]:
    """Analyse the B columns with one latent, and compare it with their displacement."""
    truth = made.truth[made.truth["sublattice"] == "B"].reset_index(drop=True)
    sites = truth[["site_y_px", "site_x_px"]].to_numpy()
    config = AnalysisConfig(
        patch_size_px=38,
        separation_px=made.separation_px,
        latent_dim=1,
        train=TrainConfig(**{**vars(train), "seed": seed}),
    )
    run = finish(analyse(MicroscopeImage(data=made.image, name="made"), config, positions_yx=sites))
    displaced = truth["displacement_y_px"].to_numpy()[run.used]
    z = run.atoms.loc[run.used, "z1"].to_numpy(dtype=np.float64)
    across = (sites[run.used] @ np.stack(rotated_axes(0.03)).T)[:, 1] * made.pixel_size_nm
    if run.training is None or run.fit is None:
        raise RuntimeError("a run that was just made keeps its training")
    return {
        "variation": variation(z, neighbourhood(run.training.patches)),
        "residual": float(run.fit.mean_square.mean().sqrt()),
        "correlation": abs(float(np.corrcoef(z, displaced)[0, 1])),
        "wall": wall_width_nm(z, across) / WALL_NM,
        "seconds": run.seconds["total"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.3, 0.5])
    chosen = parser.parse_args()
    for noise in chosen.noise:
        rows = []
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            made = perovskite(
                rng=np.random.default_rng(seed),
                shape=(900, 900),
                noise=noise,
                domain_width_nm=DOMAIN_NM,
                wall_width_nm=WALL_NM,
            )
            found = {name: run_case(made, train, seed) for name, train in CASES.items()}
            for name, one in found.items():
                plain = found["without"]
                rows.append(
                    {
                        "": f"seed {seed}, {name}",
                        "variation / without": f"{one['variation'] / plain['variation']:.3f}",
                        "residual / without": f"{one['residual'] / plain['residual']:.5f}",
                        "correlation with truth": f"{one['correlation']:.3f}",
                        "wall / truth": f"{one['wall']:.3f}",
                        "wider / truth": f"{one['wall'] - plain['wall']:+.3f}",
                        "total s": f"{one['seconds']:.1f}",
                    }
                )
        print_table(f"Latent of the B columns, noise {100 * noise:g} % of an A column", rows)


if __name__ == "__main__":
    with on_this_machine():
        main()
