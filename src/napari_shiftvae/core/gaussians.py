"""Refine atomic columns: rotated elliptical 2D Gaussians on a background, all at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.gaussian_errors import covariances, shapes
from napari_shiftvae.core.gaussian_fit import JointFit, fit
from napari_shiftvae.core.gaussian_scene import HEIGHT, LEVEL
from napari_shiftvae.core.images import as_float_image
from napari_shiftvae.core.lattice import neighbour_distance

__all__ = ["GaussianFits", "refine_gaussians"]

Floats = NDArray[np.float64]
FloatImage = NDArray[np.float32]

SAMPLE = 400  # columns from which the size of the windows is found
# Half size of a window [sigma]: smaller ones lose precision (1.5 % at 2.5 sigma), larger ones see
# more of the neighbours and of a background that is not constant.
NARROW, WIDE = 2.5, 3.5
CROWDED = 0.23  # sigma over the distance of neighbours above which columns are solved together
POOR = 5.0  # residual over the typical one
STRONG = 3.0  # a peak is this many standard deviations high
NARROWEST = 0.5  # px: pixels do not tell the shape of anything narrower
LONG = 4.0  # and at most this much longer than wide


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianFits:
    """Columns as fitted Gaussians, in the order of the positions given.

    Every number of a flagged column is NaN, but for its position, which is the one given, and its
    residual, where there is one. Standard deviations are those from white noise of the
    strength of the residual in the column's own window, to first order.

    Attributes
    ----------
    positions_yx, position_sd_yx : (N, 2) array
        Centres (y, x) [px].
    amplitude, amplitude_sd : (N,) array
        Height above the background, or depth below it of dark columns, positive [intensity].
    sigma_major_px, sigma_major_sd_px, sigma_minor_px, sigma_minor_sd_px : (N,) array
        Standard deviations of the Gaussian along its axes [px].
    ellipticity, ellipticity_sd : (N,) array
        Major over minor, at least 1; noise makes that of a round column a little larger than 1.
    angle_rad, angle_sd_rad : (N,) array
        Of the major axis, from x towards y, in (-pi/2, pi/2]; its standard deviation is at most
        that of an angle nothing is known of, pi / sqrt(12) [rad].
    background, background_sd : (N,) array
        Level under the column [intensity].
    residual : (N,) array
        RMS residual in the column's window over the noise, which is the median of all of these.
    flag : (N,) array of str
        Empty where the fit is good, else why not: `outside` (given outside the image), `border`
        (cut by it), `masked` (pixels missing), `duplicate` (of a column with a brighter pixel),
        `not converged`, `no peak` (not higher than the noise), `too wide`, `too narrow`, `too
        long`, `moved` (away from where it was given, or onto a neighbour), `poor fit`.
    """

    positions_yx: Floats
    position_sd_yx: Floats
    amplitude: Floats
    amplitude_sd: Floats
    sigma_major_px: Floats
    sigma_major_sd_px: Floats
    sigma_minor_px: Floats
    sigma_minor_sd_px: Floats
    ellipticity: Floats
    ellipticity_sd: Floats
    angle_rad: Floats
    angle_sd_rad: Floats
    background: Floats
    background_sd: Floats
    residual: Floats
    flag: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.positions_yx)

    def table(self) -> pd.DataFrame:
        """One row a column: `y_px, x_px, y_sd_px, x_sd_px`, the rest under its own name."""
        columns: dict[str, NDArray[np.float64] | NDArray[np.str_]] = {
            "y_px": self.positions_yx[:, 0],
            "x_px": self.positions_yx[:, 1],
            "y_sd_px": self.position_sd_yx[:, 0],
            "x_sd_px": self.position_sd_yx[:, 1],
        }
        for field in fields(self)[2:]:
            name = "residual_fit" if field.name == "residual" else field.name
            columns[name] = getattr(self, field.name)
        return pd.DataFrame(columns)


def refine_gaussians(
    image: ArrayLike,
    positions_yx: ArrayLike,
    *,
    separation_px: float | None = None,
    dark: bool = False,
) -> GaussianFits:
    """Fit a rotated elliptical Gaussian and a constant background to every column.

    All columns are fitted at once by damped least squares, each in a square window, with all other
    columns taken off it. Pixels that are NaN count nothing.

    Parameters
    ----------
    image : (H, W) array-like
    positions_yx : (N, 2) array-like
        Where the columns are to about a pixel (y, x) [px], as `find_atoms` gives. Columns that are
        not among them are taken for background.
    separation_px : float, optional
        Distance between neighbouring columns [px]; the median of the positions' by default.
    dark : bool
        Columns are darker than their surroundings.

    Returns
    -------
    GaussianFits

    Raises
    ------
    InputError
        The image cannot be analysed or the positions are not N pairs of numbers.

    Notes
    -----
    See `napari_shiftvae.core.gaussian_fit` for the method and its sources.

    Examples
    --------
    >>> y, x = np.mgrid[:40, :50]
    >>> image = 2 + 5 * np.exp(-0.5 * (((y - 18.3) / 3) ** 2 + ((x - 24.6) / 2) ** 2))
    >>> found = refine_gaussians(image, [(18, 25)])
    >>> found.positions_yx.round(3), found.sigma_major_px.round(3), found.amplitude.round(3)
    (array([[18.3, 24.6]]), array([3.]), array([5.]))
    """
    pixels = as_float_image(image)
    positions = _checked(positions_yx)
    separation = _separation(positions, separation_px)
    offset, unit = (
        float(np.nanmean(pixels, dtype=np.float64)),
        float(np.nanstd(pixels, dtype=np.float64)),
    )
    unit *= -1 if dark else 1
    flat = (pixels - np.float32(offset)) / np.float32(unit)
    flag = _unusable(flat, positions, separation)
    used = np.flatnonzero(flag == "")
    if not len(used):
        return _without_fits(positions, flag)
    found, half, sigma = _fit_twice(flat, positions[used], separation)
    covariance = covariances(found, half)
    noise = float(np.median(found.rms[np.isfinite(found.rms)]))
    residual = np.full(len(positions), np.nan)
    residual[used] = found.rms / max(noise, 1e-6)
    flag[used] = _judged(flat, positions[used], found, covariance, residual[used], half, sigma)
    good = flag == ""
    kept = good[used]
    parameters, variance = found.parameters[kept], covariance[kept]
    sd = np.sqrt(np.diagonal(variance, axis1=1, axis2=2).clip(0))
    result = {name: np.full(len(positions), np.nan) for name in _NUMBERS}
    result |= {
        "positions_yx": positions.copy(),
        "position_sd_yx": np.full((len(positions), 2), np.nan),
    }
    for name, values in {
        "positions_yx": parameters[:, :2],
        "position_sd_yx": sd[:, :2],
        "amplitude": parameters[:, HEIGHT] * abs(unit),
        "amplitude_sd": sd[:, HEIGHT] * abs(unit),
        "background": parameters[:, LEVEL] * unit + offset,
        "background_sd": sd[:, LEVEL] * abs(unit),
        **shapes(parameters, variance),
    }.items():
        result[name][good] = values
    return GaussianFits(**(result | {"residual": residual}), flag=flag)


_NUMBERS = [field.name for field in fields(GaussianFits) if field.name != "flag"]


def _without_fits(positions: Floats, flag: NDArray[np.str_]) -> GaussianFits:
    numbers = {name: np.full(len(positions), np.nan) for name in _NUMBERS}
    pair = np.full((len(positions), 2), np.nan)
    return GaussianFits(
        **(numbers | {"positions_yx": positions.copy(), "position_sd_yx": pair}), flag=flag
    )


def _checked(positions_yx: ArrayLike) -> Floats:
    positions = np.asarray(positions_yx)
    if positions.size == 0:
        return np.empty((0, 2))
    if positions.ndim != 2 or positions.shape[1] != 2 or positions.dtype.kind not in "iuf":
        shape = " x ".join(map(str, positions.shape))
        raise InputError(
            f"positions_yx is {shape} of type {positions.dtype}; give N x 2 numbers, y and x [px]."
        )
    positions = positions.astype(np.float64)
    missing = int((~np.isfinite(positions).all(axis=1)).sum())
    if missing:
        raise InputError(f"{missing} of {len(positions)} positions are not finite; leave them out.")
    return positions


def _separation(positions: Floats, separation_px: float | None) -> float:
    if separation_px is None:
        distance = neighbour_distance(positions) if len(positions) > 1 else math.nan
        return distance if np.isfinite(distance) else 40.0
    if not (np.isfinite(separation_px) and separation_px >= 2):
        raise InputError(
            f"separation_px is {separation_px:g}; give the distance between neighbouring atoms, "
            "2 px or more."
        )
    return float(separation_px)


def _unusable(flat: FloatImage, positions: Floats, separation: float) -> NDArray[np.str_]:
    """Flags of positions that no fit can start from."""
    flag = np.full(len(positions), "", dtype="<U16")
    flag[((positions < -0.5) | (positions > np.array(flat.shape) - 0.5)).any(axis=1)] = "outside"
    pairs = (
        KDTree(positions).query_pairs(max(0.75, 0.2 * separation), output_type="ndarray")
        if len(positions)
        else np.empty((0, 2), dtype=int)
    )
    at = np.rint(positions).astype(int).clip(0, np.array(flat.shape) - 1)
    value = np.nan_to_num(flat[at[:, 0], at[:, 1]], nan=-np.inf)
    rank = np.empty(len(positions), dtype=int)
    rank[np.lexsort((positions[:, 1], positions[:, 0], -value))] = np.arange(len(positions))
    worse = np.where(rank[pairs[:, 0]] > rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    flag[worse[flag[worse] == ""]] = "duplicate"
    return flag


def _fit_twice(
    flat: FloatImage, positions: Floats, separation: float
) -> tuple[JointFit, int, float]:
    """Fit some columns, which tells how wide they are, then all."""
    sigma, height = _first_guess(flat, positions, separation)
    order = np.argsort(np.square(positions - np.median(positions, axis=0)).sum(axis=1))[:SAMPLE]
    low = np.floor(positions[order].min(axis=0) - 0.5 * separation).astype(int).clip(0)
    high = np.ceil(positions[order].max(axis=0) + 0.5 * separation).astype(int) + 1
    crop = flat[low[0] : high[0], low[1] : high[1]]
    # All columns in the crop: one that is left out would spoil its neighbours.
    near = ((positions >= low) & (positions <= high - 1)).all(axis=1)
    for _ in range(2):
        half = _half(sigma, separation)
        sample = fit(
            crop,
            _start(crop, positions[near] - low, separation, sigma, height),
            _pairs(positions[near], half, sigma),
            half=half,
            sigma_px=sigma,
            crowded=sigma > CROWDED * separation,
            most_sweeps=8,
        )
        shape = sample.parameters
        width = (shape[:, 3] * shape[:, 5] - shape[:, 4] ** 2) ** -0.25
        sigma = float(np.clip(np.median(width), 0.5, 0.35 * separation))
    half = _half(sigma, separation)
    found = fit(
        flat,
        _start(flat, positions, separation, sigma, height),
        _pairs(positions, half, sigma),
        half=half,
        sigma_px=sigma,
        crowded=sigma > CROWDED * separation,
    )
    return found, half, sigma


def _half(sigma: float, separation: float) -> int:
    return math.ceil(min(max(0.5 * separation, NARROW * sigma), WIDE * sigma))


def _pairs(positions: Floats, half: int, sigma: float) -> NDArray[np.intp]:
    pairs = KDTree(positions).query_pairs(max(half + 2 * sigma, 2.0), output_type="ndarray")
    return np.asarray(pairs, dtype=np.intp)


def _first_guess(flat: FloatImage, positions: Floats, separation: float) -> tuple[float, float]:
    """Typical width [px] and height: where the mean radial profile has fallen by half."""
    reach = max(2, min(round(0.6 * separation), 40))
    some = positions[:: max(1, len(positions) // SAMPLE)]
    padded = np.pad(flat, reach, constant_values=np.nan)
    steps = np.arange(2 * reach + 1)
    y, x = (np.rint(some[:, axis]).astype(int)[:, None] + steps for axis in (0, 1))
    windows = padded[y[:, :, None], x[:, None, :]].reshape(len(some), -1)
    ring = np.rint(np.hypot(steps[:, None] - reach, steps - reach)).astype(int).ravel()
    valid = np.isfinite(windows)
    count = np.bincount(ring, valid.sum(axis=0))[: reach + 1]
    total = np.bincount(ring, np.where(valid, windows, 0).sum(axis=0))[: reach + 1]
    profile = (total / np.maximum(count, 1))[count > 0]
    if len(profile) < 3:
        return max(0.2 * separation, 0.6), 1.0
    floor = profile[: int(np.argmin(profile)) + 1].min()
    height = max(float(profile[:2].max() - floor), 1e-2)
    below = np.flatnonzero(profile < floor + height / 2)
    first = int(below[below > 0][0]) if (below > 0).any() else len(profile) - 1
    drop = profile[first - 1] - profile[first]
    radius = first - (floor + height / 2 - profile[first]) / drop if drop > 0 else first
    return float(np.clip(radius / 1.18, 0.6, 0.35 * separation)), height


def _start(
    flat: FloatImage, positions: Floats, separation: float, sigma: float, height: float
) -> Floats:
    """Parameters to start from: round columns of one width, heights as the pixels have it."""
    steps = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(-1, 2)
    last = np.array(flat.shape) - 1
    rough = np.rint(positions).astype(int)[:, None]

    def values(offsets: NDArray[np.int_]) -> Floats:
        at = (rough + offsets).clip(0, last)
        return np.asarray(np.nan_to_num(flat[at[..., 0], at[..., 1]].astype(np.float64), nan=0.0))

    around = np.sort(
        values(
            np.rint(steps[[0, 1, 2, 3, 5, 6, 7, 8]] * min(separation / 2, 3 * sigma)).astype(int)
        ),
        axis=1,
    )
    level = around[:, :4].mean(axis=1)
    start = np.zeros((len(positions), 7))
    start[:, :2] = positions
    start[:, HEIGHT] = np.maximum(values(steps).mean(axis=1) - level, 0.1 * height)
    start[:, 3] = start[:, 5] = sigma**-2
    start[:, LEVEL] = level
    return start


def _judged(  # noqa: PLR0917
    flat: FloatImage,
    positions: Floats,
    found: JointFit,
    covariance: Floats,
    residual: Floats,
    half: int,
    sigma: float,
) -> NDArray[np.str_]:
    """Why a fit is not to be taken; the first reason that holds."""
    parameters = found.parameters
    shape = shapes(parameters, covariance)
    missing, outside = np.zeros(len(positions)), np.zeros(len(positions))
    cut = found.pixels < (2 * half + 1) ** 2
    missing[cut], outside[cut] = _missing(flat, positions[cut], sigma)
    moved = np.hypot(*(parameters[:, :2] - positions).T)
    tree = KDTree(positions)
    apart = (
        np.asarray(tree.query(positions, k=2)[0])[:, 1]
        if len(positions) > 1
        else np.full(1, np.inf)
    )
    gone = moved > 0.5 * np.minimum(apart, 6 * sigma)
    now = KDTree(parameters[:, :2]).query_pairs(max(1.0, 0.7 * sigma), output_type="ndarray")
    # Of two columns in one place it is the one that went farther that has gone astray.
    farther = np.where(moved[now[:, 0]] > moved[now[:, 1]], now[:, 0], now[:, 1])
    gone[farther] = True
    height_sd = np.sqrt(covariance[:, HEIGHT, HEIGHT].clip(0))
    reasons = {
        "border": outside > 0.2,
        "masked": missing > 0.25,
        "no peak": ~(parameters[:, HEIGHT] > np.maximum(STRONG * height_sd, 2e-3)),
        "too wide": shape["sigma_major_px"] > 0.9 * half,
        "too narrow": shape["sigma_minor_px"] < NARROWEST,
        "too long": shape["ellipticity"] > LONG,
        "moved": gone,
        "not converged": found.step > 0.5,
        "poor fit": residual > POOR,
    }
    return np.asarray(np.select(list(reasons.values()), list(reasons), default=""), dtype="<U16")


def _missing(flat: FloatImage, positions: Floats, sigma: float) -> tuple[Floats, Floats]:
    """Fractions of a column's core, within 2 sigma, that are no valid pixels, and off the image."""
    reach = math.ceil(2 * sigma)
    steps = np.arange(-reach, reach + 1)
    core = np.argwhere(np.hypot(steps[:, None], steps) <= 2 * sigma) - reach
    last = np.array(flat.shape) - 1
    at = np.rint(positions).astype(int)
    invalid = np.isnan(flat)
    missing, outside = np.zeros(len(positions)), np.zeros(len(positions))
    for offset in core:
        place = at + offset
        inside = place.clip(0, last)
        off = (place != inside).any(axis=1)
        outside += off
        missing += off | invalid[inside[:, 0], inside[:, 1]]
    return missing / len(core), outside / len(core)
