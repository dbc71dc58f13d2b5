"""Precision and speed of the Gaussian refinement of columns with known truth, beside Atomap.

python benchmarks/atom_refinement.py --atomap /path/to/its/python
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from machine import on_this_machine, print_table
from napari_shiftvae.core.bounds import cramer_rao
from napari_shiftvae.core.gaussians import refine_gaussians
from napari_shiftvae.core.rendering import draw_gaussians, hexagonal_vectors, rotated_axes

PROCESS = Path(__file__).with_name("atomap_process.py")
SEPARATION = 14.0
NOISES = (0.01, 0.04, 0.1)


@dataclass(frozen=True, kw_only=True)
class Crystal:
    """A square crystal well inside its image, on a constant background.

    Every column is displaced by 0.3 px RMS along each axis, and given up to 0.7 px off along each.
    """

    cells: int
    sigma: float  # over the distance between neighbours
    hexagonal: bool = False
    weak: float = 1.0  # height of every second column
    noise: float = 0.04
    seed: int = 0

    def make(self) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
        """Image, true positions, and positions to start from."""
        rng = np.random.default_rng(self.seed)
        vectors = hexagonal_vectors(0.2) if self.hexagonal else np.stack(rotated_axes(0.2))
        index = np.stack(np.mgrid[: self.cells, : self.cells], axis=-1).reshape(-1, 2)
        truth = SEPARATION * index @ vectors
        truth += 1.5 * SEPARATION - truth.min(axis=0) + rng.normal(0, 0.3, truth.shape)
        height = np.where(index.sum(axis=1) % 2, self.weak, 1.0)
        shape = np.ceil(truth.max(axis=0) + 1.5 * SEPARATION).astype(int)
        image = draw_gaussians(tuple(shape), truth, height, self.sigma * SEPARATION)
        image += 0.5 + self.noise * rng.standard_normal(image.shape)
        return image.astype(np.float32), truth, truth + rng.uniform(-0.7, 0.7, truth.shape)

    def bound(self) -> float:
        """Least RMS error along one axis [px].

        Of a column in the middle of 5 x 5, the heights, widths, angles and one background of which
        are all unknown.
        """
        small = replace(self, cells=5, noise=0.0)
        image, truth, _ = small.make()
        y, x = np.mgrid[: image.shape[0], : image.shape[1]]
        heights = np.where(np.indices((5, 5)).sum(axis=0).ravel() % 2, self.weak, 1.0)
        sigma = self.sigma * SEPARATION
        slopes = [np.ones((1, *image.shape))]
        for (y0, x0), height in zip(truth, heights, strict=True):
            dy, dx = (y - y0) / sigma, (x - x0) / sigma
            value = height * np.exp(-0.5 * (dy**2 + dx**2))
            slopes.append(np.stack([value * f for f in (dy, dx, 1, dy**2, dy * dx, dx**2)]))
        sd = np.sqrt(np.diag(cramer_rao(np.concatenate(slopes), self.noise)))[1:].reshape(25, 6)
        # The middle column is a strong one; a weak one's bound is larger as its height is smaller.
        strong = np.sqrt(np.mean(sd[12, :2] ** 2)) * sigma
        return float(strong * np.sqrt((1 + self.weak**-2) / 2))


GEOMETRIES = {
    "square, sigma 0.12": Crystal(cells=25, sigma=0.12),
    "square, sigma 0.20": Crystal(cells=25, sigma=0.20),
    "square, sigma 0.25": Crystal(cells=25, sigma=0.25),
    "square, sigma 0.30": Crystal(cells=25, sigma=0.30),
    "hexagonal, sigma 0.20": Crystal(cells=25, sigma=0.20, hexagonal=True),
    "hexagonal, sigma 0.25": Crystal(cells=25, sigma=0.25, hexagonal=True),
    "hexagonal, sigma 0.30": Crystal(cells=25, sigma=0.30, hexagonal=True),
    "4 : 1, sigma 0.20": Crystal(cells=25, sigma=0.20, weak=0.25),
    "4 : 1, sigma 0.25": Crystal(cells=25, sigma=0.25, weak=0.25),
}


def rms(values: NDArray[np.float64]) -> float:
    """Root mean square, NaN of nothing."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else float("nan")


def atomap(
    python: str, image: NDArray[np.float32], start: NDArray[np.float64]
) -> dict[str, NDArray]:
    """What Atomap makes of the same image and positions."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "task.npz", Path(folder) / "result.npz"
        np.savez(source, image=image, start_yx=start)
        subprocess.run([python, "-W", "ignore", str(PROCESS), str(source), str(target)], check=True)
        with np.load(target) as result:
            return dict(result)


def measure(name: str, crystal: Crystal, python: str | None) -> dict[str, str]:
    """One line of the table."""
    image, truth, start = crystal.make()
    began = time.perf_counter()
    found = refine_gaussians(image, start)
    seconds = time.perf_counter() - began
    good, bound = found.flag == "", crystal.bound()
    error = (found.positions_yx - truth)[good]
    line = {
        "": name,
        "noise": f"{100 * crystal.noise:g} %",
        "bound px": f"{bound:.4f}",
        "error/bound": f"{rms(error) / bound:.3f}",
        "error/sd": f"{rms(error / found.position_sd_yx[good]):.3f}",
        "worst px": f"{np.hypot(*error.T).max(initial=0):.2f}",
        "flagged": f"{(~good).sum()} of {len(good)}",
        "atoms/s": f"{len(good) / seconds:,.0f}",
    }
    if python:
        theirs = atomap(python, image, start)
        off = theirs["positions_yx"] - truth
        lost = np.hypot(*off.T) > 1
        line |= {
            "Atomap error/bound": f"{rms(off[~lost]) / bound:.3f}",
            "lost": f"{lost.sum()}",
            "Atomap atoms/s": f"{len(off) / float(theirs['seconds']):,.0f}",
        }
    return line


def speed(cells: int) -> dict[str, str]:
    """Refine a crystal that fills a large image."""
    image, _, start = Crystal(cells=cells, sigma=0.2).make()
    times = []
    for _ in range(3):
        wall, processor = time.perf_counter(), time.process_time()
        refine_gaussians(image, start)
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    wall, processor = min(times)
    return {
        "image": " x ".join(map(str, image.shape)),
        "atoms": f"{len(start):,}",
        "s": f"{wall:.2f}",
        "processor s": f"{processor:.2f}",
        "atoms/s": f"{len(start) / wall:,.0f}",
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--atomap", metavar="PYTHON", help="Python that has Atomap 0.4.2")
    parser.add_argument("--quick", action="store_true", help="one noise, a smaller image")
    chosen = parser.parse_args()
    with on_this_machine():
        print(
            "\nRMS error of positions over the Cramer-Rao bound with everything unknown, and over "
            "the quoted sd,\nof columns that are not flagged. Sigma is in units of the distance "
            f"between neighbours, {SEPARATION:g} px.\nAtomap's columns more than 1 px off are left "
            "out of its error and counted as lost."
        )
        refine_gaussians(*GEOMETRIES["square, sigma 0.12"].make()[::2])  # loads what it needs
        rows = [
            measure(name, replace(crystal, noise=noise), chosen.atomap)
            for name, crystal in GEOMETRIES.items()
            for noise in (NOISES[1:2] if chosen.quick else NOISES)
        ]
        print_table("Gaussian refinement", rows)
        print_table("A large image, best of three", [speed(70 if chosen.quick else 240)])


if __name__ == "__main__":
    main()
