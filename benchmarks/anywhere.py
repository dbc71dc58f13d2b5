"""Windows cut anywhere against picked atoms: precision, period jumps, coverage, time.

python benchmarks/anywhere.py --seeds 3 [--only NAME] [--align]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from machine import on_this_machine, print_table
from napari_shiftvae.core.align import align, sample_positions
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.bounds import cramer_rao
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.patches import default_patch_size
from napari_shiftvae.core.rendering import (
    assemble,
    draw_gaussians,
    hexagonal_vectors,
    lattice_sites,
    rotated_axes,
    site_table,
)
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import Simulation, graphene, perovskite
from napari_shiftvae.core.train import TrainConfig

Floats = NDArray[np.float64]
SHAPE = (480, 480)
COUNT = 2000
SIGMA_NM = {"A": 0.054, "B": 0.048}  # of the perovskite's columns, as core.simulate draws them


@dataclass(frozen=True, kw_only=True, eq=False)
class Crystal:
    """An image and what is known about it.

    Attributes
    ----------
    made : Simulation
    clean : (H, W) array
        The image without noise.
    vectors_yx : (2, 2) array
        Of the lattice on which windows are alike, one a row [px].
    polar : bool
        Whether atoms move against their cages: then only the central atom's place is compared.
    """

    made: Simulation
    clean: Floats
    vectors_yx: Floats
    polar: bool = False


def alike(
    vectors_px: Floats,
    noise: float,
    seed: int,
    *,
    basis: tuple[tuple[float, float], ...] = ((0, 0),),
    intensity: tuple[float, ...] = (1.0,),
    sigma_px: tuple[float, ...],
) -> Crystal:
    """Crystal in which all atoms of a sublattice are alike."""

    def make(noise: float) -> Simulation:
        rng = np.random.default_rng(seed)
        origin = rng.random(2) @ vectors_px
        sites, kind = lattice_sites(SHAPE, vectors_px, basis, origin, 40)
        table = site_table(
            sites,
            displacement=np.zeros_like(sites),
            sublattice=np.array(["A", "B"])[kind],
            intensity=np.array(intensity)[kind],
            sigma_px=np.array(sigma_px)[kind],
            kind=np.full(len(sites), "atom"),
        )
        return assemble(
            table,
            rng=rng,
            shape=SHAPE,
            noise=noise,
            separation_px=float(np.linalg.norm(basis[-1] @ vectors_px))
            if len(basis) > 1
            else float(np.linalg.norm(vectors_px, axis=1).min()),
            pixel_size_nm=0.015,
            background=0.2,
        )

    return Crystal(made=make(noise), clean=make(0).image.astype(float), vectors_yx=vectors_px)


def square(noise: float, seed: int) -> Crystal:
    """Square lattice of 16 px."""
    return alike(np.stack(rotated_axes(0.1)) * 16.0, noise, seed, sigma_px=(2.6,))


def hexagonal(noise: float, seed: int) -> Crystal:
    """Hexagonal lattice of 18 px."""
    return alike(hexagonal_vectors(0.2) * 18.0, noise, seed, sigma_px=(3.0,))


def two_kinds(noise: float, seed: int) -> Crystal:
    """Perovskite whose columns are all alike."""
    return alike(
        np.stack(rotated_axes(0.03)) * 0.40 / 0.015,
        noise,
        seed,
        basis=((0, 0), (0.5, 0.5)),
        intensity=(1.0, 0.4),
        sigma_px=(3.6, 3.2),
    )


def honeycomb(noise: float, seed: int) -> Crystal:
    """Perfect graphene."""

    def make(noise: float) -> Simulation:
        rng = np.random.default_rng(seed)
        return graphene(rng=rng, shape=SHAPE, noise=noise, dopant_fraction=0, vacancy_fraction=0)

    made = make(noise)
    vectors = hexagonal_vectors(0.1) * made.separation_px * np.sqrt(3)
    return Crystal(made=made, clean=make(0).image.astype(float), vectors_yx=vectors)


def unpolar(noise: float, seed: int) -> Crystal:
    """Perovskite without displacements."""
    return _perovskite(noise, seed, 0.0)


def domains(noise: float, seed: int) -> Crystal:
    """Perovskite with ferroelectric domains."""
    return _perovskite(noise, seed, 0.03)


def _perovskite(noise: float, seed: int, displacement_nm: float) -> Crystal:
    def make(noise: float) -> Simulation:
        rng = np.random.default_rng(seed)
        return perovskite(rng=rng, shape=SHAPE, noise=noise, displacement_nm=displacement_nm)

    return Crystal(
        made=make(noise),
        clean=make(0).image.astype(float),
        vectors_yx=np.stack(rotated_axes(0.03)) * 0.40 / 0.015,
        polar=displacement_nm > 0,
    )


CASES: dict[str, tuple[Callable[[float, int], Crystal], tuple[float, ...]]] = {
    "square": (square, (0.05, 0.3)),
    "hexagonal": (hexagonal, (0.05, 0.3)),
    "graphene": (honeycomb, (0.05, 0.2)),
    "two kinds": (two_kinds, (0.02, 0.08)),
    "perovskite": (unpolar, (0.02, 0.08, 0.2)),
    "domains": (domains, (0.02, 0.08, 0.2)),
}


def gradients(crystal: Crystal) -> Floats:
    """Derivative (K, H, W) of the image by position along y and x and, if polar, displacement."""
    slope = np.array([1, -8, 0, 8, -1]) / 12
    by = [ndimage.correlate1d(crystal.clean, slope, axis=axis) for axis in (0, 1)]
    if crystal.polar:
        truth, image = crystal.made.truth, np.zeros(SHAPE)
        for sublattice, share in (("A", -1 / 3), ("B", 2 / 3)):
            atoms = truth[truth["sublattice"] == sublattice]
            places = atoms[["y_px", "x_px"]].to_numpy()
            sigma = SIGMA_NM[sublattice] / crystal.made.pixel_size_nm
            for sign in (1, -1):
                moved = places + sign * 0.05 * share * rotated_axes(0.03)[0]
                height = sign * atoms["intensity"].to_numpy() / 0.1
                image += draw_gaussians(SHAPE, moved, height, sigma)
        by.append(image)
    return np.stack(by)


def bound_and_luck(crystal: Crystal, run: Run, share: Floats) -> tuple[float, float]:
    """Cramer-Rao bound of the positions, and RMS error of the best fit to the same noise [px].

    The pattern is known, its place is not, nor its displacement where the crystal is polar:
    `share` (N,) of it belongs to the central atom.
    """
    patches, derivative = run.training.patches, gradients(crystal)
    noise = crystal.made.image - crystal.clean
    size = patches.patch_size_px
    variance, error = [], []
    for (y, x), part in zip(patches.corner_yx, share, strict=True):
        window = np.s_[y : y + size, x : x + size]
        columns = derivative[:, *window]
        covariance = cramer_rao(columns, crystal.made.noise_sigma)
        read = np.eye(2)
        if crystal.polar:
            read = np.column_stack([read, -part * rotated_axes(0.03)[0]])
        best = covariance @ (columns * noise[window]).sum(axis=(1, 2))
        variance.append(np.trace(read @ covariance @ read.T) / 2)
        error.append(read @ best / crystal.made.noise_sigma**2)
    return float(np.sqrt(np.mean(variance))), rms(np.array(error))


def rms(error: Floats) -> float:
    """Root mean square over windows and axes, less the constant part; NaN of none."""
    if not len(error):
        return float("nan")
    return float(np.sqrt(np.mean((error - error.mean(axis=0)) ** 2)))


def off_motif(positions: Floats, vectors: Floats) -> tuple[Floats, Floats]:
    """Distance (N, 2) of each position from the lattice they are on, and its origin (2,) [px]."""
    fraction = positions @ np.linalg.inv(vectors)
    phase = np.angle(np.exp(2j * np.pi * fraction).mean(axis=0)) / (2 * np.pi)
    rest = fraction - phase
    return (rest - np.rint(rest)) @ vectors, phase @ vectors


def coverage(crystal: Crystal, found: Floats, size: int) -> tuple[float, int]:
    """Part of the cells with a whole window that have one, and the number of superfluous ones."""
    _, origin = off_motif(found, crystal.vectors_yx)
    sites, _ = lattice_sites(SHAPE, crystal.vectors_yx, [(0, 0)], origin, 0)
    half = (size - 1) / 2 + 1  # a pixel for the maximum to be one
    inside = ((sites >= half) & (sites <= np.array(SHAPE) - 1 - half)).all(axis=1)
    distance, nearest = cKDTree(sites).query(found)
    near = distance < 0.25 * crystal.made.separation_px
    reached = np.isin(np.flatnonzero(inside), nearest[near])
    return float(reached.mean()), int(near.sum() - len(np.unique(nearest[near])))


def measure(crystal: Crystal, sampling: str, seed: int) -> dict[str, str]:
    """Run one analysis and compare it with the truth."""
    config = AnalysisConfig(
        sampling=sampling,
        count=None if sampling == "atoms" else COUNT,
        train=TrainConfig(seed=seed),
    )
    run = finish(analyse(MicroscopeImage(data=crystal.made.image, name="made"), config))
    table = run.atoms[run.used]
    picks = table[["y_px", "x_px"]].to_numpy()
    whole = picks + table[["shift_y_px", "shift_x_px"]].to_numpy()
    atom = table[["atom_y_px", "atom_x_px"]].to_numpy()
    truth = crystal.made.truth
    near, row = cKDTree(truth[["y_px", "x_px"]].to_numpy()).query(np.nan_to_num(atom, nan=-1e6))
    row = np.minimum(row, len(truth) - 1)
    there = near < 0.25 * crystal.made.separation_px
    sublattice = truth["sublattice"].to_numpy()[row]
    kinds, counts = np.unique(sublattice[there], return_counts=True)
    most = kinds[np.argmax(counts)] if len(kinds) else ""
    jump = ~there if sampling == "atoms" else ~there | (sublattice != most)
    bound, luck = bound_and_luck(crystal, run, np.where(sublattice == "B", 2 / 3, -1 / 3))
    if crystal.polar:
        error = (atom - truth[["y_px", "x_px"]].to_numpy()[row])[~jump]
    else:
        away, _ = off_motif(whole, crystal.vectors_yx)
        if sampling == "atoms":  # on several sublattices
            away = whole - truth[["y_px", "x_px"]].to_numpy()[row]
        jump |= np.hypot(*away.T) > 0.25 * crystal.made.separation_px
        error = away[~jump]
    line = {
        "sampling": sampling,
        "windows": f"{len(whole)}",
        "error px": f"{rms(error):.4f}",
        "/bound": f"{rms(error) / bound:.3f}",
        "luck": f"{luck / bound:.3f}",
        "off": f"{int(jump.sum())}",
        "reached %": "",
        "twice": "",
        "align s": f"{run.seconds.get('align', 0):.2f}",
        "total s": f"{run.seconds['total']:.1f}",
    }
    if sampling != "atoms":
        size = run.training.patches.patch_size_px
        part, twice = coverage(crystal, whole, size)
        line |= {"reached %": f"{100 * part:.1f}", "twice": f"{twice}"}
    return line


def measure_align(crystal: Crystal, sampling: str, seed: int) -> dict[str, str]:
    """Alignment alone: windows off the motif, coverage and time."""
    size = default_patch_size(crystal.made.separation_px)
    rng = np.random.default_rng(seed)
    start = sample_positions(SHAPE, size, sampling, COUNT, rng)
    began = time.perf_counter()
    *_, found = align(crystal.made.image, start, size, crystal.made.separation_px)
    seconds = time.perf_counter() - began
    away, _ = off_motif(found, crystal.vectors_yx)
    jumped = np.hypot(*away.T) > 0.25 * crystal.made.separation_px
    part, twice = coverage(crystal, found, size)
    return {
        "sampling": sampling,
        "windows": f"{len(found)}",
        "rms px": f"{rms(away[~jumped]):.3f}",
        "off": f"{int(jumped.sum())}",
        "reached %": f"{100 * part:.1f}",
        "twice": f"{twice}",
        "align s": f"{seconds:.2f}",
    }


def main() -> None:
    """Print one table for each crystal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--align", action="store_true", help="alignment alone, no training")
    chosen = parser.parse_args()
    kinds = ("random", "grid") if chosen.align else ("random", "grid", "atoms")
    task = measure_align if chosen.align else measure
    with on_this_machine():
        for name in [chosen.only] if chosen.only else CASES:
            make, noises = CASES[name]
            rows = [
                {"noise": f"{noise}", "seed": f"{seed}", **task(make(noise, seed), kind, seed)}
                for noise in noises
                for seed in range(chosen.seeds)
                for kind in kinds
            ]
            print_table(name, rows)


if __name__ == "__main__":
    main()
