"""Where to cut windows: given positions, atoms that are found, or windows anywhere, aligned."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.align import align, sample_positions
from napari_shiftvae.core.atoms import estimate_separation, find_atoms
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.lattice import neighbour_distance
from napari_shiftvae.core.patches import default_patch_size, one_atom_patch_size
from napari_shiftvae.core.progress import Clock, Progress
from napari_shiftvae.core.settings import WINDOWS_BY_DEFAULT, AnalysisConfig
from napari_shiftvae.core.train_config import FEWEST_PATCHES

__all__ = ["find_picks", "patch_size_for"]


def find_picks(
    pixels: NDArray[np.float32],
    config: AnalysisConfig,
    positions_yx: ArrayLike | None,
    clock: Clock,
) -> Generator[Progress, str | None, tuple[NDArray[np.float64], float]]:
    """Choose the positions to cut windows around.

    Parameters
    ----------
    pixels : (H, W) float32 array
    config : AnalysisConfig
    positions_yx : (M, 2) array-like or None
        Given positions (y, x) [px].
    clock : Clock
        Counts the time.

    Yields
    ------
    Progress

    Returns
    -------
    picks : (M, 2) array
        Positions (y, x) [px].
    separation_px : float
        Distance between neighbours [px].

    Raises
    ------
    InputError
        If there are no atoms, or too few positions.
    """
    yield Progress(stage="find", fraction=0.0, message="Finding atoms")
    with clock.time("find"):
        if positions_yx is not None:
            picks = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
            different = len(np.unique(picks, axis=0))
            if different < FEWEST_PATCHES:
                raise InputError(
                    f"There are {different} different positions and the model needs at least "
                    f"{FEWEST_PATCHES}: find or click more atoms."
                )
            separation_px = config.separation_px or neighbour_distance(picks)
        elif config.sampling == "atoms":
            found = find_atoms(
                pixels,
                separation_px=config.separation_px,
                threshold=config.threshold,
                dark=config.dark,
            )
            picks, separation_px = found.positions_yx, found.separation_px
            if not len(picks):
                raise InputError(
                    "No atoms were found: lower the threshold, choose dark atoms, or give the "
                    "distance between atoms."
                )
        else:
            separation_px = config.separation_px or estimate_separation(pixels, dark=config.dark)
            size = patch_size_for(config, separation_px, pixels.shape)
            picks = sample_positions(
                (pixels.shape[0], pixels.shape[1]),
                size,
                config.sampling,
                config.count or WINDOWS_BY_DEFAULT,
                np.random.default_rng(config.train.seed),
            )
    yield Progress(
        stage="find",
        fraction=1.0,
        message=f"{len(picks)} positions",
        positions_yx=picks,
        separation_px=separation_px if positions_yx is None else None,
    )
    if positions_yx is None and config.sampling != "atoms":
        with clock.time("align"):
            size = patch_size_for(config, separation_px, pixels.shape)
            aligning = align(pixels, picks, size, separation_px, dark=config.dark)
            for step, moved in enumerate(aligning, start=1):
                picks = moved
                yield Progress(
                    stage="align",
                    fraction=min(1.0, step / 11),
                    message=f"Aligning {len(picks)} windows",
                    positions_yx=picks,
                )
    return picks, separation_px


def patch_size_for(config: AnalysisConfig, separation_px: float, shape: tuple[int, ...]) -> int:
    """Side of the windows [px]: as asked for, or by the distance between neighbours."""
    by_default = one_atom_patch_size if config.classes else default_patch_size
    return config.patch_size_px or min(by_default(separation_px), *shape)
