"""Drift and scan distortion: a trend common to all displacements, taken off and stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.lengths import PIXELS, Ruler, with_deviation

__all__ = ["Trend", "remove_trend"]

Kind = Literal["shift", "rigid", "affine", "rows"]
KINDS: tuple[Kind, ...] = ("shift", "rigid", "affine", "rows")

ROUNDS = 30
# Huber's constant, 95 % efficient for normal errors, for the length of a vector in two dimensions.
HUBER = 1.8
MEDIAN_LENGTH = 1.1774  # of a vector whose two components are standard normal
FEWEST_IN_BAND = 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trend:
    """Displacements without the trend, and the trend.

    Attributes
    ----------
    yx_px, sd_yx_px : (N, 2) arrays
        What is left (y, x) and its standard deviation [px].
    removed_yx_px : (N, 2) array
        What was taken off at each atom [px].
    shift_yx_px : (2,) array
        Of the trend at `middle_yx` [px].
    gradient : (2, 2) array
        ``d u_i / d x_j`` of the trend, both in the order (y, x); zero where none was fitted.
    middle_yx : (2,) array
        Mean position of the atoms [px].
    sentence : str
        What was removed, with numbers, their standard deviations and units, for the user.
    """

    yx_px: Floats
    sd_yx_px: Floats
    removed_yx_px: Floats
    shift_yx_px: Floats
    gradient: Floats
    middle_yx: Floats
    sentence: str


def remove_trend(
    positions_yx: ArrayLike,
    displacement_yx_px: ArrayLike,
    kind: Kind,
    *,
    sd_yx_px: ArrayLike = 0.0,
    band_px: float | None = None,
    ruler: Ruler = PIXELS,
) -> Trend:
    """Take a trend off displacements, robustly.

    Fitted by iteratively reweighted least squares with Huber's weights (P. J. Huber, *Ann. Math.
    Statist.* 35, 73 (1964), doi:10.1214/aoms/1177703732), so that defects, which are few, do not
    draw it. A true uniform strain or rotation of the sample is taken off with the rest: no image
    tells it from a distorted scan.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Where the atoms are (y, x) [px].
    displacement_yx_px : (N, 2) array-like
        Their displacements (y, x) [px]; NaN where not known.
    kind : {"shift", "rigid", "affine", "rows"}
        A shift; a shift and a rotation; these, stretch and shear; or what atoms at the same height
        have in common, whatever its course from row to row: slow-scan drift and jumps.
    sd_yx_px : (N, 2) array-like or float
        Standard deviations of the displacements [px].
    band_px : float, optional
        Height of the bands over which "rows" are averaged [px]: at least the distance of rows of
        atoms. By default such that 15 atoms lie in each.
    ruler : Ruler
        In which unit the sentence has lengths.

    Returns
    -------
    Trend

    Raises
    ------
    InputError
        An unknown kind, or too few displacements are known.

    Examples
    --------
    >>> positions = np.mgrid[:6, :6].reshape(2, -1).T * 10.0
    >>> moved = 0.01 * (positions - 25) * (0, 1) + (0.3, -1.2)
    >>> moved[8] = 7.0  # a defect
    >>> found = remove_trend(positions, moved, "affine")
    >>> found.sentence.split(", stretch")[0]
    'Removed: shift (0.300000 ± 0.000000, -1.200000 ± 0.000000) px (y, x)'
    >>> found.yx_px[8].round(2)
    array([6.7 , 8.25])
    """
    positions = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    moved = np.asarray(displacement_yx_px, dtype=np.float64).reshape(-1, 2)
    if positions.shape != moved.shape:
        raise InputError(
            f"{len(moved)} displacements of {len(positions)} atoms; give one for each."
        )
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}: choose one of {', '.join(KINDS)}.")
    valid = np.isfinite(positions).all(axis=1) & np.isfinite(moved).all(axis=1)
    fewest = {"shift": 1, "rigid": 2, "affine": 3, "rows": FEWEST_IN_BAND}[kind]
    if valid.sum() < fewest:
        raise InputError(
            f"{valid.sum()} displacements are known; {fewest} or more are needed to remove a trend."
        )
    middle = positions[valid].mean(axis=0)
    removed = np.full_like(moved, np.nan)
    removed_sd = np.full_like(moved, np.nan)
    gradient = np.zeros((2, 2))
    if kind == "rows":
        band = _band(positions[valid], band_px)
        removed[valid], removed_sd[valid] = _rows(positions[valid], moved[valid], band)
        shift = removed[valid].mean(axis=0)
        sentence = _rows_in_words(removed[valid], removed_sd[valid], shift, band, ruler)
    else:
        design = _design(positions - middle, kind)  # (N, 2, P)
        solution, covariance = _robust(design[valid], moved[valid])
        removed = np.where(np.isfinite(moved), design @ solution, np.nan)
        removed_sd = np.sqrt(np.einsum("nip,pq,niq->ni", design, covariance, design))
        shift = solution[:2]
        gradient = np.moveaxis(_design(np.eye(2), kind) @ solution - shift, 0, 1)
        sentence = _in_words(solution, covariance, kind, ruler)
    return Trend(
        yx_px=moved - removed,
        sd_yx_px=np.where(np.isfinite(moved), np.hypot(np.asarray(sd_yx_px), removed_sd), np.nan),
        removed_yx_px=removed,
        shift_yx_px=shift,
        gradient=gradient,
        middle_yx=middle,
        sentence=sentence,
    )


def _design(arm: Floats, kind: Kind) -> Floats:
    """Trend (N, 2, P) at some arms (N, 2) from the middle for each of its parameters."""
    y, x = arm.T
    one, zero = np.ones_like(y), np.zeros_like(y)
    columns = [(one, zero), (zero, one)]
    if kind == "rigid":
        columns += [(x, -y)]  # from x towards y
    if kind == "affine":
        columns += [(y, zero), (x, zero), (zero, y), (zero, x)]
    return np.stack([np.stack(each, axis=1) for each in columns], axis=2)


def _robust(design: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Parameters (P,) by Huber's estimator, and their covariance (P, P).

    P. J. Huber, E. M. Ronchetti, Robust Statistics, 2nd ed. (2009), section 7.6.
    """
    weight = np.ones(len(target))
    for _ in range(ROUNDS):
        weighted = design * weight[:, None, None]
        normal = np.einsum("nip,niq->pq", weighted, design)
        solution = np.linalg.lstsq(normal, np.einsum("nip,ni->p", weighted, target), rcond=None)[0]
        length = np.linalg.norm(target - design @ solution, axis=1)
        scale = max(float(np.median(length)) / MEDIAN_LENGTH, 1e-9)
        before, weight = weight, np.minimum(1.0, HUBER * scale / np.maximum(length, 1e-12))
        if np.abs(weight - before).max() < 1e-4:
            break
    freedom = max(1, 2 * len(target) - design.shape[2])
    variance = np.sum((weight * length) ** 2) / freedom
    # A vector beyond Huber's length counts by its direction only: half of its two components.
    slope = np.mean(np.where(weight < 1, weight / 2, 1.0))
    plain = np.einsum("nip,niq->pq", design, design)
    return np.asarray(solution), variance / slope**2 * np.linalg.pinv(plain)


def _band(positions: Floats, band_px: float | None) -> float:
    if band_px is not None and not band_px > 0:
        raise InputError(f"band_px is {band_px}; give a positive height in pixels.")
    height = max(float(np.ptp(positions[:, 0])), 1.0)
    return band_px or height * min(1.0, 15 / len(positions))


def _rows(positions: Floats, moved: Floats, band_px: float) -> tuple[Floats, Floats]:
    """What atoms at the same height have in common (N, 2), and its standard deviation."""
    low = positions[:, 0].min()
    count = max(1, round(float(np.ptp(positions[:, 0])) / band_px))
    number = np.minimum(((positions[:, 0] - low) / band_px).astype(np.int64), count - 1)
    height, common, common_sd = [], [], []
    for band in range(count):
        mine = number == band
        if mine.sum() < FEWEST_IN_BAND:
            continue
        shift, covariance = _robust(_design(positions[mine], "shift"), moved[mine])
        height.append(positions[mine, 0].mean())
        common.append(shift)
        common_sd.append(np.sqrt(np.diag(covariance)))
    if not height:
        raise InputError(
            f"No band of {band_px:.1f} px holds {FEWEST_IN_BAND} displacements; make band_px "
            "larger."
        )
    y = positions[:, 0]
    trend, sd = (
        np.stack([np.interp(y, height, each) for each in np.transpose(values)], axis=1)
        for values in (common, common_sd)
    )
    return trend, sd


# Strain and rotation of a trend by its parameters, as `_design` has them.
AFFINE = {
    "exx": np.array([0, 0, 0, 0, 0, 1.0]),
    "eyy": np.array([0, 0, 1.0, 0, 0, 0]),
    "exy": np.array([0, 0, 0, 0.5, 0.5, 0]),
    "rotation": np.array([0, 0, 0, 0.5, -0.5, 0]),
}
TURN = {"affine": AFFINE["rotation"], "rigid": np.array([0, 0, 1.0])}


def _in_words(solution: Floats, covariance: Floats, kind: Kind, ruler: Ruler) -> str:
    """Tell the parameters (P,) of a trend by their covariance (P, P)."""

    def given(by: Floats, factor: float = 1.0) -> str:
        variance = max(float(by @ covariance @ by), 0.0)
        return with_deviation(factor * float(by @ solution), factor * variance**0.5)

    y, x = np.eye(len(solution))[:2]
    said = [f"shift ({given(y, ruler.per_px)}, {given(x, ruler.per_px)}) {ruler.unit} (y, x)"]
    if kind == "affine":
        exx, eyy, exy = (f"{name} ({given(AFFINE[name], 100)}) %" for name in ("exx", "eyy", "exy"))
        said.append(f"stretch {exx}, {eyy}, shear {exy}")
    if kind != "shift":
        said.append(f"rotation ({given(TURN[kind], 180 / np.pi)}) degrees from x towards y")
    return f"Removed: {', '.join(said)}."


def _rows_in_words(removed: Floats, sd: Floats, shift: Floats, band_px: float, ruler: Ruler) -> str:
    mean, low, high = (
        [ruler.number(each) for each in both]
        for both in (shift, removed.min(axis=0), removed.max(axis=0))
    )
    return (
        f"Removed: what rows have in common, averaged over bands of {ruler.number(band_px, 1)} "
        f"{ruler.unit}: shift ({mean[0]}, {mean[1]}) {ruler.unit} (y, x) on average, from {low[0]} "
        f"to {high[0]} {ruler.unit} along y and from {low[1]} to {high[1]} {ruler.unit} along x, "
        f"each band known to ±{ruler.number(float(np.median(sd)))} {ruler.unit}."
    )
